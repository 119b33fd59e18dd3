//! A Task into a [`TaskPlan`], or a list of its problems.
//!
//! Validates what schema and CEL rules validate, since a Task may not come through an API server, and what they cannot:
//! bytes instead of characters, names that are both listed and excluded, the total size.

mod retry;
mod run;
mod script;
pub(super) mod targets;
pub(super) mod values;

use std::panic::Location;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sentinel_core::plan::{self, Amount, Starts, TargetRule, TaskPlan};
use sentinel_core::reconcile::retry::Retry;
use sentinel_protocol::ids::{SpecHash, TaskRef, TaskUid};
use sentinel_protocol::limits::DEAD_AFTER_MS;
use sentinel_protocol::request::RunRequest;

use self::values::{HOUR, SECOND, duration};
use super::invalid::{Invalid, Problems};
use super::marks::UNREADABLE;
use super::{Task, task};

/// The plan of a Task, which the rest of the operator relies on.
///
/// # Errors
/// Its problems, from one to [`super::invalid::MAX_PROBLEMS`].
pub fn validate(task: &Task) -> Result<TaskPlan, Vec<Invalid>> {
    let mut problems = Problems::default();
    let uid = TaskUid::new(task.metadata.uid.clone().unwrap_or_default());
    let uid = uid.map_err(|error| problems.value("metadata.uid", &error.value, "must be set")).ok();
    let found = read(task, &mut problems);
    match (found, uid, problems.is_empty()) {
        (Some(read), Some(uid), true) => Ok(read.plan(uid)),
        _ => Err(problems.into_inner()),
    }
}

/// Whether a Task, which may not exist yet, can be run.
///
/// # Errors
/// As [`validate`].
pub fn check(task: &Task) -> Result<(), Vec<Invalid>> {
    let mut problems = Problems::default();
    read(task, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(problems.into_inner()) }
}

/// The spec hash of a Task, which may not exist yet; `None` when it cannot be run.
pub fn spec_hash(task: &Task) -> Option<SpecHash> {
    let mut problems = Problems::default();
    let read = read(task, &mut problems)?;
    problems.is_empty().then(|| plan::spec_hash(&read.targets, &read.request))
}

/// For each problem of the Task the code in this module that raises it: the rules that it breaks. Tests hold by it that
/// each rule is broken by one of their invalid Tasks.
pub fn broken_rules(task: &Task) -> Vec<&'static Location<'static>> {
    let mut problems = Problems::default();
    read(task, &mut problems);
    problems.raised_at()
}

/// A plan without the uid of the Task.
struct PlanParts {
    task: TaskRef,
    targets: TargetRule,
    request: RunRequest,
    timeouts: plan::Timeouts,
    retry: Retry,
    max_concurrent: Amount,
    on_change: plan::OnChange,
    on_recreate: plan::OnRecreate,
    starts: Starts,
    rerun_token: String,
    ttl_after_finished_ms: Option<u64>,
}

impl PlanParts {
    fn plan(self, uid: TaskUid) -> TaskPlan {
        TaskPlan {
            spec_hash: plan::spec_hash(&self.targets, &self.request),
            task: self.task,
            uid,
            targets: self.targets,
            request: self.request,
            timeouts: self.timeouts,
            retry: self.retry,
            max_concurrent: self.max_concurrent,
            on_change: self.on_change,
            on_recreate: self.on_recreate,
            starts: self.starts,
            rerun_token: self.rerun_token,
            ttl_after_finished_ms: self.ttl_after_finished_ms,
        }
    }
}

fn read(task: &Task, problems: &mut Problems) -> Option<PlanParts> {
    if let Some(error) = task.metadata.annotations.as_ref().and_then(|marks| marks.get(UNREADABLE)) {
        problems.field("spec", format!("must be one that this operator can read: {error}"));
        return None;
    }
    let spec = &task.spec;
    // A manifest may omit both.
    let name = TaskRef::new(
        task.metadata.namespace.as_deref().unwrap_or("default"),
        task.metadata.name.as_deref().unwrap_or("unnamed"),
    )
    .map_err(|error| problems.value("metadata.name", &error.value, format!("must be {}", error.allowed)));
    let targets = targets::targets(&spec.targets, problems);
    let request = run::request(&spec.run, problems);
    let timeouts = timeouts(&spec.timeouts, problems);
    let retry = retry::retry(&spec.retry, problems);
    let max_concurrent = amount(&spec.rollout.max_concurrent, problems);
    if spec.rerun_token.chars().count() > 128 {
        problems.value("spec.rerunToken", &spec.rerun_token, "must be at most 128 characters");
    }
    let ttl = spec.ttl_after_finished.as_deref();
    let ttl =
        ttl.map(|text| duration("spec.ttlAfterFinished", text, (0, 87_600 * HOUR), "0s to 87600h", problems));
    Some(PlanParts {
        task: name.ok()?,
        targets: targets?,
        request: request?,
        timeouts: timeouts?,
        retry: retry?,
        max_concurrent: max_concurrent?,
        on_change: match spec.on_change {
            task::OnChange::Finish => plan::OnChange::Finish,
            task::OnChange::Cancel => plan::OnChange::Cancel,
        },
        on_recreate: on_recreate(spec.on_recreate),
        starts: if spec.suspend { Starts::Suspended } else { Starts::Allowed },
        rerun_token: spec.rerun_token.clone(),
        ttl_after_finished_ms: ttl.flatten(),
    })
}

/// Also of a Task whose other fields are invalid.
pub fn on_recreate(spec: task::OnRecreate) -> plan::OnRecreate {
    match spec {
        task::OnRecreate::Run => plan::OnRecreate::Run,
        task::OnRecreate::OncePerSpec => plan::OnRecreate::OncePerSpec,
    }
}

fn timeouts(spec: &task::Timeouts, problems: &mut Problems) -> Option<plan::Timeouts> {
    let month = 720 * HOUR;
    let start = duration("spec.timeouts.start", &spec.start, (SECOND, month), "1s to 720h", problems);
    let mut optional = |field: &str, text: Option<&str>| match text {
        Some(text) => duration(field, text, (SECOND, 8760 * HOUR), "1s to 8760h", problems).map(Some),
        None => Some(None),
    };
    let run = optional("spec.timeouts.run", spec.run.as_deref());
    let idle = optional("spec.timeouts.idle", spec.idle.as_deref());
    let total = optional("spec.timeouts.total", spec.total.as_deref());
    let least = DEAD_AFTER_MS;
    let unreachable =
        duration("spec.timeouts.unreachable", &spec.unreachable, (least, month), "15s to 720h", problems);
    let grace = duration("spec.timeouts.grace", &spec.grace, (0, HOUR), "0s to 1h", problems);
    Some(plan::Timeouts {
        start_ms: start?,
        run_ms: run?,
        idle_ms: idle?,
        total_ms: total?,
        unreachable_ms: unreachable?,
        grace_ms: grace?,
    })
}

fn amount(value: &IntOrString, problems: &mut Problems) -> Option<Amount> {
    const FIELD: &str = "spec.rollout.maxConcurrent";
    let allowed = "must be a number from 1 to 100000, or a percentage from 1% to 100%";
    match value {
        IntOrString::Int(count) if (1..=task::rollout::MAX_CONCURRENT).contains(count) => {
            u32::try_from(*count).ok().map(Amount::Count)
        }
        IntOrString::Int(count) => {
            problems.value(FIELD, &count.to_string(), allowed);
            None
        }
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            let percent =
                digits.filter(|digits| !digits.starts_with('0')).and_then(|digits| digits.parse().ok());
            let percent = percent.filter(|percent| (1..=100u8).contains(percent));
            if percent.is_none() {
                problems.value(FIELD, text, allowed);
            }
            percent.map(Amount::Percent)
        }
    }
}
