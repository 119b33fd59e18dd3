//! One Run: why it began, how far it is, how it ended.

use sentinel_protocol::ids::{RunNumber, SpecHash};
use sentinel_protocol::time::UnixMillis;

/// Why a Run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The spec hash changed, or there was no Run before.
    SpecChange,
    /// The rerun token, or the rerun annotation, changed.
    RerunToken,
}

impl Trigger {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpecChange => "SpecChange",
            Self::RerunToken => "RerunToken",
        }
    }
}

/// Why a Run starts nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// Somebody asked for its cancellation: what runs is ended.
    Cancelled,
    /// A newer Run waits: what runs may finish.
    SupersededFinish,
    /// A newer Run waits: what runs is ended.
    SupersededCancel,
    /// The Task is being deleted: what runs is ended.
    Deleted,
}

impl Stopping {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "Cancelled",
            Self::SupersededFinish => "SupersededFinish",
            Self::SupersededCancel => "SupersededCancel",
            Self::Deleted => "Deleted",
        }
    }

    /// Whether running commands are ended.
    pub fn ends_commands(self) -> bool {
        self != Self::SupersededFinish
    }
}

/// How a Run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every target succeeded.
    Complete,
    /// Not every target succeeded, or there was none.
    Failed,
}

impl Verdict {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// One Run, as the status has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// 1, 2, 3 …
    pub number: RunNumber,
    /// Why it began.
    pub trigger: Trigger,
    /// Digest of the spec it carries out.
    pub spec_hash: SpecHash,
    /// The rerun token when it began.
    pub rerun_token: String,
    /// When it began.
    pub started_at: UnixMillis,
    /// When its last target ended.
    pub finished_at: Option<UnixMillis>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// Why it starts nothing more, if so.
    pub stopping: Option<Stopping>,
    /// Number of targets.
    pub targets: u32,
    /// How they stand.
    pub counts: Counts,
}

/// A Run that is over and no longer the current one.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Its number.
    pub number: RunNumber,
    /// Why it began.
    pub trigger: Trigger,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// How its targets ended.
    pub counts: Counts,
}

impl From<&RunState> for RunSummary {
    fn from(run: &RunState) -> Self {
        Self {
            number: run.number,
            trigger: run.trigger,
            started_at: run.started_at,
            finished_at: run.finished_at,
            verdict: run.verdict,
            counts: run.counts,
        }
    }
}

/// Targets by how they stand. The five add up to the number of targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not yet under way.
    pub waiting: u32,
    /// Dispatched, accepted or running.
    pub running: u32,
    /// Ended as wished.
    pub succeeded: u32,
    /// Ended otherwise.
    pub failed: u32,
    /// Ended without anybody knowing how, or never reached.
    pub unreachable: u32,
}

impl Counts {
    /// Targets that have their Outcome.
    pub fn done(self) -> u32 {
        self.succeeded + self.failed + self.unreachable
    }

    pub(super) fn add(&mut self, state: TargetState) {
        *match state {
            TargetState::Waiting => &mut self.waiting,
            TargetState::Running => &mut self.running,
            TargetState::Succeeded => &mut self.succeeded,
            TargetState::Failed => &mut self.failed,
            TargetState::Unreachable => &mut self.unreachable,
        } += 1;
    }
}

/// How one target stands, in the order in which people want to see them: which of the [`Counts`] it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetState {
    /// Ended otherwise.
    Failed,
    /// Ended without anybody knowing how, or never reached.
    Unreachable,
    /// Dispatched, accepted or running.
    Running,
    /// Not yet under way.
    Waiting,
    /// Ended as wished.
    Succeeded,
}

impl TargetState {
    /// By the word in the status: a state, or the name of an [`Outcome`].
    pub fn from_status(word: &str) -> Self {
        match word {
            "" | "Pending" | "WaitingForNode" => Self::Waiting,
            "Dispatched" | "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Lost" | "StartTimedOut" => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

/// The verdict of a Run all of whose targets have their Outcome; `None` while one has not.
pub fn verdict(targets: usize, counts: Counts) -> Option<Verdict> {
    let targets = u32::try_from(targets).unwrap_or(u32::MAX);
    if counts.done() < targets {
        return None;
    }
    // A Run that found no target reached nobody and is no success.
    Some(if targets > 0 && counts.succeeded == targets { Verdict::Complete } else { Verdict::Failed })
}
