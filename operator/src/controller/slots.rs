//! What the controller remembers of a Task from one look to the next. Memory only: losing it costs a look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{NodeName, RunNumber, TaskUid};

use crate::resource::invalid::Invalid;
use crate::resource::{Task, validate, version};

/// A Task's plan, or what is wrong with it.
type Validated = Result<Arc<TaskPlan>, Arc<Vec<Invalid>>>;

/// The memory of one Task; held by the one look that is under way at it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The Task as we last wrote it: later than the cache until the watch has caught up.
    written: Option<Task>,
    /// When its status was last written.
    pub(super) status_at: Option<Monotonic>,
    /// The Run that this operator began itself.
    pub(super) begun: Option<RunNumber>,
    /// The frozen target list of a Run.
    pub(super) targets: Option<(RunNumber, Arc<Vec<NodeName>>)>,
    /// The highest Run number that History or an agent showed when the Task was first looked at.
    pub(super) highest_run: Option<RunNumber>,
    /// What came of validating a generation.
    plan: Option<(i64, Validated)>,
    /// Annotations that were said to be unreadable.
    pub(super) said: Vec<Invalid>,
    /// Looks that failed in a row.
    pub(super) failures: u32,
}

impl Slot {
    /// The later of the Task in the cache and the Task as we wrote it.
    pub(super) fn latest(&mut self, cached: &Task) -> Task {
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

    /// We have written the Task; the cluster says that it is this now.
    pub(super) fn wrote(&mut self, task: &Task) {
        self.written = Some(task.clone());
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

    /// Whether this operator began the Run, or took it over.
    pub(super) fn origin(&self, run: RunNumber) -> Origin {
        if self.begun == Some(run) { Origin::Begun } else { Origin::Inherited }
    }
}

/// The memories of all Tasks.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<TaskUid, Arc<tokio::sync::Mutex<Slot>>>>);

impl Slots {
    /// The memory of a Task, a new one if there is none.
    pub(super) fn of(&self, task: &TaskUid) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(task.clone()).or_default().clone()
    }

    /// Forgets the Tasks that are gone.
    pub(super) fn keep(&self, exists: impl Fn(&TaskUid) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| exists(uid));
    }
}
