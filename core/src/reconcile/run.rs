//! One Run: its trigger, progress and verdict.

use sentinel_protocol::ids::{RunNumber, SpecHash, TaskUid};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;

use crate::plan::TaskPlan;

/// Why a Run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The spec hash changed, or it is the first Run.
    SpecChange,
    /// The rerun token, or the rerun annotation, changed.
    RerunToken,
}

impl Trigger {
    /// Its name in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpecChange => "SpecChange",
            Self::RerunToken => "RerunToken",
        }
    }
}

/// Why a Run stops: it starts nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// Cancellation was requested: running commands are ended.
    Cancelled,
    /// A newer Run is due: running commands may finish.
    SupersededFinish,
    /// A newer Run is due: running commands are ended.
    SupersededCancel,
    /// The Task is being deleted: running commands are ended.
    Deleted,
}

impl Stopping {
    /// Its name in the status.
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
    /// Some target did not succeed, or there was none.
    Failed,
}

impl Verdict {
    /// Its name in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// A Run as recorded in the status.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// 1, 2, 3 …
    pub number: RunNumber,
    /// Why it was started.
    pub trigger: Trigger,
    /// Digest of the spec it runs.
    pub spec_hash: SpecHash,
    /// The rerun token it was started with.
    pub rerun_token: String,
    /// When it was started.
    pub started_at: UnixMillis,
    /// When its last target ended.
    pub finished_at: Option<UnixMillis>,
    /// Its verdict, once it is over.
    pub verdict: Option<Verdict>,
    /// Why it stops, if it does.
    pub stopping: Option<Stopping>,
    /// Number of targets.
    pub targets: u32,
    /// Targets by state.
    pub counts: Counts,
    /// The ceiling that it began within; `None` without ceilings.
    pub ceiling: Option<RunCeiling>,
    /// Who approved it, if that was needed.
    pub approved_by: Option<Requester>,
}

impl RunState {
    /// A Run that begins, without targets so far.
    pub fn begun(number: RunNumber, trigger: Trigger, plan: &TaskPlan, at: UnixMillis) -> Self {
        Self {
            number,
            trigger,
            spec_hash: plan.spec_hash.clone(),
            rerun_token: plan.rerun_token.clone(),
            started_at: at,
            finished_at: None,
            verdict: None,
            stopping: None,
            targets: 0,
            counts: Counts::default(),
            ceiling: None,
            approved_by: None,
        }
    }
}

/// What of a ceiling holds while a Run is active, as it was when the Run began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCeiling {
    /// Its name.
    pub name: String,
    /// Targets that are active at once, at most.
    pub max_concurrent: Option<u32>,
}

/// A Run that is over and has been succeeded by another.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Its number.
    pub number: RunNumber,
    /// Why it was started.
    pub trigger: Trigger,
    /// When it was started.
    pub started_at: UnixMillis,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// Its verdict, once it is over.
    pub verdict: Option<Verdict>,
    /// Targets by state.
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

/// A Run of an earlier Task of the same name, which ran what this Task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierRun {
    /// The uid of that Task.
    pub task: TaskUid,
    /// Its number there.
    pub number: RunNumber,
    /// Digest of the spec that it ran.
    pub spec_hash: SpecHash,
    /// The rerun token that it was started with.
    pub rerun_token: String,
    /// When its last target ended, if that is known.
    pub finished_at: Option<UnixMillis>,
    /// Its verdict; `None` when History has only its begin.
    pub verdict: Option<Verdict>,
}

/// Targets by state. The five add up to the number of targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not dispatched yet.
    pub waiting: u32,
    /// Dispatched, accepted or running.
    pub running: u32,
    /// Ended with a success.
    pub succeeded: u32,
    /// Ended without a success.
    pub failed: u32,
    /// Ended in an unknown way, or never reached.
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

/// The state of a target, one of the [`Counts`], in the order in which people want to see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetState {
    /// Ended without a success.
    Failed,
    /// Ended in an unknown way, or never reached.
    Unreachable,
    /// Dispatched, accepted or running.
    Running,
    /// Not dispatched yet.
    Waiting,
    /// Ended with a success.
    Succeeded,
}

impl TargetState {
    /// From a state in `status.nodes`: one of the operator's, or the name of an [`sentinel_protocol::outcome::Outcome`].
    pub fn from_status(state: &str) -> Self {
        match state {
            "" | "Pending" | "WaitingForNode" => Self::Waiting,
            "Dispatched" | "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Lost" | "StartTimedOut" => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

/// The verdict of a Run, once all targets have their Outcome.
pub fn verdict(targets: usize, counts: Counts) -> Option<Verdict> {
    let targets = u32::try_from(targets).unwrap_or(u32::MAX);
    if counts.done() < targets {
        return None;
    }
    // A Run without targets is not a success: its selector probably has a mistake.
    Some(if targets > 0 && counts.succeeded == targets { Verdict::Complete } else { Verdict::Failed })
}
