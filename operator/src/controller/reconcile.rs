//! One look at one Task: *validate → observe → decide → act*, again at once while there is more to do.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sentinel_core::plan::{Starts, TaskPlan};
use sentinel_core::reconcile::Decision;
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{TaskRef, TaskUid};

use super::act::{self, act};
use super::context::{Context, Counters};
use super::error::LookError;
use super::observe::{decide_on, observe};
use super::slots::Slot;
use crate::cluster::ClusterError;
use crate::cluster::backoff::Backoff;
use crate::resource::{Invalid, Task, TaskSpec, recorded, validate};

/// Looks in a row before another Task has its turn.
const MOST_LOOKS: usize = 8;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(5) };

/// When a Task is to be looked at again, if nothing about it changes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// There is no need.
    WhenChanged,
    /// After this time.
    After(Duration),
}

/// Looks at a Task until there is nothing to do now, and says when to look again; after a look that failed later and
/// later, up to five minutes.
pub(super) async fn look_at(cached: Arc<Task>, context: Arc<Context>) -> Again {
    if context.parts.lead.led().is_none() {
        // Looked at when the lead is taken.
        return Again::WhenChanged;
    }
    let Ok(uid) = TaskUid::new(cached.metadata.uid.clone().unwrap_or_default()) else {
        return after_failure(&cached, &LookError::Uid, 1);
    };
    let memory = context.slots.of(&uid);
    let mut slot = memory.lock().await;
    let looked = AssertUnwindSafe(looks(&context, &mut slot, &cached)).catch_unwind().await;
    let failed = match looked {
        Ok(Ok(again)) => {
            slot.failures = 0;
            return again;
        }
        Ok(Err(error)) => error,
        Err(panic) => {
            Counters::add(&context.counters.panicked_looks);
            let said =
                panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            LookError::Panicked(said.unwrap_or("it did not say why").to_owned())
        }
    };
    Counters::add(&context.counters.failed_looks);
    slot.failures += 1;
    after_failure(&cached, &failed, slot.failures)
}

fn after_failure(task: &Task, error: &LookError, failures: u32) -> Again {
    let wait = BACKOFF.after(failures);
    let (namespace, name) = (task.metadata.namespace.as_deref(), task.metadata.name.as_deref());
    tracing::warn!(namespace, name, %error, failures, again_in = ?wait, "unable to carry a Task out");
    Again::After(wait)
}

async fn looks(context: &Arc<Context>, slot: &mut Slot, cached: &Task) -> Result<Again, LookError> {
    let mut task = slot.latest(cached);
    let mut wake_at = None;
    for _ in 0..MOST_LOOKS {
        Counters::add(&context.counters.looks);
        match look(context, slot, task.clone()).await {
            Ok(Looked { task: None, .. }) => return Ok(Again::WhenChanged),
            Ok(Looked { task: Some(next), wake_at: at }) => {
                task = next;
                wake_at = at;
                if at.is_none_or(|at| at > context.parts.moments.moment()) {
                    break;
                }
            }
            Err(LookError::Cluster(error)) if matches!(*error, ClusterError::Conflict { .. }) => {
                Counters::add(&context.counters.conflicts);
                let Some(named) = name(&task) else { return Ok(Again::WhenChanged) };
                match context.parts.cluster.get(named).await? {
                    Some(now) if now.metadata.uid == task.metadata.uid => task = now,
                    _ => return Ok(Again::WhenChanged),
                }
                slot.wrote(&task);
                wake_at = Some(context.parts.moments.moment());
            }
            Err(LookError::Cluster(error)) if matches!(*error, ClusterError::Gone { .. }) => {
                return Ok(Again::WhenChanged);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(wake_at.map_or(Again::WhenChanged, |at| after(context, at)))
}

/// What came of one look.
struct Looked {
    task: Option<Task>,
    wake_at: Option<Monotonic>,
}

async fn look(context: &Arc<Context>, slot: &mut Slot, task: Task) -> Result<Looked, LookError> {
    let now = context.parts.moments.now();
    let (plan, problems) = match slot.plan(&task) {
        Ok(plan) => (plan, None),
        Err(problems) => {
            let Some(plan) = remnant(&task)? else {
                let status = recorded::write_rejected(&task, &problems, now.wall);
                let task = act::write_only(context, slot, task, status, now).await?;
                return Ok(Looked { task: Some(task), wake_at: None });
            };
            (Arc::new(plan), Some(problems))
        }
    };
    let sight = observe(context, slot, &task, &plan).await?;
    let mut decision = decide_on(context, &plan, &sight, now);
    if let Some(problems) = problems {
        reject(&mut decision, &task, &problems);
    }
    let acted = act(context, slot, task, &plan, &sight, decision, now).await?;
    Ok(Looked { task: acted.task, wake_at: acted.wake_at })
}

/// What must still be carried out for a Task whose spec cannot be run (any more): its Run under way, its deletion. A
/// plan that starts nothing and wants no other Run; `None` when nothing is left of it.
fn remnant(task: &Task) -> Result<Option<TaskPlan>, LookError> {
    let run = recorded::read(task).map_err(LookError::Status)?.run;
    if run.is_none() && task.metadata.deletion_timestamp.is_none() {
        return Ok(None);
    }
    let stand_in = Task { spec: TaskSpec::stand_in(), ..task.clone() };
    let Ok(mut plan) = validate::validate(&stand_in) else { return Err(LookError::Uid) };
    plan.starts = Starts::Suspended;
    if let Some(run) = run {
        plan.spec_hash = run.spec_hash;
        plan.rerun_token = run.rerun_token;
    }
    Ok(Some(plan))
}

/// The status says that the spec cannot be run, whatever else is to be done.
fn reject(decision: &mut Decision, task: &Task, problems: &[Invalid]) {
    if task.metadata.deletion_timestamp.is_none() {
        let (phase, conditions) =
            sentinel_core::reconcile::conditions::rejected(&crate::resource::invalid::describe(problems));
        decision.status.phase = phase;
        decision.status.conditions = conditions;
    }
}

fn after(context: &Context, at: Monotonic) -> Again {
    Again::After(Duration::from_millis(at.since(context.parts.moments.moment()).max(1)))
}

/// Where people find a Task. An API server takes no other names, so there is always one.
pub(super) fn name(task: &Task) -> Option<TaskRef> {
    TaskRef::new(task.metadata.namespace.as_deref()?, task.metadata.name.as_deref()?).ok()
}
