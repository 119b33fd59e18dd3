//! Input and output of [`super::decide`].

use std::collections::BTreeMap;

use sentinel_protocol::ids::{NodeName, RunNumber};

use super::action::Action;
use super::ceiling::approval::Consent;
use super::ceiling::{Awaiting, Ceilings};
use super::conditions::{self, Archive, Condition, ConditionStatus, TaskState, kind};
use super::ledger::RunLedger;
use super::rollout::{AgentFacts, HistoryLookup};
use super::run::EarlierRun;
use super::status::{NodeStatus, Recorded};
use super::targets::NodeFacts;
use super::trigger::{AskedBy, Requests};
use crate::time::Monotonic;

/// What is known about a Task when it is reconciled.
pub struct Observed<'a> {
    /// Its recorded status.
    pub recorded: &'a Recorded,
    /// The persisted target list of the recorded Run.
    pub targets: &'a [NodeName],
    /// What is known of the recorded Run's Executions.
    pub ledger: &'a RunLedger,
    /// Ledgers of superseded Runs that are not settled yet.
    pub superseded: &'a [&'a RunLedger],
    /// Whether History has answered what it has of the recorded Run.
    pub history: HistoryLookup,
    /// What History knows of an earlier Task of this name.
    pub earlier: &'a Earlier,
    /// Whether History is up to date.
    pub archive: Archive,
    /// How far a Run may reach.
    pub ceilings: &'a Ceilings,
    /// Who is behind a Run that is due, and who has approved it.
    pub consent: &'a Consent,
    /// All Nodes.
    pub nodes: &'a BTreeMap<NodeName, NodeFacts>,
    /// What is known of each node's agent.
    pub agent: &'a dyn Fn(&NodeName) -> AgentFacts,
    /// Requests by annotation.
    pub requests: &'a Requests,
    /// Whether the Task is being deleted.
    pub lifecycle: Lifecycle,
    /// Whether our finalizer is on it.
    pub finalizer: Finalizer,
    /// When this operator became the leader.
    pub leading_since: Monotonic,
    /// The highest Run number of this Task in any Inventory or in History. After a cluster was restored from a backup, new
    /// Runs are numbered above it.
    pub highest_run: RunNumber,
}

/// Whether an earlier Task of the same name, with another uid, ran what this Task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// History was not asked: by [`super::recreation::asks`] it need not be.
    NotAsked,
    /// History has not answered.
    Unknown,
    /// It did not.
    Never,
    /// It did.
    Ran {
        /// The latest such Run.
        run: EarlierRun,
        /// What the `sentinelnode.dev/rerun` annotation held when that Run began.
        rerun: Option<String>,
    },
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
    /// It is: a deletion waits for it to be removed.
    Present,
    /// It is not.
    Absent,
}

/// What should happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The whole status.
    pub status: Status,
    /// A Run starts: its target list, to be persisted with the status before anything else.
    pub freeze: Option<Vec<NodeName>>,
    /// How urgently the status is to be written.
    pub write: Write,
    /// What to do after the status is written, in this order.
    pub actions: Vec<Action>,
    /// When to reconcile again if nothing changes before.
    pub wake_at: Option<Monotonic>,
}

/// How urgently a changed status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Before the actions, and none of them without it: it is their intent, or the end of a Run.
    Intent,
    /// At once, as the status would otherwise still give the verdict of an earlier Run. If the API server is unavailable,
    /// the actions are taken regardless and the status is written later.
    Now,
    /// With the next batch, about once a second.
    Soon,
}

/// The status of a Task.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The phase, for people; no code reads it.
    pub phase: &'static str,
    /// Conditions, without their times.
    pub conditions: Vec<Condition>,
    /// The current or last Run, earlier ones, and handled requests.
    pub recorded: Recorded,
    /// The Run that is due, if its ceiling does not let it begin.
    pub held: Option<RunNumber>,
    /// What a Run that is due waits for.
    pub awaiting: Option<Box<Awaiting>>,
    /// Who is behind a Run that this decision begins.
    pub asked_by: AskedBy,
    /// At most 100 nodes, failures first; `None` leaves the list unchanged.
    pub nodes: Option<Vec<NodeStatus>>,
}

impl Status {
    /// The status in this state.
    pub(super) fn of(
        state: TaskState<'_>,
        archive: Archive,
        recorded: Recorded,
        nodes: Option<Vec<NodeStatus>>,
    ) -> Self {
        let (phase, conditions) = conditions::describe(state, archive);
        Self { phase, conditions, recorded, held: None, awaiting: None, asked_by: AskedBy::Author, nodes }
    }

    /// Its `Archived` condition.
    pub fn archived(&self) -> Option<Archive> {
        let condition = self.conditions.iter().find(|condition| condition.kind == kind::ARCHIVED)?;
        Some(Archive::shown_by(condition.status == ConditionStatus::True, condition.reason))
    }
}
