//! The loop itself: three causes of a look (a change of the Task, a change of the Nodes, news of a Run), and the looks,
//! never two at one Task.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::Event;
use sentinel_protocol::ids::TaskRef;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Counters, Parts};
use super::lead::Lead;
use super::looks::{self, Ask, until};
use super::reconcile::{Again, look_at, name};
use super::trigger::Trigger;
use super::wake::Wake;
use crate::cluster::nodes::{Changed, NodeWriter};
use crate::resource::Task;

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
    let mut watched = Watched { trigger: Trigger::new(tasks_writer), bell, context: context.clone() };
    let changes = context.parts.cluster.watch_tasks();
    let changes = changes.flat_map(move |event| stream::iter(watched.take(event)));
    let asks = stream::select(changes, wake.stream().map(Ask::Look));
    looks::make(asks, |task| look(context.clone(), tasks.clone(), task), &stop).await;
    nodes.abort();
    lead.abort();
}

/// One look at the Task of this name, or what is due when there is none.
async fn look(context: Arc<Context>, tasks: Store<Task>, task: TaskRef) -> Again {
    if let Some(cached) = tasks.get(&ObjectRef::new(&task.name).within(&task.namespace)) {
        return look_at(cached, context).await;
    }
    forget_the_gone(&context, &tasks);
    Again::WhenChanged
}

/// What is done with every change of a Task, whether it is worth a look or not.
struct Watched {
    trigger: Trigger,
    bell: watch::Sender<Seen>,
    context: Arc<Context>,
}

impl Watched {
    /// Takes a change in; answers with what it asks for.
    fn take(&mut self, event: Event<Task>) -> Vec<Ask> {
        let listed = matches!(event, Event::InitDone);
        let mut asks: Vec<Ask> = self.trigger.take(event).into_iter().map(Ask::Look).collect();
        if listed {
            self.context.parts.ledgers.note_listed();
            asks.push(Ask::Listed);
        }
        self.bell.send_modify(|seen| {
            seen.changes += 1;
            seen.listed |= listed;
        });
        asks
    }
}

/// Every Task is looked at when the lead is taken: changes from before were nobody's to act on.
async fn look_at_all_once_leading(mut lead: Lead, tasks: Store<Task>, wake: Wake) {
    lead.taken().await;
    for task in tasks.state() {
        if let Some(task) = name(&task) {
            wake.task(&task);
        }
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
