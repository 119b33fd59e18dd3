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
use super::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RecordSource, RunRecord};

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

/// A record as JSON, the last criterion.
pub fn content(record: &impl Serialize) -> String {
    // These records are plain structs; serde_json cannot fail on them, and a weaker last resort would do no harm.
    serde_json::to_string(record).unwrap_or_default()
}

fn digest(content: &str) -> String {
    let hash = Sha256::digest(content);
    format!("{:016x}", hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
}

/// Rank of an Attempt; `content` is its [`content`], which a store has already.
pub fn of_attempt(record: &AttemptRecord, content: &str) -> String {
    let (knowledge, epoch, certainty, time) = facts_of_attempt(record);
    format!("{knowledge}-{epoch:020}-{certainty}-{time:019}-{}", digest(content))
}

/// Its rank but for the last criterion. The numbers are written with so many digits that texts have the same order.
fn facts_of_attempt(record: &AttemptRecord) -> (u8, u64, u8, u64) {
    let lost = matches!(record.outcome, Some(Outcome::Lost { .. }));
    (
        knowledge(record.stage, record.source, lost),
        record.epoch.get(),
        certainty(lost),
        latest_time(record.ended_at, record.started_at),
    )
}

/// Rank of an Execution: that of its latest Attempt; `content` is its [`content`].
pub fn of_execution(record: &ExecutionRecord, content: &str) -> String {
    let lost = record.outcome == Some(OutcomeName::Lost);
    format!(
        "{:010}-{}-{:020}-{}-{:019}-{}",
        record.attempt,
        knowledge(record.stage, record.source, lost),
        record.epoch.get(),
        certainty(lost),
        latest_time(record.ended_at, record.started_at),
        digest(content)
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
/// `content` is its [`content`].
pub fn of_run(record: &RunRecord, content: &str) -> String {
    format!("{}-{}", facts_of_run(record), digest(content))
}

/// Its rank but for the last criterion.
fn facts_of_run(record: &RunRecord) -> String {
    format!(
        "{}-{:020}-{:010}-{:010}-{:019}",
        u8::from(record.verdict.is_some()),
        record.epoch.get(),
        record.counts.ended(),
        u32::MAX - record.counts.of(OutcomeName::Lost),
        latest_time(record.finished_at, Some(record.started_at)),
    )
}

/// Whether a record ranks higher than another of the same id. The content is compared only where all else is equal.
pub fn outranks(record: &HistoryRecord, other: &HistoryRecord) -> bool {
    match (record, other) {
        (HistoryRecord::Attempt(a), HistoryRecord::Attempt(b)) => facts_of_attempt(a)
            .cmp(&facts_of_attempt(b))
            .then_with(|| digest(&content(a)).cmp(&digest(&content(b))))
            .is_gt(),
        (HistoryRecord::Run(a), HistoryRecord::Run(b)) => facts_of_run(a)
            .cmp(&facts_of_run(b))
            .then_with(|| digest(&content(a)).cmp(&digest(&content(b))))
            .is_gt(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::{Epoch, SpecHash, TaskRef};
    use sentinel_protocol::request::Environment;
    use sentinel_protocol::to_operator::Ended;

    use super::super::record::RunContext;
    use super::*;

    fn attempt(command: &str) -> AttemptRecord {
        let run = RunContext {
            task: TaskRef::new("ops", "job").unwrap(),
            started_at: UnixMillis(1),
            trigger: None,
            spec_hash: SpecHash::new("a".repeat(64)).unwrap(),
            command: command.to_owned(),
            environment: Environment::Host,
        };
        AttemptRecord::accepted("u/1/n/1".parse().unwrap(), run, RecordSource::Agent, Epoch::from(1))
    }

    #[test]
    fn a_record_outranks_another_exactly_when_its_rank_is_higher() {
        let ended = Ended::without_record(Outcome::Succeeded { exit_code: 0 }, UnixMillis(5));
        let records = [
            attempt("true"),
            attempt("false"),
            attempt("true").running(UnixMillis(2)),
            attempt("true").running(UnixMillis(3)),
            attempt("true").ended(&ended),
            AttemptRecord { epoch: Epoch::from(2), ..attempt("true") },
        ];
        let rank = |record: &AttemptRecord| of_attempt(record, &content(record));
        for a in &records {
            for b in &records {
                let [record, other] = [a, b].map(|record| HistoryRecord::Attempt(Box::new(record.clone())));
                assert_eq!(outranks(&record, &other), rank(a) > rank(b), "{a:?} {b:?}");
            }
        }
    }
}
