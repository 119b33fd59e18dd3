//! The worker loop: takes Tasks from the work queue and reconciles each in a tokio task of its own, so that one that
//! computes delays no other.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use sentinel_protocol::ids::TaskRef;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::metrics::{QueueMetrics, Work};
use super::reconcile::Requeue;
use super::work_queue::{MAX_CONCURRENT, WorkQueue};
use crate::health::{BEAT_EVERY, Beat};
use crate::later::{PutOff, putting_off};

/// A reconcile that takes longer than this hangs: every call within it has a deadline, and all of them together stay
/// well below. Then the loop does not beat any more.
pub(super) const HUNG_AFTER: Duration = Duration::from_mins(10);

/// A Task whose reconcile computes for at least this long then rests, so that one reconcile takes in what is reported
/// meanwhile: with a thousand targets, each costs as much as a hundred reports. The last report ends the rest.
const LONG: Duration = Duration::from_millis(1);

/// How much longer than its reconcile a rest is.
const REST: u32 = 4;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// Delay of a Task whose reconcile panicked outside of its own guard.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// What reaches the worker loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Reconcile this Task.
    Reconcile(TaskRef),
    /// The same, and now: a rest of it ends.
    ReconcileNow(TaskRef),
    /// The caches are filled. No reconcile begins earlier.
    CachesSynced,
    /// The watch of Tasks ended, which it must not.
    WatchEnded,
}

/// Reconciles until `stop`, then waits for the reconciles in flight; what is queued is dropped. Returns early when the
/// watch of Tasks ends.
pub(super) async fn run<F>(
    inputs: impl Stream<Item = Input> + Unpin,
    reconcile: impl Fn(TaskRef) -> F,
    metrics: QueueMetrics,
    beat: &Beat,
    stop: &CancellationToken,
) where
    F: Future<Output = Requeue> + Send + 'static,
{
    let mut queue = WorkQueue::new(MAX_CONCURRENT);
    let mut in_flight = FuturesUnordered::new();
    let mut rests: HashMap<TaskRef, Arc<Notify>> = HashMap::new();
    let mut synced = false;
    // Who waits for changes learns of them after the reconciles that they cause.
    let (mut inputs, mut notices) = (std::pin::pin!(inputs), PutOff::default());
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut spawned = false;
        while synced && let Some((task, waited)) = queue.get(Instant::now()) {
            let rest_ends = rests.entry(task.clone()).or_default().clone();
            in_flight.push(spawn(reconcile(task.clone()), task, metrics.take(waited), rest_ends));
            spawned = true;
        }
        if !notices.is_empty() {
            if spawned {
                tokio::task::yield_now().await;
            }
            notices = PutOff::default();
        }
        metrics.note(queue.ready(), queue.take_added());
        // Cancellation safe: what a stream or a reconcile yields is not taken until it is returned.
        tokio::select! {
            () = stop.cancelled() => break,
            Some((task, requeue)) = in_flight.next() => {
                rests.remove(&task);
                queue.done(task, requeue);
            }
            Some(input) = poll_fn(|context| {
                let (polled, put_off) = putting_off(|| inputs.poll_next_unpin(context));
                // No reconcile follows now: what was put off is done at once.
                if polled.is_ready() {
                    notices.append(put_off);
                }
                polled
            }) => match input {
                Input::Reconcile(task) => queue.add(task, Instant::now()),
                Input::ReconcileNow(task) => {
                    if let Some(rest_ends) = rests.get(&task) {
                        rest_ends.notify_one();
                    }
                    queue.add(task, Instant::now());
                }
                Input::CachesSynced => synced = true,
                Input::WatchEnded => {
                    tracing::error!("the watch of Tasks ended");
                    break;
                }
            },
            () = sleep_until_due(queue.next_due()) => {}
            _ = ticks.tick() => {}
        }
        if queue.oldest_in_flight().is_none_or(|started| started.elapsed() < HUNG_AFTER) {
            beat.beat();
        }
    }
    while in_flight.next().await.is_some() {}
}

/// One reconcile, and when the next is due.
fn spawn<F>(
    reconcile: F,
    task: TaskRef,
    work: Work,
    rest_ends: Arc<Notify>,
) -> impl Future<Output = (TaskRef, Option<Instant>)>
where
    F: Future<Output = Requeue> + Send + 'static,
{
    let reconcile = AbortOnDropHandle::new(tokio::spawn(async move {
        let (requeue, computed, put_off) = measured(reconcile).await;
        if computed >= LONG {
            drop(put_off);
            tokio::select! {
                () = tokio::time::sleep(computed.saturating_mul(REST).min(LONGEST_REST)) => {}
                () = rest_ends.notified() => {}
            }
        } else {
            // Other ready tasks first: of many reports that arrive at once, the next reconcile then sees many.
            // The first of them is the Session to which a message was sent just now.
            tokio::task::yield_now().await;
            drop(put_off);
        }
        requeue
    }));
    async move {
        let requeue = reconcile.await.unwrap_or_else(|error| {
            tracing::error!(%task, %error, "reconcile task panicked or was aborted");
            Requeue::After(AFTER_PANIC)
        });
        drop(work);
        let due = match requeue {
            Requeue::AwaitChange => None,
            Requeue::After(delay) => Instant::now().checked_add(delay),
        };
        (task, due)
    }
}

/// A result, how long it was computed, where waits do not count, and what it has put off since its last wait.
async fn measured<F: Future>(future: F) -> (F::Output, Duration, PutOff) {
    let (mut future, mut computed) = (std::pin::pin!(future), Duration::ZERO);
    let output = poll_fn(|context| {
        let begun = std::time::Instant::now();
        let (polled, put_off) = putting_off(|| future.as_mut().poll(context));
        computed += begun.elapsed();
        polled.map(|output| (output, put_off))
    });
    let (output, put_off) = output.await;
    (output, computed, put_off)
}

/// Sleeps until `due`; forever when it is `None`.
pub(super) async fn sleep_until_due(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use futures_util::stream;

    use super::*;
    use crate::health::{Health, SILENT_FOR};
    use crate::later::later;

    fn task(name: &str) -> TaskRef {
        TaskRef::new("ns", name).unwrap()
    }

    fn metrics() -> QueueMetrics {
        QueueMetrics::new(&crate::metrics::Registry::new())
    }

    fn beat() -> Beat {
        Health::new().watch("the controller", SILENT_FOR)
    }

    /// These inputs, and none after them.
    fn inputs(inputs: Vec<Input>) -> impl Stream<Item = Input> + Unpin {
        stream::iter(inputs).chain(stream::pending())
    }

    #[tokio::test(start_paused = true)]
    async fn no_reconcile_begins_before_the_caches_are_synced() {
        let (count, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let reconcile = |_| {
            let count = count.clone();
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                Requeue::AwaitChange
            }
        };
        let beat = beat();
        let early = run(inputs(vec![Input::Reconcile(task("a"))]), reconcile, metrics(), &beat, &stop);
        assert!(tokio::time::timeout(Duration::from_secs(9), early).await.is_err(), "it keeps running");
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let later = run(
            inputs(vec![Input::Reconcile(task("a")), Input::CachesSynced]),
            reconcile,
            metrics(),
            &beat,
            &stop,
        );
        assert!(tokio::time::timeout(Duration::from_secs(9), later).await.is_err());
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_requeued_as_asked_and_a_panic_delays_no_other() {
        let (begun, stop) = (Instant::now(), CancellationToken::new());
        let times = Arc::new(Mutex::new(Vec::new()));
        let reconcile = |of: TaskRef| {
            let times = times.clone();
            async move {
                assert_ne!(of.name, "bad");
                let mut times = times.lock().unwrap();
                times.push(begun.elapsed().as_secs());
                if times.len() < 3 { Requeue::After(Duration::from_secs(4)) } else { Requeue::AwaitChange }
            }
        };
        let wanted = vec![Input::CachesSynced, Input::Reconcile(task("bad")), Input::Reconcile(task("a"))];
        let beat = beat();
        let running = run(inputs(wanted), reconcile, metrics(), &beat, &stop);
        let _ = tokio::time::timeout(Duration::from_secs(99), running).await;
        assert_eq!(*times.lock().unwrap(), [0, 4, 8]);
    }

    /// A Run that has ended is not reported as such later because its last reconcile was long.
    #[tokio::test(start_paused = true)]
    async fn a_task_rests_after_a_long_reconcile_until_the_last_change() {
        let stop = CancellationToken::new();
        let (change, changes) = tokio::sync::mpsc::channel(8);
        let (begin, mut begins) = tokio::sync::mpsc::channel(8);
        let reconcile = |_| {
            let begin = begin.clone();
            async move {
                std::thread::sleep(LONG);
                begin.send(Instant::now()).await.unwrap();
                Requeue::AwaitChange
            }
        };
        let changes =
            stream::unfold(changes, |mut changes| async move { Some((changes.recv().await?, changes)) });
        let changes = Box::pin(stream::iter([Input::CachesSynced]).chain(changes));
        let beat = beat();
        let running = run(changes, reconcile, metrics(), &beat, &stop);
        let rests = async {
            let mut rests = Vec::new();
            change.send(Input::Reconcile(task("a"))).await.unwrap();
            let mut before = begins.recv().await.unwrap();
            for input in [Input::Reconcile(task("a")), Input::ReconcileNow(task("a"))] {
                change.send(input).await.unwrap();
                let begun = begins.recv().await.unwrap();
                rests.push(begun - before);
                before = begun;
            }
            rests
        };
        tokio::select! {
            () = running => panic!("it ended"),
            rests = rests => assert!(rests[0] >= LONG * REST && rests[1] < LONG, "{rests:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stop_waits_for_reconciles_in_flight_and_begins_no_other() {
        let stop = CancellationToken::new();
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reconcile = |_| {
            let (begun, ended, stop) = (begun.clone(), ended.clone(), stop.clone());
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                stop.cancel();
                tokio::time::sleep(Duration::from_secs(5)).await;
                ended.fetch_add(1, Ordering::Relaxed);
                Requeue::After(Duration::from_secs(1))
            }
        };
        let wanted = std::iter::once(Input::CachesSynced);
        let wanted =
            wanted.chain((0..MAX_CONCURRENT + 9).map(|number| Input::Reconcile(task(&number.to_string()))));
        run(inputs(wanted.collect()), reconcile, metrics(), &beat(), &stop).await;
        let begun = begun.load(Ordering::Relaxed);
        assert!((1..=MAX_CONCURRENT).contains(&begun), "{begun}");
        assert_eq!(ended.load(Ordering::Relaxed), begun);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_that_hangs_fails_liveness() {
        let (health, stop) = (Health::new(), CancellationToken::new());
        let beat = health.watch("the controller", SILENT_FOR);
        let wanted = vec![Input::CachesSynced, Input::Reconcile(task("a"))];
        let hangs = run(inputs(wanted), |_| std::future::pending(), metrics(), &beat, &stop);
        let observe = async {
            tokio::time::sleep(HUNG_AFTER.mul_f64(0.99)).await;
            assert!(health.alive().ok, "slow, but within what calls may take");
            tokio::time::sleep(SILENT_FOR + 3 * BEAT_EVERY).await;
            assert!(health.alive().reasons.contains_key("the controller"));
        };
        tokio::select! { () = hangs => panic!("it ended"), () = observe => {} }
    }

    /// Readers of the cache wait for such a notice.
    #[tokio::test(start_paused = true)]
    async fn a_notice_is_given_whether_a_reconcile_follows_or_not() {
        let (count, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut polled = 0;
        let inputs = stream::poll_fn(|_| {
            let count = count.clone();
            later(move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
            polled += 1;
            match polled {
                1 => std::task::Poll::Ready(Some(Input::CachesSynced)),
                2 => std::task::Poll::Ready(Some(Input::Reconcile(task("a")))),
                _ => std::task::Poll::Pending,
            }
        });
        let beat = beat();
        let running = run(inputs, |_| async { Requeue::AwaitChange }, metrics(), &beat, &stop);
        let _ = tokio::time::timeout(BEAT_EVERY / 2, running).await;
        assert!(polled > 2, "{polled}");
        assert_eq!(count.load(Ordering::Relaxed), polled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_ends_the_controller() {
        let stop = CancellationToken::new();
        run(inputs(vec![Input::WatchEnded]), |_| async { Requeue::AwaitChange }, metrics(), &beat(), &stop)
            .await;
    }
}
