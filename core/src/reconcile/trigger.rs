//! Whether a new Run is due, and what becomes of the one before.

use sentinel_protocol::ids::RunNumber;

use super::run::{RunState, Stopping, Trigger};
use super::status::{Handled, Recorded};
use crate::plan::{OnChange, TaskPlan};

/// What people asked for by annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// `sentinelnode.dev/cancel`: the Run to cancel.
    pub cancel: Option<RunNumber>,
    /// `sentinelnode.dev/rerun`: any text; another one than before runs the Task again.
    pub rerun: Option<String>,
    /// `sentinelnode.dev/abandon`: give up on what cannot be reached, so that a deletion can end.
    pub abandon: bool,
}

/// Whether a new Run is due, and why.
pub fn due(plan: &TaskPlan, recorded: &Recorded, requests: &Requests) -> Option<Trigger> {
    let Some(run) = &recorded.run else { return Some(Trigger::SpecChange) };
    if run.spec_hash != plan.spec_hash {
        return Some(Trigger::SpecChange);
    }
    if run.rerun_token != plan.rerun_token || rerun_asked(requests, &recorded.handled) {
        return Some(Trigger::RerunToken);
    }
    // A Run that gave way to a newer one is never the last, even when the spec has become its own again.
    matches!(run.stopping, Some(Stopping::SupersededFinish | Stopping::SupersededCancel))
        .then_some(Trigger::SpecChange)
}

/// Whether the annotation asks for a Run that has not begun: a request counts as under way until it is handled.
pub fn rerun_asked(requests: &Requests, handled: &Handled) -> bool {
    requests.rerun.is_some() && requests.rerun != handled.rerun
}

/// Why the Run starts nothing more, if so. A stronger reason than the recorded one wins; none is ever taken back.
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

/// Whether the annotation asks for the cancellation of this Run and nobody has acted on it, and what is handled then.
///
/// A number that is not this Run's is never acted on: older ones are noted as handled, later ones wait for their Run.
pub fn cancel_asked(run: &RunState, requests: &Requests, handled: &Handled) -> (bool, Handled) {
    match requests.cancel {
        Some(number) if number <= run.number && handled.cancel != Some(number) => {
            let acts = number == run.number && run.finished_at.is_none();
            (acts, Handled { cancel: Some(number), ..handled.clone() })
        }
        _ => (false, handled.clone()),
    }
}
