//! The values of a Task's `status`, and how the Executions are rolled up into them.

use std::collections::BTreeSet;

use sentinel_protocol::ids::{NodeName, RunNumber};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;

use super::conditions::Archive;
use super::execution::{AttemptPhase, AttemptState, Execution};
use super::ledger::RunLedger;
use super::run::{Counts, EarlierRun, RunState, RunSummary, TargetState};

/// Nodes listed in `status.nodes` at most; the others are counted only.
pub const MAX_NODES: usize = 100;

/// Finished Runs listed in `status.recentRuns` at most.
pub const MAX_RECENT: usize = 10;

/// The part of the status that the next decision builds on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recorded {
    /// The current Run, or the last one.
    pub run: Option<RunState>,
    /// Instead of a Run: the one of an earlier Task of this name that ran the same. Nothing was run for this Task.
    pub earlier: Option<EarlierRun>,
    /// Earlier Runs, newest first.
    pub recent: Vec<RunSummary>,
    /// One-time requests that were handled.
    pub handled: Handled,
    /// The `Archived` condition, if it has one.
    pub archived: Option<Archive>,
}

/// One-time requests that were handled; each is handled once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// The Run number that `sentinelnode.dev/cancel` last named.
    pub cancel: Option<RunNumber>,
    /// The token that `sentinelnode.dev/rerun` last held.
    pub rerun: Option<String>,
}

/// Whether a node's agent is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is.
    Reachable,
    /// It is not.
    Unreachable,
}

/// Which targets of a Run are retried.
#[derive(Debug, Clone, Copy)]
pub struct PendingRetries<'a> {
    /// Targets whose latest Attempt has ended and that are retried.
    pub targets: &'a BTreeSet<NodeName>,
    /// Retries per target, at most.
    pub limit: u32,
}

impl PendingRetries<'_> {
    /// None: the Run is over.
    pub fn none() -> Self {
        static NONE: BTreeSet<NodeName> = BTreeSet::new();
        Self { targets: &NONE, limit: 0 }
    }
}

/// One line of `status.nodes`.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// Number of its latest Attempt, from 1.
    pub attempt: u32,
    /// State or Outcome of its Execution.
    pub state: &'static str,
    /// Exit code, where there is one.
    pub exit_code: Option<u8>,
    /// Details, if the state alone is not enough.
    pub message: String,
    /// When its command started.
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// Whether its agent is connected; once it is over, whether its result is known.
    pub reach: Reach,
}

/// Counts and the listed nodes of a Run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RollUp {
    /// Targets by state.
    pub counts: Counts,
    /// At most [`MAX_NODES`] of them, failures first.
    pub nodes: Vec<NodeStatus>,
}

/// Rolls up the Executions of a Run.
pub fn roll_up(
    targets: &[NodeName],
    ledger: &RunLedger,
    pending: PendingRetries<'_>,
    reach: impl Fn(&NodeName) -> Reach,
) -> RollUp {
    let none = Execution::default();
    let mut counts = Counts::default();
    let mut states: Vec<(TargetState, &NodeName, &Execution)> = Vec::with_capacity(targets.len());
    for (node, execution) in ledger.executions_of(targets) {
        let execution = execution.unwrap_or(&none);
        let state =
            if pending.targets.contains(node) { TargetState::Waiting } else { target_state(execution) };
        counts.add(state);
        states.push((state, node, execution));
    }
    // A stable sort: targets in the same state stay in name order.
    states.sort_by_key(|(state, ..)| *state);
    let line = |(state, node, execution): &(TargetState, &NodeName, &Execution)| match execution.ended() {
        Some(ended) if *state == TargetState::Waiting => {
            between_attempts(node, execution, ended, pending.limit, reach(node))
        }
        _ => node_status(node, execution, reach(node)),
    };
    RollUp { counts, nodes: states.iter().take(MAX_NODES).map(line).collect() }
}

fn target_state(execution: &Execution) -> TargetState {
    match execution.ended() {
        None if execution.is_active() => TargetState::Running,
        None => TargetState::Waiting,
        Some(ended) => TargetState::from_status(ended.outcome.name()),
    }
}

/// The status of a target by its latest Attempt.
pub fn node_status(node: &NodeName, execution: &Execution, reach: Reach) -> NodeStatus {
    let ended = execution.ended();
    let known = &execution.latest.phase;
    let started_at = match known {
        AttemptPhase::Running(running) => Some(running.started_at),
        _ => ended.and_then(|ended| ended.started_at),
    };
    let (state, message) = match (known, ended) {
        (_, Some(ended)) => (ended.outcome.name(), ended.message()),
        (AttemptPhase::Running(_), _) if reach == Reach::Unreachable => {
            ("Running", "the node is unreachable".into())
        }
        (AttemptPhase::Running(_), _) => ("Running", String::new()),
        (AttemptPhase::Accepted, _) => ("Dispatched", String::new()),
        _ if execution.started.is_some() => ("Dispatched", String::new()),
        _ if reach == Reach::Unreachable => ("WaitingForNode", "no agent of this node is connected".into()),
        _ => match execution.declined() {
            Some(declined) => ("WaitingForNode", declined.refusal.to_string()),
            None => ("Pending", String::new()),
        },
    };
    let before = execution.before_latest().and_then(AttemptState::ended);
    let message = match before {
        Some(before) if message.is_empty() => format!("the previous attempt ended {}", describe_end(before)),
        _ => message,
    };
    // Of a target that is over, the Outcome counts: a node that comes and goes later must not change the status.
    let reach = match ended {
        Some(_) if target_state(execution) == TargetState::Unreachable => Reach::Unreachable,
        Some(_) => Reach::Reachable,
        None => reach,
    };
    NodeStatus {
        node: node.clone(),
        attempt: execution.latest.number,
        state,
        exit_code: ended.and_then(Ended::exit_code),
        message,
        started_at,
        finished_at: ended.map(|ended| ended.ended_at),
        reach,
    }
}

/// The status of a target that waits for its next Attempt, with at most `retries` retries.
pub fn between_attempts(
    node: &NodeName,
    execution: &Execution,
    ended: &Ended,
    retries: u32,
    reach: Reach,
) -> NodeStatus {
    let number = execution.latest.number;
    let (next, most) = (number.saturating_add(1), retries.saturating_add(1));
    NodeStatus {
        node: node.clone(),
        attempt: number,
        state: "Pending",
        exit_code: None,
        message: format!(
            "attempt {number} ended {}; attempt {next} of at most {most} follows",
            describe_end(ended)
        ),
        started_at: None,
        finished_at: None,
        reach,
    }
}

/// How an Attempt ended.
fn describe_end(ended: &Ended) -> String {
    let name = ended.outcome.name();
    match ended.outcome.exit_code() {
        Some(code) => format!("{name} with exit code {code}"),
        None => name.to_owned(),
    }
}
