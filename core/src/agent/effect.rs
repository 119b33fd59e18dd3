//! The effects an agent carries out.

use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Ended, ToOperator};

use super::event::Tombstone;
use super::permit::Permit;

/// An effect. The effects of a step are carried out in order; a durable one that fails with
/// [`super::Event::JournalFailed`] or [`super::Event::NotRecorded`] ends the batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Persist the epoch before acting under it.
    SetEpoch(Epoch),
    /// Make the request durable. Answered by `Recorded` or `NotRecorded`.
    Record(Box<Admitted>),
    /// Replace the clocks of a request that was accepted before a reboot. Answered as `Record`.
    Confirm(Box<Admitted>),
    /// Keep the values of Secrets that came with this `Start` until the command has started: an earlier process of the agent had
    /// accepted the Attempt. [`Effect::Record`] and [`Effect::Confirm`] keep them too.
    KeepSecrets(AttemptId),
    /// Hand the Attempt to a supervisor. Answered by `LaunchFailed`, `LaunchRefused`, or in time by `Observed`.
    Launch(AttemptId),
    /// Ask the supervisor to end the command.
    RequestCancel {
        /// Which Attempt.
        attempt: AttemptId,
        /// Who asked for it, if that was a person who is known.
        by: Option<Requester>,
    },
    /// Kill what is left of a command whose supervisor died. Answered by `TreeEnded`; may take seconds.
    EndTree(AttemptId),
    /// Take the Attempt's lock and, if it certainly has not started, record that it is over. Answered by
    /// `Concluded` or `TooLate`.
    Abandon {
        /// Which Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// Take the Attempt's lock and record that it is over, with what its Spool holds. Answered by `Concluded` or
    /// `TooLate`.
    Conclude {
        /// Which Attempt.
        attempt: AttemptId,
        /// How it ended.
        ended: Box<Ended>,
    },
    /// Inspect an Attempt on disk and in the kernel. Answered by `Observed`.
    Inspect(AttemptId),
    /// Note that History holds the Report of this stage. Not synced: after a power cut the Report is sent once more.
    NoteAck {
        /// Which Attempt.
        attempt: AttemptId,
        /// The stage.
        stage: Stage,
    },
    /// Write the tombstone of an Attempt that this node never had. Answered by `TombstoneWritten`.
    WriteTombstone(Tombstone),
    /// Replace an Attempt's directory by its tombstone. Answered by `Compacted`.
    Compact(Tombstone),
    /// Send it to the operator if there is a Session; it will be resent otherwise.
    Send(ToOperator),
    /// Something was ignored: count and log it.
    Ignored {
        /// What it was.
        what: Ignored,
        /// The Attempt that it named.
        attempt: Option<AttemptId>,
    },
}

impl Effect {
    /// The Attempt that it is about.
    pub fn attempt(&self) -> Option<&AttemptId> {
        match self {
            Self::SetEpoch(_) => None,
            Self::Record(admitted) | Self::Confirm(admitted) => Some(&admitted.start.attempt),
            Self::Launch(attempt)
            | Self::KeepSecrets(attempt)
            | Self::RequestCancel { attempt, .. }
            | Self::EndTree(attempt)
            | Self::Inspect(attempt)
            | Self::Abandon { attempt, .. }
            | Self::Conclude { attempt, .. }
            | Self::NoteAck { attempt, .. } => Some(attempt),
            Self::WriteTombstone(tombstone) | Self::Compact(tombstone) => Some(&tombstone.attempt),
            Self::Send(ToOperator::Report(report)) => Some(&report.attempt),
            Self::Send(ToOperator::Refused(refused)) => Some(&refused.attempt),
            Self::Send(_) => None,
            Self::Ignored { attempt, .. } => attempt.as_ref(),
        }
    }
}

/// A request that was admitted, and what the node's policy has allowed, if there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The request.
    pub start: Start,
    /// What was allowed.
    pub permit: Option<Permit>,
}

/// What was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// A command of an older leader.
    StaleEpoch,
    /// A message about an Attempt that this node does not have.
    UnknownAttempt,
    /// An Ack for a stage that was never reported.
    AckBeyondReport,
    /// A Forget of an Attempt that is not over, or of another spec.
    ForgetOfLiving,
    /// A cancellation that could not be recorded because the Journal fails.
    CancelWithoutJournal,
    /// A message that belongs to the handshake.
    Handshake,
}

impl Ignored {
    /// Its label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StaleEpoch => "stale_epoch",
            Self::UnknownAttempt => "unknown_attempt",
            Self::AckBeyondReport => "ack_beyond_report",
            Self::ForgetOfLiving => "forget_of_living",
            Self::CancelWithoutJournal => "cancel_without_journal",
            Self::Handshake => "handshake",
        }
    }
}
