//! Nodes, Runs and Executions as the API shows them. These shapes are promises to programs: fields are added, never
//! renamed or removed within `/api/v1`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use sentinel_protocol::exit::{ExitDetails, Fate, LeftBehind, LeftProcess, signal_name};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::Stage;
use serde::Serialize;

use super::log_text::rfc3339;
use crate::history::{AttemptRecord, ExecutionRecord, RunRecord, Source, Verdict};
use crate::records::Execution;

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Ask again with `page` set to this for what follows; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why items may be missing that exist; absent when none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

impl<T> List<T> {
    /// A list of which nothing is missing.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None, partial: None }
    }
}

/// Why an answer is not all there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Partial {
    /// For people.
    pub message: String,
}

impl Partial {
    /// With this sentence.
    pub fn of(message: String) -> Self {
        Self { message }
    }
}

/// A node, and how it does.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether its agent is connected and was heard of lately.
    pub reachable: bool,
    /// When its agent was last heard of, by the operator's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard_at: Option<String>,
    /// Release of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// Operating system, architecture and kernel, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Where its agent can run commands: `Host`, `Container`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// The boot id of its kernel; another one means that the node was started anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The latest sample that its agent sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub metrics: Option<NodeMetrics>,
}

/// A Run of a Task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
    pub task: String,
    /// Uid of the Task.
    pub task_uid: String,
    /// Number of the Run in the Task.
    pub run: u32,
    /// Why it began.
    pub trigger: String,
    /// What it runs, for people.
    pub command: String,
    /// Digest of what it runs and where.
    pub spec_hash: String,
    /// When it began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When its last target ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// `Complete`, `Failed` or `Cancelled`; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// Why this verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of its targets.
    pub targets: u32,
    /// Number of its targets that ended, by outcome.
    pub outcomes: BTreeMap<String, u32>,
}

/// A Run on one node.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionView {
    /// Its id: `<task uid>/<run>/<node>`, as it stands in its path.
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
    /// Number of its latest Attempt; 0 when there was none.
    pub attempt: u32,
    /// `Pending` (its turn has not come, or it is tried again), `WaitingForNode`, `Dispatched`, `Running`, or how it
    /// ended.
    pub state: String,
    /// How it ended; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Exit code of the command, where it has one, whatever its outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The same for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether the agent said so (`Agent`), or the operator concluded it for want of evidence (`Operator`).
    pub source: &'static str,
    /// What it runs, for people.
    pub command: String,
    /// Digest of what it runs and where.
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
    /// What the command used and wrote; only where one Execution was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<AttemptDetails>,
    /// Why the details are missing; absent when they are not, and where they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Path of its output.
    pub log: String,
}

/// What an Attempt used and wrote.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptDetails {
    /// Where it ran: `Host` or `Container`.
    pub environment: &'static str,
    /// Number of the signal that ended the command, where one did that we did not send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// A word for why, where the outcome has one: `ProgramNotFound`, `NodeRebooted` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Processor time in user mode, milliseconds.
    pub user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    pub system_ms: u64,
    /// Largest resident set of one of its processes, bytes.
    pub max_rss: u64,
    /// What it wrote to standard output.
    pub stdout: StreamDetails,
    /// What it wrote to standard error.
    pub stderr: StreamDetails,
    /// Position behind the last record of its log.
    pub log_end: u64,
    /// Milliseconds for which a full spool held the command up.
    pub blocked_ms: u64,
    /// What its processes did at their end; absent where nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitView>,
}

/// What the processes of a command did at their end, beside the Outcome.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitView {
    /// Exit code of the command's main process, where it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Number of the signal that ended the main process, where one did, no matter who sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Name of that signal, such as `SIGTERM`, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_name: Option<&'static str>,
    /// Whether KILL had to be sent: `timeouts.grace` after TERM something of the command was still there.
    pub killed: bool,
    /// The clock that ended it, or kept it from starting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockView>,
    /// Processes that were still there after the main process had ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftView>,
    /// Set when another process still held the output open: how long after the end of the main process our side was
    /// closed, milliseconds. What is written to it later is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_held_ms: Option<u64>,
}

/// A clock that was over.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockView {
    /// Its field in the Task: `timeouts.start`, `timeouts.run`, `timeouts.idle` or `timeouts.total`.
    pub field: &'static str,
    /// How long it had been counted when it was over, milliseconds: `run` and `total` from the start of the command,
    /// `idle` from its last output, `start` from when the node accepted it.
    pub after_ms: u64,
}

/// Processes that outlived the main process of a command.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftView {
    /// How many there were.
    pub count: u32,
    /// What became of them: `Ended`, or `Kept` for `run.leftovers: Keep`.
    pub fate: &'static str,
    /// Some of them, at most 8.
    pub processes: Vec<ProcessView>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// Its process id on the node.
    pub pid: i32,
    /// Its name as the kernel has it.
    pub name: String,
}

/// What went through one stream.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamDetails {
    /// Bytes written, dropped ones included.
    pub bytes: u64,
    /// Of these, bytes that were dropped.
    pub dropped: u64,
    /// SHA-256 over all bytes written, hexadecimal; empty while it goes on.
    pub sha256: String,
}

impl From<RunRecord> for RunView {
    fn from(record: RunRecord) -> Self {
        Self {
            namespace: record.namespace,
            task: record.name,
            task_uid: record.task_uid.into(),
            run: record.run.0,
            trigger: record.trigger,
            command: record.command,
            spec_hash: record.spec_hash.into(),
            started_at: rfc3339(record.started_at),
            finished_at: record.finished_at.and_then(rfc3339),
            verdict: record.verdict.map(|verdict| match verdict {
                Verdict::Complete => "Complete",
                Verdict::Failed => "Failed",
                Verdict::Cancelled => "Cancelled",
            }),
            reason: record.reason,
            targets: record.counts.targets,
            outcomes: record.counts.outcomes,
        }
    }
}

impl From<ExecutionRecord> for ExecutionView {
    fn from(record: ExecutionRecord) -> Self {
        let id = format!("{}/{}/{}", record.task_uid, record.run, record.node);
        let state = match (&record.outcome, record.stage) {
            (Some(outcome), _) => outcome.clone(),
            (None, Stage::Accepted) => "Dispatched".to_owned(),
            (None, Stage::Running) => "Running".to_owned(),
            (None, Stage::Ended) => "Ended".to_owned(),
        };
        let duration = record.started_at.zip(record.ended_at).map(|(start, end)| end.since(start));
        Self {
            log: format!("/api/v1/executions/{id}/log"),
            id,
            namespace: record.namespace,
            task: record.name,
            task_uid: record.task_uid.into(),
            run: record.run.0,
            node: record.node.into(),
            attempt: record.attempt,
            state,
            outcome: record.outcome,
            exit_code: record.exit_code,
            message: record.message,
            source: match record.source {
                Source::Agent => "Agent",
                Source::Operator => "Operator",
            },
            command: record.command,
            spec_hash: record.spec_hash.into(),
            started_at: record.started_at.and_then(rfc3339),
            ended_at: record.ended_at.and_then(rfc3339),
            duration_ms: duration,
            details: None,
            partial: None,
        }
    }
}

impl From<Execution> for ExecutionView {
    fn from(execution: Execution) -> Self {
        let Execution { record, waiting } = execution;
        let Some(waiting) = waiting else { return record.into() };
        Self {
            state: waiting.state.to_owned(),
            outcome: None,
            exit_code: None,
            message: waiting.message,
            started_at: None,
            ended_at: None,
            duration_ms: None,
            ..record.into()
        }
    }
}

impl From<&AttemptRecord> for AttemptDetails {
    fn from(record: &AttemptRecord) -> Self {
        let stream = |stream: &sentinel_protocol::to_operator::StreamSummary| StreamDetails {
            bytes: stream.bytes,
            dropped: stream.dropped,
            sha256: stream.sha256.clone(),
        };
        Self {
            environment: record.environment.as_str(),
            signal: match record.outcome {
                Some(Outcome::Signaled { signal }) => Some(signal),
                _ => None,
            },
            reason: record.outcome.as_ref().and_then(reason),
            user_ms: record.usage.user_ms,
            system_ms: record.usage.system_ms,
            max_rss: record.usage.max_rss,
            stdout: stream(&record.output.stdout),
            stderr: stream(&record.output.stderr),
            log_end: record.output.end,
            blocked_ms: record.output.blocked_ms,
            exit: (!record.exit.is_empty()).then(|| ExitView::from(&record.exit)),
        }
    }
}

impl From<&ExitDetails> for ExitView {
    fn from(exit: &ExitDetails) -> Self {
        let process = |process: &LeftProcess| ProcessView { pid: process.pid, name: process.name.clone() };
        let left = |left: &LeftBehind| LeftView {
            count: left.count,
            fate: match left.fate {
                Fate::Ended => "Ended",
                Fate::Kept => "Kept",
            },
            processes: left.processes.iter().map(process).collect(),
        };
        Self {
            code: exit.code,
            signal: exit.signal,
            signal_name: exit.signal.and_then(signal_name),
            killed: exit.killed,
            clock: exit.clock.map(|clock| ClockView { field: clock.name.field(), after_ms: clock.after_ms }),
            left: exit.left.as_ref().map(left),
            output_held_ms: exit.output_held_ms,
        }
    }
}

/// The word of an outcome for why. The words are those of the wire; a test there holds them.
fn reason(outcome: &Outcome) -> Option<String> {
    let word = match outcome {
        Outcome::StartFailed { reason, .. } => serde_json::to_value(reason),
        Outcome::Interrupted { reason } => serde_json::to_value(reason),
        Outcome::Lost { reason } => serde_json::to_value(reason),
        Outcome::Refused { refusal } => serde_json::to_value(refusal).map(|mut value| value["reason"].take()),
        _ => return None,
    };
    word.ok()?.as_str().map(str::to_owned)
}
