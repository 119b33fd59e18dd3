//! A cluster in memory, for dev mode and for tests: Tasks, their target lists and Nodes, with the rules of an API
//! server. Writes are validated and defaulted in the same way ([`crate::resource::schema`]); uid, generation,
//! resourceVersion, finalizers and deletion mean the same; watches yield the same events.
//!
//! * `state`: the objects and the rules;
//! * where a directory is given, `commits`: changes on their way to the disk; `disk`: the directory, a file for each object
//!   and logs; `log_file`: one log;
//! * `published`: cluster events.
//!
//! A watch shows a change at once. Who passes on what was read waits until it is durable ([`TaskStore::unsettled`],
//! [`TaskKeeper::settle`]): nothing that a power cut could undo leaves the process.

mod commits;
mod disk;
mod log_file;
mod published;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef};
use sentinel_protocol::requester::Requester;
use tokio::sync::watch;

use self::commits::{Commits, Role};
use self::state::{Author, Cursor, State};
use super::error::ClusterError;
use super::seams::{Answer, Change, Cluster, Publication, SecretKeys, TaskKeeper, TaskStore};
use super::targets;
use crate::clock::Clock;
use crate::later::later;
use crate::resource::slice::Frozen;
use crate::resource::stamp::Stamps;
use crate::resource::{Task, TaskStatus, version};

pub use self::published::Published;

/// A cluster in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct EmbeddedCluster {
    shared: Arc<Shared>,
    stamps: Stamps,
    asked_by: Option<Requester>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The version of the latest change of a Task.
    changed: watch::Sender<u64>,
    /// Notified of each change of the Nodes: most changes are of Tasks, and wake no watch of Nodes.
    nodes_changed: watch::Sender<()>,
    commits: Option<Arc<Commits>>,
    clock: Clock,
}

impl EmbeddedCluster {
    /// An empty cluster that ends with the process.
    pub fn in_memory(clock: Clock) -> Self {
        Self::over(State::default(), None, clock)
    }

    /// The cluster that is kept in this directory, which is created when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be used, or something in it cannot be read; the text names the file.
    pub fn in_directory(directory: &Path, clock: Clock) -> Result<Self, ClusterError> {
        Self::with_logs(directory, disk::LOG_CAPACITY, clock)
    }

    /// The same with logs of this many bytes; small ones make checkpoints frequent.
    ///
    /// # Errors
    /// As [`Self::in_directory`].
    pub fn with_logs(directory: &Path, capacity: u64, clock: Clock) -> Result<Self, ClusterError> {
        let (disk, found) = disk::Disk::open(directory, capacity)?;
        let commits = Arc::new(Commits::new(disk));
        Ok(Self::over(State::restored(commits.clone(), found), Some(commits), clock))
    }

    fn over(state: State, commits: Option<Arc<Commits>>, clock: Clock) -> Self {
        let changed = watch::Sender::new(state.version());
        let nodes_changed = watch::Sender::default();
        let shared = Arc::new(Shared { state: Mutex::new(state), changed, nodes_changed, commits, clock });
        Self { shared, stamps: Stamps::default(), asked_by: None }
    }

    /// Stamps every Task with who asked for it, as an API server with the operator's webhook does.
    #[must_use]
    pub fn stamping(mut self, stamps: Stamps) -> Self {
        self.stamps = stamps;
        self
    }

    fn author(&self) -> Author<'_> {
        Author { stamps: &self.stamps, who: self.asked_by.as_ref() }
    }

    /// Replaces the Nodes.
    pub fn set_nodes(&self, nodes: BTreeMap<NodeName, NodeFacts>) {
        self.state().set_nodes(nodes);
        self.shared.nodes_changed.send_replace(());
    }

    /// The latest cluster events, oldest first.
    pub fn published(&self) -> Vec<Published> {
        self.state().published()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and waits until that is durable. Watches see at once what people write, as the
    /// controller is to act on it, and what the controller writes once it is durable.
    async fn change<T>(
        &self,
        role: Role,
        change: impl FnOnce(&mut State) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let (done, version) = {
            let mut state = self.state();
            (change(&mut state), state.version())
        };
        let shown = Shown(self);
        // Nothing follows from a change that no watch shows.
        let role = if self.shared.changed.receiver_count() == 0 { Role::Writes } else { role };
        if role == Role::Holds {
            drop(shown);
        }
        let done = done?;
        self.durable(version, role).await?;
        Ok(done)
    }

    /// Changes the state; that is durable at the latest with the next change.
    fn change_soon<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let _shown = Shown(self);
        change(&mut self.state())
    }

    async fn durable(&self, version: u64, role: Role) -> Result<(), ClusterError> {
        match &self.shared.commits {
            Some(commits) => commits.durable(version, role).await,
            None => Ok(()),
        }
    }

    fn notify(&self) {
        let version = self.state().version();
        self.shared.changed.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// All objects and then every change, as `changes` yields them.
    fn follow<K: Send + 'static, N: Send + Sync + 'static>(
        &self,
        notices: &watch::Sender<N>,
        changes: fn(&State, &mut Cursor) -> Vec<Event<K>>,
    ) -> BoxStream<'static, Event<K>> {
        let follower = (self.clone(), notices.subscribe(), Cursor::default());
        let batches = stream::unfold(follower, move |(cluster, mut changed, mut cursor)| async move {
            loop {
                changed.mark_unchanged();
                let events = changes(&cluster.state(), &mut cursor);
                if !events.is_empty() {
                    return Some((stream::iter(events), (cluster, changed, cursor)));
                }
                // `cluster` holds the senders, so this never fails.
                let _ = changed.changed().await;
            }
        });
        batches.flatten().boxed()
    }
}

/// Shows watches the latest version when it is dropped.
struct Shown<'a>(&'a EmbeddedCluster);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let cluster = self.0.clone();
        later(move || cluster.notify());
    }
}

/// A future that does its work at its first poll: it is short.
macro_rules! at_once {
    ($answer:expr) => {
        Box::pin(async move { $answer })
    };
}

impl TaskStore for EmbeddedCluster {
    fn get(&self, task: TaskRef) -> Answer<'_, Option<Task>> {
        at_once!(Ok(self.state().get(&task)))
    }

    fn list(&self, namespace: Option<String>) -> Answer<'_, Vec<Task>> {
        at_once!(Ok(self.state().list(namespace.as_deref())))
    }

    fn create(&self, task: Task) -> Answer<'_, Task> {
        at_once!(
            self.change(Role::Holds, |state| state.create(&task, self.author(), self.shared.clock.now()))
                .await
        )
    }

    fn apply(&self, task: Task) -> Answer<'_, Task> {
        at_once!(
            self.change(Role::Holds, |state| state.apply(&task, self.author(), self.shared.clock.now()))
                .await
        )
    }

    fn dry_run(&self, change: Change, task: Task) -> Answer<'_, Task> {
        let now = self.shared.clock.now();
        at_once!(match change {
            Change::Create => self.state().created(&task, self.author(), now),
            Change::Apply => self.state().applied(&task, self.author(), now),
        })
    }

    fn annotate(&self, task: TaskRef, key: &'static str, value: Option<String>) -> Answer<'_, Task> {
        let now = self.shared.clock.now();
        at_once!(
            self.change(Role::Holds, |state| state.annotate(&task, (key, value), self.author(), now)).await
        )
    }

    fn asked_by(&self, who: Option<Requester>) -> Arc<dyn TaskStore> {
        Arc::new(Self { asked_by: who, ..self.clone() })
    }

    fn unsettled(&self) -> Option<Answer<'static, ()>> {
        let version = self.shared.commits.as_ref()?.pending()?;
        let cluster = self.clone();
        Some(Box::pin(async move { cluster.durable(version, Role::Reads).await }))
    }

    fn delete(&self, task: TaskRef) -> Answer<'_, ()> {
        at_once!(self.change(Role::Holds, |state| state.delete(&task, self.shared.clock.now())).await)
    }
}

impl TaskKeeper for EmbeddedCluster {
    fn settle<'a>(&'a self, seen: &'a Task) -> Answer<'a, ()> {
        Box::pin(self.durable(version(seen), Role::Writes))
    }

    fn write_status<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        at_once!(self.change(Role::Writes, |state| state.write_status(seen, status)).await)
    }

    fn write_status_and_hold<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        at_once!(self.change(Role::Writes, |state| state.write_status_and_hold(seen, status)).await)
    }

    fn set_finalizer<'a>(&'a self, seen: &'a Task, finalizer: Finalizer) -> Answer<'a, Task> {
        at_once!(self.change(Role::Writes, |state| state.set_finalizer(seen, finalizer)).await)
    }

    fn persist_targets<'a>(
        &'a self,
        task: &'a Task,
        run: RunNumber,
        names: &'a [NodeName],
    ) -> Answer<'a, Frozen> {
        at_once!({
            // The status that names them waits for the disk, behind them in its order.
            self.change_soon(|state| state.add_slices(targets::slices(task, run, names)))?;
            Ok(targets::plan(run, names))
        })
    }

    fn load_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, Vec<NodeName>> {
        at_once!(match task.status.as_ref().and_then(|status| status.run.as_ref()) {
            None => Ok(Vec::new()),
            Some(run) => targets::assemble(task, run, &self.state().slices_of(task)),
        })
    }

    fn delete_old_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, ()> {
        at_once!(self.change(Role::Writes, |state| state.remove_old_slices(task)).await)
    }

    fn publish<'a>(&'a self, task: &'a Task, notice: &'a Notice) -> Answer<'a, Publication> {
        at_once!({
            self.state().publish(task, notice, self.shared.clock.now());
            Ok(Publication::Published)
        })
    }
}

impl Cluster for EmbeddedCluster {
    fn stamps(&self) -> Stamps {
        self.stamps.clone()
    }

    fn watch_tasks(&self) -> BoxStream<'static, Event<Task>> {
        self.follow(&self.shared.changed, State::task_changes)
    }

    fn watch_nodes(&self) -> BoxStream<'static, Event<(NodeName, NodeFacts)>> {
        self.follow(&self.shared.nodes_changed, State::node_changes)
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Option<SecretKeys>> {
        at_once!(Err(ClusterError::Refused {
            doing: format!("read Secret {namespace}/{name}"),
            code: 501,
            message:
                "dev mode has no Secrets; give the variable a value, or use stdin, or run it in a cluster"
                    .to_owned(),
        }))
    }
}
