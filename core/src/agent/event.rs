//! The events an agent reacts to.

use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::text::Name;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Ended, Running};

use super::permit::PolicyVerdict;
use super::recovery::Evidence;
use crate::time::Monotonic;

/// An event.
#[derive(Debug, Clone)]
pub enum Event {
    /// The first event of a process: the whole Journal.
    Replayed {
        /// Attempts whose request can be read.
        seen: Vec<AttemptSnapshot>,
        /// Names of directories whose request cannot be read ([`AttemptId::directory_name`]).
        unreadable: Vec<String>,
    },
    /// A Session has begun.
    Connected {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// The Session has ended.
    Disconnected,
    /// A message arrived.
    Received {
        /// The message.
        message: ToAgent,
        /// What is on disk about the Attempt it names.
        facts: Facts,
    },
    /// [`super::Effect::Record`] or [`super::Effect::Confirm`] is durable.
    Recorded {
        /// Which Attempt.
        attempt: AttemptId,
    },
    /// [`super::Effect::Record`] failed and left nothing behind that could start later.
    NotRecorded {
        /// Which Attempt.
        attempt: AttemptId,
        /// The Refusal to send.
        why: Refusal,
    },
    /// [`super::Effect::Launch`] failed: no supervisor was started.
    LaunchFailed {
        /// Which Attempt.
        attempt: AttemptId,
        /// The cause.
        message: String,
    },
    /// [`super::Effect::Launch`] was refused: what the policy allowed when the request came, it does not allow any more.
    LaunchRefused {
        /// Which Attempt.
        attempt: AttemptId,
        /// Why.
        refusal: Refusal,
    },
    /// An Attempt was inspected.
    Observed(AttemptSnapshot),
    /// [`super::Effect::Abandon`] or [`super::Effect::Conclude`] is durable.
    Concluded {
        /// Which Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// [`super::Effect::Abandon`] or [`super::Effect::Conclude`] found the Attempt locked by its supervisor, or in a
    /// later state; nothing was written.
    TooLate {
        /// Which Attempt.
        attempt: AttemptId,
    },
    /// [`super::Effect::EndTree`] is done.
    TreeEnded {
        /// Which Attempt.
        attempt: AttemptId,
        /// Processes that survived SIGKILL.
        left: Vec<i32>,
    },
    /// [`super::Effect::RequestCancel`] failed.
    CancelNotRequested {
        /// Which Attempt.
        attempt: AttemptId,
    },
    /// [`super::Effect::WriteTombstone`] is durable.
    TombstoneWritten(Tombstone),
    /// [`super::Effect::Compact`] is durable and the Attempt's directory gone.
    Compacted {
        /// Which Attempt.
        attempt: AttemptId,
    },
    /// The Journal cannot be written reliably any more. The remaining effects of that step were skipped.
    JournalFailed {
        /// The I/O error.
        message: String,
    },
    /// About a second has passed.
    Tick,
    /// The agent was asked to stop. Commands keep running.
    Stopping,
}

/// What is on disk about the Attempt that a message names. Read before the step, so that tombstones need not be in
/// memory.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its tombstone, if it has one.
    pub tombstone: Option<Tombstone>,
    /// Bytes free for the Journal.
    pub free: u64,
    /// What the node's policy decides about it, if it is a `Start`.
    pub policy: PolicyVerdict,
    /// The values of Secrets that came with it, if it is a `Start`.
    pub secrets: SecretsSent,
    /// What the Journal has of it, if it is a `Start`.
    pub journaled: Journaled,
}

/// What the Journal has of the Attempt that a `Start` is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Journaled {
    /// The same request, or none of it.
    #[default]
    Same,
    /// Another request.
    Another,
    /// What cannot be read now.
    Unknown,
}

/// The values of Secrets that came with a `Start`. The values themselves are with the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecretsSent {
    /// None.
    #[default]
    None,
    /// All that the request needs.
    Values,
    /// They cannot be used: why.
    Unusable(String),
}

/// What remains of an Attempt after *Forget*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of the spec it was for.
    pub spec_hash: SpecHash,
    /// How it ended.
    pub ended: Ended,
}

/// An Attempt as it is on disk and in the kernel.
#[derive(Debug, Clone)]
pub struct AttemptSnapshot {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of the spec it is for.
    pub spec_hash: SpecHash,
    /// When its start deadline passes, on the boot clock. For one accepted before a reboot: the time allowed, counted
    /// from the boot, which is the most that can remain.
    pub start_by: Monotonic,
    /// The rule of the node's policy that allowed it, if there was one.
    pub rule: Option<Name>,
    /// Whether its command needs the values of Secrets, which no disk has.
    pub needs_secrets: bool,
    /// The input of [`super::recovery`].
    pub evidence: Evidence,
    /// The command that was started, if recorded.
    pub running: Option<Running>,
    /// The exit record, where there is one.
    pub ended: Option<Box<Ended>>,
    /// The recorded Outcome, if it was given up before its start.
    pub abandoned: Option<Outcome>,
    /// The latest stage whose Ack is noted on disk.
    pub acked: Option<Stage>,
}
