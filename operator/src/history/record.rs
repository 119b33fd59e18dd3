//! The records that History holds, one struct per kind. Each store adds an envelope with its own schema version.

use std::collections::BTreeMap;

use sentinel_protocol::exit::{ExitDetails, describe};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Environment;
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, ReportedState, Usage};
use serde::{Deserialize, Serialize};

use super::outcome::OutcomeName;

pub use sentinel_api::command_line::display_command;

/// A record to store.
#[derive(Debug, Clone, PartialEq)]
pub enum HistoryRecord {
    /// An Attempt, and with it its Execution.
    Attempt(Box<AttemptRecord>),
    /// A Run.
    Run(Box<RunRecord>),
}

/// One Run of a Task over its targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// The Task.
    pub task_uid: TaskUid,
    /// The Task's namespace.
    pub namespace: String,
    /// The Task's name.
    pub name: String,
    /// Number of the Run in the Task.
    pub run: RunNumber,
    /// Why it began: `SpecChange` or `RerunToken`.
    pub trigger: String,
    /// Digest of its spec.
    pub spec_hash: SpecHash,
    /// The `rerunToken` that it began with; empty in records of earlier releases.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rerun_token: String,
    /// What the annotation that asks for a rerun held when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<String>,
    /// Who asked for it; `None` when that is unknown, and in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RequestedBy>,
    /// Who cancelled it; `None` if it was not cancelled, or when that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Requester>,
    /// Who approved it; `None` if it needed no approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Requester>,
    /// The command, for people; see [`display_command`].
    pub command: String,
    /// When it began, by the operator's clock. The same in every record of this Run: pages are ordered by it.
    pub started_at: UnixMillis,
    /// When its last target ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<UnixMillis>,
    /// How it ended as a whole; `None` while it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RunVerdict>,
    /// Why this verdict, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its targets by Outcome.
    pub counts: RunCounts,
    /// Epoch of the leader that wrote this.
    #[serde(deserialize_with = "Epoch::stored")]
    pub epoch: Epoch,
}

/// How a Run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunVerdict {
    /// Every target succeeded.
    Complete,
    /// Some target did not succeed, or there was none.
    Failed,
    /// Ended on request, or replaced by a newer Run.
    Cancelled,
}

/// How many targets of a Run ended with which Outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunCounts {
    /// Targets in all.
    pub targets: u32,
    /// Targets that have ended, by Outcome.
    #[serde(default)]
    pub outcomes: BTreeMap<OutcomeName, u32>,
}

impl RunCounts {
    /// Targets that have ended.
    pub fn ended(&self) -> u32 {
        self.outcomes.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Targets that ended with this Outcome.
    pub fn of(&self, outcome: OutcomeName) -> u32 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }
}

/// A Run on one node: the state of its latest Attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionRecord {
    /// The Task.
    pub task_uid: TaskUid,
    /// The Task's namespace.
    pub namespace: String,
    /// The Task's name.
    pub name: String,
    /// Number of the Run in the Task.
    pub run: RunNumber,
    /// The node.
    pub node: NodeName,
    /// When the Run began, by the operator's clock. The same in every record of this Run: pages are ordered by it.
    pub run_started_at: UnixMillis,
    /// Number of the latest Attempt; 0 when there has been none.
    pub attempt: u32,
    /// How far it has come.
    pub stage: Stage,
    /// Its Outcome by name; `None` while it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeName>,
    /// Its Outcome in full; absent in records of earlier releases: see [`outcome_of`](super::outcome_of).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome_details: Option<Outcome>,
    /// Exit code of the command, where it has one, whatever its Outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The Outcome for people; empty while it is active.
    #[serde(default)]
    pub message: String,
    /// How the command's processes ended; empty in records of earlier releases.
    #[serde(default, skip_serializing_if = "ExitDetails::is_empty")]
    pub exit: ExitDetails,
    /// What the command wrote; empty in records of earlier releases.
    #[serde(default, skip_serializing_if = "is_default")]
    pub output: OutputSummary,
    /// When the command was started, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the clock of its `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// Processor time and memory; zero while it runs, and in records of earlier releases.
    #[serde(default, skip_serializing_if = "is_default")]
    pub usage: Usage,
    /// Why its Run began; absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Digest of its spec.
    pub spec_hash: SpecHash,
    /// The command, for people.
    pub command: String,
    /// Who stated it.
    pub source: RecordSource,
    /// Epoch of the leader that wrote this.
    #[serde(deserialize_with = "Epoch::stored")]
    pub epoch: Epoch,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One try of an Execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRecord {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// The Task's namespace.
    pub namespace: String,
    /// The Task's name.
    pub name: String,
    /// When the Run began, by the operator's clock. The same in every record of this Run.
    pub run_started_at: UnixMillis,
    /// Why its Run began; absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Digest of its spec.
    pub spec_hash: SpecHash,
    /// The command, for people.
    pub command: String,
    /// Where it runs.
    pub environment: Environment,
    /// How far it has come.
    pub stage: Stage,
    /// When the command was started, by the node's clock; `None` when it never was, or that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the clock of its `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// How it ended; present exactly when `stage` is [`Stage::Ended`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Processor time and memory.
    #[serde(default)]
    pub usage: Usage,
    /// What it wrote to stdout and stderr.
    #[serde(default)]
    pub output: OutputSummary,
    /// How its processes ended; empty in records of earlier releases.
    #[serde(default, skip_serializing_if = "ExitDetails::is_empty")]
    pub exit: ExitDetails,
    /// Who stated it.
    pub source: RecordSource,
    /// Epoch of the leader that wrote this.
    #[serde(deserialize_with = "Epoch::stored")]
    pub epoch: Epoch,
}

/// Who stated a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RecordSource {
    /// The agent reported it: evidence.
    Agent,
    /// The operator concluded it, without evidence from the agent.
    Operator,
}

/// What an Attempt's record repeats of its Run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunContext {
    /// The Task.
    pub task: TaskRef,
    /// When the Run began, by the operator's clock.
    pub started_at: UnixMillis,
    /// Why the Run began; `None` where only a record of an earlier release is known.
    pub trigger: Option<String>,
    /// Digest of its spec.
    pub spec_hash: SpecHash,
    /// The command, for people.
    pub command: String,
    /// Where it runs.
    pub environment: Environment,
}

impl AttemptRecord {
    /// An Attempt that was accepted, or that is not known to be more.
    pub fn accepted(attempt: AttemptId, run: RunContext, source: RecordSource, epoch: Epoch) -> Self {
        Self {
            attempt,
            namespace: run.task.namespace.into(),
            name: run.task.name.into(),
            run_started_at: run.started_at,
            trigger: run.trigger,
            spec_hash: run.spec_hash,
            command: run.command,
            environment: run.environment,
            stage: Stage::Accepted,
            started_at: None,
            ended_at: None,
            outcome: None,
            usage: Usage::default(),
            output: OutputSummary::default(),
            exit: ExitDetails::default(),
            source,
            epoch,
        }
    }

    /// The same once its command was started.
    #[must_use]
    pub fn running(self, started_at: UnixMillis) -> Self {
        Self { stage: Stage::Running, started_at: Some(started_at), ..self }
    }

    /// The same once it has ended.
    #[must_use]
    pub fn ended(self, ended: &Ended) -> Self {
        Self {
            stage: Stage::Ended,
            started_at: ended.started_at,
            ended_at: Some(ended.ended_at),
            outcome: Some(ended.outcome.clone()),
            usage: ended.usage,
            output: ended.output.clone(),
            exit: ended.exit.clone(),
            ..self
        }
    }

    /// The same in the state that an agent reports.
    #[must_use]
    pub fn in_state(self, state: &ReportedState) -> Self {
        match state {
            ReportedState::Accepted => self,
            ReportedState::Running(running) => self.running(running.started_at),
            ReportedState::Ended(ended) => self.ended(ended),
        }
    }

    /// The Execution as this Attempt leaves it.
    pub fn execution(&self) -> ExecutionRecord {
        let outcome = self.outcome.as_ref();
        ExecutionRecord {
            task_uid: self.attempt.task.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            run: self.attempt.run,
            node: self.attempt.node.clone(),
            run_started_at: self.run_started_at,
            attempt: self.attempt.attempt,
            stage: self.stage,
            outcome: outcome.map(OutcomeName::from),
            outcome_details: outcome.cloned(),
            exit_code: outcome.and_then(|outcome| self.exit.exit_code(outcome)),
            message: outcome.map(|outcome| describe(outcome, &self.exit)).unwrap_or_default(),
            exit: self.exit.clone(),
            output: self.output.clone(),
            usage: self.usage,
            trigger: self.trigger.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            spec_hash: self.spec_hash.clone(),
            command: self.command.clone(),
            source: self.source,
            epoch: self.epoch,
        }
    }
}

/// A record that errors can name.
pub(super) trait Identified: Serialize {
    /// Kind and id, for people.
    fn what(&self) -> String;
}

impl Identified for AttemptRecord {
    fn what(&self) -> String {
        format!("attempt {}", self.attempt)
    }
}

impl Identified for ExecutionRecord {
    fn what(&self) -> String {
        format!("execution {}/{}/{}", self.task_uid, self.run, self.node)
    }
}

impl Identified for RunRecord {
    fn what(&self) -> String {
        format!("run {}/{}", self.task_uid, self.run)
    }
}

impl ExecutionRecord {
    /// The Attempt that decided it; the first one where there was none.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId {
            task: self.task_uid.clone(),
            run: self.run,
            node: self.node.clone(),
            attempt: self.attempt.max(1),
        }
    }

    /// The same for every record of this Execution; text order is by Task, Run and node.
    pub fn id(&self) -> String {
        format!("{}/{:010}/{}", self.task_uid, self.run.0, self.node)
    }
}

impl RunRecord {
    /// The same for every record of this Run; text order is by Task and number.
    pub fn id(&self) -> String {
        format!("{}/{:010}", self.task_uid, self.run.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_details_are_optional_and_reach_the_execution() {
        let earlier = serde_json::json!({
            "attempt": "u/1/n/1", "namespace": "a", "name": "b", "runStartedAt": 1, "specHash": "0".repeat(64),
            "command": "df", "environment": "Host", "stage": "Ended", "startedAt": 1, "endedAt": 2,
            "outcome": {"outcome": "TimedOut"}, "source": "Agent", "epoch": 1
        });
        let mut record: AttemptRecord = serde_json::from_value(earlier).unwrap();
        let execution = record.execution();
        assert_eq!((execution.exit_code, execution.message), (None, Outcome::TimedOut.message()));
        assert!(!serde_json::to_string(&record).unwrap().contains("exit"));

        record.exit =
            ExitDetails { code: Some(3), ..ExitDetails::clock(sentinel_protocol::exit::Clock::Run, 2_000) };
        let execution = record.execution();
        assert_eq!(execution.exit_code, Some(3));
        assert_eq!(execution.message, "ended by timeouts.run after 2s; exited with code 3");
        let read: ExecutionRecord =
            serde_json::from_value(serde_json::to_value(&execution).unwrap()).unwrap();
        assert_eq!(read, execution);
    }
}
