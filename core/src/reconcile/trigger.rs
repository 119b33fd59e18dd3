//! Whether a new Run is due, and whether the current one stops.

use sentinel_protocol::ids::RunNumber;

use super::run::{RunState, Stopping, Trigger};
use super::status::{Handled, Recorded};
use crate::plan::{OnChange, TaskPlan};

/// Requests by annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// `sentinelnode.dev/cancel`: the Run to cancel.
    pub cancel: Option<RunNumber>,
    /// `sentinelnode.dev/rerun`: any text; a changed one runs the Task again.
    pub rerun: Option<String>,
    /// `sentinelnode.dev/abandon`: a deletion does not wait for unreachable nodes.
    pub abandon: bool,
}

/// Whether a new Run is due, and why.
pub fn due(plan: &TaskPlan, recorded: &Recorded, requests: &Requests) -> Option<Trigger> {
    let (spec_hash, rerun_token) = match (&recorded.run, &recorded.earlier) {
        (Some(run), _) => (&run.spec_hash, &run.rerun_token),
        (None, Some(earlier)) => (&earlier.spec_hash, &earlier.rerun_token),
        (None, None) => return Some(Trigger::SpecChange),
    };
    if *spec_hash != plan.spec_hash {
        return Some(Trigger::SpecChange);
    }
    if *rerun_token != plan.rerun_token || rerun_asked(requests, &recorded.handled) {
        return Some(Trigger::RerunToken);
    }
    // A superseded Run is always followed by another, even if the spec was changed back.
    let stopping = recorded.run.as_ref().and_then(|run| run.stopping);
    matches!(stopping, Some(Stopping::SupersededFinish | Stopping::SupersededCancel))
        .then_some(Trigger::SpecChange)
}

/// Whether the annotation asks for a Run that has not started.
pub fn rerun_asked(requests: &Requests, handled: &Handled) -> bool {
    requests.rerun.is_some() && requests.rerun != handled.rerun
}

/// Who is behind a Run that is due, beside the author of its spec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AskedBy {
    /// No other person.
    #[default]
    Author,
    /// Who set the annotation that asks for it.
    Annotation,
    /// Not known: it follows a Run that was superseded, and what superseded that has been taken back. It may have been the annotation.
    Unclear,
}

/// Who is behind the Run that is due for this reason.
pub fn asked_by(plan: &TaskPlan, trigger: Trigger, recorded: &Recorded, requests: &Requests) -> AskedBy {
    let is_as_before =
        |run: &RunState| run.spec_hash == plan.spec_hash && run.rerun_token == plan.rerun_token;
    match trigger {
        Trigger::RerunToken if rerun_asked(requests, &recorded.handled) => AskedBy::Annotation,
        Trigger::SpecChange if recorded.run.as_ref().is_some_and(is_as_before) => AskedBy::Unclear,
        _ => AskedBy::Author,
    }
}

/// Why the Run stops, if it does. A stronger reason replaces the recorded one; none is ever withdrawn.
pub fn stopping(
    plan: &TaskPlan,
    run: &RunState,
    cancel: bool,
    deleting: bool,
    due: Option<Trigger>,
) -> Option<Stopping> {
    let wanted = if deleting {
        Some(Stopping::Deleted)
    } else if cancel {
        Some(Stopping::Cancelled)
    } else {
        due.map(|_| match plan.on_change {
            OnChange::Finish => Stopping::SupersededFinish,
            OnChange::Cancel => Stopping::SupersededCancel,
        })
    };
    let rank = |reason: Option<Stopping>| match reason {
        None => 0,
        Some(Stopping::SupersededFinish) => 1,
        Some(Stopping::SupersededCancel) => 2,
        Some(Stopping::Cancelled) => 3,
        Some(Stopping::Deleted) => 4,
    };
    if rank(wanted) > rank(run.stopping) { wanted } else { run.stopping }
}

/// Whether the annotation asks to cancel this Run and was not handled yet, and what is handled then.
///
/// The number of another Run cancels nothing: an older one is noted as handled, a later one waits for its Run.
pub fn cancel_asked(run: &RunState, requests: &Requests, handled: &Handled) -> (bool, Handled) {
    match requests.cancel {
        Some(number) if number <= run.number && handled.cancel != Some(number) => {
            let acts = number == run.number && run.finished_at.is_none();
            (acts, Handled { cancel: Some(number), ..handled.clone() })
        }
        _ => (false, handled.clone()),
    }
}
