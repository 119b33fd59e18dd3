//! Why a `Start` or a Session is refused: closed enums, so that code never parses a message.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::human::human_bytes;
use crate::ids::Epoch;
use crate::limits::MAX_VERSIONS;
use crate::text::{self, Message, Name};
use crate::version::Version;

/// Why an agent refused a `Start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum Refusal {
    /// The message has a lower epoch than the agent has seen.
    StaleEpoch {
        /// The highest epoch seen.
        seen: Epoch,
    },
    /// The Attempt id was already used with another spec hash.
    SpecHashMismatch,
    /// The Attempt was cancelled before it was started. No release sends it: an agent answers with `Cancelled`.
    AlreadyCancelled,
    /// The node's policy forbids it, or does not allow it.
    Policy {
        /// Id of the rule that forbids it; `no-rule` where none allows it, `kill-switch` and `policy-unusable` where the agent starts
        /// nothing at all.
        rule: Name,
        /// How the request differs from what is allowed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Message>,
    },
    /// The agent does not offer this environment.
    EnvironmentUnavailable {
        /// The requested environment.
        environment: Name,
        /// What the node lacks, if the agent knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Message>,
    },
    /// The node's disk has too little free space for the Attempt's record and output.
    DiskLow {
        /// Bytes free.
        #[serde(deserialize_with = "text::count")]
        free: u64,
        /// Bytes needed.
        #[serde(deserialize_with = "text::count")]
        needed: u64,
        /// The agent's state directory; an older agent does not send it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<Message>,
    },
    /// The agent already runs as many Attempts as it may.
    TooManyAttempts {
        /// The limit.
        limit: u32,
        /// Id of the rule of the node's policy that has this limit; `None` if it is the agent's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<Name>,
    },
    /// The Journal could not be written, so the agent accepts no new Attempt.
    JournalUnsafe {
        /// The error of the operating system.
        message: Message,
    },
    /// The request is invalid.
    InvalidRequest {
        /// The field, its value, and what is allowed.
        message: Message,
    },
    /// The agent is shutting down.
    Stopping,
}

impl Refusal {
    /// Whether the reason is temporary: a busy node frees a slot, and an agent that stops for an upgrade returns. The
    /// operator then offers the `Start` again; see [`crate::to_agent::Start::offer`]. All other reasons are final: a
    /// full or failing disk, for example, needs a person.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::TooManyAttempts { .. } | Self::Stopping)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleEpoch { seen } => write!(f, "the command is from a leader before epoch {seen}"),
            Self::SpecHashMismatch => f.write_str("this attempt id was already used for another spec"),
            Self::AlreadyCancelled => f.write_str("this attempt was cancelled before it was started"),
            Self::Policy { rule, why } => {
                write!(f, "the node's policy forbids it (rule {rule})")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::EnvironmentUnavailable { environment, why } => {
                write!(f, "this agent does not offer run.environment {environment}")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::DiskLow { free, needed, directory } => write!(
                f,
                "{} has {} free, {} are needed to start a command; free space there, or lower --min-free of the \
                 agent (a Task with run.output.spool or run.output.limit of at most 1Mi and no run.limits needs less)",
                directory.as_deref().unwrap_or("the node's disk"),
                human_bytes(*free),
                human_bytes(*needed)
            ),
            Self::TooManyAttempts { limit, rule: None } => {
                write!(f, "the node is busy: {limit} of {limit} commands (--max-attempts of its agent)")
            }
            Self::TooManyAttempts { limit, rule: Some(rule) } => write!(
                f,
                "the node is busy: {limit} of {limit} commands that rule {rule} of its policy allows at a time"
            ),
            Self::JournalUnsafe { message } => write!(f, "the agent cannot record attempts: {message}"),
            Self::InvalidRequest { message } => f.write_str(message),
            Self::Stopping => f.write_str("the agent is stopping"),
        }
    }
}

/// Why the gateway refuses or ends a Session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum SessionRefusal {
    /// No common protocol version.
    Version {
        /// The versions that the gateway speaks.
        #[serde(deserialize_with = "text::first::<_, _, MAX_VERSIONS>")]
        spoken: Vec<Version>,
    },
    /// The first message was not a Hello.
    HelloExpected,
    /// A message was invalid, or exceeded a limit.
    Malformed {
        /// What is wrong with it.
        message: Message,
    },
    /// A newer Session of the same node replaced this one.
    Replaced,
    /// The agent's token is no longer valid.
    Unauthenticated,
    /// This operator is not the leader.
    NotLeader {
        /// Address at which agents reach the leader, `host:port`, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<String>,
    },
    /// The agent's state does not belong to this node or this cluster: it names an epoch far above the leader's, or
    /// reports an Attempt of another node. Its state directory was copied from another node or is older than the Lease,
    /// or the agent is hostile.
    WrongState {
        /// What does not match.
        message: Message,
    },
    /// The operator is shutting down.
    Stopping,
}

impl fmt::Display for SessionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { spoken } => {
                let spoken: Vec<String> = spoken.iter().map(|v| v.0.to_string()).collect();
                write!(f, "no common protocol version; the operator speaks {}", spoken.join(", "))
            }
            Self::HelloExpected => f.write_str("the first message must be Hello"),
            Self::Malformed { message } => write!(f, "unreadable message: {message}"),
            Self::Replaced => f.write_str("replaced by a newer session of this node"),
            Self::Unauthenticated => f.write_str("the agent's identity is no longer valid"),
            Self::NotLeader { leader: Some(leader) } => write!(f, "not the leader; the leader is {leader}"),
            Self::NotLeader { leader: None } => f.write_str("not the leader, and no leader is known"),
            Self::WrongState { message } => write!(f, "the agent's state was refused: {message}"),
            Self::Stopping => f.write_str("the operator is stopping"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_low_names_the_directory_and_readable_sizes() {
        let directory = Some("/var/lib/sentinel".to_owned());
        let text =
            Refusal::DiskLow { free: 12 << 20, needed: 64 << 20, directory: directory.map(Into::into) }
                .to_string();
        assert!(text.starts_with("/var/lib/sentinel has 12 MiB free, 64 MiB are needed"), "{text}");
        assert!(text.contains("--min-free"), "{text}");
    }
}
