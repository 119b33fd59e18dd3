//! The Runs of one Task that this operator tracks: the current one, and superseded ones that are not settled yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_core::reconcile::Earlier;
use sentinel_core::reconcile::ledger::{Origin, RunLedger};
use sentinel_core::reconcile::retry::Retry;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{RunState, RunSummary, Trigger};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::request::RunRequest;
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::signed::Signed;
use sentinel_protocol::time::UnixMillis;

use crate::history::Ran;
use crate::traces::RunTrace;

/// What never changes about a Run, for dispatch and for its records in History.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// Namespace and name of its Task.
    pub task: TaskRef,
    /// The uid of its Task.
    pub uid: TaskUid,
    /// Its number.
    pub run: RunNumber,
    /// Digest of the spec it carries out.
    pub spec_hash: SpecHash,
    /// What the annotation that asks for a rerun held when it began.
    pub rerun: Option<String>,
    /// When it began, by the operator's wall clock.
    pub started_at: UnixMillis,
    /// Its command, for people.
    pub command: String,
    /// Why it began.
    pub trigger: Trigger,
    /// After which Outcomes an Execution of it is retried.
    pub retry: Retry,
    /// Who asked for it; `None` when that is unknown.
    pub requested_by: Option<RequestedBy>,
    /// Who approved it, if that was needed.
    pub approved_by: Option<Requester>,
    /// What it runs. `None` while the spec is another one, or invalid, since before this operator took the Run over: then nothing of it
    /// can be started.
    pub request: Option<RunRequest>,
    /// What the author of its Task has signed: for the nodes, nothing here decides by it.
    pub signed: Option<Signed>,
    /// The trace that it is part of.
    pub trace: RunTrace,
}

impl RunFacts {
    /// Who is behind the Run, as a `Start` has it. Of creator and approver without their groups: no rule of a node decides by them,
    /// and a message has a limit.
    pub(super) fn requested_by_for_nodes(&self) -> Option<RequestedBy> {
        let by = self.requested_by.clone()?;
        let named = |who: &Requester| Requester { groups: Vec::new(), ..who.clone() };
        let (creator, approver) = (by.creator.as_ref().map(named), self.approved_by.as_ref().map(named));
        Some(RequestedBy { creator, approver, ..by })
    }
}

/// The tracked Runs of one Task. Its lock is held briefly, and never across an await.
#[derive(Debug)]
pub struct TaskRuns {
    task: TaskRef,
    runs: Mutex<Runs>,
}

/// What a [`TaskRuns`] guards.
#[derive(Debug, Default)]
pub struct Runs {
    /// The Run that the Task's status records.
    pub current: Option<TrackedRun>,
    /// Earlier Runs that are not settled yet: not all archived, or not all forgotten.
    pub superseded: Vec<TrackedRun>,
    /// What the Task's status records of earlier Runs.
    pub(super) recent: Vec<RunSummary>,
    /// Whether a ceiling holds the Run that is due.
    pub(super) held_by_ceiling: bool,
    /// The approval whose refusal was recorded last: when it was given, and why it does not count.
    pub(super) refused: Option<(UnixMillis, String)>,
    /// What History was asked about an earlier Task of this name.
    pub(super) asked: Option<Asked>,
}

/// What History was asked, and its answer: [`Earlier::Unknown`] until it has one.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) question: Ran,
    pub(super) answer: Earlier,
}

/// The state of one Run.
#[derive(Debug, Clone)]
pub struct TrackedRun {
    /// Its Executions.
    pub ledger: RunLedger,
    /// What never changes about it.
    pub facts: Arc<RunFacts>,
    /// Its frozen target list, in order.
    pub targets: Arc<Vec<NodeName>>,
    /// Whether History has answered what it holds of this Run.
    pub lookup: HistoryLookup,
    /// Whether the last reconcile found nothing left to do for it.
    pub settled: bool,
    /// What the archiver was given, and when.
    pub handed: Handed,
    /// Who cancelled it; `None` if it was not cancelled, or when that is unknown.
    pub cancelled_by: Option<Requester>,
    /// Ends that are to be reported at least until no target is outstanding.
    ends_left: usize,
}

/// What the archiver was given, and when; the same is handed over again only after a while.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// Attempts that the operator concluded.
    pub conclusions: HashMap<AttemptId, Monotonic>,
    /// The record of the Run.
    pub run: Option<(RunState, Monotonic)>,
}

impl TaskRuns {
    /// No Runs yet.
    pub fn new(task: TaskRef) -> Self {
        Self { task, runs: Mutex::default() }
    }

    /// Namespace and name of the Task.
    pub fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Locks its Runs.
    pub fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    /// All Runs, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &TrackedRun> {
        self.current.iter().chain(&self.superseded)
    }

    /// The same, mutable.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut TrackedRun> {
        self.current.iter_mut().chain(&mut self.superseded)
    }

    /// The Run of this number.
    pub fn get(&self, run: RunNumber) -> Option<&TrackedRun> {
        self.all().find(|tracked| tracked.facts.run == run)
    }

    /// The same, mutable.
    pub fn get_mut(&mut self, run: RunNumber) -> Option<&mut TrackedRun> {
        self.all_mut().find(|tracked| tracked.facts.run == run)
    }

    /// The Run of this number, or the current one for `None`.
    pub fn get_or_current(&mut self, run: Option<RunNumber>) -> Option<&mut TrackedRun> {
        match run {
            Some(run) => self.get_mut(run),
            None => self.current.as_mut(),
        }
    }
}

impl TrackedRun {
    /// A Run without any Attempt yet.
    pub fn new(facts: RunFacts, targets: Arc<Vec<NodeName>>, origin: Origin, lookup: HistoryLookup) -> Self {
        let ledger = RunLedger::new(facts.uid.clone(), facts.run, facts.spec_hash.clone(), origin);
        let (facts, handed, ends_left) = (Arc::new(facts), Handed::default(), targets.len());
        Self { ledger, facts, targets, lookup, settled: false, handed, cancelled_by: None, ends_left }
    }

    /// An agent reports another end; whether no target is outstanding any more. The targets are visited only once there
    /// are as many ends.
    pub(super) fn note_end(&mut self) -> bool {
        self.ends_left = self.ends_left.saturating_sub(1);
        self.ends_left == 0 && self.ledger.executions().all(|(_, execution)| execution.is_over())
    }

    /// Whether the node is in its frozen target list.
    pub(super) fn is_target(&self, node: &NodeName) -> bool {
        self.targets.binary_search(node).is_ok()
    }

    /// Whether the Run may wait for this node.
    pub(super) fn concerns(&self, node: &NodeName) -> bool {
        !self.settled && self.is_target(node)
    }

    /// Whether the Run has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.ledger.record().is_some_and(|record| record.finished_at.is_some())
    }
}
