//! The loop itself: three causes of a look (a change of the Task, a change of the Nodes, news of a Run), and the
//! controller that makes the looks, never two at one Task.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::controller::{Config, Controller, Error};
use kube::runtime::reflector::{Store, store::Writer};
use kube::runtime::watcher;
use sentinel_protocol::ids::TaskRef;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Counters, Parts};
use super::lead::Lead;
use super::reconcile::{after_failure, reconcile};
use super::trigger::Trigger;
use super::wake::Wake;
use crate::cluster::nodes::{Changed, NodeWriter};
use crate::resource::Task;

/// Looks under way at once.
const LOOKS_AT_ONCE: u16 = 32;

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
/// whoever asks takes the place of the controller itself, which then waits for ever.
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
    let mut trigger = Trigger::new(tasks_writer);
    let changes = context.parts.cluster.watch_tasks();
    let ledgers = context.parts.ledgers.clone();
    let changes = changes.filter_map(move |event| {
        let listed = matches!(event, watcher::Event::InitDone);
        let taken = trigger.take(event);
        if listed {
            ledgers.note_listed();
        }
        bell.send_modify(|seen| {
            seen.changes += 1;
            seen.listed |= listed;
        });
        std::future::ready(taken.map(Ok::<_, watcher::Error>))
    });
    let looks = Controller::for_stream(changes, tasks.clone())
        .with_config(Config::default().concurrency(LOOKS_AT_ONCE))
        .reconcile_on(wake.stream())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |task, failed, context| after_failure(&task, failed, &context), context.clone());
    looks
        .for_each(|looked| {
            match looked {
                Ok(_) => {}
                Err(Error::ObjectNotFound(_)) => forget_the_gone(&context, &tasks),
                // Said by the error policy, with the Task and the time of the next look.
                Err(error) => tracing::debug!(%error, "a look failed"),
            }
            std::future::ready(())
        })
        .await;
    nodes.abort();
    lead.abort();
}

/// Every Task is looked at when the lead is taken: changes from before were nobody's to act on.
async fn look_at_all_once_leading(mut lead: Lead, tasks: Store<Task>, wake: Wake) {
    lead.taken().await;
    for task in tasks.state() {
        wake.task(&TaskRef {
            namespace: task.metadata.namespace.clone().unwrap_or_default(),
            name: task.metadata.name.clone().unwrap_or_default(),
        });
    }
}

/// Keeps the cache of Nodes and wakes who may care.
async fn follow_nodes(context: Arc<Context>, mut writer: NodeWriter, stop: CancellationToken) {
    let mut changes = context.parts.cluster.watch_nodes();
    let mut due: Option<tokio::time::Instant> = None;
    loop {
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // Cancellation safe: a stream's next event is not taken until it is returned, and a sleep holds nothing.
        tokio::select! {
            () = stop.cancelled() => return,
            event = changes.next() => {
                let Some(event) = event else { return };
                if writer.apply(event) == Changed::Yes && due.is_none() {
                    due = Some(tokio::time::Instant::now() + AFTER_NODE_CHANGE);
                }
            }
            () = wait => {
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
