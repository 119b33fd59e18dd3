//! What is counted and published when a ceiling holds a Run, or lets it begin because it was approved.

use sentinel_audit::Record;
use sentinel_core::reconcile::ceiling::approval::RefusedApproval;
use sentinel_core::reconcile::conditions::AWAITING_APPROVAL;
use sentinel_core::reconcile::{Level, Notice, Status};

use super::change_filter::identified;
use super::context::Context;
use super::events::publish;
use super::metrics::HELD;
use super::task_runs::TaskRuns;
use crate::resource::Task;

/// The reason for which the Task shows that its Run does not begin, and the sentence for people.
fn held(task: &Task) -> Option<(usize, &str)> {
    let conditions = &task.status.as_ref()?.conditions;
    conditions.iter().find_map(|condition| {
        let at = HELD.iter().position(|reason| *reason == condition.reason)?;
        Some((at, condition.message.as_str()))
    })
}

/// Whether the status of a decision holds a Run for its ceiling: then a change of ceilings or nodes may let it begin.
pub(super) fn holds(status: &Status) -> bool {
    status.conditions.iter().any(|condition| HELD.contains(&condition.reason))
}

/// The status of a Task was written. Publishes and records that a ceiling holds its Run, when that is new.
pub(super) fn note_written(
    context: &Context,
    runs: &TaskRuns,
    status: &Status,
    (before, after): (&Task, &Task),
) {
    let Some((at, message)) = held(after) else { return };
    if held(before) != Some((at, message)) {
        record_refused(context, runs, status, after);
    }
    let is_known = held(before).is_some_and(|(known, _)| known == at);
    let generation = |task: &Task| task.status.as_ref().map(|status| status.observed_generation);
    if is_known && generation(before) == generation(after) {
        return;
    }
    context.ceilings.held[at].add(1);
    let level = if HELD[at] == AWAITING_APPROVAL { Level::Normal } else { Level::Warning };
    publish(context, after, Notice { reason: HELD[at], note: message.to_owned(), level });
    let Some(((task, uid), run)) = identified(after).zip(status.held) else { return };
    let (reason, message) = (HELD[at].into(), message.into());
    context.audit().refusal(&task, || Record::RunHeld { task: task.clone(), uid, run, reason, message });
}

/// Records that the approval that the Task has does not count, once for each approval and reason.
fn record_refused(context: &Context, runs: &TaskRuns, status: &Status, task: &Task) {
    let Some(awaiting) = &status.awaiting else { return };
    let Some(RefusedApproval { approval, why }) = &awaiting.refused else { return };
    let refused = Some((approval.at, why.clone()));
    if std::mem::replace(&mut runs.lock().refused, refused.clone()) == refused {
        return;
    }
    let Some((task, uid)) = identified(task) else { return };
    context.audit().refusal(&task, || Record::ApprovalRefused {
        task: task.clone(),
        uid,
        run: Some(approval.run),
        by: Some(approval.approver.clone()),
        message: why.as_str().into(),
    });
}

/// Records that a Task has an approval that no operator has signed for it with a key that is known now. No person is named: whom
/// the annotation names may not have given it.
pub(super) fn record_forged(context: &Context, task: &Task, message: &str) {
    let Some((task, uid)) = identified(task) else { return };
    let message = message.into();
    context.audit().refusal(&task, || Record::ApprovalRefused {
        task: task.clone(),
        uid,
        run: None,
        by: None,
        message,
    });
}

/// A Run has begun, as this Task records it. Publishes and records who approved it.
pub(super) fn note_begun(context: &Context, task: &Task) {
    let Some(run) = task.status.as_ref().and_then(|status| status.run.as_ref()) else { return };
    let Some(approver) = &run.approved_by else { return };
    context.ceilings.approved.add(1);
    let note = format!("run {} began, as {} approved", run.number, approver.user);
    publish(context, task, Notice { reason: "RunApproved", note, level: Level::Normal });
}
