//! An Execution, and what is known about its latest Attempt.

use schemars::JsonSchema;
use sentinel_protocol::exit::{ExitDetails, Fate, LeftBehind, LeftProcess};
use sentinel_protocol::signal::signal_name;
use sentinel_protocol::to_operator::StreamSummary;
use serde::{Deserialize, Serialize};

use super::Partial;

/// A Run on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionView {
    /// Its id, `<task uid>/<run>/<node>`, as in its path.
    pub id: String,
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
    pub task: String,
    /// Uid of the Task.
    pub task_uid: String,
    /// Number of the Run in the Task.
    pub run: u32,
    /// The node.
    pub node: String,
    /// Number of its latest Attempt; 0 before the first.
    pub attempt: u32,
    /// `Pending` (queued, or waiting for a retry), `WaitingForNode`, `Dispatched`, `Running`, or its Outcome.
    pub state: String,
    /// Its Outcome; absent while it is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Exit code of the command, where it has one, whatever its Outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Its state in one sentence, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether the agent reported it (`Agent`), or the operator inferred it without a report (`Operator`).
    pub source: String,
    /// The command, for people.
    pub command: String,
    /// Digest of the fields that decide what runs and where.
    pub spec_hash: String,
    /// When the command was started, by the node's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How long it ran, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Why its Run began: `SpecChange` or `RerunToken`; absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Processor time of the command, milliseconds; absent until it has ended, and where that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Largest resident set of one of its processes, bytes; absent as `cpuMs` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rss: Option<u64>,
    /// Bytes that it wrote, dropped ones included; absent as `cpuMs` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Resource usage and output of the command; only in the answer about one Execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<AttemptDetails>,
    /// Its Attempts, oldest first, at most the last 20; only in the answer about one Execution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// Why the details are missing; absent when they are not, and in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Path of its output.
    pub log: String,
}

/// One Attempt of an Execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// Its number, from 1.
    pub attempt: u32,
    /// `Dispatched`, `Running`, or its Outcome.
    pub state: String,
    /// Exit code of the command, where it has one, whatever its Outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// How it ended in one sentence, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether the agent reported it (`Agent`), or the operator inferred it without a report (`Operator`).
    pub source: String,
    /// When the command was started, by the node's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How long it ran, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Its resource usage and output.
    pub details: AttemptDetails,
    /// Path of its output.
    pub log: String,
}

/// Resource usage and output of an Attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptDetails {
    /// Where it ran: `Host` or `Container`.
    pub environment: String,
    /// Number of the signal that ended the command, where it was not sent by the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why, where the Outcome has a reason: `ProgramNotFound`, `NodeRebooted` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Processor time in user mode, milliseconds.
    pub user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    pub system_ms: u64,
    /// Largest resident set of one of its processes, bytes.
    pub max_rss: u64,
    /// Its standard output.
    pub stdout: StreamDetails,
    /// Its standard error.
    pub stderr: StreamDetails,
    /// Position after the last record of its log.
    pub log_end: u64,
    /// How long a full spool blocked the command, milliseconds.
    pub blocked_ms: u64,
    /// How its processes exited; absent where that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitView>,
}

/// How the processes of a command exited, in addition to the Outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitView {
    /// Exit code of the command's main process, where it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Number of the signal that ended the main process, where one did, one sent by the agent included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Name of that signal, such as `SIGTERM`, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_name: Option<String>,
    /// Whether KILL had to be sent: processes of the command were left `timeouts.grace` after TERM.
    pub killed: bool,
    /// The timeout that ended it, or kept it from starting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockView>,
    /// Processes that were left after the main process had exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftView>,
    /// Set when another process still held the output open: how long after the exit of the main process the agent
    /// closed its end, milliseconds. Later output is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_held_ms: Option<u64>,
    /// How often the value of a Secret was replaced in the output; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked: Option<u64>,
}

/// A timeout that expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockView {
    /// Its field in the Task: `timeouts.start`, `timeouts.run`, `timeouts.idle` or `timeouts.total`.
    pub field: String,
    /// Elapsed time when it expired, milliseconds: `run` and `total` from the start of the command, `idle` from its
    /// last output, `start` from when the node accepted it.
    pub after_ms: u64,
}

/// Processes that outlived the main process of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftView {
    /// Their number.
    pub count: u32,
    /// Whether they were ended (`Ended`) or left running (`Kept`, for `run.leftovers: Keep`).
    pub fate: String,
    /// The first 8 of them.
    pub processes: Vec<ProcessView>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// Its process id on the node.
    pub pid: i32,
    /// Its name in the kernel.
    pub name: String,
}

/// Totals of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamDetails {
    /// Bytes written, dropped ones included.
    pub bytes: u64,
    /// Dropped bytes among them.
    pub dropped: u64,
    /// SHA-256 over all bytes written, hexadecimal; empty while the command runs.
    pub sha256: String,
}

impl From<&StreamSummary> for StreamDetails {
    fn from(stream: &StreamSummary) -> Self {
        Self { bytes: stream.bytes, dropped: stream.dropped, sha256: stream.sha256.clone() }
    }
}

impl From<&ExitDetails> for ExitView {
    fn from(exit: &ExitDetails) -> Self {
        let process = |process: &LeftProcess| ProcessView { pid: process.pid, name: process.name.clone() };
        let left = |left: &LeftBehind| LeftView {
            count: left.count,
            fate: match left.fate {
                Fate::Ended => "Ended".to_owned(),
                Fate::Kept => "Kept".to_owned(),
            },
            processes: left.processes.iter().map(process).collect(),
        };
        Self {
            code: exit.code,
            signal: exit.signal,
            signal_name: exit.signal.and_then(signal_name).map(str::to_owned),
            killed: exit.killed,
            clock: exit
                .clock
                .map(|clock| ClockView { field: clock.name.field().to_owned(), after_ms: clock.after_ms }),
            left: exit.left.as_ref().map(left),
            output_held_ms: exit.output_held_ms,
            masked: Some(exit.masked).filter(|masked| *masked > 0),
        }
    }
}
