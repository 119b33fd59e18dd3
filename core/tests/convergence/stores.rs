//! What is durable outside the nodes: the Task in the cluster, and History.

use std::collections::{BTreeMap, BTreeSet};

use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::ledger::{RunStage, Source};
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::status::Recorded;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::trigger::Requests;
use sentinel_core::reconcile::{Finalizer, Lifecycle, Status};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::ReportedState;

use super::kstatus::{Kstatus, Shown};
use super::mutation::Mutation;
use super::simulation::Violation;

/// The cluster: one Task, and Nodes.
pub struct Cluster {
    pub plan: TaskPlan,
    pub requests: Requests,
    pub lifecycle: Lifecycle,
    pub finalizer: Finalizer,
    pub recorded: Recorded,
    pub targets: Vec<NodeName>,
    pub version: u64,
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    pub gone: bool,
    pub up: bool,
    /// Every Run that ever became durable, with its targets.
    pub runs: BTreeMap<RunNumber, Vec<NodeName>>,
    /// Runs that ended with a target given up: evidence that comes later changes its record, and nothing is tried again.
    pub gave_up: BTreeSet<RunNumber>,
    /// A backup of etcd, and whether it was ever restored.
    pub backup: Option<Copy>,
    pub restored: bool,
    /// What each Run was begun for.
    pub begun_for: BTreeMap<RunNumber, Asked>,
    /// A Run that History did not have to its end when a Task was released whose spec may run only once.
    pub released_without: Option<RunNumber>,
    /// Runs that History did not have to their end when the Task was deleted without a finalizer.
    pub deleted_without: BTreeSet<RunNumber>,
    /// The Run that the last written status claims to be complete.
    pub claims_complete: Option<RunNumber>,
}

/// What a person asked for last: what to run, and the latest requests to run it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    spec: String,
    token: String,
    rerun: Option<String>,
}

/// The Task as read at one time.
#[derive(Clone)]
pub struct Copy {
    pub plan: TaskPlan,
    pub requests: Requests,
    pub lifecycle: Lifecycle,
    pub finalizer: Finalizer,
    pub recorded: Recorded,
    pub targets: Vec<NodeName>,
    pub version: u64,
}

impl Cluster {
    pub fn copy(&self) -> Copy {
        Copy {
            plan: self.plan.clone(),
            requests: self.requests.clone(),
            lifecycle: self.lifecycle,
            finalizer: self.finalizer,
            recorded: self.recorded.clone(),
            targets: self.targets.clone(),
            version: self.version,
        }
    }

    /// The cluster's state is put back to the backup.
    pub fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.clone() else { return false };
        self.plan = backup.plan;
        self.requests = backup.requests;
        self.lifecycle = backup.lifecycle;
        self.finalizer = backup.finalizer;
        self.recorded = backup.recorded;
        self.targets = backup.targets;
        self.version += 1;
        self.gone = false;
        self.restored = true;
        true
    }

    /// A person deletes the Task; without a finalizer it is gone at once.
    pub fn delete(&mut self, history: &History) {
        self.lifecycle = Lifecycle::Deleting;
        self.version += 1;
        if self.finalizer == Finalizer::Absent {
            self.gone = true;
            let lacks = |run: &&RunNumber| !history.has_end(**run);
            self.deleted_without = self.runs.keys().filter(lacks).copied().collect();
        }
    }

    /// Compare and swap. False: another write was faster, or the API server is unavailable.
    pub fn write_status(
        &mut self,
        copy: &mut Copy,
        status: &Status,
        freeze: Option<&Vec<NodeName>>,
        mutation: Option<Mutation>,
    ) -> Result<bool, Violation> {
        let stale = copy.version != self.version && mutation != Some(Mutation::StatusWithoutCompare);
        if !self.up || self.gone || stale {
            return Ok(false);
        }
        if let Some(targets) = freeze {
            let run = status.recorded.run.as_ref().unwrap().number;
            // A number may come twice only after a restored backup, when no party that remembers it was reachable.
            if let Some(before) = self.runs.insert(run, targets.clone())
                && !self.restored
            {
                return Err(Violation::new(
                    "O8",
                    format!("run {run} began twice ({} targets)", before.len()),
                ));
            }
            self.targets.clone_from(targets);
            copy.targets.clone_from(targets);
        }
        if let Some(run) =
            status.recorded.run.as_ref().filter(|run| run.finished_at.is_some() && run.counts.unreachable > 0)
        {
            self.gave_up.insert(run.number);
        }
        self.judge(status, freeze.is_some())?;
        self.recorded = Recorded { archived: status.archived(), ..status.recorded.clone() };
        self.version += 1;
        copy.recorded = self.recorded.clone();
        copy.version = self.version;
        Ok(true)
    }
}

impl Cluster {
    fn asked(&self) -> Asked {
        Asked {
            spec: self.plan.spec_hash.to_string(),
            token: self.plan.rerun_token.clone(),
            rerun: self.requests.rerun.clone(),
        }
    }

    /// O11: a status claims no end but that of a Run that carries out what is asked for now; every reader of it
    /// concludes the same; and its counts add up.
    fn judge(&mut self, status: &Status, begins: bool) -> Result<(), Violation> {
        let wrong = |what: String| Err(Violation::new("O11", format!("{what}: {status:?}")));
        let deleting = self.lifecycle == Lifecycle::Deleting;
        let shown = Shown {
            conditions: status.conditions.iter().map(|c| (c.kind, c.status.as_str())).collect(),
            generation: 1,
            observed_generation: 1,
            deleting,
        };
        if begins && let Some(run) = &status.recorded.run {
            self.begun_for.insert(run.number, self.asked());
        }
        let claim = match shown.claim() {
            Ok(claim) => claim,
            Err(what) => return wrong(what),
        };
        self.claims_complete = None;
        let Some(run) = &status.recorded.run else {
            return if claim.is_some() { wrong("claims an end without a Run".into()) } else { Ok(()) };
        };
        let c = run.counts;
        if c.waiting + c.running + c.succeeded + c.failed + c.unreachable != run.targets {
            return wrong("the counts do not add up to the targets".into());
        }
        let Some(success) = claim else { return Ok(()) };
        let current = [Kstatus::Current, Kstatus::Terminating].contains(&shown.kstatus());
        if run.finished_at.is_none() || success != (run.counts.succeeded == run.targets && run.targets > 0) {
            return wrong(format!("claims {success}"));
        }
        if (success && !current) || (!success && shown.kstatus() == Kstatus::Current) {
            return wrong(format!("kstatus reads {:?}", shown.kstatus()));
        }
        // A restored cluster may have begun the same number for something else.
        if !self.restored && self.begun_for.get(&run.number) != Some(&self.asked()) {
            return wrong("claims an end for what no Run has carried out".into());
        }
        self.claims_complete = Some(run.number).filter(|_| success);
        Ok(())
    }
}

/// History: what is archived stays archived.
#[derive(Default)]
pub struct History {
    pub up: bool,
    pub attempts: BTreeMap<AttemptId, (ReportedState, Source)>,
    pub runs: BTreeMap<RunNumber, RunState>,
    /// A backup of the cluster was put back: a Run that had ended without a start may be carried out after all.
    pub restored: bool,
    /// The epoch of the leader, and conclusions that came late from one who was deposed: what it had not received, the
    /// new leader may have started meanwhile, and its evidence corrects them.
    pub leader: Epoch,
    pub late: BTreeSet<AttemptId>,
}

impl History {
    pub fn store(
        &mut self,
        id: &AttemptId,
        state: &ReportedState,
        source: Source,
        epoch: Epoch,
        mutation: Option<Mutation>,
    ) -> Result<(), Violation> {
        if source == Source::Operator && epoch < self.leader {
            self.late.insert(id.clone());
        }
        let Some((known, by)) = self.attempts.get(id) else {
            self.attempts.insert(id.clone(), (state.clone(), source));
            return Ok(());
        };
        let newer = rank(state, source) > rank(known, *by);
        let evidence = matches!((known, by), (ReportedState::Ended(_), Source::Agent));
        let differs = matches!(state, ReportedState::Ended(_)) && source == Source::Agent && state != known;
        if evidence && differs {
            return Err(Violation::new("O3", format!("the outcome of {id} changed: {known:?} to {state:?}")));
        }
        if newer || mutation == Some(Mutation::HistoryGoesBack) {
            if let ReportedState::Ended(before) = known
                && !may_correct(&before.outcome, state, self.restored || self.late.contains(id))
            {
                return Err(Violation::new("O3", format!("{known:?} of {id} was changed to {state:?}")));
            }
            self.attempts.insert(id.clone(), (state.clone(), source));
        }
        Ok(())
    }

    /// The Executions of a Run by their latest Attempts.
    pub fn executions(&self, run: RunNumber) -> impl Iterator<Item = (&AttemptId, &(ReportedState, Source))> {
        let latest = move |(id, _): &(&AttemptId, &(ReportedState, Source))| {
            let later = |other: &&AttemptId| {
                (&other.run, &other.node) == (&id.run, &id.node) && other.attempt > id.attempt
            };
            id.run == run && !self.attempts.keys().any(|other| later(&other))
        };
        self.attempts.iter().filter(latest)
    }

    /// Whether it has the end of the Run.
    pub fn has_end(&self, run: RunNumber) -> bool {
        self.runs.get(&run).is_some_and(|record| RunStage::of(record) == RunStage::Finished)
    }

    pub fn store_run(&mut self, record: &RunState) {
        let stage = RunStage::of(record);
        if self.runs.get(&record.number).is_none_or(|known| RunStage::of(known) <= stage) {
            self.runs.insert(record.number, record.clone());
        }
    }
}

/// A conclusion of `Lost` gives way to evidence; one that nothing was started gives way to the agent's report that it was
/// cancelled before its start.
fn may_correct(before: &Outcome, after: &ReportedState, unfounded: bool) -> bool {
    let ReportedState::Ended(after) = after else { return false };
    match before {
        Outcome::Lost { .. } | Outcome::Refused { .. } => true,
        Outcome::NotStarted | Outcome::StartTimedOut { .. } => {
            unfounded || after.outcome == Outcome::Cancelled
        }
        _ => false,
    }
}

fn rank(state: &ReportedState, source: Source) -> u8 {
    match (state, source) {
        (ReportedState::Accepted, _) => 1,
        (ReportedState::Running(_), _) => 2,
        (ReportedState::Ended(_), Source::Operator) => 3,
        (ReportedState::Ended(_), Source::Agent) => 4,
    }
}
