//! The seam to the part that carries Runs out: what is known of them before it is archived.

use std::collections::BTreeSet;

use sentinel_core::reconcile::status::RollUp;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};

use crate::history::{AttemptRecord, ExecutionQuery, ExecutionRecord, PageToken, RunQuery, RunRecord};

/// Runs that are held in memory. Nothing here waits.
pub trait LiveRuns: Send + Sync + 'static {
    /// The Runs in scope, in no order.
    fn runs(&self, scope: &Scope) -> Vec<RunRecord>;

    /// The Executions in scope, in the order of pages: the first `most` behind `after`. Every target of a Run is one,
    /// also before anything was sent to its node. Fewer than `most` means that there are no others.
    fn executions(&self, scope: &Scope, after: Option<&PageToken>, most: usize) -> Vec<Execution>;

    /// An Attempt, as far as it is known first hand.
    fn attempt(&self, id: &AttemptId) -> Option<AttemptRecord>;

    /// How the targets of a Run stand, in the words of its Task's status; `None` when that is not known here.
    fn roll_up(&self, task: &TaskUid, run: RunNumber, tried_again: TriedAgain) -> Option<RollUp>;

    /// How far a Run is known here; `None` when it is not held.
    fn progress(&self, task: &TaskUid, run: RunNumber) -> Option<Progress>;
}

/// Whether what has ended may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriedAgain {
    /// As the Task says.
    Yes,
    /// The Run starts nothing more.
    No,
}

/// Whether a Run that is held in memory is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    UnderWay,
    /// It is over.
    Finished,
}

/// Which Runs and Executions are asked for; all given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Only of Tasks in this namespace.
    pub namespace: Option<String>,
    /// Only of Tasks with this name.
    pub task: Option<String>,
    /// Only of this very Task.
    pub task_uid: Option<TaskUid>,
    /// Only of the Run with this number.
    pub run: Option<RunNumber>,
    /// Only on this node.
    pub node: Option<NodeName>,
    /// Of these, which.
    pub extent: Extent,
    /// Runs that start nothing more, by the status of their Tasks: what has ended in them is not tried again.
    pub stopping: BTreeSet<(TaskUid, RunNumber)>,
}

/// How much of what is held in memory is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What History may not hold yet.
    Unarchived,
    /// All of it: History does not answer.
    All,
}

impl Scope {
    /// Every Run there is.
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

    /// The scope of a question about Executions.
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

    /// The scope of a question about Runs.
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

    /// Whether a Run of a Task in scope is.
    pub fn has_run(&self, run: RunNumber) -> bool {
        self.run.is_none_or(|wanted| wanted == run)
    }

    /// Whether what has ended in a Run may be tried again.
    pub fn tried_again(&self, task: &TaskUid, run: RunNumber) -> TriedAgain {
        let stops = !self.stopping.is_empty() && self.stopping.contains(&(task.clone(), run));
        if stops { TriedAgain::No } else { TriedAgain::Yes }
    }

    /// Whether a node is.
    pub fn has_node(&self, node: &NodeName) -> bool {
        self.node.as_ref().is_none_or(|wanted| wanted == node)
    }
}

/// A Run on one node, as it is known now.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// Its latest Attempt. Of one that waits for its first: number 0, and nothing else that an agent would know.
    pub record: ExecutionRecord,
    /// Why the record is not all there is to say: it waits.
    pub waiting: Option<Waiting>,
}

/// An Execution of which no agent has confirmed an Attempt that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `Pending`, `WaitingForNode` or `Dispatched`.
    pub state: &'static str,
    /// A sentence where the word does not say it all.
    pub message: String,
    /// For what.
    pub what: Awaited,
}

/// What an Execution waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The Attempt that the record names; 0 is the first. No agent has confirmed it.
    Start,
    /// The Attempt after the one that the record names, which is over.
    Retry,
}

impl Execution {
    /// An Execution of which the record says all.
    pub fn recorded(record: ExecutionRecord) -> Self {
        Self { record, waiting: None }
    }

    /// The name of its Outcome; `None` while it goes on or waits.
    pub fn outcome(&self) -> Option<&str> {
        self.record.outcome.as_deref().filter(|_| self.waiting.is_none())
    }
}
