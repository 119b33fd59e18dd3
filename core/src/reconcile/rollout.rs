//! Which targets of a Run are started now, which once more, and which are given up.

use sentinel_protocol::exit::{Clock, ExitDetails};
use sentinel_protocol::ids::{NodeName, RunNumber, SessionId};
use sentinel_protocol::limits::DEAD_AFTER_MS;
use sentinel_protocol::outcome::{LostReason, Outcome};

use super::execution::{AttemptPhase, Execution, Sent};
use super::ledger::{Origin, RunLedger};
use super::run::Stopping;
use crate::plan::{Starts, TaskPlan};
use crate::time::Monotonic;

/// A message that may have been lost is said again after this time, in milliseconds.
pub const RESEND_MS: u64 = 10_000;

/// How long what comes next, a Run or an Attempt, waits for what the operator concluded about the one before to be
/// archived, milliseconds. A History that is away for longer holds up nothing.
pub(crate) const ARCHIVE_WAIT_MS: u64 = 60_000;

/// What is known of a node's agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its live Session, once it has said what it owns.
    pub session: Option<SessionId>,
    /// When this operator last heard of it, Heartbeat or otherwise.
    pub last_heard: Option<Monotonic>,
    /// The latest Attempt of this Task that lives there.
    pub living: Option<ActiveAttempt>,
    /// Whether the cluster has a Node of that name.
    pub node: NodeObject,
}

/// Whether the cluster has a Node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeObject {
    /// It has.
    #[default]
    Present,
    /// It has not, or not any more.
    Absent,
}

/// An Attempt that lives on a node, of whatever Run of a Task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActiveAttempt {
    /// Its Run.
    pub run: RunNumber,
    /// Its number in the Execution.
    pub attempt: u32,
}

impl AgentFacts {
    /// Whether a command of the Task other than this Attempt's lives there: two are never on a node at once.
    fn is_busy_for(&self, attempt: ActiveAttempt) -> bool {
        self.living.is_some_and(|living| living != attempt)
    }
}

/// Whether the ledger of a Run that was taken over holds what History has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryLookup {
    /// It does.
    Done,
    /// History has not answered yet; nothing is decided that its answer could change.
    Pending,
}

/// What a target needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The rollout admits it: its start clock begins.
    Admit,
    /// Send `Start`, with what is left on these clocks.
    Start {
        /// Milliseconds left to start in.
        start_ms: u64,
        /// Milliseconds left to the Run; `None` is without limit.
        total_ms: Option<u64>,
    },
    /// Send `Cancel`.
    Cancel,
    /// It is over, as the operator concludes.
    Conclude(Conclusion),
    /// It is retried at this moment.
    RetryAt(Monotonic),
    /// It is retried now: the next Attempt becomes the latest.
    Retry,
    /// The retry is given up: the Attempt before the latest was the last.
    AbandonRetry,
}

/// How the operator concludes that an Execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It never began and will not.
    NotStarted {
        /// The Run's time that was over, `timeouts.total`, milliseconds; `None` when the Run was stopped.
        total_ms: Option<u64>,
    },
    /// It never began in its time.
    StartTimedOut {
        /// `timeouts.start`, milliseconds.
        start_ms: u64,
        /// What it waited for.
        blocker: Blocker,
    },
    /// Nobody can know how it ended.
    Lost(LostReason),
}

impl Conclusion {
    /// The Outcome it is recorded as; what the Execution waited for is named in it.
    pub fn outcome(self, execution: Option<&Execution>) -> Outcome {
        match self {
            Self::NotStarted { .. } => Outcome::NotStarted,
            Self::StartTimedOut { blocker, .. } => {
                Outcome::StartTimedOut { why: blocker.text(execution).map(Into::into) }
            }
            Self::Lost(reason) => Outcome::Lost { reason },
        }
    }

    /// The clock that was over, where it is one of the Task's.
    pub fn exit(self) -> ExitDetails {
        match self {
            Self::StartTimedOut { start_ms, .. } => ExitDetails::clock(Clock::Start, start_ms),
            Self::NotStarted { total_ms: Some(total_ms) } => ExitDetails::clock(Clock::Total, total_ms),
            Self::NotStarted { total_ms: None } | Self::Lost(_) => ExitDetails::default(),
        }
    }
}

/// What a target that has its turn waits for when its start clock is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocker {
    /// An agent; the node is in the cluster.
    Agent,
    /// An agent; the node is not in the cluster, or not any more.
    Node,
    /// The end of another command of this Task on the node.
    OtherCommand,
    /// The node's agent, which declined the last offer.
    Room,
    /// One of the Run's places.
    Place,
    /// The answer of History about what the operator before this one had started.
    History,
    /// Nothing that is known.
    Unknown,
}

impl Blocker {
    fn text(self, execution: Option<&Execution>) -> Option<String> {
        let text = match self {
            Self::Agent => "no agent of this node is connected",
            Self::Node => "the node is not in the cluster, and no agent of it is connected",
            Self::OtherCommand => "another command of this Task still runs on the node",
            Self::Place => "as many nodes as spec.rollout.maxConcurrent allows were under way",
            Self::History => "History has not answered what an earlier operator had started",
            Self::Room => {
                return execution.and_then(Execution::declined).map(|declined| declined.refusal.to_string());
            }
            Self::Unknown => return None,
        };
        Some(text.to_owned())
    }
}

/// What the decisions about all targets of a Run share.
#[derive(Debug, Clone, Copy)]
pub struct RolloutContext<'a> {
    /// The Task.
    pub plan: &'a TaskPlan,
    /// What is known of the Run.
    pub ledger: &'a RunLedger,
    /// Why nothing more is started, if so.
    pub stopping: Option<Stopping>,
    /// When all of the Run must have ended, by `timeouts.total`; `None` is never.
    pub ends_by: Option<Monotonic>,
    /// Whether History has been asked.
    pub history: HistoryLookup,
    /// Since when this operator leads; before that it heard of nobody.
    pub leading_since: Monotonic,
    /// Now.
    pub now: Monotonic,
}

impl RolloutContext<'_> {
    /// Whether the Run's time is over: nothing more is started, and what runs ends by its own clock.
    fn is_out_of_time(&self) -> bool {
        self.ends_by.is_some_and(|ends_by| self.now >= ends_by)
    }

    /// When a target that has its turn must have started.
    fn start_by(&self, execution: &Execution) -> Monotonic {
        let start_by = execution.admitted_at.unwrap_or(self.now).plus(self.plan.timeouts.start_ms);
        self.ends_by.map_or(start_by, |ends_by| ends_by.min(start_by))
    }

    /// When an agent that has not reported its end by itself is told to: it does not know this clock, or knows an
    /// earlier edition of it. Before that a Cancel would only hide the cause.
    fn overdue_at(&self) -> Option<Monotonic> {
        self.ends_by.map(|ends_by| ends_by.plus(self.plan.timeouts.grace_ms).plus(RESEND_MS))
    }

    /// Whether another Attempt follows the one of this number when it ends so.
    fn retries(&self, number: u32, outcome: &Outcome) -> bool {
        self.stopping.is_none() && !self.is_out_of_time() && self.plan.retry.allows(number, outcome)
    }

    fn start(&self, start_by: Monotonic) -> Step {
        Step::Start {
            start_ms: start_by.since(self.now),
            total_ms: self.ends_by.map(|ends_by| ends_by.since(self.now)),
        }
    }
}

/// What to do about one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetDecision {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// When the decision may change although nothing happens.
    pub wake_at: Option<Monotonic>,
    /// The latest Attempt has ended and another follows.
    pub retries: bool,
}

/// Decides about every target in order. `slots` of a rollout are taken by what is under way; a target without an agent, or
/// whose agent is busy, does not take one, so that it cannot hold up the others, but its start clock runs.
pub fn decide_targets<'a>(
    circumstances: &RolloutContext<'a>,
    targets: &'a [NodeName],
    agent: impl Fn(&NodeName) -> AgentFacts,
) -> Vec<(&'a NodeName, TargetDecision)> {
    let none = Execution::default();
    let of = |node: &NodeName| circumstances.ledger.execution(node);
    let under_way = targets.iter().filter(|node| of(node).is_some_and(Execution::is_active)).count();
    let mut slots = circumstances.plan.max_concurrent.of(targets.len()).saturating_sub(under_way);
    let mut decisions = Vec::new();
    for node in targets {
        let execution = of(node).unwrap_or(&none);
        let decision = match execution.ended() {
            Some(ended) => after_attempt(circumstances, node, execution, &ended.outcome),
            None => undecided(circumstances, execution, &agent(node), slots > 0),
        };
        if !execution.is_active() && decision.steps.iter().any(|step| matches!(step, Step::Start { .. })) {
            slots -= 1;
        }
        if decision != TargetDecision::default() {
            decisions.push((node, decision));
        }
    }
    decisions
}

/// A target whose latest Attempt has ended: attempt again after a while, if the Task says so, or done.
fn after_attempt(
    c: &RolloutContext<'_>,
    node: &NodeName,
    execution: &Execution,
    outcome: &Outcome,
) -> TargetDecision {
    if !c.retries(execution.latest.number, outcome) {
        return TargetDecision::default();
    }
    let wait = || c.plan.retry.wait_ms(&c.ledger.attempt(node));
    let due = execution.retry_at.unwrap_or_else(|| c.now.plus(wait()));
    let step = match execution.retry_at {
        None => Some(Step::RetryAt(due)),
        Some(due) if c.now >= due.plus(ARCHIVE_WAIT_MS) => Some(Step::Retry),
        // With the next Attempt an operator that dies would leave this one without an Outcome in History.
        Some(due) if c.now >= due && !execution.latest.is_only_concluded() => Some(Step::Retry),
        Some(_) => None,
    };
    let next = if c.now < due { due } else { due.plus(ARCHIVE_WAIT_MS) };
    TargetDecision {
        steps: step.into_iter().collect(),
        wake_at: earlier(Some(next), c.ends_by),
        retries: true,
    }
}

fn undecided(
    c: &RolloutContext<'_>,
    execution: &Execution,
    agent: &AgentFacts,
    slot: bool,
) -> TargetDecision {
    if execution.missing {
        // The agent answers and no longer knows the Attempt: its memory is gone.
        return conclude(c, execution, Conclusion::Lost(LostReason::StateLost));
    }
    if execution.is_active() {
        return under_way(c, execution, agent);
    }
    if c.stopping.is_some() || c.is_out_of_time() {
        let total_ms = c.stopping.is_none().then_some(c.plan.timeouts.total_ms).flatten();
        return never_sent(c, execution, agent, Conclusion::NotStarted { total_ms }, c.now);
    }
    if c.plan.starts == Starts::Suspended || (execution.admitted_at.is_none() && !slot) {
        return TargetDecision { wake_at: c.ends_by, ..TargetDecision::default() };
    }
    waiting(c, execution, agent, slot)
}

/// A target whose turn it is and that has not been sent its `Start`.
fn waiting(c: &RolloutContext<'_>, execution: &Execution, agent: &AgentFacts, slot: bool) -> TargetDecision {
    let mut look = TargetDecision::default();
    if execution.admitted_at.is_none() {
        look.steps.push(Step::Admit);
    }
    let deadline = c.start_by(execution);
    let blocker = blocker(c, execution, agent, slot);
    if c.now >= deadline {
        // Here it is the start clock: once the Run's own is over, targets are not looked at as waiting.
        let blocker = blocker.unwrap_or(match execution.declined() {
            Some(_) => Blocker::Room,
            None => Blocker::Unknown,
        });
        let conclusion = Conclusion::StartTimedOut { start_ms: c.plan.timeouts.start_ms, blocker };
        return never_sent(c, execution, agent, conclusion, deadline);
    }
    let again_at = execution.declined().map(|declined| declined.again_at).filter(|at| c.now < *at);
    let ready = blocker.is_none();
    if ready && again_at.is_none() {
        look.steps.push(c.start(deadline));
        look.wake_at = Some(c.now.plus(RESEND_MS));
    } else if ready {
        look.wake_at = earlier(again_at, Some(deadline));
    } else {
        look.wake_at = Some(deadline);
    }
    look
}

/// Why a target that has its turn is not sent its `Start` now; a refusal that passes is not among it.
fn blocker(c: &RolloutContext<'_>, execution: &Execution, agent: &AgentFacts, slot: bool) -> Option<Blocker> {
    let attempt = ActiveAttempt { run: c.ledger.run(), attempt: execution.latest.number };
    if agent.session.is_none() {
        return Some(match agent.node {
            NodeObject::Present => Blocker::Agent,
            NodeObject::Absent => Blocker::Node,
        });
    }
    if agent.is_busy_for(attempt) {
        return Some(Blocker::OtherCommand);
    }
    // What History may know of a Run that was taken over is not started on a guess: the agent may have lost its memory.
    if c.ledger.origin() != Origin::Begun && c.history != HistoryLookup::Done {
        return Some(Blocker::History);
    }
    (!slot).then_some(Blocker::Place)
}

/// A target to which *we* have sent nothing. Who began the Run knows that nobody has; who inherited it must hear it
/// from the agent, or from History. A further Attempt that the Run's stop came before says nothing of the Execution:
/// that ended with the Attempt before.
fn never_sent(
    c: &RolloutContext<'_>,
    execution: &Execution,
    agent: &AgentFacts,
    conclusion: Conclusion,
    due: Monotonic,
) -> TargetDecision {
    let proven = c.ledger.origin() == Origin::Begun || agent.session.is_some();
    if proven && matches!(conclusion, Conclusion::NotStarted { .. }) && execution.before_latest().is_some() {
        return TargetDecision { steps: vec![Step::AbandonRetry], ..TargetDecision::default() };
    }
    if proven {
        return conclude(c, execution, conclusion);
    }
    lost_if_unreachable(c, execution, agent, due)
}

/// A target whose agent has, or may have, a command for it.
fn under_way(c: &RolloutContext<'_>, execution: &Execution, agent: &AgentFacts) -> TargetDecision {
    let mut look = lost_if_unreachable(c, execution, agent, c.now);
    let Some(session) = &agent.session else { return look };
    if !look.steps.is_empty() {
        return look;
    }
    let overdue_at = c.overdue_at();
    look.wake_at = earlier(look.wake_at, overdue_at.filter(|at| c.now < *at));
    let overdue = overdue_at.is_some_and(|at| c.now >= at);
    let ends = overdue || c.stopping.is_some_and(Stopping::ends_commands);
    let (sent, step) = if ends {
        (execution.cancelled.as_ref(), Step::Cancel)
    } else if execution.latest.phase == AttemptPhase::Unknown
        // Accepted before a reboot of its node, it waits to be asked for once more.
        || (execution.latest.phase == AttemptPhase::Accepted && c.stopping.is_none() && c.plan.starts == Starts::Allowed)
    {
        (execution.started.as_ref(), c.start(c.start_by(execution)))
    } else {
        return look;
    };
    if is_resend_due(sent, session, c.now) {
        look.steps.push(step);
    }
    let again = sent.filter(|sent| sent.session == *session).map_or(c.now, |sent| sent.at).plus(RESEND_MS);
    look.wake_at = earlier(look.wake_at, Some(again.max(c.now.plus(1))));
    look
}

fn is_resend_due(sent: Option<&Sent>, session: &SessionId, now: Monotonic) -> bool {
    sent.is_none_or(|sent| sent.session != *session || now.since(sent.at) >= RESEND_MS)
}

/// `Lost` once the node was silent for `timeouts.unreachable`, but never before one presence period of our own has
/// passed, nor while History may still know better.
fn lost_if_unreachable(
    c: &RolloutContext<'_>,
    execution: &Execution,
    agent: &AgentFacts,
    not_before: Monotonic,
) -> TargetDecision {
    let patience = c.plan.timeouts.unreachable_ms.max(DEAD_AFTER_MS);
    let heard = agent.last_heard.unwrap_or(c.leading_since).max(c.leading_since);
    let due = heard.plus(patience).max(not_before);
    if c.now >= due && c.history == HistoryLookup::Done {
        // A Node that was deleted may register again and its agent with it, so it is waited for like any other.
        let reason = match agent.node {
            NodeObject::Present => LostReason::NodeUnreachable,
            NodeObject::Absent => LostReason::NodeDeleted,
        };
        return conclude(c, execution, Conclusion::Lost(reason));
    }
    TargetDecision { wake_at: Some(due.max(c.now.plus(1000))), ..TargetDecision::default() }
}

fn conclude(c: &RolloutContext<'_>, execution: &Execution, conclusion: Conclusion) -> TargetDecision {
    let retries = c.retries(execution.latest.number, &conclusion.outcome(Some(execution)));
    // The retry is scheduled once the conclusion is noted.
    let wake_at = retries.then_some(c.now);
    TargetDecision { steps: vec![Step::Conclude(conclusion)], wake_at, retries }
}

/// The earlier of two moments, where either may be none.
pub(crate) fn earlier(a: Option<Monotonic>, b: Option<Monotonic>) -> Option<Monotonic> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
