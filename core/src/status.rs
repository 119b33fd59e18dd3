//! What a Task says about itself: the values behind `status`, and the roll-up that makes them.

use std::collections::BTreeSet;

use sentinel_protocol::ids::{NodeName, RunNumber, SpecHash};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;

use crate::execution::{Execution, Known, Tried};
use crate::ledger::RunLedger;

/// Nodes listed in `status.nodes` at most; the rest is counted, and listed by History.
pub const MAX_NODES: usize = 100;

/// Finished Runs listed in `status.recentRuns` at most.
pub const MAX_RECENT: usize = 10;

/// What the Task's status holds and the next decision builds on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recorded {
    /// The current Run, or the last one.
    pub run: Option<RunRecord>,
    /// Earlier Runs, newest first.
    pub recent: Vec<RunSummary>,
    /// Requests of a moment that were acted on.
    pub handled: Handled,
}

/// Requests of a moment that were acted on; each is acted on once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// The Run number that `sentinelnode.dev/cancel` last named.
    pub cancel: Option<RunNumber>,
    /// The token that `sentinelnode.dev/rerun` last held.
    pub rerun: Option<String>,
}

/// Why a Run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The spec hash changed, or there was no Run before.
    SpecChange,
    /// The rerun token, or the rerun annotation, changed.
    RerunToken,
}

impl Trigger {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpecChange => "SpecChange",
            Self::RerunToken => "RerunToken",
        }
    }
}

/// Why a Run starts nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// Somebody asked for its cancellation: what runs is ended.
    Cancelled,
    /// A newer Run waits: what runs may finish.
    SupersededFinish,
    /// A newer Run waits: what runs is ended.
    SupersededCancel,
    /// The Task is being deleted: what runs is ended.
    Deleted,
}

impl Stopping {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "Cancelled",
            Self::SupersededFinish => "SupersededFinish",
            Self::SupersededCancel => "SupersededCancel",
            Self::Deleted => "Deleted",
        }
    }

    /// Whether running commands are ended.
    pub fn ends_commands(self) -> bool {
        self != Self::SupersededFinish
    }
}

/// How a Run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every target succeeded.
    Complete,
    /// Not every target succeeded, or there was none.
    Failed,
}

impl Verdict {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// One Run, as the status has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// 1, 2, 3 …
    pub number: RunNumber,
    /// Why it began.
    pub trigger: Trigger,
    /// Digest of the spec it carries out.
    pub spec_hash: SpecHash,
    /// The rerun token when it began.
    pub rerun_token: String,
    /// When it began.
    pub started_at: UnixMillis,
    /// When its last target ended.
    pub finished_at: Option<UnixMillis>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// Why it starts nothing more, if so.
    pub stopping: Option<Stopping>,
    /// Number of targets.
    pub targets: u32,
    /// How they stand.
    pub counts: Counts,
}

/// A Run that is over and no longer the current one.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Its number.
    pub number: RunNumber,
    /// Why it began.
    pub trigger: Trigger,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// How its targets ended.
    pub counts: Counts,
}

impl From<&RunRecord> for RunSummary {
    fn from(run: &RunRecord) -> Self {
        Self {
            number: run.number,
            trigger: run.trigger,
            started_at: run.started_at,
            finished_at: run.finished_at,
            verdict: run.verdict,
            counts: run.counts,
        }
    }
}

/// Targets by how they stand. The five add up to the number of targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not yet under way.
    pub waiting: u32,
    /// Dispatched, accepted or running.
    pub running: u32,
    /// Ended as wished.
    pub succeeded: u32,
    /// Ended otherwise.
    pub failed: u32,
    /// Ended without anybody knowing how, or never reached.
    pub unreachable: u32,
}

impl Counts {
    /// Targets that have their Outcome.
    pub fn done(self) -> u32 {
        self.succeeded + self.failed + self.unreachable
    }

    fn add(&mut self, standing: Standing) {
        *match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Running => &mut self.running,
            Standing::Succeeded => &mut self.succeeded,
            Standing::Failed => &mut self.failed,
            Standing::Unreachable => &mut self.unreachable,
        } += 1;
    }
}

/// How one target stands, in the order in which people want to see them: which of the [`Counts`] it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Ended otherwise.
    Failed,
    /// Ended without anybody knowing how, or never reached.
    Unreachable,
    /// Dispatched, accepted or running.
    Running,
    /// Not yet under way.
    Waiting,
    /// Ended as wished.
    Succeeded,
}

impl Standing {
    /// By the word in the status: a state, or the name of an [`Outcome`].
    pub fn of_word(word: &str) -> Self {
        match word {
            "" | "Pending" | "WaitingForNode" => Self::Waiting,
            "Dispatched" | "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Lost" | "StartTimedOut" => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

/// Whether a node's agent is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is.
    Reachable,
    /// It is not.
    Unreachable,
}

/// Which targets have another Attempt before them.
#[derive(Debug, Clone, Copy)]
pub struct Prospects<'a> {
    /// Those of which an Attempt has ended and another follows.
    pub again: &'a BTreeSet<NodeName>,
    /// Attempts after the first, at most.
    pub retries: u32,
}

impl Prospects<'_> {
    /// None has: the Run is over.
    pub fn none() -> Self {
        static NOBODY: BTreeSet<NodeName> = BTreeSet::new();
        Self { again: &NOBODY, retries: 0 }
    }
}

/// One line of `status.nodes`.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// Number of its latest Attempt, from 1.
    pub attempt: u32,
    /// State or Outcome of its Execution, one word.
    pub state: &'static str,
    /// Exit code, where there is one.
    pub exit_code: Option<u8>,
    /// One sentence where the word does not say it all.
    pub message: String,
    /// When its command started.
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
    /// Whether its agent is heard of.
    pub reach: Reach,
}

/// Counts and the listed nodes of a Run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RollUp {
    /// How the targets stand.
    pub counts: Counts,
    /// At most [`MAX_NODES`] of them, failures first.
    pub nodes: Vec<NodeStatus>,
}

/// Rolls the Executions of a Run up.
pub fn roll_up(
    targets: &[NodeName],
    ledger: &RunLedger,
    prospects: Prospects<'_>,
    reach: impl Fn(&NodeName) -> Reach,
) -> RollUp {
    let none = Execution::default();
    let mut counts = Counts::default();
    let mut standings: Vec<(Standing, &NodeName, &Execution)> = Vec::with_capacity(targets.len());
    for node in targets {
        let execution = ledger.execution(node).unwrap_or(&none);
        let standing = if prospects.again.contains(node) { Standing::Waiting } else { standing(execution) };
        counts.add(standing);
        standings.push((standing, node, execution));
    }
    // Stable: what stands the same stays in the order of the targets, which is that of their names.
    standings.sort_by_key(|(standing, ..)| *standing);
    let line = |(standing, node, execution): &(Standing, &NodeName, &Execution)| match execution.ended() {
        Some(ended) if *standing == Standing::Waiting => {
            between_attempts(node, execution, ended, prospects.retries, reach(node))
        }
        _ => line(node, execution, reach(node)),
    };
    RollUp { counts, nodes: standings.iter().take(MAX_NODES).map(line).collect() }
}

fn standing(execution: &Execution) -> Standing {
    match execution.ended() {
        None if execution.is_under_way() => Standing::Running,
        None => Standing::Waiting,
        Some(ended) => Standing::of_word(ended.outcome.name()),
    }
}

/// How one target stands whose latest Attempt is what counts.
pub fn line(node: &NodeName, execution: &Execution, reach: Reach) -> NodeStatus {
    let ended = execution.ended();
    let known = &execution.latest.known;
    let started_at = match known {
        Known::Running(running) => Some(running.started_at),
        _ => ended.and_then(|ended| ended.started_at),
    };
    let (state, message) = match (known, ended) {
        (_, Some(ended)) => (ended.outcome.name(), ended.message()),
        (Known::Running(_), _) if reach == Reach::Unreachable => {
            ("Running", "the node is not heard of".into())
        }
        (Known::Running(_), _) => ("Running", String::new()),
        (Known::Accepted, _) => ("Dispatched", String::new()),
        _ if execution.started.is_some() => ("Dispatched", String::new()),
        _ if reach == Reach::Unreachable => ("WaitingForNode", "no agent of this node is connected".into()),
        _ => match execution.declined() {
            Some(declined) => ("WaitingForNode", declined.refusal.to_string()),
            None => ("Pending", String::new()),
        },
    };
    let before = execution.before_latest().and_then(Tried::ended);
    let message = match before {
        Some(before) if message.is_empty() => format!("the attempt before ended {}", said(before)),
        _ => message,
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

/// How one target stands of which an Attempt has ended and another follows, of `retries` at most.
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
        message: format!("attempt {number} ended {}; attempt {next} of at most {most} follows", said(ended)),
        started_at: None,
        finished_at: None,
        reach,
    }
}

/// How an Attempt ended, in a few words.
fn said(ended: &Ended) -> String {
    let name = ended.outcome.name();
    match ended.outcome.exit_code() {
        Some(code) => format!("{name} with exit code {code}"),
        None => name.to_owned(),
    }
}

/// The verdict of a Run all of whose targets have their Outcome; `None` while one has not.
pub fn verdict(targets: usize, counts: Counts) -> Option<Verdict> {
    let targets = u32::try_from(targets).unwrap_or(u32::MAX);
    if counts.done() < targets {
        return None;
    }
    // A Run that found no target reached nobody and is no success.
    Some(if targets > 0 && counts.succeeded == targets { Verdict::Complete } else { Verdict::Failed })
}
