//! The gateway's seam to the controller: where it writes what agents report, and what it reads of their Attempts.

use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::request::Environment;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, Report};

/// The Run of an Attempt, for its record in History.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFacts {
    /// Digest of the spec of its Run.
    pub spec_hash: SpecHash,
    /// Namespace and name of its Task.
    pub task: TaskRef,
    /// When its Run began, by the operator's clock.
    pub run_started_at: UnixMillis,
    /// Why its Run began; `None` where only a record of an earlier release is known.
    pub trigger: Option<String>,
    /// Its command, for people.
    pub command: String,
    /// Where it runs.
    pub environment: Environment,
    /// `output.limit` of its Run, bytes; `None` where that is not known (any more).
    pub output_limit: Option<u64>,
}

/// Whether an Attempt that an agent names can exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its Run is tracked, and the Attempt may have been started.
    Started,
    /// No operator can have started it.
    Unstarted,
    /// Its Run is not tracked.
    Unknown,
}

/// The ledgers of the controller. Nothing here waits; a change requests a reconcile of its Task.
pub trait LedgerSink: Send + Sync + 'static {
    /// An agent reports one of its Attempts. `None` when its Run is not tracked.
    fn report(&self, report: &Report) -> Option<Applied>;

    /// An agent refused a `Start`. `None` when its Run is not tracked.
    fn refused(&self, refused: &Refused, at: UnixMillis) -> Option<Applied>;

    /// The Inventory of an agent is complete; its Session counts as live only afterwards.
    fn inventory(&self, node: &NodeName, session: &SessionId, reports: &[Report]);

    /// History holds this Attempt, and its output where the stage is `Ended`, up to this stage.
    fn archived(&self, attempt: &AttemptId, stage: Stage);

    /// History holds the record of this Run up to this stage.
    fn archived_run(&self, task: &TaskUid, run: RunNumber, stage: RunStage);

    /// An agent connected or disconnected.
    fn agent_changed(&self, node: &NodeName);

    /// Whether an Attempt can have been started; `spec_hash` is the one that its agent names, if it names one.
    fn standing(&self, attempt: &AttemptId, spec_hash: Option<&SpecHash>) -> Standing;

    /// Whether a Run that is not settled targets this node.
    fn awaits_node(&self, node: &NodeName) -> bool;

    /// The Run of an Attempt; `None` when it is not tracked.
    fn facts(&self, attempt: &AttemptId) -> Option<AttemptFacts>;

    /// An earlier Run that is not tracked any more, by what the status of its Task records of it; for a result whose Attempt and Run
    /// History does not have. `spec_hash` is the one that the agent names. `None` when the Task does not exist, has not been
    /// reconciled, or does not record that Run; and for a Run that is tracked.
    fn earlier_facts(&self, attempt: &AttemptId, spec_hash: &SpecHash) -> Option<AttemptFacts>;
}
