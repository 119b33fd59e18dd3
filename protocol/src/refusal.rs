//! Why a request is declined: closed enums, never a bare string.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Epoch;
use crate::version::Version;

/// Why an agent declined a `Start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum Refusal {
    /// The command carries an older epoch than the agent has seen.
    StaleEpoch {
        /// The highest epoch seen.
        seen: Epoch,
    },
    /// The same Attempt id was already used with another spec hash.
    SpecHashMismatch,
    /// The Attempt was cancelled before it was started here.
    AlreadyCancelled,
    /// The node's policy does not allow it.
    Policy {
        /// Id of the rule that decided.
        rule: String,
    },
    /// The agent's profile has no such environment.
    EnvironmentUnavailable {
        /// What was asked for.
        environment: String,
    },
    /// Too little room on the node's disk to keep the record of it.
    DiskLow {
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// As many Attempts as this agent takes at once are there already.
    TooManyAttempts {
        /// The limit.
        limit: u32,
    },
    /// The agent's record on disk could not be written, so it takes nothing new.
    JournalUnsafe {
        /// What the disk said.
        message: String,
    },
    /// The request itself is not one that can be run.
    InvalidRequest {
        /// Which field, what was seen, what is allowed.
        message: String,
    },
    /// The agent is ending.
    Stopping,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleEpoch { seen } => write!(f, "the command is from an older leader than epoch {seen}"),
            Self::SpecHashMismatch => f.write_str("this attempt id was used before for another spec"),
            Self::AlreadyCancelled => f.write_str("this attempt was cancelled before it was started"),
            Self::Policy { rule } => write!(f, "the node's policy does not allow it (rule {rule})"),
            Self::EnvironmentUnavailable { environment } => {
                write!(f, "this agent's profile does not offer run.environment {environment}")
            }
            Self::DiskLow { free, needed } => {
                write!(f, "the node's disk has {free} bytes free, {needed} are needed to record an attempt")
            }
            Self::TooManyAttempts { limit } => {
                write!(f, "the agent already owns {limit} attempts, its limit")
            }
            Self::JournalUnsafe { message } => write!(f, "the agent cannot record attempts: {message}"),
            Self::InvalidRequest { message } => f.write_str(message),
            Self::Stopping => f.write_str("the agent is stopping"),
        }
    }
}

/// Why the gateway declines or ends a Session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum SessionRefusal {
    /// No common protocol version.
    Version {
        /// What the gateway speaks.
        spoken: Vec<Version>,
    },
    /// The first message was not the one expected.
    HelloExpected,
    /// A message could not be read.
    Malformed {
        /// What was wrong with it.
        message: String,
    },
    /// A newer Session of the same node took its place.
    Replaced,
    /// The identity behind the Session is no longer valid.
    Unauthenticated,
    /// This operator does not lead; another may.
    NotLeader {
        /// Address of the leader, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<String>,
    },
    /// The state directory belongs to another node or machine.
    WrongState {
        /// What did not fit.
        message: String,
    },
    /// The operator is ending.
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
            Self::Replaced => f.write_str("a newer session of this node took its place"),
            Self::Unauthenticated => f.write_str("the agent's identity is no longer valid"),
            Self::NotLeader { leader: Some(leader) } => write!(f, "not the leader; the leader is {leader}"),
            Self::NotLeader { leader: None } => f.write_str("not the leader, and no leader is known"),
            Self::WrongState { message } => write!(f, "state directory refused: {message}"),
            Self::Stopping => f.write_str("the operator is stopping"),
        }
    }
}
