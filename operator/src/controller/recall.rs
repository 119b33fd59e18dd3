//! What History knows of a Run that this operator took over.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::ledger::{RunStage, Source};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_protocol::ids::{AttemptId, RunNumber, TaskUid};
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::to_operator::{Ended, OutputSummary, ReportedState, Running, Stage, Usage};

use super::context::Context;
use super::ledgers::Book;
use crate::cluster::backoff::Backoff;
use crate::history::record::{self, ExecutionRecord};
use crate::history::{ExecutionQuery, HistoryError, RunQuery};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(30) };

/// How long a look waits for the number of the last Run.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// Asks History until it answers, then says so on the Run's page. Ends early when nobody needs it any more.
pub(super) fn spawn(context: Arc<Context>, book: Arc<Book>, run: RunNumber) {
    tokio::spawn(async move {
        let mut failures = 0;
        while book.pages().page(run).is_some_and(|page| page.recall == HistoryLookup::Pending) {
            match recall(&context, &book, run).await {
                Ok(()) => break,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(task = %book.task(), %run, %error, failures, "unable to recall a Run from History");
                    tokio::time::sleep(BACKOFF.after(failures)).await;
                }
            }
        }
        context.parts.ledgers.wake(&book);
    });
}

/// The highest Run of a Task that History knows. A History that does not answer soon holds nobody up: then a number may
/// come again after a restore, and the agents tell the two apart by their spec hash.
pub(super) async fn highest_run(context: &Context, task: &TaskUid) -> Option<RunNumber> {
    let query = RunQuery { task_uid: Some(task.clone()), ..RunQuery::default() };
    match tokio::time::timeout(ASKED_WITHIN, context.parts.history.runs(query)).await {
        Ok(Ok(page)) => page.items.iter().map(|run| run.run).max(),
        Ok(Err(error)) => {
            tracing::warn!(%task, %error, "unable to ask History for the last Run");
            None
        }
        Err(_) => {
            tracing::warn!(%task, within = ?ASKED_WITHIN, "unable to ask History for the last Run in time");
            None
        }
    }
}

async fn recall(context: &Context, book: &Book, run: RunNumber) -> Result<(), HistoryError> {
    let history = &context.parts.history;
    let Some(facts) = book.pages().page(run).map(|page| page.facts.clone()) else { return Ok(()) };
    let mut query =
        ExecutionQuery { task_uid: Some(facts.uid.clone()), run: Some(run), ..ExecutionQuery::default() };
    loop {
        let page = history.executions(query.clone()).await?;
        for execution in page.items {
            let state = state(context, &execution).await?;
            let source = match execution.source {
                record::Source::Agent => Source::Agent,
                record::Source::Operator => Source::Operator,
            };
            if let Some(page) = book.pages().page_mut(run) {
                page.ledger.recall(&attempt(&execution), &state, source);
            }
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let query = RunQuery { task_uid: Some(facts.uid.clone()), run: Some(run), ..RunQuery::default() };
    let stored = history.runs(query).await?.items.into_iter().next();
    if let Some(page) = book.pages().page_mut(run) {
        if let Some(stored) = stored {
            let stage = if stored.verdict.is_some() { RunStage::Finished } else { RunStage::Begun };
            page.ledger.note_run_archived(stage);
        }
        page.recall = HistoryLookup::Done;
    }
    Ok(())
}

/// The state of an Execution. Its row names the Outcome; what the name does not say is in the Attempt's record.
async fn state(context: &Context, execution: &ExecutionRecord) -> Result<ReportedState, HistoryError> {
    let started_at = execution.started_at;
    match execution.stage {
        Stage::Accepted => Ok(ReportedState::Accepted),
        Stage::Running => {
            Ok(ReportedState::Running(Running { started_at: started_at.unwrap_or_default(), pid: 0 }))
        }
        Stage::Ended => {
            let outcome = match outcome(execution) {
                Some(outcome) => outcome,
                None => stored_outcome(context, execution).await?,
            };
            Ok(ReportedState::Ended(Box::new(Ended {
                outcome,
                started_at,
                ended_at: execution.ended_at.unwrap_or_default(),
                usage: Usage::default(),
                output: OutputSummary::default(),
                exit: execution.exit.clone(),
            })))
        }
    }
}

/// The Outcomes that a row says whole.
fn outcome(execution: &ExecutionRecord) -> Option<Outcome> {
    match (execution.outcome.as_deref()?, execution.exit_code) {
        ("Succeeded", Some(exit_code)) => Some(Outcome::Succeeded { exit_code }),
        ("Failed", Some(exit_code)) => Some(Outcome::Failed { exit_code }),
        ("TimedOut", _) => Some(Outcome::TimedOut),
        ("IdleTimedOut", _) => Some(Outcome::IdleTimedOut),
        ("Cancelled", _) => Some(Outcome::Cancelled),
        ("NotStarted", _) => Some(Outcome::NotStarted),
        _ => None,
    }
}

async fn stored_outcome(context: &Context, execution: &ExecutionRecord) -> Result<Outcome, HistoryError> {
    let attempt = context.parts.history.attempt(attempt(execution)).await?;
    if let Some(outcome) = attempt.and_then(|attempt| attempt.outcome) {
        return Ok(outcome);
    }
    Ok(match execution.outcome.as_deref() {
        Some("StartTimedOut") => Outcome::StartTimedOut { why: None },
        // Without its record it cannot be known how it ended, only that it did.
        _ => Outcome::Lost { reason: LostReason::StateLost },
    })
}

/// The Attempt that speaks for an Execution.
fn attempt(execution: &ExecutionRecord) -> AttemptId {
    AttemptId {
        task: execution.task_uid.clone(),
        run: execution.run,
        node: execution.node.clone(),
        attempt: execution.attempt.max(1),
    }
}
