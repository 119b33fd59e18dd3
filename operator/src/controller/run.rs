//! The loop itself: three causes of a look (a change of the Task, a change of the Nodes, news of a Run), and the looks,
//! never two at one Task.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::Event;
use sentinel_protocol::ids::TaskRef;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::context::{Context, Counters, Parts};
use super::lead::Lead;
use super::queue::Queue;
use super::reconcile::{Again, look_at, name};
use super::trigger::Trigger;
use super::wake::Wake;
use crate::cluster::nodes::{Changed, NodeWriter};
use crate::resource::Task;

/// Looks under way at once.
const LOOKS_AT_ONCE: usize = 32;

/// Changes of Nodes come in flocks; one look per Task is enough for a flock.
const AFTER_NODE_CHANGE: Duration = Duration::from_millis(500);

/// The writing ends of the caches, which the controller fills.
pub struct Caches {
    /// The cache of Tasks; `tasks` reads it.
    pub tasks_writer: Writer<Task>,
    /// The reading end of the same.
    pub tasks: Store<Task>,
    /// The cache of Nodes.
    pub nodes_writer: NodeWriter,
    /// Rings after each change of the cache of Tasks.
    pub bell: watch::Sender<Seen>,
}

/// What the cache of Tasks has seen. To be asked instead of `Store::wait_until_ready`, which remembers one waiter only:
/// whoever asks takes the place of who asked before, who then waits for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Changes so far.
    pub changes: u64,
    /// Whether all Tasks have been listed once.
    pub listed: bool,
}

/// Carries Tasks out until `stop`; what runs on nodes then goes on. `wake` is what `parts.ledgers` was made with.
pub async fn run(parts: Parts, caches: Caches, wake: Wake, counters: Arc<Counters>, stop: CancellationToken) {
    let Caches { tasks_writer, tasks, nodes_writer, bell } = caches;
    let context = Arc::new(Context::new(parts, counters));
    let nodes = tokio::spawn(follow_nodes(context.clone(), nodes_writer, stop.clone()));
    let lead =
        tokio::spawn(look_at_all_once_leading(context.parts.lead.clone(), tasks.clone(), wake.clone()));
    let changes = context.parts.cluster.watch_tasks();
    let watched =
        Watched { trigger: Trigger::new(tasks_writer), bell, context: context.clone(), listed: false };
    look_as_asked(&context, &tasks, changes, watched, &wake, &stop).await;
    nodes.abort();
    lead.abort();
}

/// Makes the looks until `stop`, and waits then for those under way.
async fn look_as_asked(
    context: &Arc<Context>,
    tasks: &Store<Task>,
    mut changes: BoxStream<'static, Event<Task>>,
    mut watched: Watched,
    wake: &Wake,
    stop: &CancellationToken,
) {
    let mut queue = Queue::new(LOOKS_AT_ONCE);
    let mut wakes = wake.stream();
    let mut under_way = FuturesUnordered::new();
    loop {
        // Before all Tasks are listed, one that is not in the cache is not gone.
        while watched.listed
            && let Some(task) = queue.next(Instant::now())
        {
            under_way.push(begin(context.clone(), tasks.clone(), task));
        }
        // Cancellation safe: what a stream or a look gives is not taken until it is returned.
        tokio::select! {
            () = stop.cancelled() => break,
            Some((task, again)) = under_way.next() => queue.done(task, again),
            Some(task) = wakes.next() => queue.now(task),
            Some(event) = changes.next() => if let Some(task) = watched.take(event) { queue.now(task) },
            () = until(queue.next_at()) => {}
        }
    }
    while under_way.next().await.is_some() {}
}

/// One look, in a task of its own: one that computes holds no other up.
fn begin(
    context: Arc<Context>,
    tasks: Store<Task>,
    task: TaskRef,
) -> impl Future<Output = (TaskRef, Option<Instant>)> {
    let key = ObjectRef::new(&task.name).within(&task.namespace);
    let look = async move {
        if let Some(cached) = tasks.get(&key) {
            let again = look_at(cached, context).await;
            // Whatever else is ready goes first: of many who report at once, the next look sees many.
            tokio::task::yield_now().await;
            return again;
        }
        forget_the_gone(&context, &tasks);
        Again::WhenChanged
    };
    let look = AbortOnDropHandle::new(tokio::spawn(look));
    async move {
        let again = look.await.unwrap_or_else(|error| {
            tracing::error!(%task, %error, "a look ended by itself");
            Again::WhenChanged
        });
        let at = match again {
            Again::WhenChanged => None,
            Again::After(wait) => Instant::now().checked_add(wait),
        };
        (task, at)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What is done with every change of a Task, whether it is worth a look or not.
struct Watched {
    trigger: Trigger,
    bell: watch::Sender<Seen>,
    context: Arc<Context>,
    listed: bool,
}

impl Watched {
    /// Takes a change in; answers with the Task when it is worth a look.
    fn take(&mut self, event: Event<Task>) -> Option<TaskRef> {
        let listed = matches!(event, Event::InitDone);
        let taken = self.trigger.take(event);
        if listed {
            self.listed = true;
            self.context.parts.ledgers.note_listed();
        }
        self.bell.send_modify(|seen| {
            seen.changes += 1;
            seen.listed |= listed;
        });
        taken.as_ref().map(name)
    }
}

/// Every Task is looked at when the lead is taken: changes from before were nobody's to act on.
async fn look_at_all_once_leading(mut lead: Lead, tasks: Store<Task>, wake: Wake) {
    lead.taken().await;
    for task in tasks.state() {
        wake.task(&name(&task));
    }
}

/// Keeps the cache of Nodes and wakes who may care.
async fn follow_nodes(context: Arc<Context>, mut writer: NodeWriter, stop: CancellationToken) {
    let mut changes = context.parts.cluster.watch_nodes();
    let mut due: Option<Instant> = None;
    loop {
        // Cancellation safe: a stream's next event is not taken until it is returned, and a sleep holds nothing.
        tokio::select! {
            () = stop.cancelled() => return,
            event = changes.next() => {
                let Some(event) = event else { return };
                if writer.apply(event) == Changed::Yes && due.is_none() {
                    due = Some(Instant::now() + AFTER_NODE_CHANGE);
                }
            }
            () = until(due) => {
                due = None;
                context.parts.ledgers.nodes_changed();
            }
        }
    }
}

/// A Task is gone: so are its book and our memory of it. What agents still own of it is stray from now on.
fn forget_the_gone(context: &Context, tasks: &Store<Task>) {
    let there: HashSet<String> = tasks.state().iter().filter_map(|task| task.metadata.uid.clone()).collect();
    context.parts.ledgers.close_all_but(|uid, _| there.contains(uid.as_str()));
    context.slots.keep(|uid| there.contains(uid.as_str()));
}
