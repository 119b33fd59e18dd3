//! Runs and Attempts as records of History.

use std::collections::BTreeMap;

use sentinel_core::reconcile::run::{self, RunState, Stopping};
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::request::Environment;
use sentinel_protocol::to_operator::Ended;

use super::task_runs::TrackedRun;
use crate::history::outcome::OutcomeName;
use crate::history::record::{AttemptRecord, RecordSource, RunContext, RunCounts, RunRecord, RunVerdict};

/// The record of an Attempt that the operator concluded.
pub(super) fn concluded_record(
    run: &TrackedRun,
    attempt: &AttemptId,
    ended: &Ended,
    epoch: Epoch,
) -> AttemptRecord {
    AttemptRecord::accepted(attempt.clone(), run_context(run), RecordSource::Operator, epoch).ended(ended)
}

/// What the records of a Run's Attempts repeat of the Run.
pub(super) fn run_context(run: &TrackedRun) -> RunContext {
    let facts = &run.facts;
    RunContext {
        task: facts.task.clone(),
        started_at: facts.started_at,
        trigger: Some(facts.trigger.as_str().to_owned()),
        spec_hash: facts.spec_hash.clone(),
        command: facts.command.clone(),
        environment: facts.request.as_ref().map_or(Environment::Container, |request| request.environment),
    }
}

/// The record of a Run: `state`, with Outcomes counted from its ledger.
pub(super) fn run_record(run: &TrackedRun, state: &RunState, epoch: Epoch) -> RunRecord {
    let facts = &run.facts;
    let mut outcomes: BTreeMap<OutcomeName, u32> = BTreeMap::new();
    let executions = run.ledger.executions_of(&run.targets);
    for ended in executions.filter_map(|(_, execution)| execution?.ended()) {
        *outcomes.entry(OutcomeName::from(&ended.outcome)).or_default() += 1;
    }
    let cancelled = matches!(state.stopping, Some(Stopping::Cancelled | Stopping::Deleted));
    RunRecord {
        task_uid: facts.uid.clone(),
        namespace: facts.task.namespace.to_string(),
        name: facts.task.name.to_string(),
        run: state.number,
        trigger: state.trigger.as_str().to_owned(),
        spec_hash: facts.spec_hash.clone(),
        rerun_token: state.rerun_token.clone(),
        rerun: facts.rerun.clone(),
        requested_by: facts.requested_by.clone(),
        cancelled_by: run.cancelled_by.clone(),
        approved_by: facts.approved_by.clone(),
        command: facts.command.clone(),
        started_at: state.started_at,
        finished_at: state.finished_at,
        verdict: state.verdict.map(|verdict| match verdict {
            run::Verdict::Complete => RunVerdict::Complete,
            run::Verdict::Failed if cancelled => RunVerdict::Cancelled,
            run::Verdict::Failed => RunVerdict::Failed,
        }),
        reason: state.finished_at.map(|_| sentinel_core::reconcile::conditions::progress_message(state)),
        counts: RunCounts { targets: state.targets, outcomes },
        epoch,
    }
}
