//! What the operator knows of one Run, node by node.
//!
//! The ledger is memory and not truth: what was started is in the agents' Journals, how it ended is in History. It
//! is filled by Reports and Inventories, by what [`crate::reconcile::decide`] concluded itself, and after a restart
//! by what History recalls; losing it costs time and never a result.

use std::collections::BTreeMap;

use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Refused, Report, ReportedState, Stage, Usage};

use crate::execution::{Execution, Known, Sent, Tried};
use crate::moment::Moment;
use crate::status::RunRecord;

/// The executions of one Run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLedger {
    task: TaskUid,
    run: RunNumber,
    spec_hash: SpecHash,
    origin: Origin,
    record: Option<RunRecord>,
    run_archived: Option<RunStage>,
    executions: BTreeMap<NodeName, Execution>,
}

/// Whether this operator has known the Run from its first moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It began the Run itself: what it has not sent was never sent.
    Begun,
    /// It took the Run over: somebody before it may have sent more than it knows.
    Inherited,
}

/// Attempts that an Execution has at most: the first, and as many retries as a Task may ask for.
pub const MAX_ATTEMPTS: u32 = 21;

/// How much of the record of a Run History holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunStage {
    /// That it began.
    Begun,
    /// How it ended.
    Finished,
}

impl RunStage {
    /// The stage that a record shows.
    pub fn of(record: &RunRecord) -> Self {
        if record.finished_at.is_some() { Self::Finished } else { Self::Begun }
    }
}

/// What came of telling the ledger something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It knows more than before.
    News,
    /// It knew that already, or knows better.
    Known,
    /// It is about another Run of the Task.
    OtherRun,
    /// The same Attempt with another spec hash: somebody is wrong, and nothing is believed.
    Conflict,
    /// No operator can have started an Attempt of that number in this Run: nothing is believed, and nothing archived.
    Unstarted,
}

impl RunLedger {
    /// The empty ledger of a Run.
    pub fn new(task: TaskUid, run: RunNumber, spec_hash: SpecHash, origin: Origin) -> Self {
        Self { task, run, spec_hash, origin, record: None, run_archived: None, executions: BTreeMap::new() }
    }

    /// The Run it is about.
    pub fn run(&self) -> RunNumber {
        self.run
    }

    /// Whether this operator began the Run.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The Run's own record, as it was last to be archived.
    pub fn record(&self) -> Option<&RunRecord> {
        self.record.as_ref()
    }

    /// How much of the Run's own record History holds.
    pub fn run_archived(&self) -> Option<RunStage> {
        self.run_archived
    }

    /// What is known of the Execution on a node.
    pub fn execution(&self, node: &NodeName) -> Option<&Execution> {
        self.executions.get(node)
    }

    /// All Executions that anything is known of.
    pub fn executions(&self) -> impl Iterator<Item = (&NodeName, &Execution)> {
        self.executions.iter()
    }

    /// The number of the offer that the next `Start` to a node is.
    pub fn offer(&self, node: &NodeName) -> u32 {
        self.execution(node).map_or(1, Execution::offer)
    }

    /// The latest Attempt of a node in this Run.
    pub fn attempt(&self, node: &NodeName) -> AttemptId {
        self.attempt_of(node, self.execution(node).map_or(1, |execution| execution.latest.number))
    }

    /// The Attempt of that number of a node in this Run.
    pub fn attempt_of(&self, node: &NodeName, number: u32) -> AttemptId {
        AttemptId { task: self.task.clone(), run: self.run, node: node.clone(), attempt: number }
    }

    /// Whether the Attempt of that number may have been started on a node: by this operator, or, in a Run that it took
    /// over, by one before it. `retry.limit` can be edited during a Run, so that of a predecessor is not known.
    pub fn may_have_started(&self, node: &NodeName, number: u32) -> bool {
        let latest = self.execution(node).map_or(1, |execution| execution.latest.number);
        let most = match self.origin {
            Origin::Begun => latest,
            Origin::Inherited => latest.max(MAX_ATTEMPTS),
        };
        (1..=most).contains(&number)
    }

    /// An agent says what one of its Attempts is.
    pub fn report(&mut self, report: &Report) -> Told {
        if report.attempt.task != self.task || report.attempt.run != self.run {
            return Told::OtherRun;
        }
        if report.spec_hash != self.spec_hash {
            return Told::Conflict;
        }
        if !self.may_have_started(&report.attempt.node, report.attempt.attempt) {
            return Told::Unstarted;
        }
        let execution = self.executions.entry(report.attempt.node.clone()).or_default();
        execution.hear(report.attempt.attempt, &report.state)
    }

    /// An agent declined a `Start`: nothing was started for it, and nothing will be for that offer of it. A reason that
    /// passes leaves the Attempt waiting; any other is its Outcome. A stale epoch is no answer to the Attempt but to us,
    /// and is not for the ledger.
    pub fn refused(&mut self, refused: &Refused, at: UnixMillis) -> Told {
        if refused.attempt.task != self.task || refused.attempt.run != self.run {
            return Told::OtherRun;
        }
        if !self.may_have_started(&refused.attempt.node, refused.attempt.attempt) {
            return Told::Unstarted;
        }
        if refused.offer > 0 && refused.refusal.passes() {
            let execution = self.executions.entry(refused.attempt.node.clone()).or_default();
            let is_open = refused.attempt.attempt == execution.latest.number
                && execution.latest.known == Known::Nothing;
            return if is_open { execution.decline(refused.offer, &refused.refusal) } else { Told::Known };
        }
        let tried = self.attempt_mut(&refused.attempt);
        // Who owns an Attempt answers with what it is; so one that was thought accepted was another spec's.
        let open = matches!(tried.known, Known::Nothing | Known::Accepted);
        if matches!(refused.refusal, Refusal::StaleEpoch { .. }) || !open {
            return Told::Known;
        }
        let outcome = Outcome::Refused { refusal: refused.refusal.clone() };
        tried.known = Known::Concluded(Box::new(never_started(outcome, at)));
        Told::News
    }

    /// An agent has said all that it owns; `owned` are the Attempts of this Task among it.
    pub fn inventory(&mut self, node: &NodeName, session: &SessionId, owned: &[AttemptId]) {
        let latest = self.attempt(node);
        let Self { run, executions, .. } = self;
        let Some(execution) = executions.get_mut(node) else { return };
        execution.hold_only(|number| owned.iter().any(|id| id.run == *run && id.attempt == number));
        if owned.contains(&latest) {
            return;
        }
        match execution.latest.known {
            // A `Start` handed to an older Session never arrived.
            Known::Nothing if execution.started.as_ref().is_some_and(|sent| sent.session != *session) => {
                execution.started = None;
            }
            Known::Accepted | Known::Running(_) => execution.missing = true,
            _ => {}
        }
    }

    /// What agents own of this Run, with the stage that History holds: all that matters of it once its Task is gone.
    pub fn strays(&self) -> Vec<(Report, Option<Stage>)> {
        let stray = |node: &NodeName, tried: &Tried| {
            let state = match &tried.known {
                Known::Nothing | Known::Concluded(_) => return None,
                Known::Accepted => ReportedState::Accepted,
                Known::Running(running) => ReportedState::Running(running.clone()),
                Known::Ended(ended) => ReportedState::Ended(ended.clone()),
            };
            let attempt = self.attempt_of(node, tried.number);
            Some((Report { attempt, spec_hash: self.spec_hash.clone(), state }, tried.archived))
        };
        let of = |(node, execution): (_, &Execution)| {
            execution.attempts().filter_map(|tried| stray(node, tried)).collect::<Vec<_>>()
        };
        self.executions().flat_map(of).collect()
    }

    /// History recalls an Attempt, after a restart of the operator.
    pub fn recall(&mut self, attempt: &AttemptId, state: &ReportedState, source: Source) -> Told {
        let tried = self.attempt_mut(attempt);
        let told = match (source, state) {
            (Source::Operator, ReportedState::Ended(ended)) => tried.conclude(ended.clone()),
            (Source::Operator, _) => Told::Known,
            (Source::Agent, state) => tried.learn(state),
        };
        // History may hold a conclusion that an agent has since proved wrong: that is not what is known now.
        if source == Source::Agent || !matches!(tried.known, Known::Ended(_)) {
            tried.note_archived(state.stage());
        }
        told
    }

    /// History holds the Attempt up to this stage.
    pub fn archived(&mut self, attempt: &AttemptId, stage: Stage) -> Told {
        self.attempt_mut(attempt).note_archived(stage)
    }

    /// The Run's own record is this; History holds the one before at most.
    pub fn note_run(&mut self, record: RunRecord) {
        if self.record.as_ref() != Some(&record) {
            self.run_archived = self.run_archived.filter(|stage| *stage < RunStage::of(&record));
            self.record = Some(record);
        }
    }

    /// History holds the Run's own record up to this stage.
    pub fn archived_run(&mut self, stage: RunStage) {
        self.run_archived = self.run_archived.max(Some(stage));
    }

    /// Since when the Execution has its turn; the first word stands.
    pub fn turn(&mut self, node: &NodeName, at: Moment) {
        self.executions.entry(node.clone()).or_default().turn_at.get_or_insert(at);
    }

    /// When the Execution is tried again, its latest Attempt having ended; the first word stands.
    pub fn retry_at(&mut self, node: &NodeName, at: Moment) {
        self.executions.entry(node.clone()).or_default().retry_at.get_or_insert(at);
    }

    /// The Execution is tried again: its latest Attempt is one of which nobody knows yet.
    pub fn again(&mut self, node: &NodeName) {
        let Some(execution) = self.executions.get_mut(node).filter(|execution| execution.is_over()) else {
            return;
        };
        execution.attempt_mut(execution.latest.number.saturating_add(1));
    }

    /// The latest Attempt, of which nobody was told anything, is given up: the one before it was the last.
    pub fn withdraw(&mut self, node: &NodeName) {
        if let Some(execution) = self.executions.get_mut(node) {
            execution.withdraw();
        }
    }

    /// A `Start` of the latest Attempt was handed to a Session.
    pub fn sent_start(&mut self, node: &NodeName, session: SessionId, at: Moment) {
        self.executions.entry(node.clone()).or_default().sent_start(Sent { session, at });
    }

    /// A `Cancel` of the latest Attempt was handed to a Session.
    pub fn sent_cancel(&mut self, node: &NodeName, session: SessionId, at: Moment) {
        self.executions.entry(node.clone()).or_default().cancelled = Some(Sent { session, at });
    }

    /// A `Forget` was handed to a Session.
    pub fn sent_forget(&mut self, attempt: &AttemptId) {
        self.attempt_mut(attempt).held = false;
    }

    /// The operator concludes how an Attempt ended. What an agent said stands against it.
    pub fn conclude(&mut self, attempt: &AttemptId, ended: Ended) -> Told {
        let tried = self.attempt_mut(attempt);
        let told = tried.conclude(Box::new(ended));
        if told == Told::News {
            // The archive holds an earlier stage of it at most.
            tried.archived = tried.archived.filter(|stage| *stage < Stage::Ended);
        }
        told
    }

    fn attempt_mut(&mut self, attempt: &AttemptId) -> &mut Tried {
        self.executions.entry(attempt.node.clone()).or_default().attempt_mut(attempt.attempt)
    }
}

/// Whose word a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An agent's: evidence.
    Agent,
    /// The operator's: a conclusion.
    Operator,
}

/// The end of an Execution of which nothing was ever started.
pub fn never_started(outcome: Outcome, at: UnixMillis) -> Ended {
    let (usage, output) = (Usage::default(), OutputSummary::default());
    Ended { outcome, started_at: None, ended_at: at, usage, output, exit: ExitDetails::default() }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::to_operator::Running;

    use super::*;

    fn ledger(origin: Origin) -> RunLedger {
        RunLedger::new(
            TaskUid::new("u").unwrap(),
            RunNumber(1),
            SpecHash::new("a".repeat(64)).unwrap(),
            origin,
        )
    }

    fn report(number: u32) -> Report {
        let attempt = format!("u/1/n/{number}").parse().unwrap();
        let state = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 1 });
        Report { attempt, spec_hash: SpecHash::new("a".repeat(64)).unwrap(), state }
    }

    #[test]
    fn an_attempt_beyond_the_latest_one_started_is_not_believed() {
        let mut ledger = ledger(Origin::Begun);
        let node = NodeName::new("n").unwrap();
        for number in [2, 21, 401, 99_999] {
            assert_eq!(ledger.report(&report(number)), Told::Unstarted, "attempt {number}");
            let refused = Refused {
                attempt: report(number).attempt,
                spec_hash: report(number).spec_hash,
                refusal: Refusal::Stopping,
                offer: 0,
            };
            assert_eq!(ledger.refused(&refused, UnixMillis(1)), Told::Unstarted, "attempt {number}");
        }
        assert!(ledger.execution(&node).is_none(), "it is in the ledger all the same");
        assert_eq!(ledger.report(&report(1)), Told::News);
        let ended = never_started(Outcome::Failed { exit_code: 1 }, UnixMillis(2));
        ledger.conclude(&report(1).attempt, ended);
        ledger.again(&node);
        assert_eq!(ledger.report(&report(2)), Told::News);
        assert_eq!(ledger.report(&report(3)), Told::Unstarted);
    }

    #[test]
    fn of_a_run_that_was_taken_over_as_many_attempts_are_believed_as_a_task_may_ask_for() {
        let mut ledger = ledger(Origin::Inherited);
        assert_eq!(ledger.report(&report(MAX_ATTEMPTS + 1)), Told::Unstarted);
        assert_eq!(ledger.report(&report(MAX_ATTEMPTS)), Told::News);
        assert_eq!(ledger.report(&report(1)), Told::News);
    }
}
