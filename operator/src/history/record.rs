//! What History holds, one struct per kind. The stores wrap each in an envelope with a shape number of its own.

use std::collections::BTreeMap;

use sentinel_protocol::exit::{ExitDetails, describe};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SpecHash, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Environment;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{OutputSummary, Stage, Usage};
use serde::{Deserialize, Serialize};

/// Longest command that is kept for display, bytes; what is longer is cut with an ellipsis by [`display_command`].
pub const MAX_COMMAND_DISPLAY: usize = 1024;

/// One thing to store.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An Attempt, and by it its Execution.
    Attempt(Box<AttemptRecord>),
    /// An Execution that no Attempt speaks for (`NotStarted`, `Skipped`, `Lost` before dispatch).
    Execution(Box<ExecutionRecord>),
    /// A Run.
    Run(Box<RunRecord>),
}

/// One carrying-out of a Task over its targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// The Task.
    pub task_uid: TaskUid,
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
    pub name: String,
    /// Number of the Run in the Task.
    pub run: RunNumber,
    /// Why it began: `SpecChange`, `RerunToken`, `Schedule`, `NodeJoin`.
    pub trigger: String,
    /// Digest of the spec it is for.
    pub spec_hash: SpecHash,
    /// The command, for people; see [`display_command`].
    pub command: String,
    /// When it began, by the operator's clock. The same in every record of this Run: pages are ordered by it.
    pub started_at: UnixMillis,
    /// When its last target ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<UnixMillis>,
    /// How it ended as a whole; `None` while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why this verdict, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How its targets did.
    pub counts: RunCounts,
    /// Epoch of the leader that wrote this.
    #[serde(deserialize_with = "Epoch::stored")]
    pub epoch: Epoch,
}

/// How a Run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Within its budgets.
    Complete,
    /// Not so.
    Failed,
    /// Ended on request, or replaced by a newer Run.
    Cancelled,
}

/// How many targets of a Run are where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunCounts {
    /// Targets in all.
    pub targets: u32,
    /// Targets that have ended, by the name of their Outcome ([`Outcome::name`]).
    #[serde(default)]
    pub outcomes: BTreeMap<String, u32>,
}

impl RunCounts {
    /// Targets that have ended.
    pub fn ended(&self) -> u32 {
        self.outcomes.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Targets with the Outcome of that name.
    pub fn of(&self, outcome: &str) -> u32 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

/// A Run on one node: where its latest Attempt is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionRecord {
    /// The Task.
    pub task_uid: TaskUid,
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
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
    /// Name of its Outcome ([`Outcome::name`]); `None` while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Exit code of the command, where it has one, whatever its Outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The Outcome for people; empty while it goes on.
    #[serde(default)]
    pub message: String,
    /// What the command's processes did at their end; empty in records of releases that did not know it.
    #[serde(default, skip_serializing_if = "ExitDetails::is_empty")]
    pub exit: ExitDetails,
    /// When the command was started, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the clock of whoever says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// Digest of the spec it is for.
    pub spec_hash: SpecHash,
    /// The command, for people.
    pub command: String,
    /// Whose word it is.
    pub source: Source,
    /// Epoch of the leader that wrote this.
    #[serde(deserialize_with = "Epoch::stored")]
    pub epoch: Epoch,
}

/// One try of an Execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRecord {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
    pub name: String,
    /// When the Run began, by the operator's clock. The same in every record of this Run.
    pub run_started_at: UnixMillis,
    /// Digest of the spec it is for.
    pub spec_hash: SpecHash,
    /// The command, for people.
    pub command: String,
    /// Where it runs.
    pub environment: Environment,
    /// How far it has come.
    pub stage: Stage,
    /// When the command was started, by the node's clock; `None` when it never was, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the clock of whoever says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// How it ended; present exactly when `stage` is [`Stage::Ended`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// What it wrote.
    #[serde(default)]
    pub output: OutputSummary,
    /// What its processes did at their end; empty in records of releases that did not know it.
    #[serde(default, skip_serializing_if = "ExitDetails::is_empty")]
    pub exit: ExitDetails,
    /// Whose word this is.
    pub source: Source,
    /// Epoch of the leader that wrote this.
    #[serde(deserialize_with = "Epoch::stored")]
    pub epoch: Epoch,
}

/// Whose word a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The agent said so: evidence.
    Agent,
    /// The operator concluded it, for want of evidence.
    Operator,
}

impl AttemptRecord {
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
            outcome: outcome.map(|o| o.name().to_owned()),
            exit_code: outcome.and_then(|outcome| self.exit.exit_code(outcome)),
            message: outcome.map(|outcome| describe(outcome, &self.exit)).unwrap_or_default(),
            exit: self.exit.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            spec_hash: self.spec_hash.clone(),
            command: self.command.clone(),
            source: self.source,
            epoch: self.epoch,
        }
    }
}

/// A record that can be named in an error, and whose name is its id.
pub(super) trait Identified: Serialize {
    /// Which record, for people.
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

/// An argv as one line for people: words quoted where a shell would need it, at most [`MAX_COMMAND_DISPLAY`] bytes.
pub fn display_command(argv: &[String]) -> String {
    let mut line = String::new();
    for word in argv {
        if line.len() > MAX_COMMAND_DISPLAY {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', "'\\''"));
            line.push('\'');
        }
    }
    if line.len() > MAX_COMMAND_DISPLAY {
        let end = line.floor_char_boundary(MAX_COMMAND_DISPLAY - '…'.len_utf8());
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        display_command(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        assert_eq!(shown(&["df", "-h"]), "df -h");
        assert_eq!(shown(&["sh", "-c", "echo it's $A", ""]), r"sh -c 'echo it'\''s $A' ''");
    }

    #[test]
    fn a_long_command_is_cut_at_a_character() {
        let line = shown(&["echo", &"ä".repeat(2000)]);
        assert!(line.len() <= MAX_COMMAND_DISPLAY && line.ends_with('…'), "{} bytes", line.len());
    }

    #[test]
    fn a_record_without_exit_details_is_read_and_one_with_them_has_them_in_its_execution_and_its_message() {
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
