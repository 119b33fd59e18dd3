//! The operator's brain: what should happen next for one Task, from what is known about it.
//!
//! ```text
//!             due, starts allowed                 every target has its Outcome
//!   no Run ───────────────────────▶ Run n active ────────────────────────────▶ Run n finished
//!                                     │      ▲                                     │
//!                     cancel, delete, │      │ nothing is ever taken back          │ due
//!                     newer Run due   ▼      │                                     ▼
//!                                   stopping: starts nothing more              Run n + 1
//! ```
//!
//! [`decide`] is asked again whenever anything changes, and at [`Decision::wake_at`]. It is given no reason for being
//! asked and must not need one. What it wants durable comes before what it wants done: a Run's target list is frozen
//! by one decision and dispatched by a later one, which sees it recorded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, Stage};

use crate::conditions::{self, Archive, Condition, Doing};
use crate::execution::{Execution, Known, Tried};
use crate::ledger::{Origin, RunLedger, RunStage, never_started};
use crate::moment::{Moment, Now};
use crate::plan::{Starts, TaskPlan};
use crate::rollout::{self, AgentFacts, Circumstances, NodeObject, Outlook, Recall, Step, earlier};
use crate::settle;
use crate::status::{
    self, Counts, Handled, MAX_RECENT, NodeStatus, Prospects, Reach, Recorded, RollUp, RunRecord, RunSummary,
    Stopping, Trigger, Verdict,
};
use crate::targets::{self, NodeFacts};
use crate::trigger::{self, Abandon, Requests};

/// What is known about a Task when it is looked at.
pub struct Observed<'a> {
    /// What its status says.
    pub recorded: &'a Recorded,
    /// The frozen target list of the recorded Run, as the cluster holds it.
    pub targets: &'a [NodeName],
    /// What is known of the recorded Run's Executions.
    pub ledger: &'a RunLedger,
    /// Ledgers of earlier Runs that are not settled yet.
    pub retired: &'a [RunLedger],
    /// Whether History has been asked about them.
    pub recall: Recall,
    /// Whether History keeps up.
    pub archive: Archive,
    /// All Nodes.
    pub nodes: &'a BTreeMap<NodeName, NodeFacts>,
    /// What is known of a node's agent.
    pub agent: &'a dyn Fn(&NodeName) -> AgentFacts,
    /// What people asked for by annotation.
    pub requests: &'a Requests,
    /// Whether the Task is being deleted.
    pub lifecycle: Lifecycle,
    /// Whether our finalizer is on it.
    pub finalizer: Finalizer,
    /// Since when this operator leads.
    pub leading_since: Moment,
    /// The highest Run number of this Task that an Inventory or History shows: after a cluster was restored from an
    /// older state, new Runs are numbered above what has already been.
    pub highest_run: RunNumber,
}

/// Whether a Task is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It is not.
    Live,
    /// It is.
    Deleting,
}

/// Whether our finalizer is on the Task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// It is: a deletion waits for us.
    Present,
    /// It is not.
    Absent,
}

/// What should happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The whole status, to be compared with what the Task has.
    pub status: Status,
    /// A Run begins: its target list, to be made durable together with the status and before anything else.
    pub freeze: Option<Vec<NodeName>>,
    /// How urgently the status is to be written.
    pub write: Write,
    /// What to do once the status is written, in this order.
    pub actions: Vec<Action>,
    /// When to look again, if nothing happens before.
    pub wake_at: Option<Moment>,
}

/// How urgently a changed status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Before the actions, none of which is taken without it: it is their intent, or a Run's end.
    Intent,
    /// At once, since the status would otherwise give the verdict of an earlier Run. While the API server is
    /// unavailable the actions are taken all the same, and the status is written later.
    Now,
    /// With the next batch, at most about once a second.
    Soon,
}

/// The status of a Task.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// One word for people; no code reads it.
    pub phase: &'static str,
    /// Conditions, without their times.
    pub conditions: Vec<Condition>,
    /// The current or last Run, earlier ones, and what was acted on.
    pub recorded: Recorded,
    /// At most 100 nodes, failures first; `None` leaves what the status has.
    pub nodes: Option<Vec<NodeStatus>>,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put our finalizer on the Task, before its first command exists.
    AddFinalizer,
    /// Take it off: nothing of ours is left.
    RemoveFinalizer,
    /// Delete the Task: it is finished for longer than `ttlAfterFinished`.
    DeleteTask,
    /// A target has its turn.
    Turn(NodeName),
    /// A target is tried again at this moment.
    RetryAt(NodeName, Moment),
    /// A target is tried again: the Attempt after its latest becomes its latest.
    Again(NodeName),
    /// The latest Attempt of a target will not be.
    Withdraw(NodeName),
    /// Send `Start`.
    Start {
        /// Which Attempt.
        attempt: AttemptId,
        /// Milliseconds left on its start clock.
        start_ms: u64,
        /// Milliseconds left to the Run; `None` is without limit.
        total_ms: Option<u64>,
    },
    /// Send `Cancel`.
    Cancel(AttemptId),
    /// Note how an Execution ended, by our own conclusion, and archive it.
    Conclude {
        /// Which Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// Archive the Run's own record.
    ArchiveRun(Box<RunRecord>),
    /// Send `Forget`: the Run is over and archived.
    Forget(AttemptId),
    /// Publish a cluster event.
    Publish(Notice),
}

/// Something worth a cluster event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its cause, one CamelCase word.
    pub reason: &'static str,
    /// The same for people.
    pub note: String,
    /// Whether somebody should look at it.
    pub level: Level,
}

/// Whether somebody should look at a cluster event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No need.
    Normal,
    /// Yes.
    Warning,
}

/// Decides what should happen next for a Task.
pub fn decide(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    let mut decision = decide_current(plan, observed, now);
    let retired = observed.retired.iter().flat_map(|ledger| settle::settle(ledger, observed.agent).actions);
    decision.actions.extend(retired);
    decision
}

fn decide_current(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    match &observed.recorded.run {
        Some(run) if run.finished_at.is_none() => carry_on(plan, observed, run, now),
        _ if observed.lifecycle == Lifecycle::Deleting => let_go(observed),
        last => match trigger::due(plan, observed.recorded, observed.requests) {
            Some(_) if plan.starts == Starts::Suspended => hold_back(observed, last.as_ref()),
            Some(trigger) => match last.as_ref().and_then(|last| waits_for_archive(observed, last, now)) {
                Some(until) => close(plan, observed, until, now),
                None => begin(plan, observed, trigger, now),
            },
            None => rest(plan, observed, now),
        },
    }
}

/// Until when the next Run waits for what the operator itself concluded about this one to be archived. With the next
/// Run the target list of this one is gone, so an operator that died then would leave targets without an Outcome in
/// History. A History that is away for longer holds up no Run.
fn waits_for_archive(observed: &Observed<'_>, last: &RunRecord, now: Now) -> Option<Moment> {
    let left =
        rollout::CLOSE_WITHIN_MS.checked_sub(now.wall.since(last.finished_at?)).filter(|left| *left > 0)?;
    let ledger = observed.ledger;
    if ledger.run() != last.number {
        return None;
    }
    let mut tries = ledger.executions().flat_map(|(_, execution)| execution.attempts());
    let over = ledger.executions().filter(|(_, execution)| execution.is_over()).count();
    let unheard = ledger.origin() == Origin::Inherited && over < observed.targets.len();
    (unheard || tries.any(Tried::is_only_concluded)).then(|| now.moment.plus(left))
}

/// A Run is due, and the one before is brought to an end in History first.
fn close(plan: &TaskPlan, observed: &Observed<'_>, until: Moment, now: Now) -> Decision {
    let rested = rest(plan, observed, now);
    let run = rested.status.recorded.run.clone();
    let doing = run.as_ref().map_or(Doing::HeldBack, Doing::Due);
    let status =
        status_of(doing, observed.archive, rested.status.recorded.clone(), rested.status.nodes.clone());
    let actions = rested.actions.into_iter().filter(|action| *action != Action::DeleteTask).collect();
    Decision { status, actions, write: Write::Now, wake_at: earlier(rested.wake_at, Some(until)), ..rested }
}

/// A Run begins: its number and its target list become durable before anything is dispatched.
fn begin(plan: &TaskPlan, observed: &Observed<'_>, trigger: Trigger, now: Now) -> Decision {
    let targets = targets::choose(&plan.targets, observed.nodes);
    let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    let last = observed.recorded.run.as_ref();
    let number = last.map_or(observed.highest_run, |run| run.number.max(observed.highest_run)).next();
    let mut run = RunRecord {
        number,
        trigger,
        spec_hash: plan.spec_hash.clone(),
        rerun_token: plan.rerun_token.clone(),
        started_at: now.wall,
        finished_at: None,
        verdict: None,
        stopping: None,
        targets: count,
        counts: Counts { waiting: count, ..Counts::default() },
    };
    let mut notices = vec![begun(&run)];
    if targets.is_empty() {
        run.finished_at = Some(now.wall);
        run.verdict = Some(Verdict::Failed);
        notices.push(ended(&run));
    }
    let recorded = Recorded {
        recent: with_recent(&observed.recorded.recent, last),
        handled: Handled { rerun: observed.requests.rerun.clone(), ..observed.recorded.handled.clone() },
        run: Some(run.clone()),
    };
    let doing = if targets.is_empty() { Doing::Finished(&run) } else { Doing::Running(&run) };
    let mut actions: Vec<Action> = needs_finalizer(observed).into_iter().collect();
    actions.push(Action::ArchiveRun(Box::new(run.clone())));
    actions.extend(notices.into_iter().map(Action::Publish));
    Decision {
        status: status_of(doing, observed.archive, recorded, Some(Vec::new())),
        freeze: Some(targets),
        write: Write::Intent,
        actions,
        wake_at: Some(now.moment),
    }
}

/// A Run is under way.
fn carry_on(plan: &TaskPlan, observed: &Observed<'_>, run: &RunRecord, now: Now) -> Decision {
    let deleting = observed.lifecycle == Lifecycle::Deleting;
    let due = trigger::due(plan, observed.recorded, observed.requests);
    let (cancel, handled) = trigger::cancel_asked(run, observed.requests, &observed.recorded.handled);
    let stopping = trigger::stopping(plan, run, cancel, deleting, due);
    let circumstances = Circumstances {
        plan,
        ledger: observed.ledger,
        stopping,
        ends_by: ends_by(plan, run, now),
        recall: observed.recall,
        leading_since: observed.leading_since,
        now: now.moment,
    };
    let mut actions: Vec<Action> = needs_finalizer(observed).into_iter().collect();
    let steps = steps(&circumstances, observed, now);
    let mut wake_at = steps.wake_at;
    actions.extend(steps.actions);
    let after = once_done(observed.ledger, &actions);
    let prospects = Prospects { again: &steps.again, retries: plan.retry.limit };
    let rolled = status::roll_up(observed.targets, &after, prospects, |node| reach(observed, node));
    let mut run = RunRecord { stopping, counts: rolled.counts, ..run.clone() };
    run.verdict = status::verdict(observed.targets.len(), rolled.counts);
    run.finished_at = run.verdict.map(|_| now.wall);
    if deleting && observed.requests.abandon == Abandon::Yes {
        run.finished_at = run.finished_at.or(Some(now.wall));
        run.verdict = run.verdict.or(Some(Verdict::Failed));
    }
    let finished = run.finished_at.is_some();
    let intent = finished || stopping != observed.recorded.run.as_ref().and_then(|run| run.stopping);
    if observed.ledger.run_archived() < Some(RunStage::Begun) || finished {
        actions.push(Action::ArchiveRun(Box::new(run.clone())));
    }
    if finished {
        actions.push(Action::Publish(ended(&run)));
        wake_at = Some(now.moment);
    }
    let suspended = plan.starts == Starts::Suspended;
    let doing = match () {
        () if deleting => Doing::Terminating(Some(&run)),
        // The verdict of this Run is not that of the spec that the status speaks about.
        () if finished && due.is_some() && suspended => Doing::Suspended(Some(&run)),
        () if finished && due.is_some() => Doing::Due(&run),
        () if finished => Doing::Finished(&run),
        () if suspended && rolled.counts.waiting > 0 => Doing::Suspended(Some(&run)),
        () => Doing::Running(&run),
    };
    let recorded = Recorded { run: Some(run.clone()), recent: observed.recorded.recent.clone(), handled };
    Decision {
        status: status_of(doing, archive_of(observed, finished), recorded, Some(rolled.nodes)),
        freeze: None,
        write: if intent { Write::Intent } else { Write::Soon },
        actions,
        wake_at,
    }
}

/// The last Run is over and nothing is due.
fn rest(plan: &TaskPlan, observed: &Observed<'_>, now: Now) -> Decision {
    let Some(last) = &observed.recorded.run else { return hold_back(observed, None) };
    let (run, rolled) = corrected(observed, last);
    let (_, handled) = trigger::cancel_asked(last, observed.requests, &observed.recorded.handled);
    let mut actions = Vec::new();
    let noted = observed.ledger.record();
    // Somebody else may have ended it: a leader that did not know yet that it was deposed.
    let unnoted =
        observed.ledger.run() == run.number && noted.is_none_or(|record| record.finished_at.is_none());
    if unnoted || (noted != Some(&run) && rolled.is_some()) {
        actions.push(Action::ArchiveRun(Box::new(run.clone())));
    }
    let Steps { actions: unfinished, wake_at, .. } = conclude_again(plan, observed, last, now);
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
    let recorded = Recorded { run: Some(run.clone()), recent: observed.recorded.recent.clone(), handled };
    let archive = archive_of(observed, true);
    // Nobody says when the last that History was behind with has gone in; what the archiver could not take is said again.
    let behind = [archive, settled.archived].contains(&Archive::Behind);
    let catches_up = behind.then(|| now.moment.plus(rollout::SAY_AGAIN_MS));
    let mut status = status_of(Doing::Finished(&run), archive, recorded, rolled.map(|rolled| rolled.nodes));
    if plan.starts == Starts::Suspended {
        status.conditions.push(suspended());
    }
    let expires = expires.filter(|left| *left > 0).map(|left| now.moment.plus(left));
    Decision {
        status,
        freeze: None,
        write: Write::Soon,
        actions,
        wake_at: earlier(earlier(wake_at, expires), catches_up),
    }
}

/// An operator before this one ended the Run and died before its own conclusions were archived: what neither History
/// nor an agent knows of is concluded again, so that every target has its Outcome.
fn conclude_again(plan: &TaskPlan, observed: &Observed<'_>, last: &RunRecord, now: Now) -> Steps {
    let ledger = observed.ledger;
    if ledger.run() != last.number || ledger.origin() == Origin::Begun || observed.recall == Recall::Pending {
        return Steps::default();
    }
    let circumstances = Circumstances {
        plan,
        ledger,
        // What still runs there was given up and may finish: its result corrects the record.
        stopping: last.stopping.or(Some(Stopping::SupersededFinish)),
        ends_by: None,
        recall: observed.recall,
        leading_since: observed.leading_since,
        now: now.moment,
    };
    steps(&circumstances, observed, now)
}

/// A Run is due and starts are held back.
fn hold_back(observed: &Observed<'_>, last: Option<&RunRecord>) -> Decision {
    let doing = last.map_or(Doing::HeldBack, |run| Doing::Suspended(Some(run)));
    let actions = settle::settle(observed.ledger, observed.agent).actions;
    Decision {
        status: status_of(doing, archive_of(observed, last.is_some()), observed.recorded.clone(), None),
        freeze: None,
        write: Write::Now,
        actions,
        wake_at: None,
    }
}

/// The Task is being deleted and nothing of it runs.
fn let_go(observed: &Observed<'_>) -> Decision {
    let run = observed.recorded.run.as_ref();
    let mut actions = settle::settle(observed.ledger, observed.agent).actions;
    if observed.finalizer == Finalizer::Present {
        actions.push(Action::RemoveFinalizer);
    }
    Decision {
        status: status_of(
            Doing::Terminating(run),
            archive_of(observed, run.is_some()),
            observed.recorded.clone(),
            None,
        ),
        freeze: None,
        write: Write::Soon,
        actions,
        wake_at: None,
    }
}

/// When all of a Run must have ended. Its beginning is known by the wall clock alone, as operators come and go during
/// a Run; what is left is counted from there on the reader's own clock.
fn ends_by(plan: &TaskPlan, run: &RunRecord, now: Now) -> Option<Moment> {
    let total = plan.timeouts.total_ms?;
    let gone = now.wall.since(run.started_at);
    Some(match total.checked_sub(gone) {
        Some(left) => now.moment.plus(left),
        None => Moment(now.moment.0.saturating_sub(gone - total)),
    })
}

/// What the rollout asks for.
#[derive(Default)]
struct Steps {
    actions: Vec<Action>,
    /// Targets of which an Attempt has ended and another follows.
    again: BTreeSet<NodeName>,
    wake_at: Option<Moment>,
}

fn steps(c: &Circumstances<'_>, observed: &Observed<'_>, now: Now) -> Steps {
    let mut steps = Steps::default();
    let agent = |node: &NodeName| {
        let object = if observed.nodes.contains_key(node) { NodeObject::Present } else { NodeObject::Absent };
        AgentFacts { node: object, ..(observed.agent)(node) }
    };
    for (node, look) in rollout::look_at_all(c, observed.targets, agent) {
        steps.wake_at = earlier(steps.wake_at, look.wake_at);
        if look.outlook == Outlook::Again {
            steps.again.insert(node.clone());
        }
        steps.actions.extend(look.steps.into_iter().map(|step| action(c, node, step, now)));
    }
    steps
}

fn action(c: &Circumstances<'_>, node: &NodeName, step: Step, now: Now) -> Action {
    let attempt = || c.ledger.attempt(node);
    match step {
        Step::Turn => Action::Turn(node.clone()),
        Step::Start { start_ms, total_ms } => Action::Start { attempt: attempt(), start_ms, total_ms },
        Step::Cancel => Action::Cancel(attempt()),
        Step::RetryAt(at) => Action::RetryAt(node.clone(), at),
        Step::Again => Action::Again(node.clone()),
        Step::Withdraw => Action::Withdraw(node.clone()),
        Step::Conclude(conclusion) => {
            let execution = c.ledger.execution(node);
            let ended = Ended {
                started_at: started_at(execution),
                exit: conclusion.exit(),
                ..never_started(conclusion.outcome(execution), now.wall)
            };
            Action::Conclude { attempt: attempt(), ended: Box::new(ended) }
        }
    }
}

fn started_at(execution: Option<&Execution>) -> Option<UnixMillis> {
    match execution.map(|execution| &execution.latest.known) {
        Some(Known::Running(running)) => Some(running.started_at),
        _ => None,
    }
}

/// The ledger as it will be once what changes an Outcome is done. Most looks change none, and a copy of a thousand
/// Executions costs more than all else they do.
fn once_done<'a>(ledger: &'a RunLedger, actions: &[Action]) -> Cow<'a, RunLedger> {
    let mut after = Cow::Borrowed(ledger);
    for action in actions {
        match action {
            Action::Conclude { attempt, ended } => {
                after.to_mut().conclude(attempt, (**ended).clone());
            }
            Action::Withdraw(node) => after.to_mut().withdraw(node),
            _ => {}
        }
    }
    after
}

/// A finished Run in the light of late evidence: an Execution that was taken for lost may have ended after all.
fn corrected(observed: &Observed<'_>, last: &RunRecord) -> (RunRecord, Option<RollUp>) {
    let known = observed.ledger.executions().filter(|(_, execution)| execution.is_over()).count();
    if observed.ledger.run() != last.number || known < observed.targets.len() || observed.targets.is_empty() {
        return (last.clone(), None);
    }
    let rolled =
        status::roll_up(observed.targets, observed.ledger, Prospects::none(), |node| reach(observed, node));
    let verdict = status::verdict(observed.targets.len(), rolled.counts).or(last.verdict);
    (RunRecord { counts: rolled.counts, verdict, ..last.clone() }, Some(rolled))
}

fn archive_of(observed: &Observed<'_>, finished: bool) -> Archive {
    let behind = observed
        .ledger
        .executions()
        .flat_map(|(_, execution)| execution.attempts())
        .any(|tried| tried.ended().is_some() && tried.archived != Some(Stage::Ended));
    // A target whose end the operator before this one had only concluded is in no archive before it is concluded again.
    let over = observed.ledger.executions().filter(|(_, execution)| execution.is_over()).count();
    let asked = observed.ledger.origin() == Origin::Inherited && observed.recall == Recall::Done;
    let unheard = asked && over < observed.targets.len();
    if finished && (behind || unheard) { Archive::Behind } else { observed.archive }
}

fn reach(observed: &Observed<'_>, node: &NodeName) -> Reach {
    if (observed.agent)(node).session.is_some() { Reach::Reachable } else { Reach::Unreachable }
}

fn needs_finalizer(observed: &Observed<'_>) -> Option<Action> {
    let needed = observed.finalizer == Finalizer::Absent && observed.lifecycle == Lifecycle::Live;
    needed.then_some(Action::AddFinalizer)
}

fn with_recent(recent: &[RunSummary], last: Option<&RunRecord>) -> Vec<RunSummary> {
    last.map(RunSummary::from).into_iter().chain(recent.iter().cloned()).take(MAX_RECENT).collect()
}

fn status_of(
    doing: Doing<'_>,
    archive: Archive,
    recorded: Recorded,
    nodes: Option<Vec<NodeStatus>>,
) -> Status {
    let (phase, conditions) = conditions::describe(doing, archive);
    Status { phase, conditions, recorded, nodes }
}

fn suspended() -> Condition {
    Condition {
        kind: conditions::kind::SUSPENDED,
        holds: conditions::Holds::True,
        reason: "Suspended",
        message: "spec.suspend is true; nothing is started".to_owned(),
    }
}

fn begun(run: &RunRecord) -> Notice {
    Notice {
        reason: "RunStarted",
        note: format!("run {} begins on {} nodes ({})", run.number, run.targets, run.trigger.as_str()),
        level: Level::Normal,
    }
}

fn ended(run: &RunRecord) -> Notice {
    let complete = run.verdict == Some(Verdict::Complete);
    Notice {
        reason: if complete { "RunComplete" } else { "RunFailed" },
        note: if run.targets == 0 {
            format!("run {}: no node matches spec.targets, so nothing was run", run.number)
        } else {
            conditions::progress_message(run)
        },
        level: if complete { Level::Normal } else { Level::Warning },
    }
}
