//! Conditions and phase, such that kstatus, `kubectl wait`, Helm, Argo CD and Flux agree.
//!
//! Running is `Reconciling=True`, `Ready=Unknown`; success is `Ready=True`, `Complete=True`; a terminal failure is
//! `Stalled=True`, `Failed=True`, `Ready=False` and no `Reconciling`, as kstatus uses the first of the two that is
//! true. Source: <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>.

use super::run::{Counts, EarlierRun, RunState, Stopping, Verdict};

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// Its status.
    pub status: ConditionStatus,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Message for people.
    pub message: String,
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl ConditionStatus {
    /// Its name in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The types of conditions that a Task can have.
pub mod kind {
    /// The spec can be run.
    pub const ACCEPTED: &str = "Accepted";
    /// The last Run succeeded.
    pub const READY: &str = "Ready";
    /// A Run is active or due.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will change until the Task or a node does.
    pub const STALLED: &str = "Stalled";
    /// The Run is over and succeeded.
    pub const COMPLETE: &str = "Complete";
    /// The Run is over and did not succeed.
    pub const FAILED: &str = "Failed";
    /// Nothing is started.
    pub const SUSPENDED: &str = "Suspended";
    /// History has all that is known.
    pub const ARCHIVED: &str = "Archived";
}

/// The state of a Task, which its conditions follow from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TaskState<'a> {
    /// Suspended before its first Run.
    HeldBack,
    /// A Run is active.
    Running(&'a RunState),
    /// The last Run is over, and another is due: the current spec has not been run.
    Due(&'a RunState),
    /// A Run is active or due, and the Task is suspended.
    Suspended(Option<&'a RunState>),
    /// The last Run is over.
    Finished(&'a RunState),
    /// A Run is due, and History has not answered whether an earlier Task has run the same; or it does not have the end of
    /// this Task's last Run yet.
    AwaitingHistory(Option<&'a RunState>),
    /// A Run is due, and beyond the ceiling of its namespace: why, and what to do.
    BeyondCeiling(&'a str),
    /// A Run is due, and waits for an approval: of what, and how it is given.
    AwaitingApproval(&'a str),
    /// A Run is due, and whether it may begin is not known: why.
    CeilingUnknown(&'a str),
    /// An earlier Task of this name has run the same: nothing is run.
    AlreadyExecuted(&'a EarlierRun),
    /// The Task is being deleted.
    Terminating(Option<&'a RunState>),
    /// The Task is being deleted, nothing of it runs, and History does not have its Runs yet.
    Held(&'a RunState),
}

/// Whether History has all that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// It does, or the rest is on its way.
    Current,
    /// It lags behind.
    Behind,
    /// It does not have any more what it once had of this Run. The status of the Task stays as it is.
    Lost,
}

impl Archive {
    /// As a condition `Archived` shows it.
    pub fn shown_by(is_true: bool, reason: &str) -> Self {
        match reason {
            _ if is_true => Self::Current,
            HISTORY_LOST => Self::Lost,
            _ => Self::Behind,
        }
    }
}

const HISTORY_LOST: &str = "HistoryLost";

/// The message of a Task that is suspended.
const SUSPENDED: &str = "spec.suspend is true; nothing is started";

/// The reason while a Task with `onRecreate: OncePerSpec` waits for History.
const WAITING: &str = "WaitingForHistory";

const UNANSWERED: &str = "spec.onRecreate is OncePerSpec, and History has not answered whether an earlier Task of this name \
    has run this spec, so nothing is started; it is asked until it answers. If it stays unavailable, repair it, or set \
    spec.onRecreate to Run to run without asking";

const BEHIND: &str = "spec.onRecreate is OncePerSpec, so it begins once History has the last one. If History stays \
    unavailable, repair it, or set spec.onRecreate to Run";

const HELD: &str = "spec.onRecreate is OncePerSpec, so the Task is deleted once History has its runs. If History stays \
    unavailable, repair it, or annotate the Task with sentinelnode.dev/abandon=true to delete it without";

/// The reason of conditions of a Task that is beyond the ceiling of its namespace.
pub const CEILING_EXCEEDED: &str = "CeilingExceeded";

/// The same of one that waits for an approval.
pub const AWAITING_APPROVAL: &str = "AwaitingApproval";

/// The same while the ceilings cannot be read.
pub const CEILINGS_UNREADABLE: &str = "CeilingsUnreadable";

/// The phase for people, and the conditions.
pub fn describe(state: TaskState<'_>, archive: Archive) -> (&'static str, Vec<Condition>) {
    let mut conditions =
        vec![condition(kind::ACCEPTED, ConditionStatus::True, "Valid", "the spec can be run")];
    let phase = match state {
        TaskState::HeldBack | TaskState::Suspended(None) => suspend("Suspended", SUSPENDED, &mut conditions),
        TaskState::Suspended(Some(run)) => {
            let message = format!("spec.suspend is true; {}", progress_message(run));
            suspend("Suspended", &message, &mut conditions)
        }
        TaskState::AwaitingApproval(message) => suspend(AWAITING_APPROVAL, message, &mut conditions),
        TaskState::Running(run) => {
            let (phase, reason) = running_phase(run);
            under_way(reason, &progress_message(run), &mut conditions);
            phase
        }
        TaskState::Due(last) => {
            let message = format!("another run is due; {}", progress_message(last));
            under_way("RunDue", &message, &mut conditions);
            "Pending"
        }
        TaskState::Terminating(run) => {
            let message = run.map_or_else(|| "the Task is being deleted".to_owned(), progress_message);
            under_way("Terminating", &message, &mut conditions);
            "Terminating"
        }
        TaskState::Held(run) => {
            under_way(WAITING, &format!("{}; {HELD}", progress_message(run)), &mut conditions);
            "Terminating"
        }
        TaskState::AwaitingHistory(last) => {
            let message = match last {
                Some(run) => format!("another run is due; {}; {BEHIND}", progress_message(run)),
                None => UNANSWERED.to_owned(),
            };
            under_way(WAITING, &message, &mut conditions);
            "Pending"
        }
        TaskState::CeilingUnknown(message) => {
            under_way(CEILINGS_UNREADABLE, message, &mut conditions);
            "Pending"
        }
        TaskState::BeyondCeiling(message) => {
            let (phase, refused) = refused(CEILING_EXCEEDED, message);
            conditions = refused;
            phase
        }
        TaskState::AlreadyExecuted(earlier) => already_executed(earlier, &mut conditions),
        TaskState::Finished(run) => finished(run, &mut conditions),
    };
    conditions.push(archived(archive));
    (phase, conditions)
}

/// A Run is active or due.
fn under_way(reason: &'static str, message: &str, conditions: &mut Vec<Condition>) {
    conditions.push(condition(kind::RECONCILING, ConditionStatus::True, reason, message));
    conditions.push(condition(kind::READY, ConditionStatus::Unknown, reason, message));
}

/// The same, and nothing is started.
fn suspend(reason: &'static str, message: &str, conditions: &mut Vec<Condition>) -> &'static str {
    under_way(reason, message, conditions);
    conditions.push(condition(kind::SUSPENDED, ConditionStatus::True, reason, message));
    "Suspended"
}

/// That the spec suspends a Task whose last Run is over.
pub(super) fn suspended() -> Condition {
    condition(kind::SUSPENDED, ConditionStatus::True, "Suspended", SUSPENDED)
}

/// Phase and conditions of a Task with an invalid spec. Without `Stalled` kstatus would wait forever.
pub fn rejected(message: &str) -> (&'static str, Vec<Condition>) {
    refused("InvalidSpec", message)
}

fn refused(reason: &'static str, message: &str) -> (&'static str, Vec<Condition>) {
    let conditions = vec![
        condition(kind::ACCEPTED, ConditionStatus::False, reason, message),
        condition(kind::STALLED, ConditionStatus::True, reason, message),
        condition(kind::READY, ConditionStatus::False, reason, message),
    ];
    ("Rejected", conditions)
}

fn running_phase(run: &RunState) -> (&'static str, &'static str) {
    match run.stopping {
        Some(Stopping::Cancelled) => ("Running", "Cancelling"),
        Some(Stopping::SupersededFinish | Stopping::SupersededCancel) => ("Running", "Superseded"),
        Some(Stopping::Deleted) => ("Terminating", "Terminating"),
        None if run.counts.running == 0 && run.counts.done() == 0 => ("Pending", "WaitingForNodes"),
        None => ("Running", "Running"),
    }
}

fn finished(run: &RunState, conditions: &mut Vec<Condition>) -> &'static str {
    let message = progress_message(run);
    if run.verdict == Some(Verdict::Complete) {
        conditions.push(condition(kind::READY, ConditionStatus::True, "Complete", &message));
        conditions.push(condition(kind::COMPLETE, ConditionStatus::True, "Complete", &message));
        return "Succeeded";
    }
    let (phase, reason, message) = match run.stopping {
        _ if run.targets == 0 => {
            ("Failed", "NoMatchingNodes", "no node matches spec.targets, so nothing was run".to_owned())
        }
        Some(Stopping::Cancelled | Stopping::Deleted) => ("Cancelled", "Cancelled", message),
        Some(_) => ("Failed", "Superseded", message),
        None if run.counts.failed == 0 => ("Failed", "NodesUnreachable", message),
        None => ("Failed", "NodesFailed", message),
    };
    conditions.push(condition(kind::STALLED, ConditionStatus::True, reason, &message));
    conditions.push(condition(kind::READY, ConditionStatus::False, reason, &message));
    conditions.push(condition(kind::FAILED, ConditionStatus::True, reason, &message));
    phase
}

fn already_executed(earlier: &EarlierRun, conditions: &mut Vec<Condition>) -> &'static str {
    const REASON: &str = "AlreadyExecuted";
    let message = already_executed_message(earlier);
    if earlier.verdict == Some(Verdict::Complete) {
        conditions.push(condition(kind::READY, ConditionStatus::True, REASON, &message));
        conditions.push(condition(kind::COMPLETE, ConditionStatus::True, REASON, &message));
        return "Succeeded";
    }
    conditions.push(condition(kind::STALLED, ConditionStatus::True, REASON, &message));
    conditions.push(condition(kind::READY, ConditionStatus::False, REASON, &message));
    conditions.push(condition(kind::FAILED, ConditionStatus::True, REASON, &message));
    "Failed"
}

/// Which Run of an earlier Task ran the same and how it ended, in one sentence.
pub fn already_executed_message(earlier: &EarlierRun) -> String {
    let ended = match earlier.verdict {
        Some(verdict) => format!("with the verdict {}", verdict.as_str()),
        None => "and how it ended is not known".to_owned(),
    };
    format!(
        "an earlier Task of this name (uid {}) ran this spec in its run {} {ended}, and spec.onRecreate is OncePerSpec, so \
         it is not run again unless spec.rerunToken changes",
        earlier.task, earlier.number
    )
}

fn archived(archive: Archive) -> Condition {
    match archive {
        Archive::Current => condition(
            kind::ARCHIVED,
            ConditionStatus::True,
            "Archived",
            "History has all that is known of this run",
        ),
        Archive::Behind => condition(
            kind::ARCHIVED,
            ConditionStatus::False,
            "HistoryBehind",
            "History is behind; results and output wait on the nodes and are archived once it is available",
        ),
        Archive::Lost => condition(
            kind::ARCHIVED,
            ConditionStatus::False,
            HISTORY_LOST,
            "History does not have this Run any more, or not all of it; counts and conditions are those that were recorded",
        ),
    }
}

/// The progress of a Run in one sentence. Its counts add up to the number of targets.
pub fn progress_message(run: &RunState) -> String {
    let Counts { waiting, running, succeeded, failed, unreachable } = run.counts;
    let done = format!("run {}: {}/{} done", run.number, run.counts.done(), run.targets);
    let parts = [
        (succeeded, "succeeded"),
        (failed, "failed"),
        (unreachable, "unreachable"),
        (running, "running"),
        (waiting, "waiting"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() { done } else { format!("{done}, {}", parts.join(", ")) }
}

fn condition(kind: &'static str, status: ConditionStatus, reason: &'static str, message: &str) -> Condition {
    Condition { kind, status, reason, message: message.to_owned() }
}
