//! Where Tasks and Nodes live.
//!
//! Three seams, in the words of those who ask:
//!
//! * [`TaskStore`], what people do with Tasks: read, create, apply, annotate, delete;
//! * [`TaskKeeper`], what the operator keeps about a Task: its status, its finalizer, its frozen target list;
//! * [`Cluster`], both, and the streams of changes.
//!
//! Two versions behind one contract suite (`tests/cluster_contract.rs`): [`kube::KubeCluster`] over a Kubernetes API
//! server, and [`embedded::EmbeddedCluster`] in memory, with the same meaning of uid, generation, resourceVersion,
//! finalizer and deletion. In reading order:
//!
//! * [`error`]: what can go wrong; [`backoff`]: how long to wait then;
//! * [`watch`]: streams of changes that survive whatever a watch does;
//! * `events`: cluster events, and how many of them;
//! * [`nodes`]: all Nodes, as far as target choice needs them;
//! * [`targets`]: a long frozen target list, as slices and back.

pub mod backoff;
pub mod embedded;
pub mod error;
mod events;
pub mod kube;
pub mod nodes;
pub mod targets;
pub mod watch;

use ::kube::runtime::watcher::Event;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_protocol::ids::{Namespace, NodeName, RunNumber, TaskRef};

pub use self::embedded::EmbeddedCluster;
pub use self::error::ClusterError;
pub use self::kube::KubeCluster;
pub use self::nodes::NodeCache;
use crate::resource::slice::Frozen;
use crate::resource::{Task, TaskStatus};

/// What a cluster answers with, some time later; never later than about ten seconds.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClusterError>>;

/// What people do with Tasks.
pub trait TaskStore: Send + Sync + 'static {
    /// The Task of that name; `None` when there is none.
    fn get(&self, task: TaskRef) -> Answer<'_, Option<Task>>;

    /// All Tasks of a namespace, or of all, in order of namespace and name.
    fn list(&self, namespace: Option<String>) -> Answer<'_, Vec<Task>>;

    /// Makes the Task. [`ClusterError::Exists`] when there is one of that name.
    fn create(&self, task: Task) -> Answer<'_, Task>;

    /// Makes the Task, or gives the one of that name this spec, and these labels and annotations beside those it has.
    fn apply(&self, task: Task) -> Answer<'_, Task>;

    /// Sets an annotation, or takes it away.
    fn annotate(&self, task: TaskRef, key: &'static str, value: Option<String>) -> Answer<'_, Task>;

    /// Asks for the Task's deletion; it stays until its finalizer is off. [`ClusterError::Gone`] when there is none.
    fn delete(&self, task: TaskRef) -> Answer<'_, ()>;
}

/// What the operator keeps about a Task. Every write names the Task as it was seen; when it has changed since, the
/// answer is [`ClusterError::Conflict`] and nothing was written.
pub trait TaskKeeper: Send + Sync + 'static {
    /// Replaces the status; answers with the Task as it now is.
    fn write_status<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task>;

    /// The same, and [`crate::resource::marks::FINALIZER`] with it where both are one write, which an API server does not
    /// allow. The answer shows whether it is on the Task now.
    fn write_status_and_hold<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        self.write_status(seen, status)
    }

    /// Puts [`crate::resource::marks::FINALIZER`] on the Task, or takes it off; answers with the Task as it now is.
    fn set_finalizer<'a>(&'a self, seen: &'a Task, finalizer: Finalizer) -> Answer<'a, Task>;

    /// Makes the target list of a Run durable, so far as it does not fit into the status. Answers with what the
    /// status must say of it. Repeating it is harmless.
    fn freeze_targets<'a>(
        &'a self,
        task: &'a Task,
        run: RunNumber,
        targets: &'a [NodeName],
    ) -> Answer<'a, Frozen>;

    /// The frozen target list of the Run that the Task's status names, in order; empty when it names none.
    fn frozen_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, Vec<NodeName>>;

    /// Removes target lists of the Task that its status does not name.
    fn thaw_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, ()>;

    /// Publishes a cluster event about the Task. The same notice again adds to its series; a different one is an event
    /// of its own. Events are for people; one may be left out.
    fn publish<'a>(&'a self, task: &'a Task, notice: &'a Notice) -> Answer<'a, Publication>;
}

/// What became of a cluster event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// It is there.
    Published,
    /// There were too many shortly before; the next one of the Task says how many are missing.
    LeftOut,
}

/// Where Tasks and Nodes live.
pub trait Cluster: TaskStore + TaskKeeper {
    /// The only namespace whose Tasks it has; all when there is none.
    fn within(&self) -> Option<Namespace> {
        None
    }

    /// All Tasks and then every change, for ever. Level: changes may be merged, and everything may be said again.
    fn watch_tasks(&self) -> BoxStream<'static, Event<Task>>;

    /// All Nodes and then every change, for ever.
    fn watch_nodes(&self) -> BoxStream<'static, Event<(NodeName, NodeFacts)>>;
}
