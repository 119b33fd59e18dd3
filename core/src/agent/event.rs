//! What can happen to an agent.

use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Ended, Running, Stage};

use super::recovery::Evidence;
use crate::time::Monotonic;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The first event of a life: all that the Journal holds.
    Replayed {
        /// Attempts whose request can be read.
        seen: Vec<AttemptSnapshot>,
        /// Names of directories whose request cannot be read ([`AttemptId::directory_name`]).
        unreadable: Vec<String>,
    },
    /// A Session stands.
    Connected {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// The Session is over.
    Disconnected,
    /// A message came.
    Received {
        /// The message.
        message: ToAgent,
        /// What the disk says about the Attempt that it names.
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
        /// Why, in the words of a Refusal.
        why: Refusal,
    },
    /// [`super::Effect::Launch`] failed: there is no supervisor.
    LaunchFailed {
        /// Which Attempt.
        attempt: AttemptId,
        /// What stood in the way.
        message: String,
    },
    /// An Attempt was looked at.
    Observed(AttemptSnapshot),
    /// [`super::Effect::Abandon`] or [`super::Effect::Conclude`] is durable.
    Concluded {
        /// Which Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// [`super::Effect::Abandon`] or [`super::Effect::Conclude`] found the Attempt in other hands, or further than
    /// was thought; nothing was written.
    TooLate {
        /// Which Attempt.
        attempt: AttemptId,
    },
    /// [`super::Effect::EndTree`] is done.
    TreeEnded {
        /// Which Attempt.
        attempt: AttemptId,
        /// Processes that would not end.
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
    /// The Journal can no longer be trusted with anything new. The rest of the effects of that step were not carried
    /// out.
    JournalFailed {
        /// What the disk said.
        message: String,
    },
    /// About a second has passed.
    Tick,
    /// The agent was asked to end. Commands live on.
    Stopping,
}

/// What the disk says about the Attempt that a message names; read before the step, so that a hundred thousand
/// tombstones need not be in memory.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its tombstone, where it has one.
    pub tombstone: Option<Tombstone>,
    /// Bytes free for the Journal.
    pub free: u64,
}

/// What stays of an Attempt after *Forget*.
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
    /// What [`super::recovery`] judges by.
    pub evidence: Evidence,
    /// The command that was started, where the record has it.
    pub running: Option<Running>,
    /// The exit record, where there is one.
    pub ended: Option<Box<Ended>>,
    /// How it was given up before its start, where the record says so.
    pub abandoned: Option<Outcome>,
    /// The latest stage whose Ack is noted on disk.
    pub acked: Option<Stage>,
}
