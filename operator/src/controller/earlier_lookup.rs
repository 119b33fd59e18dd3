//! Lookups in History: whether an earlier Task of the same name ran what a Task asks for that has no Run yet.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::run::{EarlierRun, Verdict};
use sentinel_core::reconcile::status::Recorded;
use sentinel_core::reconcile::{Earlier, recreation};

use super::context::Context;
use super::counters::Counters;
use super::task_runs::{Asked, TaskRuns};
use crate::backoff::Backoff;
use crate::history::{HistoryError, Ran, RunQuery, RunRecord, RunVerdict};
use crate::kill_point::KillPoint;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) };

/// What History has answered. If it was not asked this yet, asks it: the answer requests a reconcile.
pub(super) fn look_up(
    context: &Arc<Context>,
    runs: &Arc<TaskRuns>,
    plan: &TaskPlan,
    recorded: &Recorded,
) -> Earlier {
    if !recreation::asks(plan, recorded) {
        return Earlier::NotAsked;
    }
    let question = Ran {
        spec_hash: plan.spec_hash.clone(),
        rerun_token: plan.rerun_token.clone(),
        not_by: plan.uid.clone(),
    };
    let mut locked = runs.lock();
    match &locked.asked {
        Some(asked) if asked.question == question => return asked.answer.clone(),
        _ => locked.asked = Some(Asked { question: question.clone(), answer: Earlier::Unknown }),
    }
    drop(locked);
    spawn(context, runs, question);
    Earlier::Unknown
}

/// Asks until History answers. Ends early when the Task is gone or asks something else, or the controller stops.
fn spawn(context: &Arc<Context>, runs: &Arc<TaskRuns>, question: Ran) {
    let (owner, context, task) = (context.clone(), context.clone(), runs.task().clone());
    let runs: Weak<TaskRuns> = Arc::downgrade(runs);
    let query = RunQuery {
        namespace: Some(task.namespace.to_string()),
        task: Some(task.name.to_string()),
        ran: Some(question.clone()),
        limit: 1,
        ..RunQuery::default()
    };
    owner.background.spawn_until_stop(async move {
        let mut failures = 0;
        while is_asked(&runs, &question) {
            // A panic is retried as well: without an answer nothing of this Task is ever started.
            let result = AssertUnwindSafe(ask(&context, &query)).catch_unwind().await;
            failures += 1;
            match result {
                Ok(Ok(answer)) => return note(&context, &runs, &question, answer),
                Ok(Err(error)) => {
                    let category = error.category();
                    tracing::warn!(
                        %error, category, failures, %task,
                        "unable to read from History whether the spec has run before; will retry, and start nothing"
                    );
                }
                Err(_) => {
                    Counters::add(&context.counters.panicked_tasks);
                    tracing::error!(failures, %task, "a lookup in History panicked; will retry");
                }
            }
            tokio::time::sleep(BACKOFF.after(failures)).await;
        }
    });
}

fn is_asked(runs: &Weak<TaskRuns>, question: &Ran) -> bool {
    let Some(runs) = runs.upgrade() else { return false };
    runs.lock().asked.as_ref().is_some_and(|asked| asked.question == *question)
}

fn note(context: &Context, runs: &Weak<TaskRuns>, question: &Ran, answer: Earlier) {
    let Some(runs) = runs.upgrade() else { return };
    if let Some(asked) = runs.lock().asked.as_mut().filter(|asked| asked.question == *question) {
        asked.answer = answer;
    }
    KillPoint::Answered.pass();
    context.parts.runs.request(&runs);
}

async fn ask(context: &Context, query: &RunQuery) -> Result<Earlier, HistoryError> {
    let latest = context.parts.history.runs(query.clone()).await?.items.into_iter().next();
    Ok(latest.map_or(Earlier::Never, ran))
}

fn ran(record: RunRecord) -> Earlier {
    let run = EarlierRun {
        task: record.task_uid,
        number: record.run,
        spec_hash: record.spec_hash,
        rerun_token: record.rerun_token,
        finished_at: record.finished_at,
        verdict: record.verdict.map(|verdict| match verdict {
            RunVerdict::Complete => Verdict::Complete,
            RunVerdict::Failed | RunVerdict::Cancelled => Verdict::Failed,
        }),
    };
    Earlier::Ran { run, rerun: record.rerun }
}
