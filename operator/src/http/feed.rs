//! All Tasks and Nodes as last heard, and a bell that rings at each change.
//!
//! Level, not edge: a reader that was slow sees the latest state and not every step to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use sentinel_core::targets::NodeFacts;
use sentinel_protocol::ids::{NodeName, TaskRef, TaskUid};
use tokio::sync::watch;

use crate::controller::Seen;
use crate::resource::{Task, version};

/// How long a new reader waits for the cache to show what the cluster shows already.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);

/// All Tasks and Nodes as last heard. Cloning it is cheap.
#[derive(Clone)]
pub struct Feed {
    tasks: Store<Task>,
    bell: watch::Receiver<Seen>,
    nodes: Arc<dyn Fn() -> BTreeMap<NodeName, NodeFacts> + Send + Sync>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// Reads this store; `bell` changes after every change of it; `nodes` gives all Nodes.
    pub fn new(
        tasks: Store<Task>,
        bell: watch::Receiver<Seen>,
        nodes: impl Fn() -> BTreeMap<NodeName, NodeFacts> + Send + Sync + 'static,
    ) -> Self {
        Self { tasks, bell, nodes: Arc::new(nodes) }
    }

    /// One Task.
    pub fn task(&self, task: &TaskRef) -> Option<Arc<Task>> {
        self.tasks.get(&ObjectRef::new(&task.name).within(&task.namespace))
    }

    /// All Tasks, of all namespaces or one, in order of namespace and name.
    pub fn tasks(&self, namespace: Option<&str>) -> Vec<Arc<Task>> {
        let mut tasks = self.tasks.state();
        tasks.retain(|task| namespace.is_none_or(|namespace| task.namespace().as_deref() == Some(namespace)));
        tasks.sort_by_cached_key(|task| (task.namespace(), task.name_any()));
        tasks
    }

    /// The Task with that uid.
    pub fn by_uid(&self, uid: &TaskUid) -> Option<Arc<Task>> {
        self.tasks.find(|task| task.uid().as_deref() == Some(uid.as_str()))
    }

    /// Waits until this feed shows the Tasks at least as late as `listed`, which was read from the cluster; for a while.
    pub(super) async fn catch_up(&self, listed: &[Task], namespace: Option<&str>) {
        let mut bell = self.bell();
        let caught_up = async {
            loop {
                bell.borrow_and_update();
                if self.shows(listed, namespace) || bell.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CATCH_UP_WITHIN, caught_up).await.is_err() {
            tracing::debug!(within = ?CATCH_UP_WITHIN, "the cache of Tasks lags behind the cluster");
        }
    }

    fn shows(&self, listed: &[Task], namespace: Option<&str>) -> bool {
        let latest = listed.iter().map(version).max().unwrap_or(0);
        let listed: BTreeMap<Option<String>, u64> =
            listed.iter().map(|task| (task.uid(), version(task))).collect();
        let known = self.tasks(namespace);
        // One that is not listed was made later, or is gone and waits to be forgotten here.
        let is_late = |task: &Arc<Task>| match listed.get(&task.uid()) {
            Some(version_listed) => version(task) >= *version_listed,
            None => version(task) > latest,
        };
        let there = known.iter().filter(|task| listed.contains_key(&task.uid())).count();
        there == listed.len() && known.iter().all(is_late)
    }

    /// All Nodes.
    pub fn nodes(&self) -> BTreeMap<NodeName, NodeFacts> {
        (self.nodes)()
    }

    /// The bell, for one reader.
    pub(super) fn bell(&self) -> watch::Receiver<Seen> {
        self.bell.clone()
    }
}
