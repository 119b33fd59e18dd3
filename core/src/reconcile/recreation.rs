//! A Task that was deleted and made again: has an earlier Task of its name run the same?
//!
//! With `onRecreate: OncePerSpec` a spec runs once under a name, however often its Task is made again. The fact is in
//! History alone, so nothing may overtake the archive: a first Run waits until History has answered, the next one until
//! History has the end of the last, and a deletion until it has them all.

use sentinel_protocol::ids::RunNumber;

use super::action::{Action, Level, Notice};
use super::conditions::{self, Archive, TaskState};
use super::decision::{Decision, Earlier, Observed, Status, Write};
use super::ledger::{RunLedger, RunStage};
use super::rollout::{HistoryLookup, RESEND_MS};
use super::run::{EarlierRun, RunState, Verdict};
use super::status::{Handled, Recorded};
use crate::plan::{OnRecreate, Starts, TaskPlan};
use crate::time::Now;

/// Whether History must be asked before the Task may run: it has no Run of its own, and its status does not have the answer.
pub fn asks(plan: &TaskPlan, recorded: &Recorded) -> bool {
    let once = plan.on_recreate == OnRecreate::OncePerSpec && plan.starts == Starts::Allowed;
    let is_answered = recorded.earlier.as_ref().is_some_and(|earlier| is_same(plan, earlier));
    once && recorded.run.is_none() && !is_answered
}

fn is_same(plan: &TaskPlan, earlier: &EarlierRun) -> bool {
    earlier.spec_hash == plan.spec_hash && earlier.rerun_token == plan.rerun_token
}

/// Whether only the annotation lets a Task run what an earlier one of its name ran: it is another than that Run began with.
pub(super) fn is_asked_again(plan: &TaskPlan, observed: &Observed<'_>) -> bool {
    let is_another =
        |rerun: &Option<String>| observed.requests.rerun.is_some() && observed.requests.rerun != *rerun;
    asks(plan, observed.recorded)
        && matches!(observed.earlier, Earlier::Ran { rerun, .. } if is_another(rerun))
}

/// What a Task does instead of the Run that is due; `None` when that Run may begin.
pub(super) fn instead_of_run(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Option<Decision> {
    if !asks(plan, observed.recorded) {
        return None;
    }
    match observed.earlier {
        Earlier::NotAsked | Earlier::Unknown => Some(await_history(observed, now)),
        Earlier::Never => None,
        Earlier::Ran { .. } if is_asked_again(plan, observed) => None,
        Earlier::Ran { run, .. } => Some(find_executed(observed, run)),
    }
}

/// History has not answered. The adapter that asks it reconciles the Task when it does.
fn await_history(observed: &Observed<'_>, now: Now) -> Decision {
    let state = TaskState::AwaitingHistory(None);
    let status = Status::of(state, observed.archive, observed.recorded.clone(), None);
    Decision { status, freeze: None, write: Write::Now, actions: Vec::new(), wake_at: Some(again(now)) }
}

/// The status becomes the proof: it outlives the retention of History.
fn find_executed(observed: &Observed<'_>, earlier: &EarlierRun) -> Decision {
    let recorded = Recorded {
        earlier: Some(earlier.clone()),
        handled: Handled { rerun: observed.requests.rerun.clone(), ..observed.recorded.handled.clone() },
        ..observed.recorded.clone()
    };
    let is_complete = earlier.verdict == Some(Verdict::Complete);
    let notice = Notice {
        reason: "AlreadyExecuted",
        note: conditions::already_executed_message(earlier),
        level: if is_complete { Level::Normal } else { Level::Warning },
    };
    Decision {
        status: Status::of(TaskState::AlreadyExecuted(earlier), Archive::Current, recorded, Some(Vec::new())),
        freeze: None,
        write: Write::Intent,
        actions: vec![Action::Publish(notice)],
        wake_at: None,
    }
}

/// Nothing was run for this Task, and nothing is due. It stays, whatever `ttlAfterFinished` is: it has no Run that could
/// have finished, and a tool that made it again would do so once more.
pub(super) fn stay_executed(observed: &Observed<'_>, earlier: &EarlierRun) -> Decision {
    let state = TaskState::AlreadyExecuted(earlier);
    let status = Status::of(state, Archive::Current, observed.recorded.clone(), None);
    Decision { status, freeze: None, write: Write::Soon, actions: Vec::new(), wake_at: None }
}

/// Whether the next Run waits until History has the end of the last one. Its record would otherwise go with this operator.
pub(super) fn holds_next_run(plan: &TaskPlan, observed: &Observed<'_>, last: &RunState) -> bool {
    plan.on_recreate == OnRecreate::OncePerSpec && !has_end(observed.ledger, last.number)
}

/// Why a deletion waits for History, if it does: the last Run, and its record where no operator has handed it over yet.
pub(super) fn holds_deletion<'a>(
    plan: &TaskPlan,
    observed: &'a Observed<'_>,
) -> Option<(&'a RunState, Option<Action>)> {
    let run = observed.recorded.run.as_ref()?;
    let superseded = |ledger: &RunLedger| ledger.record().is_none() || has_end(ledger, ledger.run());
    let is_held =
        has_end(observed.ledger, run.number) && observed.superseded.iter().all(|one| superseded(one));
    if plan.on_recreate == OnRecreate::Run || observed.requests.abandon || is_held {
        return None;
    }
    let noted = observed.ledger.record().is_some_and(|record| record.finished_at.is_some());
    let hand_over = !noted && observed.ledger.run() == run.number && observed.history == HistoryLookup::Done;
    Some((run, hand_over.then(|| Action::ArchiveRun(Box::new(run.clone())))))
}

fn has_end(ledger: &RunLedger, run: RunNumber) -> bool {
    ledger.run() == run && ledger.run_archived() == Some(RunStage::Finished)
}

/// When what waits for History is decided again, if nothing changes before.
pub(super) fn again(now: Now) -> crate::time::Monotonic {
    now.monotonic.plus(RESEND_MS)
}
