//! Lookups in History: what it holds of a Run that this operator took over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sentinel_core::reconcile::ledger::{RunStage, Source};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::{Ended, ReportedState, Running, Usage};

use super::context::Context;
use super::counters::Counters;
use super::task_runs::TaskRuns;
use crate::backoff::Backoff;
use crate::history::{ExecutionQuery, ExecutionRecord, HistoryError, RecordSource, RunQuery, outcome_of};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) };

/// How long a reconcile waits for the number of the last Run.
const HIGHEST_RUN_WITHIN: Duration = Duration::from_secs(2);

/// Asks History until it answers, applies the answer to the Run's ledger and requests a reconcile. Ends early when the
/// Run is not tracked any more, or the controller stops.
pub(super) fn spawn(context: Arc<Context>, runs: Arc<TaskRuns>, run: RunNumber) {
    let owner = context.clone();
    owner.background.spawn_until_stop(async move {
        let mut failures = 0;
        while runs.lock().get(run).is_some_and(|run| run.lookup == HistoryLookup::Pending) {
            // A panic is retried as well: without an answer nothing of this Run is ever started again.
            let result = AssertUnwindSafe(read_run(&context, &runs, run)).catch_unwind().await;
            failures += 1;
            match result {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    let category = error.category();
                    tracing::warn!(%error, category, failures, "unable to read a Run from History; will retry");
                }
                Err(_) => {
                    Counters::add(&context.counters.panicked_tasks);
                    tracing::error!(failures, "a lookup in History panicked; will retry");
                }
            }
            tokio::time::sleep(BACKOFF.after(failures)).await;
        }
        context.parts.runs.request(&runs);
    });
}

/// The highest Run of a Task that History knows. A History that does not answer in time delays nothing: then a number
/// may be used again after a restore, and agents tell the two Runs apart by their spec hash.
pub(super) async fn highest_run(context: &Context, task: &TaskUid) -> Option<RunNumber> {
    let query = RunQuery { task_uid: Some(task.clone()), ..RunQuery::default() };
    match tokio::time::timeout(HIGHEST_RUN_WITHIN, context.parts.history.runs(query)).await {
        Ok(Ok(page)) => page.items.iter().map(|run| run.run).max(),
        Ok(Err(error)) => {
            tracing::warn!(%error, category = error.category(), "unable to read the last Run from History");
            None
        }
        Err(_) => {
            tracing::warn!(within = ?HIGHEST_RUN_WITHIN, "unable to read the last Run from History in time");
            None
        }
    }
}

async fn read_run(context: &Context, runs: &TaskRuns, run: RunNumber) -> Result<(), HistoryError> {
    let history = &context.parts.history;
    let Some(facts) = runs.lock().get(run).map(|run| run.facts.clone()) else { return Ok(()) };
    let mut query =
        ExecutionQuery { task_uid: Some(facts.uid.clone()), run: Some(run), ..ExecutionQuery::default() };
    loop {
        let page = history.executions(query.clone()).await?;
        for execution in page.items {
            let state = state(context, &execution).await?;
            let source = match execution.source {
                RecordSource::Agent => Source::Agent,
                RecordSource::Operator => Source::Operator,
            };
            if let Some(tracked) = runs.lock().get_mut(run) {
                tracked.ledger.recall(&execution.attempt_id(), &state, source);
            }
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let query = RunQuery { task_uid: Some(facts.uid.clone()), run: Some(run), ..RunQuery::default() };
    let stored = history.runs(query).await?.items.into_iter().next();
    if let Some(tracked) = runs.lock().get_mut(run) {
        if let Some(stored) = stored {
            let stage = if stored.verdict.is_some() { RunStage::Finished } else { RunStage::Begun };
            tracked.ledger.note_run_archived(stage);
        }
        tracked.lookup = HistoryLookup::Done;
    }
    Ok(())
}

/// The state of an Execution.
async fn state(context: &Context, execution: &ExecutionRecord) -> Result<ReportedState, HistoryError> {
    let started_at = execution.started_at;
    match execution.stage {
        Stage::Accepted => Ok(ReportedState::Accepted),
        Stage::Running => {
            Ok(ReportedState::Running(Running { started_at: started_at.unwrap_or_default(), pid: 0 }))
        }
        Stage::Ended => Ok(ReportedState::Ended(Box::new(Ended {
            outcome: outcome_of(&*context.parts.history, execution).await?,
            started_at,
            ended_at: execution.ended_at.unwrap_or_default(),
            usage: Usage::default(),
            output: execution.output.clone(),
            exit: execution.exit.clone(),
        }))),
    }
}
