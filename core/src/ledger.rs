//! What the operator knows of one Run, node by node.
//!
//! The ledger is memory and not truth: what was started is in the agents' Journals, how it ended is in History. It
//! is filled by Reports and Inventories, by what [`crate::reconcile::decide`] concluded itself, and after a restart
//! by what History recalls; losing it costs time and never a result.

use std::collections::BTreeMap;

use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{
    Ended, OutputSummary, Refused, Report, ReportedState, Running, Stage, Usage,
};

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

/// What is known of one Execution.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Execution {
    /// Since when it could have been started: the start clock.
    pub turn_at: Option<Moment>,
    /// The last `Start` handed to a Session.
    pub started: Option<Sent>,
    /// The last `Cancel` handed to a Session.
    pub cancelled: Option<Sent>,
    /// What it is, as far as anybody said.
    pub known: Known,
    /// How much of it History holds.
    pub archived: Option<Stage>,
    /// The agent answered an Inventory in which an Attempt that it once owned is missing.
    pub missing: bool,
    /// Its agent said that it owns it, and was not told to forget it since.
    pub held: bool,
}

/// A message handed to a Session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// To which one; a later Session has not seen it.
    pub session: SessionId,
    /// When.
    pub at: Moment,
}

/// What an Execution is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Known {
    /// Nobody said anything.
    #[default]
    Nothing,
    /// In the agent's Journal, not yet started.
    Accepted,
    /// Its command runs.
    Running(Running),
    /// It is over, by the agent's word.
    Ended(Box<Ended>),
    /// It is over, by the operator's own conclusion.
    Concluded(Box<Ended>),
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

    /// The Attempt of a node in this Run.
    pub fn attempt(&self, node: &NodeName) -> AttemptId {
        AttemptId { task: self.task.clone(), run: self.run, node: node.clone(), attempt: 1 }
    }

    /// An agent says what one of its Attempts is.
    pub fn report(&mut self, report: &Report) -> Told {
        if report.attempt.task != self.task || report.attempt.run != self.run {
            return Told::OtherRun;
        }
        if report.spec_hash != self.spec_hash {
            return Told::Conflict;
        }
        let execution = self.executions.entry(report.attempt.node.clone()).or_default();
        execution.missing = false;
        // Who reports it has not forgotten it, whatever was said before.
        execution.held = true;
        execution.learn(&report.state)
    }

    /// An agent declined a `Start`: nothing was started for it, and nothing will be in that Session. A stale epoch is
    /// no answer to the Attempt but to us, and is not for the ledger.
    pub fn refused(&mut self, refused: &Refused, at: UnixMillis) -> Told {
        if refused.attempt.task != self.task || refused.attempt.run != self.run {
            return Told::OtherRun;
        }
        let execution = self.executions.entry(refused.attempt.node.clone()).or_default();
        // Who owns an Attempt answers with what it is; so one that was thought accepted was another spec's.
        let open = matches!(execution.known, Known::Nothing | Known::Accepted);
        if matches!(refused.refusal, Refusal::StaleEpoch { .. }) || !open {
            return Told::Known;
        }
        let outcome = Outcome::Refused { refusal: refused.refusal.clone() };
        execution.known = Known::Concluded(Box::new(never_started(outcome, at)));
        Told::News
    }

    /// An agent has said all that it owns; `owned` are the Attempts of this Task among it.
    pub fn inventory(&mut self, node: &NodeName, session: &SessionId, owned: &[AttemptId]) {
        let attempt = self.attempt(node);
        let Some(execution) = self.executions.get_mut(node) else { return };
        if owned.contains(&attempt) {
            return;
        }
        execution.held = false;
        match execution.known {
            // A `Start` handed to an older Session never arrived.
            Known::Nothing if execution.started.as_ref().is_some_and(|sent| sent.session != *session) => {
                execution.started = None;
            }
            Known::Accepted | Known::Running(_) => execution.missing = true,
            _ => {}
        }
    }

    /// What agents own of this Run, with the stage that History holds: all that matters of it once its Task is gone.
    pub fn into_strays(self) -> Vec<(Report, Option<Stage>)> {
        let RunLedger { task, run, spec_hash, executions, .. } = self;
        let stray = |(node, execution): (NodeName, Execution)| {
            let state = match execution.known {
                Known::Nothing | Known::Concluded(_) => return None,
                Known::Accepted => ReportedState::Accepted,
                Known::Running(running) => ReportedState::Running(running),
                Known::Ended(ended) => ReportedState::Ended(ended),
            };
            let attempt = AttemptId { task: task.clone(), run, node, attempt: 1 };
            Some((Report { attempt, spec_hash: spec_hash.clone(), state }, execution.archived))
        };
        executions.into_iter().filter_map(stray).collect()
    }

    /// History recalls an Execution, after a restart of the operator.
    pub fn recall(&mut self, node: &NodeName, state: &ReportedState, source: Source) -> Told {
        let execution = self.executions.entry(node.clone()).or_default();
        execution.archived = execution.archived.max(Some(state.stage()));
        match (source, state) {
            (Source::Operator, ReportedState::Ended(ended)) if !execution.is_over() => {
                execution.known = Known::Concluded(ended.clone());
                Told::News
            }
            (Source::Operator, _) => Told::Known,
            (Source::Agent, state) => execution.learn(state),
        }
    }

    /// History holds the Execution up to this stage.
    pub fn archived(&mut self, node: &NodeName, stage: Stage) {
        let execution = self.executions.entry(node.clone()).or_default();
        execution.archived = execution.archived.max(Some(stage));
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

    /// A `Start` was handed to a Session.
    pub fn sent_start(&mut self, node: &NodeName, session: SessionId, at: Moment) {
        self.executions.entry(node.clone()).or_default().started = Some(Sent { session, at });
    }

    /// A `Cancel` was handed to a Session.
    pub fn sent_cancel(&mut self, node: &NodeName, session: SessionId, at: Moment) {
        self.executions.entry(node.clone()).or_default().cancelled = Some(Sent { session, at });
    }

    /// A `Forget` was handed to a Session.
    pub fn sent_forget(&mut self, node: &NodeName) {
        self.executions.entry(node.clone()).or_default().held = false;
    }

    /// The operator concludes how an Execution ended. What an agent said stands against it.
    pub fn conclude(&mut self, node: &NodeName, ended: Ended) -> Told {
        let execution = self.executions.entry(node.clone()).or_default();
        if execution.is_over() {
            return Told::Known;
        }
        execution.known = Known::Concluded(Box::new(ended));
        // The archive holds an earlier stage of it at most.
        execution.archived = execution.archived.filter(|stage| *stage < Stage::Ended);
        Told::News
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
    Ended { outcome, started_at: None, ended_at: at, usage, output }
}

impl Execution {
    /// Whether it has its Outcome.
    pub fn is_over(&self) -> bool {
        self.ended().is_some()
    }

    /// How it ended.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.known {
            Known::Ended(ended) | Known::Concluded(ended) => Some(ended),
            _ => None,
        }
    }

    /// Whether an agent has, or may have, a command for it: it takes a place in the rollout.
    pub fn is_under_way(&self) -> bool {
        !self.is_over() && (self.started.is_some() || self.known != Known::Nothing)
    }

    /// Takes in evidence. A stage never goes back, and an Outcome never changes but from a conclusion of `Lost` to
    /// what the agent knows.
    fn learn(&mut self, state: &ReportedState) -> Told {
        let before = self.known.clone();
        match (&self.known, state) {
            (Known::Ended(_), _) => {}
            // Evidence of a command that ran stands above every conclusion.
            (Known::Concluded(ours), ReportedState::Ended(theirs))
                if matches!(ours.outcome, Outcome::Lost { .. }) || theirs.started_at.is_some() =>
            {
                self.known = Known::Ended(theirs.clone());
                self.archived = None;
            }
            (Known::Concluded(_), _) => {}
            (_, ReportedState::Ended(ended)) => self.known = Known::Ended(ended.clone()),
            (Known::Nothing | Known::Accepted, ReportedState::Running(running)) => {
                self.known = Known::Running(running.clone());
            }
            (Known::Nothing, ReportedState::Accepted) => self.known = Known::Accepted,
            _ => {}
        }
        if self.known == before { Told::Known } else { Told::News }
    }
}
