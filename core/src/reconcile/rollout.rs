//! Which targets of a Run are started, retried or given up.

use sentinel_protocol::exit::{Clock, ExitDetails};
use sentinel_protocol::ids::{NodeName, RunNumber, SessionId};
use sentinel_protocol::limits::DEAD_AFTER_MS;
use sentinel_protocol::outcome::{LostReason, Outcome};

use super::execution::{AttemptPhase, Execution, Sent};
use super::ledger::{Origin, RunLedger};
use super::run::Stopping;
use crate::plan::{Starts, TaskPlan};
use crate::time::Monotonic;

/// A message that may have been lost is resent after this time, milliseconds.
pub const RESEND_MS: u64 = 10_000;

/// How long the next Run or Attempt waits for the operator's conclusions about the previous one to be archived,
/// milliseconds. A longer outage of History delays nothing.
pub(crate) const ARCHIVE_WAIT_MS: u64 = 60_000;

/// What is known of a node's agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its live Session, once its Inventory is complete.
    pub session: Option<SessionId>,
    /// When this operator last received anything from it.
    pub last_seen: Option<Monotonic>,
    /// The latest active Attempt of this Task there.
    pub active: Option<ActiveAttempt>,
    /// Whether the cluster has a Node of that name.
    pub node: NodeObject,
}

/// Whether the cluster has a Node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeObject {
    /// It does.
    #[default]
    Present,
    /// It does not, or not any more.
    Absent,
}

/// An Attempt of any Run of a Task that is active on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActiveAttempt {
    /// Its Run.
    pub run: RunNumber,
    /// Its number in the Execution.
    pub attempt: u32,
}

impl AgentFacts {
    /// Whether another Attempt of the Task is active there: two never run on a node at once.
    fn is_busy_for(&self, attempt: ActiveAttempt) -> bool {
        self.active.is_some_and(|active| active != attempt)
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
        /// Milliseconds left for the Run; `None` means unlimited.
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
    /// It never started and will not.
    NotStarted {
        /// `timeouts.total`, milliseconds, if it ran out; `None` if the Run was stopped.
        total_ms: Option<u64>,
    },
    /// It did not start in time.
    StartTimedOut {
        /// `timeouts.start`, milliseconds.
        start_ms: u64,
        /// What blocked it.
        blocker: Blocker,
    },
    /// How it ended is unknown.
    Lost(LostReason),
}

impl Conclusion {
    /// The Outcome to record; it names what blocked the Execution.
    pub fn outcome(self, execution: Option<&Execution>) -> Outcome {
        match self {
            Self::NotStarted { .. } => Outcome::NotStarted,
            Self::StartTimedOut { blocker, .. } => {
                Outcome::StartTimedOut { why: blocker.text(execution).map(Into::into) }
            }
            Self::Lost(reason) => Outcome::Lost { reason },
        }
    }

    /// The Task's clock that ran out, if one did.
    pub fn exit(self) -> ExitDetails {
        match self {
            Self::StartTimedOut { start_ms, .. } => ExitDetails::clock(Clock::Start, start_ms),
            Self::NotStarted { total_ms: Some(total_ms) } => ExitDetails::clock(Clock::Total, total_ms),
            Self::NotStarted { total_ms: None } | Self::Lost(_) => ExitDetails::default(),
        }
    }
}

/// What keeps an admitted target from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocker {
    /// No agent is connected; the Node exists.
    Agent,
    /// No agent is connected; the Node does not exist.
    Node,
    /// Another command of this Task on the node.
    OtherCommand,
    /// The agent declined the last offer for a temporary reason.
    Room,
    /// `maxConcurrent` is used up.
    Slots,
    /// History has not answered what a previous leader started.
    History,
    /// Unknown.
    Unknown,
}

impl Blocker {
    fn text(self, execution: Option<&Execution>) -> Option<String> {
        let text = match self {
            Self::Agent => "no agent of this node is connected",
            Self::Node => "the node is not in the cluster, and no agent of it is connected",
            Self::OtherCommand => "another command of this Task still runs on the node",
            Self::Slots => {
                "as many nodes as spec.rollout.maxConcurrent, and the ceiling of the Run, allow were under way"
            }
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
    /// The Run's ledger.
    pub ledger: &'a RunLedger,
    /// Why the Run stops, if it does.
    pub stopping: Option<Stopping>,
    /// When the whole Run must have ended, by `timeouts.total`; `None` is never.
    pub ends_by: Option<Monotonic>,
    /// The most targets that are active at once by the ceiling of the Run, whatever the Task asks for.
    pub ceiling: Option<u32>,
    /// Whether History has answered.
    pub history: HistoryLookup,
    /// When this operator became the leader; it received nothing before.
    pub leading_since: Monotonic,
    /// Now.
    pub now: Monotonic,
}

impl RolloutContext<'_> {
    /// Targets that are active at once, at most.
    fn max_concurrent(&self, targets: usize) -> usize {
        let asked = self.plan.max_concurrent.of(targets);
        self.ceiling.map_or(asked, |most| asked.min(most as usize))
    }

    /// Whether `timeouts.total` has passed: nothing more is started, and agents end what runs by their own clock.
    fn is_out_of_time(&self) -> bool {
        self.ends_by.is_some_and(|ends_by| self.now >= ends_by)
    }

    /// When an admitted target must have started.
    fn start_by(&self, execution: &Execution) -> Monotonic {
        let start_by = execution.admitted_at.unwrap_or(self.now).plus(self.plan.timeouts.start_ms);
        self.ends_by.map_or(start_by, |ends_by| ends_by.min(start_by))
    }

    /// When an agent that should have ended a command by `timeouts.total` is sent a `Cancel`: it does not know this clock,
    /// or an edited one. An earlier `Cancel` would hide the cause.
    fn overdue_at(&self) -> Option<Monotonic> {
        self.ends_by.map(|ends_by| ends_by.plus(self.plan.timeouts.grace_ms).plus(RESEND_MS))
    }

    /// Whether a retry follows this Attempt after `outcome`.
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

/// Decides about every target in order. Active targets take the slots of `maxConcurrent`. A target without an agent, or
/// with a busy one, takes no slot and so delays no other target, but its start clock runs.
pub fn decide_targets<'a>(
    context: &RolloutContext<'a>,
    targets: &'a [NodeName],
    agent: impl Fn(&NodeName) -> AgentFacts,
) -> Vec<(&'a NodeName, TargetDecision)> {
    let none = Execution::default();
    let executions = || context.ledger.executions_of(targets);
    let under_way = executions().filter(|(_, known)| known.is_some_and(Execution::is_active)).count();
    let mut slots = context.max_concurrent(targets.len()).saturating_sub(under_way);
    let mut decisions = Vec::new();
    for (node, execution) in executions() {
        let execution = execution.unwrap_or(&none);
        let decision = match execution.ended() {
            Some(ended) => after_attempt(context, node, execution, &ended.outcome),
            None => undecided(context, execution, &agent(node), slots > 0),
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

/// A target whose latest Attempt has ended: it is retried after its backoff, or done.
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
        // If the operator crashed after the retry began, this Attempt would have no Outcome in History.
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
        // The agent is connected and does not have the Attempt any more: its state was lost.
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

/// A target that is admitted, or can be, and has not been sent its `Start`.
fn waiting(c: &RolloutContext<'_>, execution: &Execution, agent: &AgentFacts, slot: bool) -> TargetDecision {
    let mut decision = TargetDecision::default();
    if execution.admitted_at.is_none() {
        decision.steps.push(Step::Admit);
    }
    let deadline = c.start_by(execution);
    let blocker = blocker(c, execution, agent, slot);
    if c.now >= deadline {
        // This is the start clock: `waiting` is not called once `timeouts.total` has passed.
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
        decision.steps.push(c.start(deadline));
        decision.wake_at = Some(c.now.plus(RESEND_MS));
    } else if ready {
        decision.wake_at = earlier(again_at, Some(deadline));
    } else {
        decision.wake_at = Some(deadline);
    }
    decision
}

/// What keeps an admitted target from being sent its `Start`, apart from a temporary Refusal.
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
    // In a Run that was taken over, History may know that the command ran although the agent lost its state.
    if c.ledger.origin() != Origin::Begun && c.history != HistoryLookup::Done {
        return Some(Blocker::History);
    }
    (!slot).then_some(Blocker::Slots)
}

/// A target to which this operator has sent nothing. If it started the Run, nothing was sent at all; if it took the Run
/// over, that must be confirmed by the agent or History. A retry that was never sent is given up: the Execution ended
/// with the previous Attempt.
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

/// A target with an agent that has, or may have, its command.
fn under_way(c: &RolloutContext<'_>, execution: &Execution, agent: &AgentFacts) -> TargetDecision {
    let mut decision = lost_if_unreachable(c, execution, agent, c.now);
    let Some(session) = &agent.session else { return decision };
    if !decision.steps.is_empty() {
        return decision;
    }
    let overdue_at = c.overdue_at();
    decision.wake_at = earlier(decision.wake_at, overdue_at.filter(|at| c.now < *at));
    let overdue = overdue_at.is_some_and(|at| c.now >= at);
    let ends = overdue || c.stopping.is_some_and(Stopping::ends_commands);
    let (sent, step) = if ends {
        (execution.cancelled.as_ref(), Step::Cancel)
    } else if execution.latest.phase == AttemptPhase::Unknown
        // Accepted before a reboot of its node, it waits for another `Start`.
        || (execution.latest.phase == AttemptPhase::Accepted && c.stopping.is_none() && c.plan.starts == Starts::Allowed)
    {
        (execution.started.as_ref(), c.start(c.start_by(execution)))
    } else {
        return decision;
    };
    if is_resend_due(sent, session, c.now) {
        decision.steps.push(step);
    }
    let again = sent.filter(|sent| sent.session == *session).map_or(c.now, |sent| sent.at).plus(RESEND_MS);
    decision.wake_at = earlier(decision.wake_at, Some(again.max(c.now.plus(1))));
    decision
}

fn is_resend_due(sent: Option<&Sent>, session: &SessionId, now: Monotonic) -> bool {
    sent.is_none_or(|sent| sent.session != *session || now.since(sent.at) >= RESEND_MS)
}

/// `Lost` once the node was unreachable for `timeouts.unreachable`, but not before this operator has led for one presence
/// period, nor before History has answered.
fn lost_if_unreachable(
    c: &RolloutContext<'_>,
    execution: &Execution,
    agent: &AgentFacts,
    not_before: Monotonic,
) -> TargetDecision {
    let patience = c.plan.timeouts.unreachable_ms.max(DEAD_AFTER_MS);
    let last_seen = agent.last_seen.unwrap_or(c.leading_since).max(c.leading_since);
    let due = last_seen.plus(patience).max(not_before);
    if c.now >= due && c.history == HistoryLookup::Done {
        // A deleted Node may register again, and its agent with it, so it gets the same time as any other.
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

/// The earlier of two times; each may be missing.
pub(crate) fn earlier(a: Option<Monotonic>, b: Option<Monotonic>) -> Option<Monotonic> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
