//! All Tasks and Nodes as last heard, and a bell that rings at each change.
//!
//! Level, not edge: a reader that was slow sees the latest state and not every step to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use sentinel_core::targets::NodeFacts;
use sentinel_protocol::ids::{NodeName, TaskRef, TaskUid};
use tokio::sync::watch;

use crate::controller::Seen;
use crate::resource::Task;

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

    /// All Nodes.
    pub fn nodes(&self) -> BTreeMap<NodeName, NodeFacts> {
        (self.nodes)()
    }

    /// The bell, for one reader.
    pub(super) fn bell(&self) -> watch::Receiver<Seen> {
        self.bell.clone()
    }
}
