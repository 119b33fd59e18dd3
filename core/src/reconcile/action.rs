//! The actions of a decision.

use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber};
use sentinel_protocol::to_operator::Ended;

use super::run::RunState;
use crate::time::Monotonic;

/// Something to do for a Task.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Add our finalizer. What comes after it waits for it.
    AddFinalizer,
    /// Remove our finalizer: nothing is left to clean up.
    RemoveFinalizer,
    /// Delete the Task: `ttlAfterFinished` has passed.
    DeleteTask,
    /// The rollout admits a target: its start clock begins.
    Admit(NodeName),
    /// A target is retried at this moment.
    RetryAt(NodeName, Monotonic),
    /// A target is retried: the next Attempt becomes its latest.
    Retry(NodeName),
    /// The retry of a target is given up: the Attempt before was the last.
    AbandonRetry(NodeName),
    /// Send `Start`.
    Start {
        /// The Attempt.
        attempt: AttemptId,
        /// Milliseconds left on its start clock.
        start_ms: u64,
        /// Milliseconds left for the Run; `None` means unlimited.
        total_ms: Option<u64>,
    },
    /// Send `Cancel`.
    Cancel(AttemptId),
    /// Record how an Execution ended by the operator's own conclusion, and archive it.
    Conclude {
        /// The Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// Archive the Run's own record.
    ArchiveRun(Box<RunState>),
    /// Send `Forget`: the Attempt is over and archived.
    Forget(AttemptId),
    /// Publish a cluster event.
    Publish(Notice),
}

impl Action {
    /// The Run whose ledger it changes; `None` is the current Run, or no ledger at all.
    pub fn run(&self) -> Option<RunNumber> {
        match self {
            Self::Start { attempt, .. }
            | Self::Cancel(attempt)
            | Self::Conclude { attempt, .. }
            | Self::Forget(attempt) => Some(attempt.run),
            Self::ArchiveRun(record) => Some(record.number),
            _ => None,
        }
    }
}

/// A Kubernetes event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// CamelCase reason.
    pub reason: &'static str,
    /// Message for people.
    pub note: String,
    /// Its type.
    pub level: Level,
}

/// The type of a Kubernetes event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Informational.
    Normal,
    /// Needs attention.
    Warning,
}
