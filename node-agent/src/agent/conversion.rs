//! What the Journal records, as `core` knows it, and the reverse.

use sentinel_core::agent::{Event, Tombstone};
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::SpecHash;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Usage};

use crate::journal::{self, Abandonment, JournalError};
use crate::shortage::describe;

/// A tombstone as the Journal keeps it.
pub(super) fn tombstone_to_journal(tombstone: &Tombstone) -> journal::Tombstone {
    journal::Tombstone {
        attempt: tombstone.attempt.clone(),
        spec_hash: Some(tombstone.spec_hash.clone()),
        outcome: tombstone.ended.outcome.clone(),
        ended_at: tombstone.ended.ended_at,
    }
}

/// A tombstone of the Journal, for a message with this spec hash. One without a spec hash matches every spec.
pub(super) fn tombstone_from_journal(kept: journal::Tombstone, spec_hash: &SpecHash) -> Tombstone {
    let ended = Ended {
        outcome: kept.outcome,
        started_at: None,
        ended_at: kept.ended_at,
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: ExitDetails::default(),
    };
    let spec_hash = kept.spec_hash.unwrap_or_else(|| spec_hash.clone());
    Tombstone { attempt: kept.attempt, spec_hash, ended }
}

/// How an abandoned Attempt ended.
pub(super) fn outcome_of(why: Abandonment) -> Outcome {
    match why {
        Abandonment::Cancelled => Outcome::Cancelled,
        Abandonment::StartTimedOut => Outcome::StartTimedOut { why: None },
        Abandonment::HandedBack => Outcome::NotStarted,
    }
}

/// Why an Attempt with this outcome is abandoned.
pub(super) fn abandonment_for(outcome: &Outcome) -> Abandonment {
    match outcome {
        Outcome::Cancelled => Abandonment::Cancelled,
        Outcome::StartTimedOut { .. } => Abandonment::StartTimedOut,
        _ => Abandonment::HandedBack,
    }
}

/// The Journal can no longer be trusted.
pub(super) fn journal_failed(error: &JournalError) -> Event {
    let message = describe(error);
    tracing::error!(
        category = error.category().as_str(),
        error = message,
        "the journal failed; no new attempts are accepted"
    );
    Event::JournalFailed { message }
}
