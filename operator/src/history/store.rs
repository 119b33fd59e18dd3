//! The interface of an archive.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use sentinel_protocol::outcome::{LostReason, Outcome};

use super::error::HistoryError;
use super::head::{AuditHeadQuery, AuditHeadRecord};
use super::outcome::OutcomeName;
use super::query::{ExecutionQuery, Page, RunQuery};
use super::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RunRecord};
use super::segment::{OutputSegment, SegmentLines};

/// How long records and output are kept after they last changed, unless configured otherwise: 30 days.
pub const DEFAULT_RETENTION: Duration = Duration::from_hours(30 * 24);

/// The future that every method of [`History`] returns.
pub type HistoryFuture<'a, T> = BoxFuture<'a, Result<T, HistoryError>>;

/// An archive of Runs, Executions, Attempts and output.
pub trait History: Send + Sync + 'static {
    /// Creates tables and indexes; harmless when they exist. Called at every start, and again until it succeeds.
    fn prepare(&self) -> HistoryFuture<'_, ()>;

    /// Probes the store.
    fn check(&self) -> HistoryFuture<'_, ()>;

    /// Stores the records. An Attempt updates its Execution as well. Records that know less than what is stored change
    /// nothing; that is a success.
    fn record(&self, records: Vec<HistoryRecord>) -> HistoryFuture<'_, ()>;

    /// Stores output. Segments that are already stored change nothing, segments that overlap are read as one.
    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()>;

    /// Output from `from` on, in order, about `max_bytes` and at least one record if any exists. A record that does not
    /// begin where the previous one ended (or at `from`) follows a hole. Empty: nothing is held at or behind `from`.
    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>>;

    /// The position up to which all output from `from` on is held: `from` itself when the byte at `from` is not.
    /// Called with 0, or with the oldest position that is still on the node, to find where an agent must continue.
    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64>;

    /// The lines of up to `limit` segments that end after `from`, by their ends. Segments may overlap.
    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>>;

    /// One Attempt.
    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>>;

    /// Executions, those of the newest Run first, within a Run by node.
    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>>;

    /// Runs, newest first.
    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>>;

    /// Keeps heads of audit chains, thinned as [`super::head`] states, and longer than anything else: no retention applies to them.
    fn record_audit_heads(&self, heads: Vec<AuditHeadRecord>) -> HistoryFuture<'_, ()>;

    /// Heads of audit chains, by who keeps the chain and by chain. The same head may be in several rows.
    fn audit_heads(&self, query: AuditHeadQuery) -> HistoryFuture<'_, Page<AuditHeadRecord>>;
}

/// How an Execution ended, in full. Only for rows of earlier releases, which hold the name alone, does this read the
/// Attempt's record; where that is missing too, the Outcome is `Lost` unless its name is enough.
///
/// # Errors
/// [`HistoryError`] when the Attempt's record is needed and cannot be read.
pub async fn outcome_of(history: &dyn History, execution: &ExecutionRecord) -> Result<Outcome, HistoryError> {
    if let Some(outcome) = &execution.outcome_details {
        return Ok(outcome.clone());
    }
    if let Some(outcome) = named_in_full(execution) {
        return Ok(outcome);
    }
    let attempt = history.attempt(execution.attempt_id()).await?;
    if let Some(outcome) = attempt.and_then(|attempt| attempt.outcome) {
        return Ok(outcome);
    }
    Ok(match execution.outcome {
        Some(OutcomeName::StartTimedOut) => Outcome::StartTimedOut { why: None },
        _ => Outcome::Lost { reason: LostReason::StateLost },
    })
}

/// The Outcomes whose name and exit code are all that there is.
fn named_in_full(execution: &ExecutionRecord) -> Option<Outcome> {
    match (execution.outcome?, execution.exit_code) {
        (OutcomeName::Succeeded, Some(exit_code)) => Some(Outcome::Succeeded { exit_code }),
        (OutcomeName::Failed, Some(exit_code)) => Some(Outcome::Failed { exit_code }),
        (OutcomeName::TimedOut, _) => Some(Outcome::TimedOut),
        (OutcomeName::IdleTimedOut, _) => Some(Outcome::IdleTimedOut),
        (OutcomeName::Cancelled, _) => Some(Outcome::Cancelled),
        (OutcomeName::NotStarted, _) => Some(Outcome::NotStarted),
        _ => None,
    }
}
