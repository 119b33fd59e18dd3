//! A Task becomes a [`TaskPlan`], or a list of what is wrong with it.
//!
//! Everything is checked here that schema and CEL rules check, for a Task may come from where no API server is; and
//! what they cannot: bytes instead of characters, names that are both listed and excluded, the size of it all.

mod retry;
mod run;
mod script;
pub(super) mod targets;

use std::panic::Location;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sentinel_core::plan::{self, Amount, Starts, TargetRule, TaskPlan};
use sentinel_core::reconcile::retry::Retry;
use sentinel_protocol::ids::{TaskRef, TaskUid};
use sentinel_protocol::limits::DEAD_AFTER_MS;
use sentinel_protocol::request::RunRequest;

use super::invalid::{Invalid, Problems};
use super::marks::UNREADABLE;
use super::{Task, duration, quantity, task};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// What the Task says, as the rest of the operator believes it.
///
/// # Errors
/// Everything that is wrong with it, at least one and at most [`super::invalid::MAX_PROBLEMS`] problems.
pub fn validate(task: &Task) -> Result<TaskPlan, Vec<Invalid>> {
    let mut problems = Problems::default();
    let uid = TaskUid::new(task.metadata.uid.clone().unwrap_or_default());
    let uid = uid.map_err(|error| problems.value("metadata.uid", &error.value, "must be there")).ok();
    let found = read(task, &mut problems);
    match (found, uid, problems.is_empty()) {
        (Some(read), Some(uid), true) => Ok(read.plan(uid)),
        _ => Err(problems.into_inner()),
    }
}

/// Whether the Task, that need not have been created yet, can be run.
///
/// # Errors
/// As [`validate`].
pub fn check(task: &Task) -> Result<(), Vec<Invalid>> {
    let mut problems = Problems::default();
    read(task, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(problems.into_inner()) }
}

/// The places in this module that raise what is wrong with the Task, one for each problem: the rules that it breaks.
/// Tests hold with it that each rule is broken by one of their bad Tasks.
pub fn broken_rules(task: &Task) -> Vec<&'static Location<'static>> {
    let mut problems = Problems::default();
    read(task, &mut problems);
    problems.raised_at()
}

/// A plan without the Task's uid.
struct Read {
    task: TaskRef,
    targets: TargetRule,
    request: RunRequest,
    timeouts: plan::Timeouts,
    retry: Retry,
    max_concurrent: Amount,
    on_change: plan::OnChange,
    starts: Starts,
    rerun_token: String,
    ttl_after_finished_ms: Option<u64>,
}

impl Read {
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
            starts: self.starts,
            rerun_token: self.rerun_token,
            ttl_after_finished_ms: self.ttl_after_finished_ms,
        }
    }
}

fn read(task: &Task, problems: &mut Problems) -> Option<Read> {
    if let Some(error) = task.metadata.annotations.as_ref().and_then(|marks| marks.get(UNREADABLE)) {
        problems.field("spec", format!("must be one that this operator can read: {error}"));
        return None;
    }
    let spec = &task.spec;
    // A manifest may leave both out.
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
        ttl.map(|text| span("spec.ttlAfterFinished", text, (0, 87_600 * HOUR), "0s to 87600h", problems));
    Some(Read {
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
        starts: if spec.suspend { Starts::Suspended } else { Starts::Allowed },
        rerun_token: spec.rerun_token.clone(),
        ttl_after_finished_ms: ttl.flatten(),
    })
}

fn timeouts(spec: &task::Timeouts, problems: &mut Problems) -> Option<plan::Timeouts> {
    let month = 720 * HOUR;
    let start = span("spec.timeouts.start", &spec.start, (SECOND, month), "1s to 720h", problems);
    let mut optional = |field: &str, text: Option<&str>| match text {
        Some(text) => span(field, text, (SECOND, 8760 * HOUR), "1s to 8760h", problems).map(Some),
        None => Some(None),
    };
    let run = optional("spec.timeouts.run", spec.run.as_deref());
    let idle = optional("spec.timeouts.idle", spec.idle.as_deref());
    let total = optional("spec.timeouts.total", spec.total.as_deref());
    let least = DEAD_AFTER_MS;
    let unreachable =
        span("spec.timeouts.unreachable", &spec.unreachable, (least, month), "15s to 720h", problems);
    let grace = span("spec.timeouts.grace", &spec.grace, (0, HOUR), "0s to 1h", problems);
    Some(plan::Timeouts {
        start_ms: start?,
        run_ms: run?,
        idle_ms: idle?,
        total_ms: total?,
        unreachable_ms: unreachable?,
        grace_ms: grace?,
    })
}

fn span(field: &str, text: &str, range: (u64, u64), allowed: &str, problems: &mut Problems) -> Option<u64> {
    let Some(millis) = duration::parse(text) else {
        problems.value(field, text, format!("must be a duration of {allowed}, such as 5m, 1h30m or 500ms"));
        return None;
    };
    if millis < range.0 || millis > range.1 {
        problems.value(field, text, format!("must be {allowed}"));
        return None;
    }
    Some(millis)
}

fn bytes(field: &str, text: &str, range: (u64, u64), allowed: &str, problems: &mut Problems) -> Option<u64> {
    let Some(amount) = quantity::parse(text) else {
        problems.value(field, text, format!("must be an amount of {allowed} bytes, such as 64Mi or 1G"));
        return None;
    };
    if amount < range.0 || amount > range.1 {
        problems.value(field, text, format!("must be {allowed}"));
        return None;
    }
    Some(amount)
}

fn amount(value: &IntOrString, problems: &mut Problems) -> Option<Amount> {
    const FIELD: &str = "spec.rollout.maxConcurrent";
    let allowed = "must be a number from 1 to 100000, or a percentage from 1% to 100%";
    match value {
        IntOrString::Int(count) if (1..=task::MAX_CONCURRENT).contains(count) => {
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
