//! Why a request is declined: closed enums, never a bare string.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Epoch;
use crate::limits::MAX_VERSIONS;
use crate::text::{self, Message, Name};
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
        rule: Name,
    },
    /// The agent's profile has no such environment.
    EnvironmentUnavailable {
        /// What was asked for.
        environment: Name,
        /// What the node lacks for it, where the agent knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Message>,
    },
    /// Too little room on the node's disk to keep the record and the output of it.
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
    /// As many Attempts as this agent takes at once are there already.
    TooManyAttempts {
        /// The limit.
        limit: u32,
    },
    /// The agent's record on disk could not be written, so it takes nothing new.
    JournalUnsafe {
        /// What the disk said.
        message: Message,
    },
    /// The request itself is not one that can be run.
    InvalidRequest {
        /// Which field, what was seen, what is allowed.
        message: Message,
    },
    /// The agent is ending.
    Stopping,
}

impl Refusal {
    /// Whether the reason goes away without a change of the Task or of the node: a busy node has room again, and an
    /// agent that stops for an upgrade comes back. A `Start` that was declined for it is offered again; see
    /// [`crate::to_agent::Start::offer`]. A full disk and a failing one need a person, so they are final.
    pub fn passes(&self) -> bool {
        matches!(self, Self::TooManyAttempts { .. } | Self::Stopping)
    }
}

/// A number of bytes for people: `12 MiB`, `1.5 GiB`. Rounded down, so that what is short of a limit never reads as if
/// it had reached it.
pub fn human_bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let power = (bytes.ilog2() / 10).min(6);
    let scale = 1_u64 << (10 * power);
    let (whole, tenths) = (bytes / scale, bytes % scale / (scale / 10).max(1));
    let unit = units[power as usize - 1];
    if whole >= 10 || tenths == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{} {unit}", tenths.min(9))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleEpoch { seen } => write!(f, "the command is from an older leader than epoch {seen}"),
            Self::SpecHashMismatch => f.write_str("this attempt id was used before for another spec"),
            Self::AlreadyCancelled => f.write_str("this attempt was cancelled before it was started"),
            Self::Policy { rule } => write!(f, "the node's policy does not allow it (rule {rule})"),
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
            Self::TooManyAttempts { limit } => {
                write!(f, "the node is busy: {limit} of {limit} commands (--max-attempts of its agent)")
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
        #[serde(deserialize_with = "text::first::<_, _, MAX_VERSIONS>")]
        spoken: Vec<Version>,
    },
    /// The first message was not the one expected.
    HelloExpected,
    /// A message could not be read.
    Malformed {
        /// What was wrong with it.
        message: Message,
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
        message: Message,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_and_never_rounded_up() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((64 << 20) - 1, "63 MiB"),
            (64 << 20, "64 MiB"),
            ((10 << 20) - 1, "9.9 MiB"),
            (3 << 30, "3 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn a_low_disk_is_refused_with_the_directory_in_units_that_people_read() {
        let directory = Some("/var/lib/sentinel".to_owned());
        let text =
            Refusal::DiskLow { free: 12 << 20, needed: 64 << 20, directory: directory.map(Into::into) }
                .to_string();
        assert!(text.starts_with("/var/lib/sentinel has 12 MiB free, 64 MiB are needed"), "{text}");
        assert!(text.contains("--min-free"), "{text}");
    }
}
