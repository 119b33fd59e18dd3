//! The controller's inputs (changes of Tasks, changes of Nodes, reconcile requests, a new leadership), and its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::Event;
use sentinel_protocol::ids::{TaskRef, TaskUid};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cache_progress::{CacheProgress, ProgressWriter};
use super::change_filter::{ChangeFilter, task_ref};
use super::context::{Context, Parts};
use super::counters::Counters;
use super::departure;
use super::metrics::QueueMetrics;
use super::reconcile::{Requeue, reconcile};
use super::requesters::note_gone;
use super::requests::{ReconcileRequests, Urgency};
use super::worker::{self, Input, sleep_until_due};
use crate::cluster::nodes::NodeWriter;
use crate::health::SILENT_FOR;
use crate::resource::Task;

/// Node events are bursty; debounce them.
const NODE_DEBOUNCE: Duration = Duration::from_millis(500);

/// Pause before a deletion is handled that is not durable, for want of a disk that works.
const UNSETTLED: Duration = Duration::from_secs(5);

/// How long background tasks get to finish when the controller stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);

/// The writing ends of the caches, which the controller fills.
pub struct Caches {
    /// The cache of Tasks; `tasks` reads it.
    pub tasks_writer: Writer<Task>,
    /// The reading end of the same.
    pub tasks: Store<Task>,
    /// The cache of Nodes.
    pub nodes_writer: NodeWriter,
    /// Notified after each change of the cache of Tasks.
    pub progress: watch::Sender<CacheProgress>,
}

/// Reconciles Tasks until `stop`; commands on nodes keep running. `requests` is what `parts.runs` was made with. Returns
/// early, which ends the process, when a watch ends.
///
/// # Panics
/// When the watch of Nodes panicked: its panic is passed on.
pub async fn run(
    parts: Parts,
    caches: Caches,
    requests: ReconcileRequests,
    counters: Arc<Counters>,
    stop: CancellationToken,
) {
    let Caches { tasks_writer, tasks, nodes_writer, progress } = caches;
    let context = Arc::new(Context::new(parts, counters));
    let health = context.parts.health.clone();
    let follow = follow_nodes(context.clone(), nodes_writer);
    let watched = health.clone();
    let mut nodes =
        AbortOnDropHandle::new(tokio::spawn(async move { watched.watched("the Node cache", follow).await }));
    let mut cache = TaskCacheFeed {
        filter: ChangeFilter::new(tasks_writer),
        notes: ProgressWriter::new(tasks.clone(), progress),
        context: context.clone(),
    };
    let synced = caches_synced(cache.notes.subscribe(), context.clone());
    let changes = context.parts.cluster.watch_tasks();
    let changes = changes.flat_map(move |event| stream::iter(cache.take(event)));
    let inputs = stream::select(
        stream::select(changes.chain(stream::iter([Input::WatchEnded])), requests.stream().map(requested)),
        stream::select(synced, all_once_leading(&context, tasks.clone())),
    );
    let beat = health.watch("the controller", SILENT_FOR);
    let queue = QueueMetrics::new(&context.parts.metrics);
    let workers = worker::run(
        inputs,
        |task| reconcile_named(context.clone(), tasks.clone(), task),
        queue,
        &beat,
        &stop,
    );
    tokio::select! {
        () = workers => {}
        ended = &mut nodes => {
            if let Err(error) = ended && error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            }
            tracing::error!("the watch of Nodes ended");
        }
    }
    context.background.drain(DRAIN_WITHIN).await;
}

fn requested((task, urgency): (TaskRef, Urgency)) -> Input {
    match urgency {
        Urgency::AfterRest => Input::Reconcile(task),
        Urgency::AtOnce => Input::ReconcileNow(task),
    }
}

/// Reconciles the Task of this name; releases what is kept of an earlier one, or of this one when it does not exist any
/// more.
async fn reconcile_named(context: Arc<Context>, tasks: Store<Task>, task: TaskRef) -> Requeue {
    let cached = tasks.get(&ObjectRef::new(&task.name).within(&task.namespace));
    let uid = cached.as_ref().and_then(|cached| TaskUid::new(cached.metadata.uid.clone()?).ok());
    if uid.is_none_or(|uid| context.caches.replaces(&task, &uid)) {
        // A deletion that a power cut could undo ends nothing.
        if let Some(settled) = context.parts.cluster.unsettled()
            && let Err(error) = settled.await
        {
            tracing::warn!(%error, category = error.category(), "a deletion may be lost; it will be handled later");
            return Requeue::After(UNSETTLED);
        }
        release_deleted(&context, &tasks);
    }
    match cached {
        Some(cached) => reconcile(cached, context).await,
        None => Requeue::AwaitChange,
    }
}

/// Fills the cache of Tasks.
struct TaskCacheFeed {
    filter: ChangeFilter,
    notes: ProgressWriter,
    context: Arc<Context>,
}

impl TaskCacheFeed {
    /// Applies a change to the cache; returns the Tasks to reconcile because of it.
    fn take(&mut self, event: Event<Task>) -> Vec<Input> {
        let listed = matches!(event, Event::InitDone);
        let (filter, runs) = (&mut self.filter, &self.context.parts.runs);
        let changed = self.notes.applying(event, |event| {
            let changed = filter.take(event);
            if listed {
                runs.note_listed();
            }
            changed
        });
        changed.into_iter().map(Input::Reconcile).collect()
    }
}

/// One [`Input::CachesSynced`], once all Tasks and Nodes have been listed. Before that a Task that is not in the cache
/// is not known to be deleted, and targets cannot be chosen.
fn caches_synced(
    mut progress: watch::Receiver<CacheProgress>,
    context: Arc<Context>,
) -> BoxStream<'static, Input> {
    let synced = async move {
        // It fails only when the feed is dropped, and the controller with it.
        if progress.wait_for(|progress| progress.listed).await.is_err() {
            std::future::pending::<()>().await;
        }
        context.parts.nodes.wait_until_complete().await;
        Input::CachesSynced
    };
    synced.into_stream().boxed()
}

/// Every Task, once this operator leads: a follower has ignored earlier changes.
fn all_once_leading(context: &Context, tasks: Store<Task>) -> BoxStream<'static, Input> {
    let mut leadership = context.parts.leadership.clone();
    let all = async move {
        leadership.wait_until_leading().await;
        let tasks = tasks.state();
        stream::iter(tasks.into_iter().filter_map(|task| task_ref(&task)).map(Input::Reconcile))
    };
    all.into_stream().flatten().boxed()
}

/// Keeps the cache of Nodes and requests the reconciles that a change of it may concern.
async fn follow_nodes(context: Arc<Context>, mut writer: NodeWriter) {
    let mut changes = context.parts.cluster.watch_nodes();
    let mut due: Option<Instant> = None;
    loop {
        // Cancellation safe: a stream's next event is not taken until it is returned, and a sleep holds nothing.
        tokio::select! {
            event = changes.next() => {
                let Some(event) = event else { return };
                if writer.apply(event) && due.is_none() {
                    due = Some(Instant::now() + NODE_DEBOUNCE);
                }
            }
            () = sleep_until_due(due) => {
                due = None;
                context.parts.runs.nodes_changed();
            }
        }
    }
}

/// Ends and drops the Runs of Tasks that do not exist any more, and their caches. What agents still own of them is
/// orphaned.
fn release_deleted(context: &Context, tasks: &Store<Task>) {
    let mut kept: HashSet<String> =
        tasks.state().iter().filter_map(|task| task.metadata.uid.clone()).collect();
    for (uid, runs) in context.parts.runs.all() {
        if kept.contains(uid.as_str()) {
            continue;
        }
        // A reconcile that is in flight is followed by another, which releases it.
        let cache = context.caches.of(&uid);
        let Ok(mut cache) = cache.try_lock() else {
            kept.insert(uid.to_string());
            continue;
        };
        note_gone(context, &mut cache, &runs);
        if let Some(plan) = cache.last_plan() {
            departure::end_run(context, &plan, &runs);
        }
    }
    context.parts.runs.retain(|uid, _| kept.contains(uid.as_str()));
    context.caches.retain(|uid| kept.contains(uid.as_str()));
}
