//! What [`super::decide`] is given and what it answers.

use std::collections::BTreeMap;

use sentinel_protocol::ids::{NodeName, RunNumber};

use super::action::Action;
use super::conditions::{Archive, Condition};
use super::ledger::RunLedger;
use super::rollout::{AgentFacts, HistoryLookup};
use super::status::{NodeStatus, Recorded};
use super::targets::NodeFacts;
use super::trigger::Requests;
use crate::time::Monotonic;

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
    pub history: HistoryLookup,
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
    pub leading_since: Monotonic,
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
    pub wake_at: Option<Monotonic>,
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
