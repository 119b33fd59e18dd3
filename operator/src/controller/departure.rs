//! A Task that is gone while a Run of it was active: deleted before it had its finalizer, which is set beside the first
//! commands, or without it, which a person removed. Its commands are cancelled and its Run ends in History.
//!
//! What an agent is not sent here, or does not receive, is an orphan: `crate::gateway::orphans` sends it later.

use std::sync::Arc;

use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::Action;

use super::archive_handover::ArchiveHandover;
use super::context::Context;
use super::dispatcher::Dispatcher;
use super::observe::{decide_on, observe_gone};
use super::task_runs::TaskRuns;

/// Ends the active Run of a Task that is gone, if it has one.
pub(super) fn end_run(context: &Context, plan: &TaskPlan, runs: &Arc<TaskRuns>) {
    let record = runs.lock().current.as_ref().and_then(|run| run.ledger.record().cloned());
    let Some(run) = record.filter(|run| run.finished_at.is_none()) else { return };
    if context.parts.leadership.term().is_none() {
        return;
    }
    tracing::warn!(task = %plan.task, run = run.number.0, "the Task of an active Run is gone; ending the Run");
    let now = context.parts.clock.reading();
    let snapshot = observe_gone(context, runs.clone(), run);
    let dispatcher = Dispatcher { context, plan, runs, now };
    let handover = ArchiveHandover { context, runs, now: now.monotonic };
    for action in decide_on(context, plan, &snapshot, now).actions {
        match &action {
            Action::Cancel(_) | Action::Forget(_) => {
                dispatcher.dispatch(&action);
            }
            Action::Conclude { attempt, ended } => {
                handover.conclude(attempt, ended);
            }
            Action::ArchiveRun(record) => {
                handover.archive_run(record, &action);
            }
            // The status, which nothing has any more, and what would be intents of it.
            _ => {}
        }
    }
}
