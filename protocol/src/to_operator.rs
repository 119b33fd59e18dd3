//! What an agent says to the operator on the control socket.

use serde::{Deserialize, Serialize};

use crate::exit::{ExitDetails, describe};
use crate::ids::{AttemptId, Epoch, SpecHash};
use crate::limits::{INVENTORY_PART, MAX_ENVIRONMENTS, MAX_VERSIONS};
use crate::metrics::NodeMetrics;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::request::Environment;
use crate::text::{self, Name};
use crate::time::UnixMillis;
use crate::version::Version;

/// A message to the operator. Unknown kinds are counted and ignored by the reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum ToOperator {
    /// The first message of a Session.
    Hello(Hello),
    /// All that the agent owns; the first thing after Welcome, in one or more parts.
    Inventory(Inventory),
    /// I am here, and this is how the node does.
    Heartbeat(Heartbeat),
    /// What one Attempt is now. Said again until it is acknowledged.
    Report(Box<Report>),
    /// A `Start` is declined.
    Refused(Refused),
}

/// Who dials. The node's *name* is not in it: that comes from the token alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Every version the agent speaks.
    #[serde(deserialize_with = "text::first::<_, _, MAX_VERSIONS>")]
    pub versions: Vec<Version>,
    /// The agent's own release, for people.
    pub agent_version: Name,
    /// The kernel's boot id: another one means the node was started anew.
    pub boot_id: Name,
    /// Random id of the agent's state directory: another one means that its memory is gone.
    pub state_id: Name,
    /// The highest epoch the agent has seen.
    pub highest_epoch: Epoch,
    /// Where this agent can run commands.
    #[serde(deserialize_with = "text::first::<_, _, MAX_ENVIRONMENTS>")]
    pub environments: Vec<Environment>,
    /// Operating system, for example `linux`.
    pub os: Name,
    /// Processor architecture, for example `x86_64`.
    pub arch: Name,
    /// Kernel release, for example `6.1.0`.
    pub kernel: Name,
}

/// A part of what the agent owns. After the last part the operator knows all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Attempts in the Journal that are not forgotten, at most [`INVENTORY_PART`] in one part.
    #[serde(deserialize_with = "text::at_most::<_, _, INVENTORY_PART>")]
    pub attempts: Vec<Report>,
    /// Whether another part follows.
    pub more: bool,
}

/// Renews the node's Presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The node's wall clock, for display.
    pub at: UnixMillis,
    /// How the node does.
    pub metrics: NodeMetrics,
}

/// What one Attempt is: a durable statement, equal in a Report and in an Inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of the spec it was started for.
    pub spec_hash: SpecHash,
    /// What it is.
    pub state: ReportedState,
}

/// The state of an Attempt as its agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage")]
pub enum ReportedState {
    /// Journaled, and not yet started.
    Accepted,
    /// The command runs.
    Running(Running),
    /// The Attempt is over.
    Ended(Box<Ended>),
}

/// How far an Attempt has come; later ones include the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// See [`ReportedState::Accepted`].
    Accepted,
    /// See [`ReportedState::Running`].
    Running,
    /// See [`ReportedState::Ended`].
    Ended,
}

impl ReportedState {
    /// The stage without its facts.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Accepted => Stage::Accepted,
            Self::Running(_) => Stage::Running,
            Self::Ended(_) => Stage::Ended,
        }
    }
}

/// A command that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// When it was started, by the node's clock.
    pub started_at: UnixMillis,
    /// Its process id on the node.
    pub pid: i32,
}

/// An Attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// When the command was started, by the node's clock; `None` when it never was, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the node's clock.
    pub ended_at: UnixMillis,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// What it wrote.
    #[serde(default)]
    pub output: OutputSummary,
    /// What its processes did at their end.
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

    /// Exit code of the command, where it has one, whatever its Outcome.
    pub fn exit_code(&self) -> Option<u8> {
        self.exit.exit_code(&self.outcome)
    }
}

/// What a command and its descendants used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Processor time in user mode, milliseconds.
    #[serde(deserialize_with = "text::count")]
    pub user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    #[serde(deserialize_with = "text::count")]
    pub system_ms: u64,
    /// Largest resident set of one of its processes, bytes.
    #[serde(deserialize_with = "text::count")]
    pub max_rss: u64,
}

/// What a command wrote, as its supervisor counted it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputSummary {
    /// Standard output; with `run.output.merge` both streams.
    pub stdout: StreamSummary,
    /// Standard error; with `run.output.merge` empty, without a digest.
    pub stderr: StreamSummary,
    /// Log position behind the last record, dropped bytes included; a reader that is here has all there is.
    #[serde(deserialize_with = "text::count")]
    pub end: u64,
    /// Milliseconds for which a full spool held the command up.
    #[serde(deserialize_with = "text::count")]
    pub blocked_ms: u64,
    /// Another process still held an output pipe open when the record was closed.
    #[serde(default)]
    pub held_open: bool,
}

/// What went through one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSummary {
    /// Bytes written by the command, dropped ones included.
    #[serde(deserialize_with = "text::count")]
    pub bytes: u64,
    /// Of these, bytes that were dropped.
    #[serde(deserialize_with = "text::count")]
    pub dropped: u64,
    /// SHA-256 over all bytes written, dropped ones included; lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "text::digest")]
    pub sha256: String,
}

/// A `Start` is declined; nothing was started for this offer of it and nothing will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of the spec that was refused.
    pub spec_hash: SpecHash,
    /// Why.
    pub refusal: Refusal,
    /// The offer that was declined ([`crate::to_agent::Start::offer`]). 0 from an agent that declines an Attempt for
    /// good, whatever the reason.
    #[serde(default, skip_serializing_if = "crate::to_agent::is_zero")]
    pub offer: u32,
}
