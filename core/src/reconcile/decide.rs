//! [`decide`]: what should happen next for one Task, from what is known about it.
//!
//! ```text
//!             due, starts allowed                 every target has its Outcome
//!   no Run ───────────────────────▶ Run n active ────────────────────────────▶ Run n finished
//!                                     │      ▲                                     │
//!                     cancel, delete, │      │ no step is reversible               │ due
//!                     newer Run due   ▼      │                                     ▼
//!                                   stopping: starts nothing more              Run n + 1
//! ```
//!
//! [`decide`] is called whenever anything changes, and at [`Decision::wake_at`]. It is level-triggered: it is not given
//! the reason for the call. Durable intent comes before action: one decision persists a Run's target list, and a later
//! one, which finds it recorded, dispatches.

use std::borrow::Cow;
use std::collections::BTreeSet;

use sentinel_protocol::ids::NodeName;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;

use super::action::Action;
use super::archived::{archive_after, archive_of, history_had_all};
use super::ceiling::{self, Judgement, Wanted};
use super::conditions::{Archive, TaskState, suspended};
use super::decision::{Decision, Finalizer, Lifecycle, Observed, Status, Write};
use super::execution::{AttemptPhase, AttemptState, Execution};
use super::ledger::{Origin, RunLedger, RunStage};
use super::notices::{command_refused, run_ended, run_started};
use super::recreation;
use super::rollout::{self, AgentFacts, HistoryLookup, NodeObject, RolloutContext, Step, earlier};
use super::run::{self, RunState, RunSummary, Stopping, Trigger, Verdict};
use super::settle;
use super::status::{self, Handled, MAX_RECENT, PendingRetries, Reach, Recorded, RollUp};
use super::targets;
use super::trigger::{self, AskedBy};
use crate::plan::{OnRecreate, Starts, TaskPlan};
use crate::time::{Monotonic, Now};

/// Decides what should happen next for a Task.
pub fn decide(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    let mut decision = decide_current(plan, observed, now);
    let superseded =
        observed.superseded.iter().flat_map(|ledger| settle::settle(ledger, observed.agent).actions);
    decision.actions.extend(superseded);
    decision
}

fn decide_current(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    match &observed.recorded.run {
        Some(run) if run.finished_at.is_none() => continue_run(plan, observed, run, now),
        _ if observed.lifecycle == Lifecycle::Deleting => finalize(plan, observed, now),
        last => match trigger::due(plan, observed.recorded, observed.requests) {
            Some(_) if plan.starts == Starts::Suspended => suspended_before_run(observed, last.as_ref()),
            Some(trigger) => begin(plan, observed, trigger, now),
            None => idle(plan, observed, now),
        },
    }
}

/// A Run is due: begins it, unless it must not begin, or not yet.
fn begin(plan: &TaskPlan, observed: &Observed<'_>, trigger: Trigger, now: Now) -> Decision {
    if let Some(instead) = recreation::instead_of_run(plan, observed, now) {
        return instead;
    }
    let last = observed.recorded.run.as_ref();
    match last.and_then(|last| archive_deadline(plan, observed, last, now)) {
        Some(until) => await_archive(plan, observed, until, now),
        None => begin_within_ceiling(plan, observed, trigger, now),
    }
}

/// A Run is due and nothing else holds it: begins it, if it is within the ceiling of its namespace, and approved where it
/// must be. Judged by the target list that the Run gets, in the same decision.
fn begin_within_ceiling(plan: &TaskPlan, observed: &Observed<'_>, trigger: Trigger, now: Now) -> Decision {
    let targets = targets::choose(&plan.targets, observed.nodes);
    let last = observed.recorded.run.as_ref();
    let number = last.map_or(observed.highest_run, |run| run.number.max(observed.highest_run)).next();
    let asked_by = match trigger::asked_by(plan, trigger, observed.recorded, observed.requests) {
        AskedBy::Author if recreation::is_asked_again(plan, observed) => AskedBy::Annotation,
        asked_by => asked_by,
    };
    let wanted = Wanted {
        plan,
        run: number,
        targets: &targets,
        nodes: observed.nodes,
        consent: observed.consent,
        asked_by,
        at: now.wall,
    };
    let held = |doing| {
        let mut decision = hold(observed, idle(plan, observed, now), doing, None);
        decision.status.held = Some(number);
        decision
    };
    match ceiling::judge(observed.ceilings, &wanted) {
        Judgement::Within { ceiling, approved_by } => {
            let begun = RunState::begun(number, trigger, plan, now.wall);
            let run = RunState { ceiling, approved_by, ..begun };
            let mut decision = start_run(plan, observed, run, targets, now);
            decision.status.asked_by = asked_by;
            decision
        }
        Judgement::Exceeded(message) => held(TaskState::BeyondCeiling(&message)),
        Judgement::Unknown(message) => held(TaskState::CeilingUnknown(&message)),
        Judgement::NeedsApproval(awaiting) => {
            let mut decision = held(TaskState::AwaitingApproval(&awaiting.message));
            decision.status.awaiting = Some(awaiting);
            decision
        }
    }
}

/// Until when the next Run waits for the archive to have the operator's own conclusions about the last one. The next Run
/// replaces the target list, so an operator that crashed then would leave targets without an Outcome in History. A
/// longer outage of History delays no Run, unless a spec may run only once.
fn archive_deadline(
    plan: &TaskPlan,
    observed: &Observed<'_>,
    last: &RunState,
    now: Now,
) -> Option<Monotonic> {
    if recreation::holds_next_run(plan, observed, last) {
        return Some(recreation::again(now));
    }
    // Each leader gets the whole time: one that has just taken over could not archive anything before.
    let since_end = now.wall.since(last.finished_at?);
    let waited = since_end.min(now.monotonic.since(observed.leading_since));
    let left = rollout::ARCHIVE_WAIT_MS.checked_sub(waited).filter(|left| *left > 0)?;
    let ledger = observed.ledger;
    if ledger.run() != last.number {
        return None;
    }
    let mut attempts = ledger.executions().flat_map(|(_, execution)| execution.attempts());
    let over = ledger.executions().filter(|(_, execution)| execution.is_over()).count();
    let is_incomplete = ledger.origin() == Origin::Inherited && over < observed.targets.len();
    (is_incomplete || attempts.any(AttemptState::is_only_concluded)).then(|| now.monotonic.plus(left))
}

/// A Run is due, and History does not have all of the previous one yet.
fn await_archive(plan: &TaskPlan, observed: &Observed<'_>, until: Monotonic, now: Now) -> Decision {
    let idle = idle(plan, observed, now);
    let run = idle.status.recorded.run.clone();
    let doing = match &run {
        Some(run) if recreation::holds_next_run(plan, observed, run) => TaskState::AwaitingHistory(Some(run)),
        Some(run) => TaskState::Due(run),
        None => TaskState::HeldBack,
    };
    hold(observed, idle, doing, Some(until))
}

/// A Run is due and must not begin yet: what is left to do of the last one is done, and the Task shows what it waits for.
fn hold(observed: &Observed<'_>, idle: Decision, doing: TaskState<'_>, until: Option<Monotonic>) -> Decision {
    let archive = archive_of(observed, idle.status.recorded.run.is_some());
    let status = Status::of(doing, archive, idle.status.recorded, idle.status.nodes);
    let actions = idle.actions.into_iter().filter(|action| *action != Action::DeleteTask).collect();
    let wake_at = earlier(idle.wake_at, until);
    Decision { status, freeze: None, write: Write::Now, actions, wake_at }
}

/// Starts a Run: its number and its target list become durable before anything is dispatched.
fn start_run(
    plan: &TaskPlan,
    observed: &Observed<'_>,
    mut run: RunState,
    targets: Vec<NodeName>,
    now: Now,
) -> Decision {
    run.targets = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    run.counts.waiting = run.targets;
    let last = observed.recorded.run.as_ref();
    let mut notices = vec![run_started(&run)];
    if targets.is_empty() {
        run.finished_at = Some(now.wall);
        run.verdict = Some(Verdict::Failed);
        notices.push(run_ended(&run));
    }
    let recorded = Recorded {
        recent: with_recent(&observed.recorded.recent, last),
        handled: Handled { rerun: observed.requests.rerun.clone(), ..observed.recorded.handled.clone() },
        run: Some(run.clone()),
        earlier: None,
        archived: observed.recorded.archived,
    };
    let doing = if targets.is_empty() { TaskState::Finished(&run) } else { TaskState::Running(&run) };
    let mut actions: Vec<Action> = holds_first(plan, observed).into_iter().collect();
    actions.push(Action::ArchiveRun(Box::new(run.clone())));
    actions.extend(notices.into_iter().map(Action::Publish));
    Decision {
        status: Status::of(doing, observed.archive, recorded, Some(Vec::new())),
        freeze: Some(targets),
        write: Write::Intent,
        actions,
        wake_at: Some(now.monotonic),
    }
}

/// A Run is active.
fn continue_run(plan: &TaskPlan, observed: &Observed<'_>, run: &RunState, now: Now) -> Decision {
    let deleting = observed.lifecycle == Lifecycle::Deleting;
    let due = trigger::due(plan, observed.recorded, observed.requests);
    let (cancel, handled) = trigger::cancel_asked(run, observed.requests, &observed.recorded.handled);
    let stopping = trigger::stopping(plan, run, cancel, deleting, due);
    let context = RolloutContext {
        plan,
        ledger: observed.ledger,
        stopping,
        ends_by: ends_by(plan, run, now),
        ceiling: run.ceiling.as_ref().and_then(|ceiling| ceiling.max_concurrent),
        history: observed.history,
        leading_since: observed.leading_since,
        now: now.monotonic,
    };
    let mut actions: Vec<Action> = holds_first(plan, observed).into_iter().collect();
    let steps = steps(&context, observed, now);
    let mut wake_at = steps.wake_at;
    actions.extend(steps.actions);
    let after = ledger_after(observed.ledger, &actions, now.monotonic);
    let pending = PendingRetries { targets: &steps.retried, limit: plan.retry.limit };
    let rolled = status::roll_up(observed.targets, &after, pending, |node| reach(observed, node));
    let mut run = RunState { stopping, counts: rolled.counts, ..run.clone() };
    run.verdict = run::verdict(observed.targets.len(), rolled.counts);
    run.finished_at = run.verdict.map(|_| now.wall);
    if deleting && observed.requests.abandon {
        run.finished_at = run.finished_at.or(Some(now.wall));
        run.verdict = run.verdict.or(Some(Verdict::Failed));
    }
    let finished = run.finished_at.is_some();
    let intent = finished || stopping != observed.recorded.run.as_ref().and_then(|run| run.stopping);
    if observed.ledger.run_archived() < Some(RunStage::Begun) || finished {
        actions.push(Action::ArchiveRun(Box::new(run.clone())));
    }
    if finished {
        let notices = command_refused(&run, &after).into_iter().chain([run_ended(&run)]);
        actions.extend(notices.map(Action::Publish));
        wake_at = Some(now.monotonic);
    } else {
        actions.extend(holds_beside(plan, observed));
    }
    let suspended = plan.starts == Starts::Suspended;
    let doing = match () {
        () if deleting => TaskState::Terminating(Some(&run)),
        // This Run's verdict is not about the spec that the status describes.
        () if finished && due.is_some() && suspended => TaskState::Suspended(Some(&run)),
        () if finished && due.is_some() => TaskState::Due(&run),
        () if finished => TaskState::Finished(&run),
        () if suspended && rolled.counts.waiting > 0 => TaskState::Suspended(Some(&run)),
        () => TaskState::Running(&run),
    };
    let recorded = Recorded { run: Some(run.clone()), handled, ..observed.recorded.clone() };
    Decision {
        status: Status::of(doing, archive_after(observed, &after, finished), recorded, Some(rolled.nodes)),
        freeze: None,
        write: if intent { Write::Intent } else { Write::Soon },
        actions,
        wake_at,
    }
}

/// The last Run is over and nothing is due.
fn idle(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    let Some(last) = &observed.recorded.run else { return idle_without_run(plan, observed) };
    let (run, rolled) = corrected(observed, last);
    let (_, handled) = trigger::cancel_asked(last, observed.requests, &observed.recorded.handled);
    let mut actions = Vec::new();
    let noted = observed.ledger.record();
    // A deposed leader may have ended it.
    let unnoted =
        observed.ledger.run() == run.number && noted.is_none_or(|record| record.finished_at.is_none());
    if unnoted || (noted != Some(&run) && rolled.is_some()) {
        actions.push(Action::ArchiveRun(Box::new(run.clone())));
    }
    let Steps { actions: unfinished, wake_at, .. } = conclude_inherited(plan, observed, last, now);
    actions.extend(unfinished);
    let settled = settle::settle(observed.ledger, observed.agent);
    actions.extend(settled.actions);
    let expires = plan
        .ttl_after_finished_ms
        .and_then(|ttl| last.finished_at.map(|at| ttl.saturating_sub(now.wall.since(at))))
        .filter(|_| settled.archived == Archive::Current);
    if expires == Some(0) {
        actions.push(Action::DeleteTask);
    }
    let recorded = Recorded { run: Some(run.clone()), handled, ..observed.recorded.clone() };
    let archive = archive_of(observed, true);
    // Nothing signals that History caught up, and what the archiver could not take must be handed over again.
    let behind = [archive, settled.archived].contains(&Archive::Behind);
    let catches_up = behind.then(|| now.monotonic.plus(rollout::RESEND_MS));
    let mut status =
        Status::of(TaskState::Finished(&run), archive, recorded, rolled.map(|rolled| rolled.nodes));
    if plan.starts == Starts::Suspended {
        status.conditions.push(suspended());
    }
    let expires = expires.filter(|left| *left > 0).map(|left| now.monotonic.plus(left));
    Decision {
        status,
        freeze: None,
        write: Write::Soon,
        actions,
        wake_at: earlier(earlier(wake_at, expires), catches_up),
    }
}

/// The Task has no Run, and none is due: an earlier Task has run its spec.
fn idle_without_run(plan: &TaskPlan, observed: &Observed<'_>) -> Decision {
    let Some(earlier) = &observed.recorded.earlier else { return suspended_before_run(observed, None) };
    let mut decision = recreation::stay_executed(observed, earlier);
    if plan.starts == Starts::Suspended {
        decision.status.conditions.push(suspended());
    }
    decision
}

/// The previous leader ended the Run and crashed before its own conclusions were archived. Targets that neither History
/// nor an agent knows are concluded again, so that each has its Outcome. Not if History had them all: from what it has
/// lost since, nothing else follows.
fn conclude_inherited(plan: &TaskPlan, observed: &Observed<'_>, last: &RunState, now: Now) -> Steps {
    let ledger = observed.ledger;
    if ledger.run() != last.number
        || ledger.origin() == Origin::Begun
        || observed.history == HistoryLookup::Pending
        || history_had_all(observed)
    {
        return Steps::default();
    }
    let context = RolloutContext {
        plan,
        ledger,
        // What still runs may finish; its result then corrects the record.
        stopping: last.stopping.or(Some(Stopping::SupersededFinish)),
        ends_by: None,
        ceiling: None,
        history: observed.history,
        leading_since: observed.leading_since,
        now: now.monotonic,
    };
    steps(&context, observed, now)
}

/// A Run is due, and the Task is suspended.
fn suspended_before_run(observed: &Observed<'_>, last: Option<&RunState>) -> Decision {
    let doing = last.map_or(TaskState::HeldBack, |run| TaskState::Suspended(Some(run)));
    let actions = settle::settle(observed.ledger, observed.agent).actions;
    Decision {
        status: Status::of(doing, archive_of(observed, last.is_some()), observed.recorded.clone(), None),
        freeze: None,
        write: Write::Now,
        actions,
        wake_at: None,
    }
}

/// The Task is being deleted and none of its commands runs.
fn finalize(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    let run = observed.recorded.run.as_ref();
    let mut actions = settle::settle(observed.ledger, observed.agent).actions;
    let mut doing = TaskState::Terminating(run);
    let mut wake_at = None;
    if observed.finalizer == Finalizer::Present {
        match recreation::holds_deletion(plan, observed) {
            None => actions.push(Action::RemoveFinalizer),
            Some((run, record)) => {
                doing = TaskState::Held(run);
                actions.extend(record);
                wake_at = Some(recreation::again(now));
            }
        }
    }
    let archive = archive_of(observed, run.is_some());
    Decision {
        status: Status::of(doing, archive, observed.recorded.clone(), None),
        freeze: None,
        write: Write::Soon,
        actions,
        wake_at,
    }
}

/// When the whole Run must have ended. Its start is known by the wall clock only, as the leader may change during a Run;
/// the remaining time is counted on the monotonic clock.
fn ends_by(plan: &TaskPlan, run: &RunState, now: Now) -> Option<Monotonic> {
    let total = plan.timeouts.total_ms?;
    let gone = now.wall.since(run.started_at);
    Some(match total.checked_sub(gone) {
        Some(left) => now.monotonic.plus(left),
        None => Monotonic(now.monotonic.0.saturating_sub(gone - total)),
    })
}

/// What the rollout decided for all targets.
#[derive(Default)]
struct Steps {
    actions: Vec<Action>,
    /// Targets that are retried.
    retried: BTreeSet<NodeName>,
    wake_at: Option<Monotonic>,
}

fn steps(c: &RolloutContext<'_>, observed: &Observed<'_>, now: Now) -> Steps {
    let mut steps = Steps::default();
    let agent = |node: &NodeName| {
        let object = if observed.nodes.contains_key(node) { NodeObject::Present } else { NodeObject::Absent };
        AgentFacts { node: object, ..(observed.agent)(node) }
    };
    for (node, decision) in rollout::decide_targets(c, observed.targets, agent) {
        steps.wake_at = earlier(steps.wake_at, decision.wake_at);
        if decision.retries {
            steps.retried.insert(node.clone());
        }
        steps.actions.extend(decision.steps.into_iter().map(|step| action(c, node, step, now)));
    }
    steps
}

fn action(c: &RolloutContext<'_>, node: &NodeName, step: Step, now: Now) -> Action {
    let attempt = || c.ledger.attempt(node);
    match step {
        Step::Admit => Action::Admit(node.clone()),
        Step::Start { start_ms, total_ms } => Action::Start { attempt: attempt(), start_ms, total_ms },
        Step::Cancel => Action::Cancel(attempt()),
        Step::RetryAt(at) => Action::RetryAt(node.clone(), at),
        Step::Retry => Action::Retry(node.clone()),
        Step::AbandonRetry => Action::AbandonRetry(node.clone()),
        Step::Conclude(conclusion) => {
            let execution = c.ledger.execution(node);
            let ended = Ended {
                started_at: started_at(execution),
                exit: conclusion.exit(),
                ..Ended::without_record(conclusion.outcome(execution), now.wall)
            };
            Action::Conclude { attempt: attempt(), ended: Box::new(ended) }
        }
    }
}

fn started_at(execution: Option<&Execution>) -> Option<UnixMillis> {
    match execution.map(|execution| &execution.latest.phase) {
        Some(AttemptPhase::Running(running)) => Some(running.started_at),
        _ => None,
    }
}

/// The ledger after the actions that change an Outcome. Copied only if there are any: for a thousand Executions the copy
/// would cost more than the rest of the decision.
fn ledger_after<'a>(ledger: &'a RunLedger, actions: &[Action], now: Monotonic) -> Cow<'a, RunLedger> {
    let mut after = Cow::Borrowed(ledger);
    for action in actions {
        if matches!(action, Action::Conclude { .. } | Action::AbandonRetry(_)) {
            after.to_mut().apply(action, now);
        }
    }
    after
}

/// A finished Run, corrected by late evidence: an Execution that was concluded as lost may have ended after all.
fn corrected(observed: &Observed<'_>, last: &RunState) -> (RunState, Option<RollUp>) {
    let known = observed.ledger.executions().filter(|(_, execution)| execution.is_over()).count();
    if observed.ledger.run() != last.number || known < observed.targets.len() || observed.targets.is_empty() {
        return (last.clone(), None);
    }
    let rolled = status::roll_up(observed.targets, observed.ledger, PendingRetries::none(), |node| {
        reach(observed, node)
    });
    let verdict = run::verdict(observed.targets.len(), rolled.counts).or(last.verdict);
    (RunState { counts: rolled.counts, verdict, ..last.clone() }, Some(rolled))
}

fn reach(observed: &Observed<'_>, node: &NodeName) -> Reach {
    if (observed.agent)(node).session.is_some() { Reach::Reachable } else { Reach::Unreachable }
}

/// A Task whose spec may run only once is held before its first command exists: if it went without its Runs in History,
/// one made again would run them again.
fn holds_first(plan: &TaskPlan, observed: &Observed<'_>) -> Option<Action> {
    (plan.on_recreate == OnRecreate::OncePerSpec && needs_finalizer(observed)).then_some(Action::AddFinalizer)
}

/// Any other is held beside its first commands, which do not wait for that write. If it is deleted before, its commands
/// are orphans: [`super::orphan`] cancels them, as after an operator that was killed in between.
fn holds_beside(plan: &TaskPlan, observed: &Observed<'_>) -> Option<Action> {
    (plan.on_recreate == OnRecreate::Run && needs_finalizer(observed)).then_some(Action::AddFinalizer)
}

fn needs_finalizer(observed: &Observed<'_>) -> bool {
    observed.finalizer == Finalizer::Absent && observed.lifecycle == Lifecycle::Live
}

fn with_recent(recent: &[RunSummary], last: Option<&RunState>) -> Vec<RunSummary> {
    last.map(RunSummary::from).into_iter().chain(recent.iter().cloned()).take(MAX_RECENT).collect()
}
