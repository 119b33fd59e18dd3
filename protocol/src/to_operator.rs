//! Messages from an agent to the operator, on the control socket.

use serde::{Deserialize, Serialize};

use crate::audit::AuditHead;
use crate::exit::{ExitDetails, describe};
use crate::ids::{AttemptId, Epoch, SpecHash};
use crate::limits::{INVENTORY_PART, MAX_ENVIRONMENTS, MAX_VERSIONS};
use crate::metrics::NodeMetrics;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::request::Environment;
use crate::secret::SealingKey;
use crate::stage::Stage;
use crate::tagged::tagged;
use crate::text::{self, Name};
use crate::time::UnixMillis;
use crate::version::Version;

/// A message to the operator. The receiver counts and ignores unknown kinds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind")]
pub enum ToOperator {
    /// The first message of a Session.
    Hello(Hello),
    /// All Attempts that the agent owns, in one or more parts; the first message after Welcome.
    Inventory(Inventory),
    /// The agent is alive; contains the node's metrics.
    Heartbeat(Heartbeat),
    /// The current state of one Attempt. Resent until it is acknowledged.
    Report(Box<Report>),
    /// A `Start` is refused.
    Refused(Refused),
}

tagged!(ToOperator by "kind": Hello(Hello), Inventory(Inventory), Heartbeat(Heartbeat), Report(Box<Report>), Refused(Refused));

/// The first message of a Session. It does not contain the node's name, which the gateway takes from the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// All protocol versions that the agent speaks.
    #[serde(deserialize_with = "text::first::<_, _, MAX_VERSIONS>")]
    pub versions: Vec<Version>,
    /// The agent's release, for people.
    pub agent_version: Name,
    /// The kernel's boot id. It is recorded with the node's Presence.
    ///
    /// Source: `/proc/sys/kernel/random/boot_id`, `random(4)`.
    pub boot_id: Name,
    /// Random id of the agent's state directory. No operator reads it: what a lost state directory means for an Attempt
    /// follows from the Inventory. It stays because the shape of Hello is frozen ([`crate::version`]).
    pub state_id: Name,
    /// The highest epoch the agent has seen.
    pub highest_epoch: Epoch,
    /// The environments in which this agent can run commands.
    #[serde(deserialize_with = "text::first::<_, _, MAX_ENVIRONMENTS>")]
    pub environments: Vec<Environment>,
    /// Operating system, such as `linux`.
    pub os: Name,
    /// Processor architecture, such as `x86_64`.
    pub arch: Name,
    /// Kernel release, such as `6.1.0`.
    pub kernel: Name,
}

/// A part of the Inventory, the list of all Attempts that the agent owns. It is complete after the last part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Attempts in the Journal, up to [`INVENTORY_PART`] in one part.
    #[serde(deserialize_with = "text::at_most::<_, _, INVENTORY_PART>")]
    pub attempts: Vec<Report>,
    /// Whether another part follows.
    pub more: bool,
    /// The key of this Session, to which the values of Secrets are sealed: in the first part. Missing from agents that take none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing_key: Option<SealingKey>,
}

/// Renews the node's Presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The node's wall clock, for display.
    pub at: UnixMillis,
    /// The node's metrics.
    pub metrics: NodeMetrics,
    /// The head of the node's audit chain; `None` where it has none, as in an agent of an earlier release. An operator of an
    /// earlier release ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditHead>,
}

/// The durable state of one Attempt, as a message of its own and as an item of an Inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Hash of the spec that it was started for.
    pub spec_hash: SpecHash,
    /// Its state.
    pub state: ReportedState,
}

/// The state of an Attempt in its agent's Journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "stage")]
pub enum ReportedState {
    /// Recorded in the Journal and not started yet.
    Accepted,
    /// The command is running.
    Running(Running),
    /// The Attempt has ended.
    Ended(Box<Ended>),
}

tagged!(ReportedState by "stage": Accepted, Running(Running), Ended(Box<Ended>));

impl ReportedState {
    /// The stage without its details.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Accepted => Stage::Accepted,
            Self::Running(_) => Stage::Running,
            Self::Ended(_) => Stage::Ended,
        }
    }
}

/// A running command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// When it started, by the node's clock.
    pub started_at: UnixMillis,
    /// Its process id on the node.
    pub pid: i32,
}

/// An Attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When the command started, by the node's clock; `None` when it did not start, or the time is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When the Attempt ended, by the node's clock.
    pub ended_at: UnixMillis,
    /// Resource usage.
    #[serde(default)]
    pub usage: Usage,
    /// Amount and digest of the output.
    #[serde(default)]
    pub output: OutputSummary,
    /// How its processes ended.
    #[serde(default, skip_serializing_if = "ExitDetails::is_empty")]
    pub exit: ExitDetails,
}

impl Ended {
    /// The end of an Attempt without an exit record: no start time, no usage, no output.
    pub fn without_record(outcome: Outcome, ended_at: UnixMillis) -> Self {
        let (usage, output) = (Usage::default(), OutputSummary::default());
        Self { outcome, started_at: None, ended_at, usage, output, exit: ExitDetails::default() }
    }

    /// One sentence for people.
    pub fn message(&self) -> String {
        describe(&self.outcome, &self.exit)
    }

    /// Exit code of the command, if it has one, whatever the Outcome.
    pub fn exit_code(&self) -> Option<u8> {
        self.exit.exit_code(&self.outcome)
    }
}

/// Resource usage of a command and its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU time in user mode, milliseconds.
    #[serde(deserialize_with = "text::count")]
    pub user_ms: u64,
    /// CPU time in the kernel, milliseconds.
    #[serde(deserialize_with = "text::count")]
    pub system_ms: u64,
    /// Largest resident set size of any of its processes, bytes.
    #[serde(deserialize_with = "text::count")]
    pub max_rss: u64,
}

/// The output of a command, as its supervisor counted it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputSummary {
    /// Standard output; both streams with `run.output.merge`.
    pub stdout: StreamSummary,
    /// Standard error; empty and without a digest with `run.output.merge`.
    pub stderr: StreamSummary,
    /// The log position after the last byte, dropped bytes included. A reader at this position has read everything.
    #[serde(deserialize_with = "text::count")]
    pub end: u64,
    /// Time for which a full Spool blocked the command, milliseconds.
    #[serde(deserialize_with = "text::count")]
    pub blocked_ms: u64,
    /// Whether another process still held an output pipe open when the supervisor closed it.
    #[serde(default)]
    pub held_open: bool,
}

/// The output on one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSummary {
    /// Bytes written by the command, dropped ones included.
    #[serde(deserialize_with = "text::count")]
    pub bytes: u64,
    /// How many of them were dropped.
    #[serde(deserialize_with = "text::count")]
    pub dropped: u64,
    /// SHA-256 of all bytes written, dropped ones included; lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "text::digest")]
    pub sha256: String,
}

/// An agent refuses a `Start`; it starts nothing for this offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Hash of the spec that was refused.
    pub spec_hash: SpecHash,
    /// Why.
    pub refusal: Refusal,
    /// The offer that is refused ([`crate::to_agent::Start::offer`]). 0 from an agent whose refusals are all final.
    #[serde(default, skip_serializing_if = "crate::text::is_zero")]
    pub offer: u32,
}
