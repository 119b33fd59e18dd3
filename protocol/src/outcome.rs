//! How an Execution ended. A failed command is an Outcome; an error is a failure of Sentinel Node itself.

use serde::{Deserialize, Serialize};

use crate::limits::MAX_PIDS_NAMED;
use crate::refusal::Refusal;
use crate::signal::signal_text;
use crate::text::{self, Message};

/// How an Execution, or one of its Attempts, ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The command exited with one of `run.successExitCodes`.
    Succeeded {
        /// The exit code.
        exit_code: u8,
    },
    /// The command exited with another code.
    Failed {
        /// The exit code.
        exit_code: u8,
    },
    /// A signal that did not come from the supervisor ended the command.
    Signaled {
        /// The signal number.
        signal: i32,
    },
    /// The command could not be started; there is no exit code.
    StartFailed {
        /// The cause.
        reason: StartFailure,
        /// The cause for people, with the name of the file, user or limit.
        message: Message,
    },
    /// The command was not started within `timeouts.start`, or before `timeouts.total` expired.
    StartTimedOut {
        /// What it waited for, if known, such as a busy node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Message>,
    },
    /// The command was terminated because `timeouts.run` or `timeouts.total` expired.
    TimedOut,
    /// The command was terminated because it wrote nothing for `timeouts.idle`.
    IdleTimedOut,
    /// The kernel's OOM killer ended the command, or one of its processes, because of `run.limits.memory`.
    OomKilled {
        /// Peak memory of all its processes together, bytes, if the kernel reports it.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text::maybe_count")]
        peak: Option<u64>,
    },
    /// The command was terminated on request, and none of its processes is left.
    Cancelled,
    /// The command was to be terminated, and processes of it survived SIGKILL.
    CancelFailed {
        /// Processes that are still running, up to [`MAX_PIDS_NAMED`].
        #[serde(deserialize_with = "text::first::<_, _, MAX_PIDS_NAMED>")]
        pids: Vec<i32>,
    },
    /// The agent refused to run it.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// The node does not match a guard of the Task. No release produces it yet.
    Skipped {
        /// Which guard.
        message: Message,
    },
    /// The command was cut off by the agent or the node, and did not run to its end.
    Interrupted {
        /// The cause.
        reason: InterruptReason,
    },
    /// How it ended cannot be determined.
    Lost {
        /// Why not.
        reason: LostReason,
    },
    /// The Run was stopped before this Execution began.
    NotStarted,
}

/// Why a command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartFailure {
    /// The program or the interpreter does not exist.
    ProgramNotFound,
    /// The program exists and may not be executed, because of its mode, its mount or a directory in its path.
    NotExecutable,
    /// The program is not a regular file.
    NotAFile,
    /// The kernel does not support the file's format (another architecture, a script without `#!`).
    BadFormat,
    /// The user does not exist on the node.
    UnknownUser,
    /// The group does not exist on the node.
    UnknownGroup,
    /// The agent may not switch to that user or group.
    IdentityDenied,
    /// The working directory does not exist, is not a directory, or the user may not enter it.
    WorkingDirectory,
    /// Arguments and environment exceed the kernel's limit (`E2BIG`).
    TooLong,
    /// The namespaces of the node could not be entered.
    Namespace,
    /// The node had no process, memory or file descriptor left.
    OutOfResources,
    /// Any other error of the kernel; the message contains it.
    Other,
}

/// What interrupted an Attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptReason {
    /// The supervisor was killed, and the agent terminated the command.
    SupervisorDied,
    /// The agent's container ended, and the command with it.
    AgentStopped,
    /// The node was shutting down. No release reports it yet.
    NodeShutdown,
}

/// Why the Outcome of an Attempt is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostReason {
    /// The node was unreachable for `timeouts.unreachable`.
    NodeUnreachable,
    /// The Node object was deleted.
    NodeDeleted,
    /// The node rebooted while the command ran.
    NodeRebooted,
    /// The agent no longer has the Attempt in its Journal, or the record is unreadable.
    StateLost,
    /// Whether the command was started is unknown.
    StartUnproven,
    /// Command and supervisor ended together, so the exit status was not recorded.
    ExitStatusLost,
}

impl Outcome {
    /// Its name in the Task, on the wire, in metrics and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "Succeeded",
            Self::Failed { .. } => "Failed",
            Self::Signaled { .. } => "Signaled",
            Self::StartFailed { .. } => "StartFailed",
            Self::StartTimedOut { .. } => "StartTimedOut",
            Self::TimedOut => "TimedOut",
            Self::IdleTimedOut => "IdleTimedOut",
            Self::OomKilled { .. } => "OomKilled",
            Self::Cancelled => "Cancelled",
            Self::CancelFailed { .. } => "CancelFailed",
            Self::Refused { .. } => "Refused",
            Self::Skipped { .. } => "Skipped",
            Self::Interrupted { .. } => "Interrupted",
            Self::Lost { .. } => "Lost",
            Self::NotStarted => "NotStarted",
        }
    }

    /// The command's exit code, if this Outcome has one.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Succeeded { exit_code } | Self::Failed { exit_code } => Some(*exit_code),
            _ => None,
        }
    }

    /// One sentence for people; [`crate::exit::describe`] adds the details.
    pub fn message(&self) -> String {
        match self {
            Self::Succeeded { exit_code: 0 } => "exited with code 0".to_owned(),
            Self::Succeeded { exit_code } => format!("exited with code {exit_code}, which counts as success"),
            Self::Failed { exit_code } => format!("exited with code {exit_code}"),
            Self::Signaled { signal } => format!("ended by signal {}", signal_text(*signal)),
            Self::StartFailed { message, .. } => message.to_string(),
            Self::StartTimedOut { why: None } => {
                "not started within timeouts.start or timeouts.total".to_owned()
            }
            Self::StartTimedOut { why: Some(why) } => {
                format!("not started within timeouts.start or timeouts.total: {why}")
            }
            Self::TimedOut => "terminated because timeouts.run or timeouts.total expired".to_owned(),
            Self::IdleTimedOut => "terminated because it wrote nothing for timeouts.idle".to_owned(),
            Self::OomKilled { peak: None } => "killed by the kernel because of run.limits.memory".to_owned(),
            Self::OomKilled { peak: Some(peak) } => {
                format!("killed by the kernel because of run.limits.memory; it used up to {peak} bytes")
            }
            Self::Cancelled => "cancelled".to_owned(),
            Self::CancelFailed { pids } => format!("could not be killed; still running: pids {pids:?}"),
            Self::Refused { refusal } => refusal.to_string(),
            Self::Skipped { message } => message.to_string(),
            Self::Interrupted { reason } => match reason {
                InterruptReason::SupervisorDied => {
                    "the supervisor was killed; the agent terminated the command"
                }
                InterruptReason::AgentStopped => "the agent ended, and the command with it",
                InterruptReason::NodeShutdown => "the node was shutting down",
            }
            .to_owned(),
            Self::Lost { reason } => match reason {
                LostReason::NodeUnreachable => "the node was unreachable for timeouts.unreachable",
                LostReason::NodeDeleted => "the Node was deleted",
                LostReason::NodeRebooted => "the node was rebooted while the command ran",
                LostReason::StateLost => "the agent's record of it is missing or unreadable",
                LostReason::StartUnproven => "it may or may not have been started",
                LostReason::ExitStatusLost => "its supervisor was killed before it recorded the exit status",
            }
            .to_owned(),
            Self::NotStarted => "the Run was stopped before this node was admitted".to_owned(),
        }
    }
}
