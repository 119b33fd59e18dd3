//! A cluster in memory, for dev mode and for tests: Tasks, their target lists and Nodes, with the rules of an API
//! server. Writes are validated and defaulted in the same way ([`crate::resource::schema`]); uid, generation,
//! resourceVersion, finalizers and deletion mean the same; watches yield the same events.
//!
//! * `state`: the objects and the rules; `disk`: one JSON file for each object, where a directory is given;
//! * `published`: cluster events.

mod disk;
mod published;
mod state;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef};
use tokio::sync::watch;

use self::state::{Cursor, State};
use super::error::ClusterError;
use super::seams::{Answer, Change, Cluster, Publication, TaskKeeper, TaskStore};
use super::targets;
use crate::clock::Clock;
use crate::resource::slice::Frozen;
use crate::resource::{Task, TaskStatus};

pub use self::published::Published;

/// A cluster in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct EmbeddedCluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The version of the latest change.
    changed: watch::Sender<u64>,
    clock: Clock,
}

impl EmbeddedCluster {
    /// An empty cluster that ends with the process.
    pub fn in_memory(clock: Clock) -> Self {
        Self::over(State::default(), clock)
    }

    /// The cluster that is kept in this directory, which is created when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be used, or something in it cannot be read; the text names the file.
    pub fn in_directory(directory: &Path, clock: Clock) -> Result<Self, ClusterError> {
        let (disk, found) = disk::Disk::open(directory)?;
        Ok(Self::over(State::restored(disk, found), clock))
    }

    fn over(state: State, clock: Clock) -> Self {
        let changed = watch::Sender::new(state.version());
        Self(Arc::new(Shared { state: Mutex::new(state), changed, clock }))
    }

    /// Replaces the Nodes.
    pub fn set_nodes(&self, nodes: BTreeMap<NodeName, NodeFacts>) {
        self.state().set_nodes(nodes);
        self.notify();
    }

    /// The latest cluster events, oldest first.
    pub fn published(&self) -> Vec<Published> {
        self.state().published()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let done = change(&mut self.state());
        self.notify();
        done
    }

    fn notify(&self) {
        let version = self.state().version();
        self.0.changed.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// All objects and then every change, as `changes` yields them.
    fn follow<K: Send + 'static>(
        &self,
        changes: fn(&State, &mut Cursor) -> Vec<Event<K>>,
    ) -> BoxStream<'static, Event<K>> {
        let follower = (self.clone(), self.0.changed.subscribe(), Cursor::default());
        let batches = stream::unfold(follower, move |(cluster, mut changed, mut cursor)| async move {
            loop {
                changed.mark_unchanged();
                let events = changes(&cluster.state(), &mut cursor);
                if !events.is_empty() {
                    return Some((stream::iter(events), (cluster, changed, cursor)));
                }
                // `cluster` holds the sender, so this never fails.
                let _ = changed.changed().await;
            }
        });
        batches.flatten().boxed()
    }
}

/// A future that is ready at its first poll: the work is short, and done in the poll.
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
        at_once!(self.change(|state| state.create(&task, self.0.clock.now())))
    }

    fn apply(&self, task: Task) -> Answer<'_, Task> {
        at_once!(self.change(|state| state.apply(&task, self.0.clock.now())))
    }

    fn dry_run(&self, change: Change, task: Task) -> Answer<'_, Task> {
        let now = self.0.clock.now();
        at_once!(match change {
            Change::Create => self.state().created(&task, now),
            Change::Apply => self.state().applied(&task, now),
        })
    }

    fn annotate(&self, task: TaskRef, key: &'static str, value: Option<String>) -> Answer<'_, Task> {
        at_once!(self.change(|state| state.annotate(&task, key, value)))
    }

    fn delete(&self, task: TaskRef) -> Answer<'_, ()> {
        at_once!(self.change(|state| state.delete(&task, self.0.clock.now())))
    }
}

impl TaskKeeper for EmbeddedCluster {
    fn write_status<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        at_once!(self.change(|state| state.write_status(seen, status)))
    }

    fn write_status_and_hold<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        at_once!(self.change(|state| state.write_status_and_hold(seen, status)))
    }

    fn set_finalizer<'a>(&'a self, seen: &'a Task, finalizer: Finalizer) -> Answer<'a, Task> {
        at_once!(self.change(|state| state.set_finalizer(seen, finalizer)))
    }

    fn persist_targets<'a>(
        &'a self,
        task: &'a Task,
        run: RunNumber,
        names: &'a [NodeName],
    ) -> Answer<'a, Frozen> {
        at_once!({
            self.change(|state| state.add_slices(targets::slices(task, run, names)))?;
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
        at_once!(self.change(|state| state.remove_old_slices(task)))
    }

    fn publish<'a>(&'a self, task: &'a Task, notice: &'a Notice) -> Answer<'a, Publication> {
        at_once!({
            self.state().publish(task, notice, self.0.clock.now());
            Ok(Publication::Published)
        })
    }
}

impl Cluster for EmbeddedCluster {
    fn watch_tasks(&self) -> BoxStream<'static, Event<Task>> {
        self.follow(State::task_changes)
    }

    fn watch_nodes(&self) -> BoxStream<'static, Event<(NodeName, NodeFacts)>> {
        self.follow(State::node_changes)
    }
}
