//! The status of a Task, to and from the values that decisions use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use sentinel_core::reconcile;
use sentinel_core::reconcile::ceiling::Awaiting;
use sentinel_core::reconcile::conditions::{self, Archive, TaskState, kind};
use sentinel_core::reconcile::run::{
    self, EarlierRun, RunCeiling, RunState, RunSummary, Stopping, Trigger, Verdict,
};
use sentinel_core::reconcile::status;
use sentinel_core::reconcile::trigger::Requests;
use sentinel_protocol::ids::{RunNumber, SpecHash, TaskUid};
use sentinel_protocol::time::UnixMillis;

use super::Task;
use super::invalid::{Invalid, Problems};
use super::marks::{ABANDON, CANCEL, RERUN, UNREADABLE_STATUS};
use super::slice::Frozen;
use super::stamp::{Stamps, Unverified};
use super::status::{
    AwaitingApproval, Counts, EarlierRunStatus, Handled, NodeStatus, Person, RecentRun, RunCeilingStatus,
    RunRequestedBy, RunStatus, TaskStatus,
};

/// Longest `rerun` annotation, characters; a longer one is ignored.
const MAX_TOKEN: usize = 128;

/// What the status of a Task records, as input of the next decision.
///
/// # Errors
/// When no operator wrote it so: nothing is guessed, since a guess could run a command again.
pub fn read(task: &Task) -> Result<status::Recorded, Invalid> {
    if let Some(error) = task.metadata.annotations.as_ref().and_then(|marks| marks.get(UNREADABLE_STATUS)) {
        let allowed = format!("must be one that this operator can read: {error}");
        return Err(Invalid { field: "status".to_owned(), value: String::new(), allowed });
    }
    let Some(status) = &task.status else { return Ok(status::Recorded::default()) };
    Ok(status::Recorded {
        run: status.run.as_ref().map(read_run).transpose()?,
        earlier: status.earlier_run.as_ref().map(read_earlier).transpose()?,
        recent: status.recent_runs.iter().map(read_recent).collect(),
        handled: status::Handled {
            cancel: status.handled.cancel.map(number),
            rerun: status.handled.rerun.clone(),
        },
        archived: status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind::ARCHIVED)
            .map(|condition| Archive::shown_by(condition.status == "True", &condition.reason)),
    })
}

/// The requests in annotations, and the problems of unreadable ones.
pub fn requests(task: &Task) -> (Requests, Vec<Invalid>) {
    let mut problems = Problems::default();
    let annotation = |key: &str| task.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let field = |key: &str| format!("metadata.annotations[{key}]");
    let cancel = annotation(CANCEL).and_then(|text| {
        let run = text.trim().parse::<u32>().ok().filter(|run| *run > 0);
        if run.is_none() {
            problems.value(field(CANCEL), text, "must be the number of a Run, such as \"2\"");
        }
        run.map(RunNumber)
    });
    let rerun = annotation(RERUN).filter(|token| {
        let fits = token.chars().count() <= MAX_TOKEN;
        if !fits {
            problems.value(field(RERUN), token, format!("must be at most {MAX_TOKEN} characters"));
        }
        fits
    });
    let abandon = match annotation(ABANDON).map(String::as_str) {
        Some("true") => true,
        None | Some("false") => false,
        Some(text) => {
            problems.value(field(ABANDON), text, "must be \"true\" or \"false\"");
            false
        }
    };
    (Requests { cancel, rerun: rerun.cloned(), abandon }, problems.into_inner())
}

/// The status of a decision, as it is written to the Task. `frozen` is a new target list, if there is one; the transition
/// time of a condition changes only with its status.
pub fn write(
    task: &Task,
    decided: &reconcile::Status,
    frozen: Option<&Frozen>,
    stamps: &Stamps,
    at: UnixMillis,
) -> TaskStatus {
    let before = task.status.clone().unwrap_or_default();
    let generation = task.metadata.generation.unwrap_or_default();
    TaskStatus {
        observed_generation: generation,
        phase: Some(decided.phase.to_owned()),
        conditions: write_conditions(&before.conditions, &decided.conditions, generation, at),
        run: decided.recorded.run.as_ref().map(|run| RunStatus {
            requested_by: requested_by(task, decided, run, frozen, stamps),
            cancelled_by: cancelled_by(task, run, stamps),
            ..write_run(run, before.run.as_ref(), frozen)
        }),
        awaiting_approval: decided.awaiting.as_deref().map(write_awaiting),
        earlier_run: decided.recorded.earlier.as_ref().map(write_earlier),
        nodes: decided.nodes.as_ref().map_or(before.nodes, |nodes| nodes.iter().map(write_node).collect()),
        recent_runs: decided.recorded.recent.iter().map(write_recent).collect(),
        handled: Handled {
            cancel: decided.recorded.handled.cancel.map(|run| i64::from(run.0)),
            rerun: decided.recorded.handled.rerun.clone(),
        },
    }
}

/// Who asked for a Run: stamped on the Task when it begins, and then as it was.
fn requested_by(
    task: &Task,
    decided: &reconcile::Status,
    run: &RunState,
    frozen: Option<&Frozen>,
    stamps: &Stamps,
) -> Option<RunRequestedBy> {
    let before = task.status.as_ref();
    if frozen.is_none() {
        let same = before?.run.as_ref().filter(|before| before.number == i64::from(run.number.0))?;
        return same.requested_by.clone();
    }
    let asked = stamps.read(task);
    if asked.unverified == Some(Unverified::Off) {
        return None;
    }
    let known = asked.requested_by(decided.asked_by);
    let why = asked.unverified.map_or("RerunNotStamped", Unverified::as_str);
    Some(RunRequestedBy {
        creator: asked.creator.as_ref().map(Into::into),
        author: asked.author.as_ref().map(Into::into),
        rerun: known.as_ref().and_then(|by| by.rerun.as_ref()).map(Into::into),
        unknown: known.is_none().then(|| why.to_owned()),
    })
}

/// Who cancelled a Run: who set the annotation that names it, as stamped when that was handled.
fn cancelled_by(task: &Task, run: &RunState, stamps: &Stamps) -> Option<Person> {
    if run.stopping != Some(Stopping::Cancelled) {
        return None;
    }
    let before = task.status.as_ref().and_then(|status| status.run.as_ref());
    match before.filter(|before| before.number == i64::from(run.number.0)) {
        Some(before) if before.stopping.as_deref() == Some(Stopping::Cancelled.as_str()) => {
            before.cancelled_by.clone()
        }
        _ => stamps.read(task).requests.get(CANCEL).map(Into::into),
    }
}

/// The Task with the current progress of its active Run in the status; `None` when the status is as recent. The rest of
/// the status is unchanged.
pub fn rewrite_progress(task: &Task, rolled: &status::RollUp) -> Option<Task> {
    let before = read(task).ok()?.run?;
    let after = RunState { counts: rolled.counts, ..before.clone() };
    // A target that the operator concludes is written to the status first and recorded after that.
    if after.counts.done() < before.counts.done() {
        return None;
    }
    let mut task = task.clone();
    let status = task.status.as_mut()?;
    let (old, new) =
        [&before, &after].map(|run| conditions::describe(TaskState::Running(run), Archive::Current)).into();
    if status.phase.as_deref() == Some(old.0) {
        status.phase = Some(new.0.to_owned());
    }
    for (old, new) in old.1.iter().zip(&new.1) {
        let same =
            |condition: &&mut Condition| condition.type_ == old.kind && condition.message == old.message;
        if let Some(condition) = status.conditions.iter_mut().find(same) {
            new.reason.clone_into(&mut condition.reason);
            new.message.clone_into(&mut condition.message);
        }
    }
    status.nodes = rolled.nodes.iter().map(write_node).collect();
    let run = status.run.as_mut()?;
    run.counts = write_counts(rolled.counts);
    run.progress = format!("{}/{}", rolled.counts.done(), after.targets);
    Some(task)
}

/// The status of a Task whose spec is invalid. Its Runs are unchanged.
pub fn write_rejected(task: &Task, problems: &[Invalid], at: UnixMillis) -> TaskStatus {
    let before = task.status.clone().unwrap_or_default();
    let generation = task.metadata.generation.unwrap_or_default();
    let (phase, rejected) = conditions::rejected(&super::invalid::describe(problems));
    TaskStatus {
        observed_generation: generation,
        phase: Some(phase.to_owned()),
        conditions: write_conditions(&before.conditions, &rejected, generation, at),
        awaiting_approval: None,
        ..before
    }
}

fn write_conditions(
    before: &[Condition],
    decided: &[conditions::Condition],
    generation: i64,
    at: UnixMillis,
) -> Vec<Condition> {
    let write = |decided: &conditions::Condition| {
        let same =
            before.iter().find(|old| old.type_ == decided.kind && old.status == decided.status.as_str());
        Condition {
            type_: decided.kind.to_owned(),
            status: decided.status.as_str().to_owned(),
            reason: decided.reason.to_owned(),
            message: cut(&decided.message, 32_768),
            observed_generation: Some(generation),
            last_transition_time: same
                .map_or_else(|| Time(whole_second(at)), |old| old.last_transition_time.clone()),
        }
    };
    decided.iter().map(write).collect()
}

fn read_run(run: &RunStatus) -> Result<RunState, Invalid> {
    let field = |name: &str| format!("status.run.{name}");
    let invalid = |name: &str, value: &str, allowed: &str| Invalid {
        field: field(name),
        value: super::invalid::show(value),
        allowed: allowed.to_owned(),
    };
    let spec_hash = SpecHash::new(run.spec_hash.as_str());
    let spec_hash = spec_hash.map_err(|error| invalid("specHash", &run.spec_hash, error.allowed))?;
    let started_at = run.started_at.as_ref().map(millis);
    let verdict = run.verdict.as_deref().map(|name| read_verdict(name).ok_or(name)).transpose();
    let stopping = run.stopping.as_deref().map(|name| read_stopping(name).ok_or(name)).transpose();
    Ok(RunState {
        number: number(run.number),
        trigger: read_trigger(&run.trigger),
        spec_hash,
        rerun_token: run.rerun_token.clone(),
        started_at: started_at.ok_or_else(|| invalid("startedAt", "", "is required"))?,
        finished_at: run.finished_at.as_ref().map(millis),
        verdict: verdict.map_err(|name| invalid("verdict", name, "must be Complete or Failed"))?,
        stopping: stopping.map_err(|name| {
            invalid("stopping", name, "must be Cancelled, SupersededFinish, SupersededCancel or Deleted")
        })?,
        targets: small(run.target_count),
        counts: read_counts(run.counts),
        ceiling: run.ceiling.as_ref().map(|ceiling| RunCeiling {
            name: ceiling.name.clone(),
            max_concurrent: ceiling.max_concurrent.map(small),
        }),
        approved_by: run.approved_by.as_ref().map(Into::into),
    })
}

fn write_awaiting(awaiting: &Awaiting) -> AwaitingApproval {
    AwaitingApproval {
        run: i64::from(awaiting.run.0),
        spec_hash: awaiting.spec_hash.to_string(),
        targets_digest: awaiting.targets_digest.clone(),
        requested_by: awaiting.behind.clone(),
        target_count: i64::from(awaiting.targets),
        first_targets: awaiting.first_targets.iter().map(ToString::to_string).collect(),
        ceiling: awaiting.ceiling.clone(),
        valid_for_seconds: i64::try_from(awaiting.valid_for_ms / 1_000).unwrap_or(i64::MAX),
    }
}

fn write_run(run: &RunState, before: Option<&RunStatus>, frozen: Option<&Frozen>) -> RunStatus {
    let same = before.filter(|before| before.number == i64::from(run.number.0));
    let (targets, slices, digest) = match (frozen, same) {
        (Some(frozen), _) => (
            frozen.targets.iter().map(ToString::to_string).collect(),
            i64::from(frozen.slices),
            frozen.digest.clone(),
        ),
        (None, Some(same)) => (same.targets.clone(), same.target_slices, same.targets_digest.clone()),
        (None, None) => Default::default(),
    };
    RunStatus {
        number: i64::from(run.number.0),
        trigger: run.trigger.as_str().to_owned(),
        spec_hash: run.spec_hash.to_string(),
        rerun_token: run.rerun_token.clone(),
        started_at: Some(micro(run.started_at)),
        finished_at: run.finished_at.map(micro),
        verdict: run.verdict.map(|verdict| verdict.as_str().to_owned()),
        stopping: run.stopping.map(|stopping| stopping.as_str().to_owned()),
        requested_by: None,
        cancelled_by: None,
        approved_by: run.approved_by.as_ref().map(Into::into),
        ceiling: run.ceiling.as_ref().map(|ceiling| RunCeilingStatus {
            name: ceiling.name.clone(),
            max_concurrent: ceiling.max_concurrent.map(i64::from),
        }),
        counts: write_counts(run.counts),
        progress: format!("{}/{}", run.counts.done(), run.targets),
        targets,
        target_count: i64::from(run.targets),
        target_slices: slices,
        targets_digest: digest,
    }
}

fn read_earlier(run: &EarlierRunStatus) -> Result<EarlierRun, Invalid> {
    let invalid = |name: &str, value: &str, allowed: &str| Invalid {
        field: format!("status.earlierRun.{name}"),
        value: super::invalid::show(value),
        allowed: allowed.to_owned(),
    };
    let verdict = run.verdict.as_deref().map(|name| read_verdict(name).ok_or(name)).transpose();
    Ok(EarlierRun {
        task: TaskUid::new(run.task_uid.as_str())
            .map_err(|error| invalid("taskUid", &run.task_uid, error.allowed))?,
        number: number(run.number),
        spec_hash: SpecHash::new(run.spec_hash.as_str())
            .map_err(|error| invalid("specHash", &run.spec_hash, error.allowed))?,
        rerun_token: run.rerun_token.clone(),
        finished_at: run.finished_at.as_ref().map(millis),
        verdict: verdict.map_err(|name| invalid("verdict", name, "must be Complete or Failed"))?,
    })
}

fn write_earlier(run: &EarlierRun) -> EarlierRunStatus {
    EarlierRunStatus {
        task_uid: run.task.to_string(),
        number: i64::from(run.number.0),
        spec_hash: run.spec_hash.to_string(),
        rerun_token: run.rerun_token.clone(),
        verdict: run.verdict.map(|verdict| verdict.as_str().to_owned()),
        finished_at: run.finished_at.map(micro),
    }
}

fn read_recent(run: &RecentRun) -> RunSummary {
    RunSummary {
        number: number(run.number),
        trigger: read_trigger(&run.trigger),
        started_at: run.started_at.as_ref().map(millis).unwrap_or_default(),
        finished_at: run.finished_at.as_ref().map(millis),
        verdict: run.verdict.as_deref().and_then(read_verdict),
        counts: read_counts(run.counts),
    }
}

fn write_recent(run: &RunSummary) -> RecentRun {
    RecentRun {
        number: i64::from(run.number.0),
        trigger: run.trigger.as_str().to_owned(),
        verdict: run.verdict.map(|verdict| verdict.as_str().to_owned()),
        started_at: Some(micro(run.started_at)),
        finished_at: run.finished_at.map(micro),
        counts: write_counts(run.counts),
    }
}

fn write_node(node: &status::NodeStatus) -> NodeStatus {
    NodeStatus {
        node: node.node.to_string(),
        state: node.state.to_owned(),
        attempt: (node.attempt > 1).then(|| i64::from(node.attempt)),
        message: cut(&node.message, 1024),
        exit_code: node.exit_code.map(i64::from),
        started_at: node.started_at.map(micro),
        finished_at: node.finished_at.map(micro),
        reach: match node.reach {
            status::Reach::Reachable => "Reachable".to_owned(),
            status::Reach::Unreachable => "Unreachable".to_owned(),
        },
    }
}

fn read_counts(counts: Counts) -> run::Counts {
    run::Counts {
        waiting: small(counts.waiting),
        running: small(counts.running),
        succeeded: small(counts.succeeded),
        failed: small(counts.failed),
        unreachable: small(counts.unreachable),
    }
}

fn write_counts(counts: run::Counts) -> Counts {
    Counts {
        waiting: i64::from(counts.waiting),
        running: i64::from(counts.running),
        succeeded: i64::from(counts.succeeded),
        failed: i64::from(counts.failed),
        unreachable: i64::from(counts.unreachable),
    }
}

/// For people only: a trigger of a newer operator is read as the most common one.
fn read_trigger(name: &str) -> Trigger {
    if name == Trigger::RerunToken.as_str() { Trigger::RerunToken } else { Trigger::SpecChange }
}

fn read_verdict(name: &str) -> Option<Verdict> {
    [Verdict::Complete, Verdict::Failed].into_iter().find(|verdict| verdict.as_str() == name)
}

fn read_stopping(name: &str) -> Option<Stopping> {
    let all =
        [Stopping::Cancelled, Stopping::SupersededFinish, Stopping::SupersededCancel, Stopping::Deleted];
    all.into_iter().find(|stopping| stopping.as_str() == name)
}

fn number(number: i64) -> RunNumber {
    RunNumber(small(number))
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(if number < 0 { 0 } else { u32::MAX })
}

fn millis(time: &MicroTime) -> UnixMillis {
    UnixMillis(time.0.as_millisecond())
}

/// A time outside of the range of a timestamp becomes the epoch.
fn micro(at: UnixMillis) -> MicroTime {
    MicroTime(Timestamp::from_millisecond(at.0).unwrap_or_default())
}

fn whole_second(at: UnixMillis) -> Timestamp {
    Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or_default()
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
