//! Who must know what agents say, and who knows what their Attempts are part of.

use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::request::Environment;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, Report, Stage};

/// What an Attempt is part of, for its record in History.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFacts {
    /// Digest of the spec of its Run.
    pub spec_hash: SpecHash,
    /// Where people find its Task.
    pub task: TaskRef,
    /// When its Run began, by the operator's clock.
    pub run_started_at: UnixMillis,
    /// Its command, for people.
    pub command: String,
    /// Where it runs.
    pub environment: Environment,
    /// `output.limit` of its Run, bytes; `None` where that is not known any more.
    pub output_limit: Option<u64>,
}

/// Whether an Attempt that an agent names can be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A ledger is open for its Run, and the Attempt may have been started.
    Started,
    /// No operator can have started it.
    Unstarted,
    /// No ledger is open for its Run.
    Unknown,
}

/// The controller's ledgers, as the gateway sees them. Nothing here waits; whatever is news wakes its Task.
pub trait Books: Send + Sync + 'static {
    /// An agent says what one of its Attempts is. `None` when no ledger is open for its Run.
    fn report(&self, report: &Report) -> Option<Applied>;

    /// An agent declined a `Start`. `None` when no ledger is open for its Run.
    fn refused(&self, refused: &Refused, at: UnixMillis) -> Option<Applied>;

    /// An agent has said all that it owns, before its Session counts as one.
    fn inventory(&self, node: &NodeName, session: &SessionId, reports: &[Report]);

    /// History holds this Attempt, and its output where the stage is `Ended`, up to this stage.
    fn archived(&self, attempt: &AttemptId, stage: Stage);

    /// History holds the record of this Run up to this stage.
    fn archived_run(&self, task: &TaskUid, run: RunNumber, stage: RunStage);

    /// An agent came or went.
    fn agent_changed(&self, node: &NodeName);

    /// Whether an Attempt can have been started; `spec_hash` is the one that its agent names, if it names one.
    fn standing(&self, attempt: &AttemptId, spec_hash: Option<&SpecHash>) -> Standing;

    /// What an Attempt is part of; `None` when no ledger is open for its Run.
    fn facts(&self, attempt: &AttemptId) -> Option<AttemptFacts>;
}
