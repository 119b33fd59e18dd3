//! What callers ask of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Notice};
use sentinel_protocol::ids::{Namespace, NodeName, RunNumber, TaskRef};
use sentinel_protocol::requester::Requester;
use sentinel_secrets::values::SecretValue;

use super::error::ClusterError;
use super::watch::WatchHealth;
use crate::resource::slice::Frozen;
use crate::resource::stamp::Stamps;
use crate::resource::{Task, TaskStatus};

/// The result of a call, within about ten seconds.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClusterError>>;

/// A change of a Task that may be tried without storing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// As [`TaskStore::create`].
    Create,
    /// As [`TaskStore::apply`].
    Apply,
}

/// What people do with Tasks.
pub trait TaskStore: Send + Sync + 'static {
    /// The Task of that name; `None` when it does not exist.
    fn get(&self, task: TaskRef) -> Answer<'_, Option<Task>>;

    /// All Tasks of a namespace, or of all, in order of namespace and name.
    fn list(&self, namespace: Option<String>) -> Answer<'_, Vec<Task>>;

    /// Creates the Task. [`ClusterError::Exists`] when one of that name exists.
    fn create(&self, task: Task) -> Answer<'_, Task>;

    /// Creates the Task, or gives the one of that name this spec, and these labels and annotations beside its own.
    fn apply(&self, task: Task) -> Answer<'_, Task>;

    /// The Task as this change would leave it, after every check that the change has; nothing is stored.
    fn dry_run(&self, change: Change, task: Task) -> Answer<'_, Task>;

    /// Sets an annotation, or removes it.
    fn annotate(&self, task: TaskRef, key: &'static str, value: Option<String>) -> Answer<'_, Task>;

    /// The same, where changes are asked for by this person, as far as the store itself does not know who writes: what it
    /// stamps on a Task names them. `None` when that is unknown.
    fn asked_by(&self, who: Option<Requester>) -> Arc<dyn TaskStore>;

    /// Requests the Task's deletion; it stays until its finalizer is removed. [`ClusterError::Gone`] when it does not
    /// exist.
    fn delete(&self, task: TaskRef) -> Answer<'_, ()>;

    /// Where reads and watches may show changes that are not durable yet, waits for those of now; `None` when all are.
    /// What was read before leaves the process after it.
    fn unsettled(&self) -> Option<Answer<'static, ()>> {
        None
    }
}

/// Where Tasks are changed with the credentials of a caller.
pub trait StoresByCaller: Send + Sync + 'static {
    /// The Tasks, as the holder of this token sees and changes them.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] when no client can be made with it.
    fn with_token(&self, token: &str) -> Result<Arc<dyn TaskStore>, ClusterError>;
}

/// What the operator writes about a Task. Every write names the Task as it was read; when it has changed since, the
/// result is [`ClusterError::Conflict`] and nothing was written.
pub trait TaskKeeper: Send + Sync + 'static {
    /// Waits until the Task as it was read is durable, where reads and watches may show it before.
    fn settle<'a>(&'a self, seen: &'a Task) -> Answer<'a, ()> {
        let _ = seen;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Replaces the status; returns the Task as it is now.
    fn write_status<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task>;

    /// The same, and adds [`crate::resource::marks::FINALIZER`] where one write can do both, which an API server does not
    /// allow. The returned Task shows whether it has the finalizer now.
    fn write_status_and_hold<'a>(&'a self, seen: &'a Task, status: TaskStatus) -> Answer<'a, Task> {
        self.write_status(seen, status)
    }

    /// Adds or removes [`crate::resource::marks::FINALIZER`]; returns the Task as it is now.
    fn set_finalizer<'a>(&'a self, seen: &'a Task, finalizer: Finalizer) -> Answer<'a, Task>;

    /// Stores the target list of a Run, as far as it does not fit into the status, durably or at the latest with the status
    /// that names it. Returns what the status must record of it. Idempotent.
    fn persist_targets<'a>(
        &'a self,
        task: &'a Task,
        run: RunNumber,
        targets: &'a [NodeName],
    ) -> Answer<'a, Frozen>;

    /// The frozen target list of the Run that the Task's status records, in order; empty when it records none.
    fn load_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, Vec<NodeName>>;

    /// Deletes target lists of the Task that its status does not name.
    fn delete_old_targets<'a>(&'a self, task: &'a Task) -> Answer<'a, ()>;

    /// Publishes a cluster event about the Task. The same notice again adds to its series; a different one is an event
    /// of its own. Events are for people; one may be dropped.
    fn publish<'a>(&'a self, task: &'a Task, notice: &'a Notice) -> Answer<'a, Publication>;
}

/// What happened to a cluster event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// It was published.
    Published,
    /// It exceeded the rate limit; the next one of the Task counts how many are missing.
    LeftOut,
}

/// The keys of a Secret and their values.
pub type SecretKeys = BTreeMap<String, SecretValue>;

/// Where Tasks and Nodes live.
pub trait Cluster: TaskStore + TaskKeeper {
    /// The only namespace whose Tasks it has; `None` for all.
    fn within(&self) -> Option<Namespace> {
        None
    }

    /// All Tasks and then every change; it never ends. Level: changes may be merged, and all Tasks may be listed again.
    fn watch_tasks(&self) -> BoxStream<'static, Event<Task>>;

    /// All Nodes and then every change; it never ends.
    fn watch_nodes(&self) -> BoxStream<'static, Event<(NodeName, NodeFacts)>>;

    /// By which it is known who asked for its Tasks.
    fn stamps(&self) -> Stamps {
        Stamps::default()
    }

    /// Whether a Secret has keys of the operator itself: with them one could be the operator.
    fn is_own_secret(&self, _namespace: &str, _name: &str) -> bool {
        false
    }

    /// The keys of a Secret and their values; `None` when it does not exist. [`ClusterError::Refused`] where the operator may not read it.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Option<SecretKeys>>;

    /// The health of the watches, where they can fail.
    fn watches(&self) -> Vec<Arc<WatchHealth>> {
        Vec::new()
    }
}
