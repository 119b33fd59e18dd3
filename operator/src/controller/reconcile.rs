//! Reconciles one Task: *validate → observe → decide → act*, repeated while there is more to do at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sentinel_audit::Record;
use sentinel_core::plan::{OnRecreate, Starts, TaskPlan};
use sentinel_core::reconcile::{Decision, Level, Notice};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::TaskUid;
use tracing::Instrument as _;

use super::act::act;
use super::change_filter::{identified, task_ref};
use super::context::Context;
use super::counters::Counters;
use super::error::ReconcileError;
use super::events::publish;
use super::metrics::ReconcileResult;
use super::observe::{decide_on, observe};
use super::requesters::note_deleting;
use super::status_writer::StatusWriter;
use super::task_cache::TaskCache;
use crate::backoff::Backoff;
use crate::cluster::ClusterError;
use crate::cluster::targets::display;
use crate::resource::marks::UNREADABLE;
use crate::resource::{Invalid, Task, TaskSpec, recorded, validate};

/// Passes over one Task in a row before another Task has its turn.
const MAX_PASSES: usize = 8;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(5) };

/// When a Task is reconciled again, if nothing about it changes earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requeue {
    /// Not before a change.
    AwaitChange,
    /// After this delay.
    After(Duration),
}

/// Reconciles a Task until nothing is to be done now. A failure is retried with backoff, after at most five minutes.
pub(super) async fn reconcile(cached: Arc<Task>, context: Arc<Context>) -> Requeue {
    let task = display(&cached);
    if context.parts.leadership.term().is_none() {
        // Every Task is requested when this operator becomes the leader.
        return Requeue::AwaitChange;
    }
    let span = tracing::info_span!("reconcile", task, run = tracing::field::Empty);
    let measured = context.reconciles.begin();
    let (requeue, result) = match guarded(cached, context.clone()).instrument(span).await {
        Ok(Requeue::AwaitChange) => (Requeue::AwaitChange, ReconcileResult::Success),
        Ok(after) => (after, ReconcileResult::RequeueAfter),
        Err(retry_in) => (Requeue::After(retry_in), ReconcileResult::Error),
    };
    measured.end(result);
    requeue
}

/// The same, with a panic as an error.
///
/// # Errors
/// It failed; when it is to be tried again.
async fn guarded(cached: Arc<Task>, context: Arc<Context>) -> Result<Requeue, Duration> {
    let Ok(uid) = TaskUid::new(cached.metadata.uid.clone().unwrap_or_default()) else {
        return Err(failed(&context, &cached, &ReconcileError::Uid, 1));
    };
    let cache = context.caches.of(&uid);
    let mut cache = cache.lock().await;
    let result = AssertUnwindSafe(passes(&context, &mut cache, &cached)).catch_unwind().await;
    let error = match result {
        Ok(Ok(requeue)) => {
            cache.failures = 0;
            return Ok(requeue);
        }
        Ok(Err(error)) => error,
        Err(panic) => {
            Counters::add(&context.counters.panicked_reconciles);
            context.reconciles.panicked();
            let message =
                panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            ReconcileError::Panicked(message.unwrap_or("without a message").to_owned())
        }
    };
    cache.failures += 1;
    Err(failed(&context, &cached, &error, cache.failures))
}

/// Counts and logs a failure. One that a retry alone does not cure is published as a cluster event too: a person has to
/// act, and reads the Task and not this log. Returns when it is retried.
fn failed(context: &Context, task: &Task, error: &ReconcileError, failures: u32) -> Duration {
    context.counters.failed(error);
    let retry_in = BACKOFF.after(failures);
    let (category, retryable) = (error.category(), error.is_retryable());
    tracing::warn!(%error, category, retryable, failures, ?retry_in, "reconcile failed; will retry");
    if !retryable {
        let note = format!("{error} ({category})");
        publish(context, task, Notice { reason: "ReconcileFailed", note, level: Level::Warning });
    }
    retry_in
}

async fn passes(
    context: &Arc<Context>,
    cache: &mut TaskCache,
    cached: &Arc<Task>,
) -> Result<Requeue, ReconcileError> {
    let mut task = cache.latest(cached);
    let mut wake_at = None;
    for _ in 0..MAX_PASSES {
        Counters::add(&context.counters.reconciles);
        match pass(context, cache, task.clone()).await {
            Ok(Pass { task: None, .. }) => return Ok(Requeue::AwaitChange),
            Ok(Pass { task: Some(next), wake_at: at }) => {
                task = next;
                wake_at = at;
                if at.is_none_or(|at| at > context.parts.clock.monotonic()) {
                    break;
                }
            }
            Err(ReconcileError::Cluster(ClusterError::Conflict { .. })) => {
                Counters::add(&context.counters.conflicts);
                let Some(named) = task_ref(&task) else { return Ok(Requeue::AwaitChange) };
                match context.parts.cluster.get(named).await? {
                    Some(latest) if latest.metadata.uid == task.metadata.uid => task = Arc::new(latest),
                    _ => return Ok(Requeue::AwaitChange),
                }
                cache.note_written(task.clone());
                wake_at = Some(context.parts.clock.monotonic());
            }
            Err(ReconcileError::Cluster(ClusterError::Gone { .. })) => return Ok(Requeue::AwaitChange),
            Err(error) => return Err(error),
        }
    }
    Ok(wake_at.map_or(Requeue::AwaitChange, |at| requeue_at(context, at)))
}

/// The result of one pass.
struct Pass {
    task: Option<Arc<Task>>,
    wake_at: Option<Monotonic>,
}

async fn pass(
    context: &Arc<Context>,
    cache: &mut TaskCache,
    task: Arc<Task>,
) -> Result<Pass, ReconcileError> {
    let now = context.parts.clock.reading();
    note_deleting(context, cache, &task);
    let (plan, problems) = match cache.plan(&task) {
        Ok(plan) => (plan, None),
        Err(problems) => {
            record_rejection(context, cache, &task, &problems);
            let Some(plan) = remnant(&task)? else {
                let status = recorded::write_rejected(&task, &problems, now.wall);
                let task = StatusWriter { context, cache, now }.write_if_changed(task, status).await?;
                return Ok(Pass { task: Some(task), wake_at: None });
            };
            (Arc::new(plan), Some(problems))
        }
    };
    let snapshot = observe(context, cache, &task, &plan).await?;
    let mut decision = decide_on(context, &plan, &snapshot, now);
    if let Some(run) = &decision.status.recorded.run {
        tracing::Span::current().record("run", run.number.0);
    }
    if let Some(problems) = problems {
        reject(&mut decision, &task, &problems);
    }
    let acted = act(context, cache, task, &plan, &snapshot, decision, now).await?;
    Ok(Pass { task: acted.task, wake_at: acted.wake_at })
}

/// Records that a spec is rejected; once for each generation, and not again by the next leader.
fn record_rejection(context: &Context, cache: &mut TaskCache, task: &Task, problems: &[Invalid]) {
    let generation = task.metadata.generation.unwrap_or_default();
    let is_handled = task.status.as_ref().is_some_and(|status| status.observed_generation == generation);
    if cache.rejected.replace(generation) == Some(generation) || is_handled {
        return;
    }
    let Some((named, uid)) = identified(task) else { return };
    context.audit().refusal(&named, || Record::SpecRejected {
        task: named.clone(),
        uid,
        generation,
        message: crate::resource::invalid::describe(problems).into(),
    });
}

/// What is still to be done for a Task whose spec is invalid (now): its active Run, its deletion. A plan that starts
/// nothing and wants no other Run; `None` when nothing is left of it.
fn remnant(task: &Task) -> Result<Option<TaskPlan>, ReconcileError> {
    let run = recorded::read(task).map_err(ReconcileError::Status)?.run;
    if run.is_none() && task.metadata.deletion_timestamp.is_none() {
        return Ok(None);
    }
    let stand_in = Task { spec: TaskSpec::stand_in(), ..task.clone() };
    let Ok(mut plan) = validate::validate(&stand_in) else { return Err(ReconcileError::Uid) };
    plan.starts = Starts::Suspended;
    plan.on_recreate = match task.metadata.annotations.as_ref().and_then(|marks| marks.get(UNREADABLE)) {
        // It may be one whose Runs must be in History before it goes.
        Some(_) => OnRecreate::OncePerSpec,
        None => validate::on_recreate(task.spec.on_recreate),
    };
    if let Some(run) = run {
        plan.spec_hash = run.spec_hash;
        plan.rerun_token = run.rerun_token;
    }
    Ok(Some(plan))
}

/// The status shows that the spec is invalid, whatever else is to be done.
fn reject(decision: &mut Decision, task: &Task, problems: &[Invalid]) {
    if task.metadata.deletion_timestamp.is_none() {
        let (phase, conditions) =
            sentinel_core::reconcile::conditions::rejected(&crate::resource::invalid::describe(problems));
        decision.status.phase = phase;
        decision.status.conditions = conditions;
    }
}

fn requeue_at(context: &Context, at: Monotonic) -> Requeue {
    Requeue::After(Duration::from_millis(at.since(context.parts.clock.monotonic()).max(1)))
}
