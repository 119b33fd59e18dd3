//! What the operator does for a Task once it is decided.

use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber};
use sentinel_protocol::to_operator::Ended;

use super::run::RunState;
use crate::time::Monotonic;

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put our finalizer on the Task, before its first command exists.
    AddFinalizer,
    /// Take it off: nothing of ours is left.
    RemoveFinalizer,
    /// Delete the Task: it is finished for longer than `ttlAfterFinished`.
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
        /// Which Attempt.
        attempt: AttemptId,
        /// Milliseconds left on its start clock.
        start_ms: u64,
        /// Milliseconds left to the Run; `None` is without limit.
        total_ms: Option<u64>,
    },
    /// Send `Cancel`.
    Cancel(AttemptId),
    /// Note how an Execution ended, by our own conclusion, and archive it.
    Conclude {
        /// Which Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// Archive the Run's own record.
    ArchiveRun(Box<RunState>),
    /// Send `Forget`: the Run is over and archived.
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

/// Something worth a cluster event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its cause, one CamelCase word.
    pub reason: &'static str,
    /// The same for people.
    pub note: String,
    /// Whether somebody should look at it.
    pub level: Level,
}

/// Whether somebody should look at a cluster event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No need.
    Normal,
    /// Yes.
    Warning,
}
