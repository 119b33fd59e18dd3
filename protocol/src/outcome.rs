//! How an Execution ended. A failed command is an outcome; an error is when *we* could not do our job.

use serde::{Deserialize, Serialize};

use crate::exit::signal_text;
use crate::limits::MAX_PIDS_NAMED;
use crate::refusal::Refusal;
use crate::text::{self, Message};

/// How an Execution, or one Attempt of it, ended. Exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The command exited with one of the success exit codes.
    Succeeded {
        /// Its exit code.
        exit_code: u8,
    },
    /// The command exited with another code.
    Failed {
        /// Its exit code.
        exit_code: u8,
    },
    /// A signal that we did not send ended the command.
    Signaled {
        /// Number of the signal.
        signal: i32,
    },
    /// The command could not be started; no exit code exists.
    StartFailed {
        /// What stood in the way.
        reason: StartFailure,
        /// The same for people: names the thing and what was wrong with it.
        message: Message,
    },
    /// The command was not started within `timeouts.start`, or what `timeouts.total` left of it.
    StartTimedOut {
        /// What it waited for, where that is known: a busy node, for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Message>,
    },
    /// The command ran longer than `timeouts.run`, or than what `timeouts.total` left it, and was ended.
    TimedOut,
    /// The command wrote nothing for `timeouts.idle` and was ended.
    IdleTimedOut,
    /// The kernel ended the command, or a process of it and so the command, for `run.limits.memory`.
    OomKilled {
        /// The most that all of its processes used at once, bytes, where the kernel tells.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text::maybe_count")]
        peak: Option<u64>,
    },
    /// The command was ended on request, and nothing of it is left.
    Cancelled,
    /// The command was to be ended and would not die.
    CancelFailed {
        /// Processes that are still there, at most [`MAX_PIDS_NAMED`] of them.
        #[serde(deserialize_with = "text::first::<_, _, MAX_PIDS_NAMED>")]
        pids: Vec<i32>,
    },
    /// The agent declined to run it.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// The node was not one to run it on.
    Skipped {
        /// Why.
        message: Message,
    },
    /// We or the node cut it off, and know that we did.
    Interrupted {
        /// What cut it off.
        reason: InterruptReason,
    },
    /// Nobody can know how it ended.
    Lost {
        /// Why not.
        reason: LostReason,
    },
    /// The Run was stopped before this began.
    NotStarted,
}

/// Why a command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartFailure {
    /// No such program, or no such interpreter.
    ProgramNotFound,
    /// The program is there and may not be executed: its mode, its mount, a directory on the way.
    NotExecutable,
    /// The program is a directory or another thing that is no regular file.
    NotAFile,
    /// The kernel does not know the file's format (another architecture, a script without `#!`).
    BadFormat,
    /// No such user on the node.
    UnknownUser,
    /// No such group on the node.
    UnknownGroup,
    /// The agent may not become that user or group.
    IdentityDenied,
    /// The working directory is missing, no directory, or closed to the user.
    WorkingDirectory,
    /// Arguments and environment are longer than the kernel takes.
    TooLong,
    /// The namespaces of the node could not be entered.
    Namespace,
    /// The node had no process, memory or file descriptor left for it.
    OutOfResources,
    /// Anything else the kernel said; the message has its words.
    Other,
}

/// What cut an Attempt off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptReason {
    /// The supervisor was killed; the agent ended the command.
    SupervisorDied,
    /// The agent ended and its profile could not keep the command alive.
    AgentStopped,
    /// The node was shutting down.
    NodeShutdown,
}

/// Why nobody can know how an Attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostReason {
    /// The agent was not heard of for `timeouts.unreachable`.
    NodeUnreachable,
    /// The Node object is gone.
    NodeDeleted,
    /// The node was started anew while the command ran.
    NodeRebooted,
    /// The agent's state directory is another one than before, or its record is unreadable.
    StateLost,
    /// The command may or may not have been started; the proof is missing.
    StartUnproven,
    /// Command and supervisor ended together, and with them the exit status.
    ExitStatusLost,
}

impl Outcome {
    /// The word for this outcome, as the Task, metrics and logs have it.
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

    /// The command's exit code, where it has one.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Succeeded { exit_code } | Self::Failed { exit_code } => Some(*exit_code),
            _ => None,
        }
    }

    /// One sentence for people; [`crate::exit::describe`] adds what is known beside the Outcome.
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
            Self::TimedOut => "ran longer than timeouts.run or timeouts.total and was ended".to_owned(),
            Self::IdleTimedOut => "wrote nothing for timeouts.idle and was ended".to_owned(),
            Self::OomKilled { peak: None } => "ended by the kernel for run.limits.memory".to_owned(),
            Self::OomKilled { peak: Some(peak) } => {
                format!("ended by the kernel for run.limits.memory; it used up to {peak} bytes")
            }
            Self::Cancelled => "cancelled".to_owned(),
            Self::CancelFailed { pids } => format!("would not end; still there: pids {pids:?}"),
            Self::Refused { refusal } => refusal.to_string(),
            Self::Skipped { message } => message.to_string(),
            Self::Interrupted { reason } => match reason {
                InterruptReason::SupervisorDied => "the supervisor was killed; the agent ended the command",
                InterruptReason::AgentStopped => "the agent ended and the command with it",
                InterruptReason::NodeShutdown => "the node was shutting down",
            }
            .to_owned(),
            Self::Lost { reason } => match reason {
                LostReason::NodeUnreachable => "the node was not heard of for timeouts.unreachable",
                LostReason::NodeDeleted => "the Node was deleted",
                LostReason::NodeRebooted => "the node was rebooted while the command ran",
                LostReason::StateLost => "the agent's record of it is gone or unreadable",
                LostReason::StartUnproven => "it may or may not have been started",
                LostReason::ExitStatusLost => "its supervisor was killed and the exit status with it",
            }
            .to_owned(),
            Self::NotStarted => "the Run was stopped before this node's turn".to_owned(),
        }
    }
}
