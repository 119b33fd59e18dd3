//! The worker loop beside kube's `Controller`, in one run: how long from a request until its reconcile begins. The figures
//! are of use on one machine only; `docs/decisions/0011-own-work-queue.md` has what follows from their difference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use kube::runtime::controller::{Action, Config};
use kube::runtime::{Controller, reflector, watcher};
use sentinel_protocol::ids::TaskRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::reconcile::Requeue;
use super::worker::{self, Input};
use crate::health::{Health, SILENT_FOR};
use crate::resource::Task;

const REQUESTS: usize = 500;

/// Requests come one by one, each after the reconcile of the last.
const PAUSE: Duration = Duration::from_millis(3);

fn task() -> Task {
    let spec = serde_json::json!({"targets": {"all": true}, "run": {"command": ["true"]}});
    let metadata = serde_json::json!({"name": "t", "namespace": "ns", "uid": "u", "resourceVersion": "1"});
    let whole = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": metadata, "spec": spec,
    });
    serde_json::from_value(whole).unwrap()
}

/// Makes requests and collects how long each took until its reconcile began.
async fn measure<T>(
    requests: mpsc::Sender<T>,
    mut begun: mpsc::Receiver<Instant>,
    request: impl Fn() -> T,
) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        tokio::time::sleep(PAUSE).await;
        let at = Instant::now();
        requests.send(request()).await.unwrap_or_else(|_| panic!("the loop has ended"));
        took.push(begun.recv().await.unwrap() - at);
    }
    took.sort_unstable();
    took
}

async fn ours() -> Vec<Duration> {
    let (requests, queue) = mpsc::channel(8);
    let (begins, begun) = mpsc::channel(8);
    let inputs = stream::unfold(queue, |mut queue| async move {
        let task: TaskRef = queue.recv().await?;
        Some((Input::Reconcile(task), queue))
    });
    let inputs = Box::pin(stream::iter([Input::CachesSynced]).chain(inputs).chain(stream::pending()));
    let stop = CancellationToken::new();
    let beat = Health::new().watch("the controller", SILENT_FOR);
    let reconcile = move |_| {
        let begins = begins.clone();
        async move {
            let _ = begins.send(Instant::now()).await;
            Requeue::AwaitChange
        }
    };
    let queue = super::metrics::QueueMetrics::new(&crate::metrics::Registry::new());
    let running = worker::run(inputs, reconcile, queue, &beat, &stop);
    let measured = measure(requests, begun, || TaskRef::new("ns", "t").unwrap());
    tokio::select! {
        took = measured => took,
        () = running => panic!("the loop has ended"),
    }
}

async fn kubes() -> Vec<Duration> {
    let (requests, queue) = mpsc::channel(8);
    let (begins, begun) = mpsc::channel::<Instant>(8);
    let (reader, mut writer) = reflector::store::<Task>();
    for event in [watcher::Event::Init, watcher::Event::InitApply(task()), watcher::Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let triggers = stream::unfold(queue, |mut queue| async move {
        let task: Task = queue.recv().await?;
        Some((Ok::<_, watcher::Error>(task), queue))
    });
    let reconcile = |_: Arc<Task>, begins: Arc<mpsc::Sender<Instant>>| async move {
        let _ = begins.send(Instant::now()).await;
        Ok::<_, std::io::Error>(Action::await_change())
    };
    let running = Controller::for_stream(triggers, reader)
        .with_config(Config::default().concurrency(32))
        .run(reconcile, |_, _, _| Action::await_change(), Arc::new(begins))
        .for_each(|_| async {});
    tokio::select! {
        took = measure(requests, begun, task) => took,
        () = running => panic!("the loop has ended"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run by hand with --nocapture"]
async fn request_to_reconcile_beside_kubes_controller() {
    let at = |took: &[Duration], percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1000.0;
    println!("request to reconcile, {REQUESTS} requests, ms");
    for round in 1..=3 {
        let (ours, kubes) = (ours().await, kubes().await);
        for (name, took) in [("our worker loop", &ours), ("kube's Controller", &kubes)] {
            println!("  {round}  {name:<18} p50 {:6.3}  p99 {:6.3}", at(took, 50), at(took, 99));
        }
    }
}
