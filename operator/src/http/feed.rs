//! All Tasks and Nodes as last heard, and a bell that rings at each change.
//!
//! Level, not edge: a reader that was slow sees the latest state and not every step to it. What all readers compare
//! with is one [`Snapshot`], made once for each change; a reader keeps versions and no Tasks, so that a slow one holds
//! no old state.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_protocol::ids::{NodeName, TaskRef, TaskUid};
use tokio::sync::watch;

use super::error::ApiError;
use super::rendering::{self, Renderings};
use crate::controller::Seen;
use crate::records::Records;
use crate::resource::{Task, version};

/// How long a new reader waits for the cache to show what the cluster shows already.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);

/// Deleted Tasks that are remembered, so that readers hear how each stood last.
const GONE: usize = 64;

/// All Tasks and Nodes as last heard. Cloning it is cheap.
#[derive(Clone)]
pub struct Feed {
    tasks: Store<Task>,
    bell: watch::Receiver<Seen>,
    nodes: Arc<dyn Fn() -> BTreeMap<NodeName, NodeFacts> + Send + Sync>,
    latest: Arc<Mutex<(u64, Arc<Snapshot>)>>,
    records: Records,
    renderings: Renderings,
}

/// All Tasks at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// In order of namespace and name.
    pub(super) tasks: Vec<Arc<Task>>,
    by_uid: HashMap<String, usize>,
    /// The last of those that are gone, as they stood.
    gone: VecDeque<Arc<Task>>,
}

impl Snapshot {
    /// The Task with that uid.
    pub(super) fn by_uid(&self, uid: &str) -> Option<&Arc<Task>> {
        self.tasks.get(*self.by_uid.get(uid)?)
    }

    /// How a Task stood that is gone, if it is remembered.
    pub(super) fn gone(&self, uid: &str) -> Option<&Arc<Task>> {
        self.gone.iter().rev().find(|task| task.metadata.uid.as_deref() == Some(uid))
    }

    fn after(before: &Self, mut tasks: Vec<Arc<Task>>) -> Self {
        tasks.sort_by_cached_key(|task| (task.namespace(), task.name_any()));
        let uids = tasks.iter().enumerate();
        let by_uid: HashMap<String, usize> =
            uids.map(|(index, task)| (task.uid().unwrap_or_default(), index)).collect();
        let mut gone = before.gone.clone();
        let is_here =
            |task: &Arc<Task>| by_uid.contains_key(task.metadata.uid.as_deref().unwrap_or_default());
        gone.extend(before.tasks.iter().filter(|task| !is_here(task)).cloned());
        gone.drain(..gone.len().saturating_sub(GONE));
        Self { tasks, by_uid, gone }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// Reads this store; `bell` changes after every change of it; `records` knows how Runs stand; `nodes` gives all Nodes.
    pub fn new(
        tasks: Store<Task>,
        bell: watch::Receiver<Seen>,
        records: Records,
        nodes: impl Fn() -> BTreeMap<NodeName, NodeFacts> + Send + Sync + 'static,
    ) -> Self {
        let latest = Arc::new(Mutex::new((u64::MAX, Arc::default())));
        Self { tasks, bell, nodes: Arc::new(nodes), latest, records, renderings: Renderings::default() }
    }

    /// One Task.
    pub fn task(&self, task: &TaskRef) -> Option<Arc<Task>> {
        self.tasks.get(&ObjectRef::new(&task.name).within(&task.namespace))
    }

    /// All Tasks, as they are after the latest change or a later one.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let changes = self.bell.borrow().changes;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0 != changes {
            *latest = (changes, Arc::new(Snapshot::after(&latest.1, self.tasks.state())));
        }
        Arc::clone(&latest.1)
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
        let snapshot = self.snapshot();
        let in_scope = |task: &&Arc<Task>| {
            namespace.is_none_or(|namespace| task.metadata.namespace.as_deref() == Some(namespace))
        };
        let known: Vec<&Arc<Task>> = snapshot.tasks.iter().filter(in_scope).collect();
        // One that is not listed was made later, or is gone and waits to be forgotten here.
        let is_late = |task: &&Arc<Task>| match listed.get(&task.uid()) {
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

    /// A Task as JSON, with what is known of its Run and not yet written. What is written is shared by all who read this
    /// version of it.
    pub(super) fn shown(&self, task: &Task) -> Result<Bytes, ApiError> {
        match self.records.current(task) {
            Some(current) => rendering::render(&current).map(Bytes::from),
            None => self.renderings.of(task),
        }
    }

    /// The bell, for one reader.
    pub(super) fn bell(&self) -> watch::Receiver<Seen> {
        self.bell.clone()
    }
}
