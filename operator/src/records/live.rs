//! The interface to the controller: what it knows of Runs before that is archived.

use std::collections::BTreeSet;

use sentinel_core::reconcile::status::RollUp;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};

use crate::history::outcome::OutcomeName;
use crate::history::query::{ExecutionQuery, PageToken, RunQuery};
use crate::history::record::{AttemptRecord, ExecutionRecord, RunRecord};

/// Runs that are held in memory. No method blocks.
pub trait LiveRuns: Send + Sync + 'static {
    /// The Runs in scope, in no order.
    fn runs(&self, scope: &Scope) -> Vec<RunRecord>;

    /// The Executions in scope, in the order of pages: the first `limit` after `after`. Every target of a Run is one, also
    /// before anything was sent to its node. Fewer than `limit` means that there are no others.
    fn executions(&self, scope: &Scope, after: Option<&PageToken>, limit: usize) -> Vec<ExecutionStatus>;

    /// An Attempt, as far as the controller knows it from its agent.
    fn attempt(&self, id: &AttemptId) -> Option<AttemptRecord>;

    /// The targets of a Run as its Task's status shows them; `None` when that is not known here.
    fn roll_up(&self, task: &TaskUid, run: RunNumber, retries: Retries) -> Option<RollUp>;

    /// Whether a Run has finished; `None` when it is not held.
    fn progress(&self, task: &TaskUid, run: RunNumber) -> Option<RunProgress>;
}

/// Whether an Attempt that has ended may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    /// As the Task specifies.
    Allowed,
    /// The Run starts nothing more.
    Stopped,
}

/// Whether a Run that is held in memory has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunProgress {
    /// It is active.
    Active,
    /// It has finished.
    Finished,
}

/// Which Runs and Executions to read; all given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Only of Tasks in this namespace.
    pub namespace: Option<String>,
    /// Only of Tasks with this name.
    pub task: Option<String>,
    /// Only of the Task with this uid.
    pub task_uid: Option<TaskUid>,
    /// Only of the Run with this number.
    pub run: Option<RunNumber>,
    /// Only on this node.
    pub node: Option<NodeName>,
    /// Archived ones as well, or not.
    pub extent: Extent,
    /// Runs that start nothing more, by the status of their Tasks: their ended Attempts are not retried.
    pub stopping: BTreeSet<(TaskUid, RunNumber)>,
}

/// How much of what is held in memory to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What History may not hold yet.
    Unarchived,
    /// All of it: History is unavailable.
    All,
}

impl Scope {
    /// Every Run.
    pub fn everything() -> Self {
        Self {
            namespace: None,
            task: None,
            task_uid: None,
            run: None,
            node: None,
            extent: Extent::All,
            stopping: BTreeSet::new(),
        }
    }

    /// The scope of a query for Executions.
    pub fn of_executions(query: &ExecutionQuery, extent: Extent) -> Self {
        Self {
            namespace: query.namespace.clone(),
            task: query.task.clone(),
            task_uid: query.task_uid.clone(),
            run: query.run,
            node: query.node.clone(),
            extent,
            stopping: BTreeSet::new(),
        }
    }

    /// The scope of a query for Runs.
    pub fn of_runs(query: &RunQuery, extent: Extent) -> Self {
        Self {
            namespace: query.namespace.clone(),
            task: query.task.clone(),
            task_uid: query.task_uid.clone(),
            run: query.run,
            node: None,
            extent,
            stopping: BTreeSet::new(),
        }
    }

    /// Whether a Task is in scope.
    pub fn has_task(&self, namespace: &str, name: &str, uid: &TaskUid) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.task.as_deref().is_none_or(|wanted| wanted == name)
            && self.task_uid.as_ref().is_none_or(|wanted| wanted == uid)
    }

    /// Whether a Run of a Task in scope is in scope.
    pub fn has_run(&self, run: RunNumber) -> bool {
        self.run.is_none_or(|wanted| wanted == run)
    }

    /// Whether ended Attempts of a Run may be retried.
    pub fn retries(&self, task: &TaskUid, run: RunNumber) -> Retries {
        let is_stopping = !self.stopping.is_empty() && self.stopping.contains(&(task.clone(), run));
        if is_stopping { Retries::Stopped } else { Retries::Allowed }
    }

    /// Whether a node is in scope.
    pub fn has_node(&self, node: &NodeName) -> bool {
        self.node.as_ref().is_none_or(|wanted| wanted == node)
    }
}

/// A Run on one node, as it is known now.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionStatus {
    /// Its latest Attempt. Before the first one: number 0, and none of the fields that an agent reports.
    pub record: ExecutionRecord,
    /// Set while it waits for an Attempt that no agent has confirmed.
    pub waiting: Option<WaitingState>,
}

/// Why an Execution waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingState {
    /// `Pending`, `WaitingForNode` or `Dispatched`.
    pub state: &'static str,
    /// For people; empty where the state is enough.
    pub message: String,
    /// The Attempt that it waits for.
    pub waiting_for: WaitingFor,
}

/// Which Attempt an Execution waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingFor {
    /// The one that the record names; 0 is the first. No agent has confirmed it.
    Start,
    /// The one after the Attempt that the record names, which has ended.
    Retry,
}

impl ExecutionStatus {
    /// An Execution that does not wait.
    pub fn recorded(record: ExecutionRecord) -> Self {
        Self { record, waiting: None }
    }

    /// Its Outcome; `None` while it is active or waits.
    pub fn outcome(&self) -> Option<OutcomeName> {
        self.record.outcome.filter(|_| self.waiting.is_none())
    }
}
