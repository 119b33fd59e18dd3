//! What the operator knows of one Run, by node.
//!
//! The ledger is a cache. The agents' Journals have what was started, and History has how it ended. It is filled by
//! Reports, Inventories, the operator's own conclusions and, after a change of leader, from History. Losing it costs time
//! and never a result.

use std::collections::BTreeMap;

use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, Refused, Report, ReportedState};

use super::action::Action;
pub use super::execution::Applied;
use super::execution::{AttemptPhase, AttemptState, Execution, Sent};
use super::run::RunState;
use crate::time::Monotonic;

/// The executions of one Run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLedger {
    task: TaskUid,
    run: RunNumber,
    spec_hash: SpecHash,
    origin: Origin,
    record: Option<RunState>,
    run_archived: Option<RunStage>,
    executions: BTreeMap<NodeName, Execution>,
}

/// Whether this operator started the Run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It did: what it has not sent was never sent.
    Begun,
    /// It took the Run over: the previous leader may have sent more than this one knows.
    Inherited,
}

/// Attempts per Execution at most: the first, and the largest `retry.limit`.
pub const MAX_ATTEMPTS: u32 = 21;

/// How much of a Run's record History has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunStage {
    /// Its start.
    Begun,
    /// Its end.
    Finished,
}

impl RunStage {
    /// The stage of a record.
    pub fn of(record: &RunState) -> Self {
        if record.finished_at.is_some() { Self::Finished } else { Self::Begun }
    }
}

impl RunLedger {
    /// The empty ledger of a Run.
    pub fn new(task: TaskUid, run: RunNumber, spec_hash: SpecHash, origin: Origin) -> Self {
        Self { task, run, spec_hash, origin, record: None, run_archived: None, executions: BTreeMap::new() }
    }

    /// Its Run.
    pub fn run(&self) -> RunNumber {
        self.run
    }

    /// Whether this operator started the Run.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The Run's record as last handed to the archive.
    pub fn record(&self) -> Option<&RunState> {
        self.record.as_ref()
    }

    /// How much of the Run's record History has.
    pub fn run_archived(&self) -> Option<RunStage> {
        self.run_archived
    }

    /// The Execution on a node.
    pub fn execution(&self, node: &NodeName) -> Option<&Execution> {
        self.executions.get(node)
    }

    /// The Execution on each of these nodes. In name order, which targets are, none of them is looked up.
    pub fn executions_of<'a>(
        &'a self,
        nodes: &'a [NodeName],
    ) -> impl Iterator<Item = (&'a NodeName, Option<&'a Execution>)> {
        let mut known = self.executions.iter().peekable();
        nodes.iter().map(move |node| {
            while known.next_if(|(name, _)| *name != node && *name < node).is_some() {}
            let next = known.next_if(|(name, _)| *name == node).map(|(_, execution)| execution);
            (node, next.or_else(|| self.execution(node)))
        })
    }

    /// All Executions with any evidence.
    pub fn executions(&self) -> impl Iterator<Item = (&NodeName, &Execution)> {
        self.executions.iter()
    }

    /// The offer number of the next `Start` to a node.
    pub fn offer(&self, node: &NodeName) -> u32 {
        self.execution(node).map_or(1, Execution::offer)
    }

    /// The latest Attempt of a node in this Run.
    pub fn attempt(&self, node: &NodeName) -> AttemptId {
        self.attempt_of(node, self.execution(node).map_or(1, |execution| execution.latest.number))
    }

    /// The Attempt of a node with this number.
    pub fn attempt_of(&self, node: &NodeName, number: u32) -> AttemptId {
        AttemptId { task: self.task.clone(), run: self.run, node: node.clone(), attempt: number }
    }

    /// Whether an Attempt with this number may have been started on a node, by this operator or by a previous leader of a
    /// Run that was taken over. `retry.limit` can be edited during a Run, so a previous leader's limit is unknown.
    pub fn may_have_started(&self, node: &NodeName, number: u32) -> bool {
        let latest = self.execution(node).map_or(1, |execution| execution.latest.number);
        let most = match self.origin {
            Origin::Begun => latest,
            Origin::Inherited => latest.max(MAX_ATTEMPTS),
        };
        (1..=most).contains(&number)
    }

    /// Applies a Report.
    pub fn apply_report(&mut self, report: &Report) -> Applied {
        if report.attempt.task != self.task || report.attempt.run != self.run {
            return Applied::OtherRun;
        }
        if report.spec_hash != self.spec_hash {
            return Applied::Conflict;
        }
        if !self.may_have_started(&report.attempt.node, report.attempt.attempt) {
            return Applied::NeverDispatched;
        }
        let execution = self.executions.entry(report.attempt.node.clone()).or_default();
        execution.apply_report(report.attempt.attempt, &report.state)
    }

    /// Applies a Refusal: nothing was started for that offer of a `Start`, and nothing will be. After a temporary reason
    /// the Attempt keeps waiting; any other is its Outcome. A stale epoch is about the leader, not the Attempt, and changes
    /// nothing.
    pub fn apply_refusal(&mut self, refused: &Refused, at: UnixMillis) -> Applied {
        if refused.attempt.task != self.task || refused.attempt.run != self.run {
            return Applied::OtherRun;
        }
        if !self.may_have_started(&refused.attempt.node, refused.attempt.attempt) {
            return Applied::NeverDispatched;
        }
        if refused.offer > 0 && refused.refusal.is_temporary() {
            let execution = self.executions.entry(refused.attempt.node.clone()).or_default();
            let is_open = refused.attempt.attempt == execution.latest.number
                && execution.latest.phase == AttemptPhase::Unknown;
            return if is_open {
                execution.note_declined(refused.offer, &refused.refusal)
            } else {
                Applied::Unchanged
            };
        }
        let attempt = self.attempt_mut(&refused.attempt);
        // An owner of the Attempt would have answered with its state; so the one that was accepted had another spec.
        let open = matches!(attempt.phase, AttemptPhase::Unknown | AttemptPhase::Accepted);
        if matches!(refused.refusal, Refusal::StaleEpoch { .. }) || !open {
            return Applied::Unchanged;
        }
        let outcome = Outcome::Refused { refusal: refused.refusal.clone() };
        attempt.phase = AttemptPhase::Concluded(Box::new(Ended::without_record(outcome, at)));
        Applied::Changed
    }

    /// Applies an Inventory; `owned` are the Attempts of this Task in it.
    pub fn apply_inventory(&mut self, node: &NodeName, session: &SessionId, owned: &[AttemptId]) {
        let latest = self.attempt(node);
        let Self { run, executions, .. } = self;
        let Some(execution) = executions.get_mut(node) else { return };
        execution.retain_owned(|number| owned.iter().any(|id| id.run == *run && id.attempt == number));
        if owned.contains(&latest) {
            return;
        }
        match execution.latest.phase {
            // A `Start` sent in an older Session never arrived.
            AttemptPhase::Unknown
                if execution.started.as_ref().is_some_and(|sent| sent.session != *session) =>
            {
                execution.started = None;
            }
            AttemptPhase::Accepted | AttemptPhase::Running(_) => execution.missing = true,
            _ => {}
        }
    }

    /// The Attempts that agents own of this Run, with the archived stage: what is left to handle once its Task is deleted.
    pub fn orphans(&self) -> Vec<(Report, Option<Stage>)> {
        let orphan = |node: &NodeName, attempt: &AttemptState| {
            let state = match &attempt.phase {
                AttemptPhase::Unknown | AttemptPhase::Concluded(_) => return None,
                AttemptPhase::Accepted => ReportedState::Accepted,
                AttemptPhase::Running(running) => ReportedState::Running(running.clone()),
                AttemptPhase::Ended(ended) => ReportedState::Ended(ended.clone()),
            };
            let id = self.attempt_of(node, attempt.number);
            Some((Report { attempt: id, spec_hash: self.spec_hash.clone(), state }, attempt.archived))
        };
        let of = |(node, execution): (_, &Execution)| {
            execution.attempts().filter_map(|attempt| orphan(node, attempt)).collect::<Vec<_>>()
        };
        self.executions().flat_map(of).collect()
    }

    /// Applies what History has of an Attempt, after a change of leader.
    pub fn recall(&mut self, attempt: &AttemptId, state: &ReportedState, source: Source) -> Applied {
        let attempt = self.attempt_mut(attempt);
        let applied = match (source, state) {
            (Source::Operator, ReportedState::Ended(ended)) => attempt.conclude(ended.clone()),
            (Source::Operator, _) => Applied::Unchanged,
            (Source::Agent, state) => attempt.observe(state),
        };
        // A conclusion in History that an agent has since disproved does not count as archived.
        if source == Source::Agent || !matches!(attempt.phase, AttemptPhase::Ended(_)) {
            attempt.note_archived(state.stage());
        }
        applied
    }

    /// History has the Attempt up to this stage.
    pub fn note_archived(&mut self, attempt: &AttemptId, stage: Stage) -> Applied {
        self.attempt_mut(attempt).note_archived(stage)
    }

    /// Sets the Run's record; History has at most the previous one.
    pub fn set_run(&mut self, record: RunState) {
        if self.record.as_ref() != Some(&record) {
            self.run_archived = self.run_archived.filter(|stage| *stage < RunStage::of(&record));
            self.record = Some(record);
        }
    }

    /// History has the Run's record up to this stage.
    pub fn note_run_archived(&mut self, stage: RunStage) {
        self.run_archived = self.run_archived.max(Some(stage));
    }

    /// The rollout admits the Execution; the first time counts.
    fn admit(&mut self, node: &NodeName, at: Monotonic) {
        self.executions.entry(node.clone()).or_default().admitted_at.get_or_insert(at);
    }

    /// When the Execution is retried; the first time counts.
    fn retry_at(&mut self, node: &NodeName, at: Monotonic) {
        self.executions.entry(node.clone()).or_default().retry_at.get_or_insert(at);
    }

    /// The Execution is retried: a new Attempt becomes its latest.
    fn retry(&mut self, node: &NodeName) {
        let Some(execution) = self.executions.get_mut(node).filter(|execution| execution.is_over()) else {
            return;
        };
        execution.attempt_mut(execution.latest.number.saturating_add(1));
    }

    /// The latest Attempt, which was never dispatched, is given up: the previous one was the last.
    fn abandon_retry(&mut self, node: &NodeName) {
        if let Some(execution) = self.executions.get_mut(node) {
            execution.abandon_retry();
        }
    }

    /// A Session took the `Start` of the latest Attempt.
    fn sent_start(&mut self, node: &NodeName, session: SessionId, at: Monotonic) {
        self.executions.entry(node.clone()).or_default().sent_start(Sent { session, at });
    }

    /// A Session took the `Cancel` of the latest Attempt.
    fn sent_cancel(&mut self, node: &NodeName, session: SessionId, at: Monotonic) {
        self.executions.entry(node.clone()).or_default().cancelled = Some(Sent { session, at });
    }

    /// A Session took the `Forget`.
    fn sent_forget(&mut self, attempt: &AttemptId) {
        self.attempt_mut(attempt).owned = false;
    }

    /// The operator concludes how an Attempt ended. An agent's Report outranks it.
    fn conclude(&mut self, attempt: &AttemptId, ended: Ended) -> Applied {
        let attempt = self.attempt_mut(attempt);
        let applied = attempt.conclude(Box::new(ended));
        if applied == Applied::Changed {
            // History has at most an earlier stage.
            attempt.archived = attempt.archived.filter(|stage| *stage < Stage::Ended);
        }
        applied
    }

    /// Notes what a decided action changes in the ledger. `Start`, `Cancel` and `Forget` change it once a Session has
    /// taken them: see [`RunLedger::apply_sent`].
    pub fn apply(&mut self, action: &Action, now: Monotonic) -> Applied {
        match action {
            Action::Admit(node) => self.admit(node, now),
            Action::RetryAt(node, at) => self.retry_at(node, *at),
            Action::Retry(node) => self.retry(node),
            Action::AbandonRetry(node) => self.abandon_retry(node),
            Action::Conclude { attempt, ended } => return self.conclude(attempt, (**ended).clone()),
            Action::ArchiveRun(record) => self.set_run(record.as_ref().clone()),
            _ => return Applied::Unchanged,
        }
        Applied::Changed
    }

    /// Notes that a Session took the message of a `Start`, `Cancel` or `Forget`.
    pub fn apply_sent(&mut self, action: &Action, session: &SessionId, at: Monotonic) {
        match action {
            Action::Start { attempt, .. } => self.sent_start(&attempt.node, session.clone(), at),
            Action::Cancel(attempt) => self.sent_cancel(&attempt.node, session.clone(), at),
            Action::Forget(attempt) => self.sent_forget(attempt),
            _ => {}
        }
    }

    fn attempt_mut(&mut self, attempt: &AttemptId) -> &mut AttemptState {
        self.executions.entry(attempt.node.clone()).or_default().attempt_mut(attempt.attempt)
    }
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An agent: evidence.
    Agent,
    /// The operator: a conclusion.
    Operator,
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
    fn ignores_attempts_beyond_the_latest_started() {
        let mut ledger = ledger(Origin::Begun);
        let node = NodeName::new("n").unwrap();
        for number in [2, 21, 401, 99_999] {
            assert_eq!(ledger.apply_report(&report(number)), Applied::NeverDispatched, "attempt {number}");
            let refused = Refused {
                attempt: report(number).attempt,
                spec_hash: report(number).spec_hash,
                refusal: Refusal::Stopping,
                offer: 0,
            };
            assert_eq!(
                ledger.apply_refusal(&refused, UnixMillis(1)),
                Applied::NeverDispatched,
                "attempt {number}"
            );
        }
        assert!(ledger.execution(&node).is_none(), "the ledger has it regardless");
        assert_eq!(ledger.apply_report(&report(1)), Applied::Changed);
        let ended = Ended::without_record(Outcome::Failed { exit_code: 1 }, UnixMillis(2));
        ledger.conclude(&report(1).attempt, ended);
        ledger.retry(&node);
        assert_eq!(ledger.apply_report(&report(2)), Applied::Changed);
        assert_eq!(ledger.apply_report(&report(3)), Applied::NeverDispatched);
    }

    #[test]
    fn each_node_has_its_execution_in_any_order() {
        let mut ledger = ledger(Origin::Begun);
        let nodes: Vec<NodeName> =
            ["a", "b", "c", "d", "e"].iter().map(|name| NodeName::new(name).unwrap()).collect();
        for node in [&nodes[1], &nodes[3], &nodes[4]] {
            ledger.admit(node, Monotonic(1));
        }
        let found = |nodes: &[NodeName]| -> Vec<String> {
            let of = ledger.executions_of(nodes);
            of.filter_map(|(node, execution)| execution.map(|_| node.to_string())).collect()
        };
        assert_eq!(found(&nodes), ["b", "d", "e"]);
        assert_eq!(found(&nodes[2..]), ["d", "e"]);
        let reversed: Vec<NodeName> = nodes.iter().rev().chain(&nodes[..2]).cloned().collect();
        assert_eq!(found(&reversed), ["e", "d", "b", "b"]);
    }

    #[test]
    fn accepts_up_to_the_largest_retry_limit_after_a_takeover() {
        let mut ledger = ledger(Origin::Inherited);
        assert_eq!(ledger.apply_report(&report(MAX_ATTEMPTS + 1)), Applied::NeverDispatched);
        assert_eq!(ledger.apply_report(&report(MAX_ATTEMPTS)), Applied::Changed);
        assert_eq!(ledger.apply_report(&report(1)), Applied::Changed);
    }
}
