//! All Tasks and Nodes as last observed, with notices of changes.
//!
//! Level, not edge: a slow reader gets the latest state and not every step to it. All readers compare with one
//! [`Snapshot`], brought up to date once for each change. A reader keeps versions and no Tasks, so that a slow one holds no
//! old state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_protocol::ids::{NodeName, TaskRef, TaskUid};
use tokio::sync::watch;

use super::error::ApiError;
use super::rendering::Renderings;
use super::snapshot::{Snapshot, Snapshots};
use crate::controller::CacheProgress;
use crate::records::Records;
use crate::resource::{Task, version};

/// How long a new reader waits until the cache is as recent as the cluster.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// All Tasks and Nodes as last observed. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    tasks: Store<Task>,
    snapshots: Snapshots,
    nodes: Arc<dyn Fn() -> BTreeMap<NodeName, NodeFacts> + Send + Sync>,
    records: Records,
    renderings: Renderings,
}

/// The versions in a list. Readers wait with it, and a thousand lists of large Tasks would be large.
struct Listed {
    versions: BTreeMap<Option<String>, u64>,
    latest: u64,
}

impl Listed {
    fn of(tasks: Vec<Task>) -> Self {
        let versions: BTreeMap<_, _> = tasks.into_iter().map(|task| (task.uid(), version(&task))).collect();
        let latest = versions.values().copied().max().unwrap_or(0);
        Self { versions, latest }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// Reads this store; `changes` is notified after every change of it; `records` has the progress of Runs; `nodes` returns
    /// all Nodes.
    pub fn new(
        tasks: Store<Task>,
        changes: watch::Receiver<CacheProgress>,
        records: Records,
        nodes: impl Fn() -> BTreeMap<NodeName, NodeFacts> + Send + Sync + 'static,
    ) -> Self {
        let snapshots = Snapshots::new(tasks.clone(), changes);
        Self { tasks, snapshots, nodes: Arc::new(nodes), records, renderings: Renderings::default() }
    }

    /// One Task.
    pub fn task(&self, task: &TaskRef) -> Option<Arc<Task>> {
        self.tasks.get(&ObjectRef::new(&task.name).within(&task.namespace))
    }

    /// All Tasks, at least as recent as the latest notice.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.latest()
    }

    /// The Task with that uid.
    pub fn by_uid(&self, uid: &TaskUid) -> Option<Arc<Task>> {
        self.tasks.find(|task| task.uid().as_deref() == Some(uid.as_str()))
    }

    /// Waits for a while until this feed is at least as recent as `listed`, which was read from the cluster.
    pub(super) async fn catch_up(&self, listed: Vec<Task>, namespace: Option<&str>) {
        let listed = Listed::of(listed);
        let mut changes = self.changes();
        let caught_up = async {
            loop {
                changes.borrow_and_update();
                if self.is_recent(&listed, namespace) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await.is_err() {
            tracing::debug!(within = ?CATCH_UP_TIMEOUT, "the cache of Tasks lags behind the cluster");
        }
    }

    fn is_recent(&self, listed: &Listed, namespace: Option<&str>) -> bool {
        let Listed { versions: listed, latest } = listed;
        let snapshot = self.snapshot();
        let in_scope = |task: &&Arc<Task>| {
            namespace.is_none_or(|namespace| task.metadata.namespace.as_deref() == Some(namespace))
        };
        let known: Vec<&Arc<Task>> = snapshot.tasks.iter().filter(in_scope).collect();
        // One that is not listed was created later, or was deleted and is still cached.
        let is_current = |task: &&Arc<Task>| match listed.get(&task.uid()) {
            Some(version_listed) => version(task) >= *version_listed,
            None => version(task) > *latest,
        };
        let listed_here = known.iter().filter(|task| listed.contains_key(&task.uid())).count();
        listed_here == listed.len() && known.iter().all(is_current)
    }

    /// All Nodes.
    pub fn nodes(&self) -> BTreeMap<NodeName, NodeFacts> {
        (self.nodes)()
    }

    /// A Task as JSON, with the progress of its Run that is not in its status yet. Readers of the same version share its
    /// bytes.
    pub(super) fn json(&self, task: &Task) -> Result<Bytes, ApiError> {
        match self.records.current(task) {
            Some(current) => self.renderings.ahead(&current),
            None => self.renderings.of(task),
        }
    }

    /// Notices of changes, for one reader.
    pub(super) fn changes(&self) -> watch::Receiver<CacheProgress> {
        self.snapshots.changes()
    }
}
