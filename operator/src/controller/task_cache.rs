//! What the controller keeps of a Task between reconciles. In memory only: losing it costs one reconcile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef, TaskUid};

use crate::resource::invalid::Invalid;
use crate::resource::{Task, validate, version};

/// A Task's plan, or what is wrong with its spec.
type Validated = Result<Arc<TaskPlan>, Arc<Vec<Invalid>>>;

/// What is kept of one Task; locked by the one reconcile of it that is in flight.
#[derive(Debug, Default)]
pub(super) struct TaskCache {
    /// The Task as last written: newer than the watch's cache until the watch has caught up.
    written: Option<Arc<Task>>,
    /// When its status was last written.
    pub(super) status_at: Option<Monotonic>,
    /// The Run that this operator began itself.
    pub(super) begun: Option<RunNumber>,
    /// The frozen target list of a Run.
    pub(super) targets: Option<(RunNumber, Arc<Vec<NodeName>>)>,
    /// The highest Run number that History or an agent showed at the first reconcile.
    pub(super) highest_run: Option<RunNumber>,
    /// The result of validating a generation.
    plan: Option<(i64, Validated)>,
    /// Annotations already logged as unreadable.
    pub(super) logged: Vec<Invalid>,
    /// The generation whose rejection was recorded.
    pub(super) rejected: Option<i64>,
    /// Whether it was recorded that the Task is deleted.
    pub(super) deletion_recorded: bool,
    /// Failed reconciles in a row.
    pub(super) failures: u32,
}

impl TaskCache {
    /// The newer of the Task in the watch's cache and the Task as last written.
    pub(super) fn latest(&mut self, cached: &Arc<Task>) -> Arc<Task> {
        match &self.written {
            Some(written)
                if written.metadata.uid == cached.metadata.uid && version(written) > version(cached) =>
            {
                written.clone()
            }
            _ => {
                self.written = None;
                cached.clone()
            }
        }
    }

    /// Notes the Task as the cluster returned it after a write.
    pub(super) fn note_written(&mut self, task: Arc<Task>) {
        self.written = Some(task);
    }

    /// The Task's plan, made once for each generation.
    pub(super) fn plan(&mut self, task: &Task) -> Validated {
        let generation = task.metadata.generation.unwrap_or_default();
        if let Some((of, plan)) = &self.plan
            && *of == generation
        {
            return plan.clone();
        }
        let plan = validate::validate(task).map(Arc::new).map_err(Arc::new);
        self.plan = Some((generation, plan.clone()));
        plan
    }

    /// The plan of the last generation that could be run.
    pub(super) fn last_plan(&self) -> Option<Arc<TaskPlan>> {
        self.plan.as_ref().and_then(|(_, plan)| plan.clone().ok())
    }

    /// Whether this operator began the Run, or took it over.
    pub(super) fn origin(&self, run: RunNumber) -> Origin {
        if self.begun == Some(run) { Origin::Begun } else { Origin::Inherited }
    }
}

/// The caches of all Tasks.
#[derive(Debug, Default)]
pub(super) struct TaskCaches(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    caches: HashMap<TaskUid, Arc<tokio::sync::Mutex<TaskCache>>>,
    /// The Task that was last reconciled under a name.
    named: HashMap<TaskRef, TaskUid>,
}

impl TaskCaches {
    /// The cache of a Task, made when it does not exist.
    pub(super) fn of(&self, task: &TaskUid) -> Arc<tokio::sync::Mutex<TaskCache>> {
        self.lock().caches.entry(task.clone()).or_default().clone()
    }

    /// Notes that this Task has the name now. Whether another had it before: that one is deleted, and no reconcile may
    /// ever see it missing, since one made again at once is in the cache by then.
    pub(super) fn replaces(&self, name: &TaskRef, task: &TaskUid) -> bool {
        let mut known = self.lock();
        match known.named.get_mut(name) {
            Some(named) if named == task => false,
            Some(named) => {
                named.clone_from(task);
                true
            }
            None => {
                known.named.insert(name.clone(), task.clone());
                false
            }
        }
    }

    /// Drops what is kept of Tasks that do not exist any more.
    pub(super) fn retain(&self, exists: impl Fn(&TaskUid) -> bool) {
        let mut known = self.lock();
        known.caches.retain(|uid, _| exists(uid));
        known.named.retain(|_, uid| exists(uid));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
