//! Who asked for a Run, and for its end: counted, published as cluster events, and noted for History.

use sentinel_audit::Record;
use sentinel_core::reconcile::run::Stopping;
use sentinel_core::reconcile::{Level, Notice};
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::requester::Requester;

use super::change_filter::identified;
use super::context::Context;
use super::events::publish;
use super::metrics::KNOWN;
use super::task_cache::TaskCache;
use super::task_runs::TaskRuns;
use crate::resource::Task;
use crate::resource::marks::CANCEL;
use crate::resource::stamp::Unverified;
use crate::resource::status::{RunRequestedBy, RunStatus};

/// The reason of the event with which a Run begins.
const RUN_STARTED: &str = "RunStarted";

/// A Run has begun, as this Task records it.
pub(super) fn note_begun(context: &Context, task: &Task) {
    let Some(run) = run_of(task) else { return };
    let why = match &run.requested_by {
        None => Unverified::Off.as_str(),
        Some(by) => by.unknown.as_deref().unwrap_or(KNOWN),
    };
    context.requesters.count(why);
    if let Some(why) = run.requested_by.as_ref().and_then(|by| by.unknown.as_deref()) {
        let note = format!("run {}: it is unknown who asked for it: {}", run.number, describe(why));
        publish(context, task, Notice { reason: "RequesterUnknown", note, level: Level::Warning });
    }
}

fn describe(why: &str) -> &'static str {
    let known = Unverified::ALL.into_iter().find(|known| known.as_str() == why);
    known.map_or(
        "the annotation that asks for it was set without the operator's webhook; set another value",
        Unverified::describe,
    )
}

/// The status of a Task was written. Publishes who cancelled its Run, once, and notes it for the record of the Run.
pub(super) fn note_written(context: &Context, runs: &TaskRuns, before: &Task, after: &Task) {
    record_cancel(context, before, after);
    let Some(run) = run_of(after).filter(|run| is_cancelled(run)) else { return };
    if run_of(before).is_some_and(|before| before.number == run.number && is_cancelled(before)) {
        return;
    }
    note_cancelled(runs, run);
    let by = run.cancelled_by.as_ref().map(|by| by.user.as_str());
    let note = match by {
        Some(user) => format!("run {} is cancelled, as {user} asked", run.number),
        None => format!("run {} is cancelled; who asked for that is unknown", run.number),
    };
    publish(context, after, Notice { reason: "RunCancelled", note, level: Level::Normal });
}

/// Records that a Run is to be cancelled, when that is new: whether or not anything of it was dispatched, or is still active.
fn record_cancel(context: &Context, before: &Task, after: &Task) {
    let handled = |task: &Task| task.status.as_ref().and_then(|status| status.handled.cancel);
    let Some(number) = handled(after).filter(|number| handled(before) != Some(*number)) else { return };
    let Some(((task, uid), number)) = identified(after).zip(u32::try_from(number).ok()) else { return };
    // Of the Task whose annotation was handled.
    let requested_by = context.parts.stamps.read(before).requests.remove(CANCEL);
    let record = Record::CancelAsked { task: task.clone(), uid, run: RunNumber(number), requested_by };
    let is_cancelled =
        |task| run_of(task).is_some_and(|run| run.number == i64::from(number) && is_cancelled(run));
    if is_cancelled(after) && !is_cancelled(before) {
        let targets = run_of(after).map_or(0, |run| usize::try_from(run.target_count).unwrap_or_default());
        context.audit().on_nodes(targets, &task, || record);
    } else {
        context.audit().refusal(&task, || record);
    }
}

/// Records that a Task that has had a Run is being deleted. Once, and not again by the next leader while its Run ends.
pub(super) fn note_deleting(context: &Context, cache: &mut TaskCache, task: &Task) {
    if task.metadata.deletion_timestamp.is_none() || std::mem::replace(&mut cache.deletion_recorded, true) {
        return;
    }
    let Some(run) = run_of(task).filter(|run| run.stopping.as_deref() != Some(Stopping::Deleted.as_str()))
    else {
        return;
    };
    let targets = usize::try_from(run.target_count).unwrap_or_default();
    let Some(((task, uid), run)) = identified(task).zip(u32::try_from(run.number).ok()) else { return };
    let deleted = Record::TaskDeleted { task: task.clone(), uid, run: RunNumber(run) };
    context.audit().on_nodes(targets, &task, || deleted);
}

/// The same of one that is gone, if this operator has not seen it before: it had no finalizer.
pub(super) fn note_gone(context: &Context, cache: &mut TaskCache, runs: &TaskRuns) {
    if context.parts.leadership.term().is_none() || std::mem::replace(&mut cache.deletion_recorded, true) {
        return;
    }
    let current = runs.lock().current.as_ref().map(|run| (run.facts.clone(), run.targets.len()));
    let Some((facts, targets)) = current else { return };
    context.audit().on_nodes(targets, &facts.task, || Record::TaskDeleted {
        task: facts.task.clone(),
        uid: facts.uid.clone(),
        run: facts.run,
    });
}

/// Notes who cancelled a Run for its record.
pub(super) fn note_cancelled(runs: &TaskRuns, run: &RunStatus) {
    let Ok(number) = u32::try_from(run.number) else { return };
    if let Some(tracked) = runs.lock().get_mut(RunNumber(number)) {
        tracked.cancelled_by = run.cancelled_by.as_ref().map(Requester::from);
    }
}

/// The event with which a Run begins names who asked for it.
pub(super) fn named(notice: Notice, task: &Task) -> Notice {
    let by = run_of(task).and_then(|run| run.requested_by.as_ref()).and_then(RunRequestedBy::known);
    match by {
        Some(by) if notice.reason == RUN_STARTED => {
            let who = by.rerun.as_ref().unwrap_or(&by.author);
            Notice { note: format!("{}, as {} asked", notice.note, who.user), ..notice }
        }
        _ => notice,
    }
}

fn run_of(task: &Task) -> Option<&RunStatus> {
    task.status.as_ref()?.run.as_ref()
}

fn is_cancelled(run: &RunStatus) -> bool {
    run.stopping.as_deref() == Some(Stopping::Cancelled.as_str())
}
