//! Which of two records with the same id knows more.
//!
//! A rank is a text, and text order is the order of knowledge. The record with the higher rank stays: stores need to
//! compare nothing else, records may come in any order, and repeating one changes nothing. From the strongest criterion
//! to the weakest:
//!
//! 1. the stage; among ends, the agent's before the operator's, and a known end before `Lost`;
//! 2. the epoch of the leader that wrote it;
//! 3. the later end or start;
//! 4. a digest of the content, so that even contradictory records end in the same state in any order.

use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::outcome::OutcomeName;
use super::record::{AttemptRecord, ExecutionRecord, RecordSource, RunRecord};

/// The first digit of a rank.
fn knowledge(stage: Stage, source: RecordSource, lost: bool) -> u8 {
    match (stage, source) {
        (Stage::Accepted, _) => 1,
        (Stage::Running, _) => 2,
        (Stage::Ended, RecordSource::Operator) => 3,
        (Stage::Ended, RecordSource::Agent) if lost => 4,
        (Stage::Ended, RecordSource::Agent) => 5,
    }
}

/// `Lost` gives way to any other Outcome of the same weight.
fn certainty(lost: bool) -> u8 {
    u8::from(!lost)
}

fn latest_time(ended: Option<UnixMillis>, started: Option<UnixMillis>) -> u64 {
    let at = ended.or(started).unwrap_or_default().0;
    u64::try_from(at).unwrap_or(0)
}

fn digest(record: &impl Serialize) -> String {
    // These records are plain structs; serde_json cannot fail on them, and a weaker last resort would do no harm.
    let bytes = serde_json::to_vec(record).unwrap_or_default();
    let hash = Sha256::digest(&bytes);
    format!("{:016x}", hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
}

/// Rank of an Attempt.
pub fn of_attempt(record: &AttemptRecord) -> String {
    let lost = matches!(record.outcome, Some(Outcome::Lost { .. }));
    format!(
        "{}-{:020}-{}-{:019}-{}",
        knowledge(record.stage, record.source, lost),
        record.epoch.get(),
        certainty(lost),
        latest_time(record.ended_at, record.started_at),
        digest(record)
    )
}

/// Rank of an Execution: that of its latest Attempt.
pub fn of_execution(record: &ExecutionRecord) -> String {
    let lost = record.outcome == Some(OutcomeName::Lost);
    format!(
        "{:010}-{}-{:020}-{}-{:019}-{}",
        record.attempt,
        knowledge(record.stage, record.source, lost),
        record.epoch.get(),
        certainty(lost),
        latest_time(record.ended_at, record.started_at),
        digest(record)
    )
}

/// How much a record of an Execution knows: the number of its Attempt, then how far that is known. A record that ranks
/// higher by [`of_execution`] never weighs less.
pub fn weight_of_execution(record: &ExecutionRecord) -> (u32, u8) {
    let lost = record.outcome == Some(OutcomeName::Lost);
    (record.attempt, knowledge(record.stage, record.source, lost))
}

/// How much a record of an Attempt knows. A record that ranks higher by [`of_attempt`] never weighs less.
pub fn weight_of_attempt(record: &AttemptRecord) -> u8 {
    knowledge(record.stage, record.source, matches!(record.outcome, Some(Outcome::Lost { .. })))
}

/// How much a record of a Run knows: whether it has ended, then how many of its targets have.
pub fn weight_of_run(record: &RunRecord) -> (bool, u32) {
    (record.verdict.is_some(), record.counts.ended())
}

/// Rank of a Run: a finished one before an active one; then the epoch; then more ends, and fewer of them `Lost`.
pub fn of_run(record: &RunRecord) -> String {
    format!(
        "{}-{:020}-{:010}-{:010}-{:019}-{}",
        u8::from(record.verdict.is_some()),
        record.epoch.get(),
        record.counts.ended(),
        u32::MAX - record.counts.of(OutcomeName::Lost),
        latest_time(record.finished_at, Some(record.started_at)),
        digest(record)
    )
}
