//! The archive of Runs, Executions, Attempts and their output.
//!
//! [`History`] is the seam: what the rest of the operator asks of an archive, in its own words. Two versions of it
//! stand behind one contract suite (`tests/history_contract.rs`): [`embedded::EmbeddedHistory`], one SQLite file for
//! dev mode, and [`mongo::MongoHistory`]. Callers do not wait for either: they hand records and output to
//! [`archive::Archiver`], which batches, retries for as long as it takes and says when something is durable.
//!
//! What holds for every version:
//!
//! * A write is answered only after it is durable, and may be repeated without harm.
//! * Records of one id may come in any order; the one that knows most wins ([`rank`]). So a late `Running` does not
//!   undo an end, and `Lost`, which is the operator's word, is corrected by an agent's result, never the other way.
//! * No transactions. The order of writes takes their place: output, then Attempts and Executions, then Runs.
//! * Whatever is older than the retention is not seen any more, whether it has been removed yet or not.
//!
//! History decides nothing: losing it delays an outcome and never alters one.

pub mod archive;
pub mod embedded;
pub mod error;
pub mod mongo;
pub mod query;
pub mod rank;
pub mod record;
pub mod segment;
mod stitch;

use std::time::Duration;

use futures_util::future::BoxFuture;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;

pub use self::error::HistoryError;
pub use self::query::{ExecutionQuery, Page, PageToken, RunQuery};
pub use self::record::{AttemptRecord, Entry, ExecutionRecord, RunCounts, RunRecord, Source, Verdict};
pub use self::segment::OutputSegment;

/// How long records and output are kept after they last changed, unless configured otherwise: 30 days.
pub const DEFAULT_RETENTION: Duration = Duration::from_hours(30 * 24);

/// What a History answers with, some time later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, HistoryError>>;

/// An archive of Runs, Executions, Attempts and output.
pub trait History: Send + Sync + 'static {
    /// Makes tables and indexes; harmless when they are there. Called at every start, and again until it succeeds.
    fn prepare(&self) -> Answer<'_, ()>;

    /// Asks the store whether it would answer.
    fn check(&self) -> Answer<'_, ()>;

    /// Stores the entries. An Attempt brings its Execution up to date as well. Entries older than what is stored change
    /// nothing; that is a success.
    fn record(&self, entries: Vec<Entry>) -> Answer<'_, ()>;

    /// Stores output. Segments that are there already change nothing, segments that overlap are read as one.
    fn append_output(&self, segments: Vec<OutputSegment>) -> Answer<'_, ()>;

    /// Output from `from` on, in order, about `max_bytes` of it and at least one record where there is any. A record
    /// that does not begin where the one before ended (or at `from`) stands behind a hole. Empty: nothing is held at or
    /// behind `from`.
    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> Answer<'_, Vec<LogRecord>>;

    /// The position up to which all output from `from` on is held: `from` itself when the byte at `from` is not.
    /// Asked with 0, or with the oldest position that is still on the node, to know where an agent must go on.
    fn output_end(&self, attempt: AttemptId, from: u64) -> Answer<'_, u64>;

    /// One Attempt.
    fn attempt(&self, id: AttemptId) -> Answer<'_, Option<AttemptRecord>>;

    /// Executions, those of the newest Run first, within a Run by node.
    fn executions(&self, query: ExecutionQuery) -> Answer<'_, Page<ExecutionRecord>>;

    /// Runs, newest first.
    fn runs(&self, query: RunQuery) -> Answer<'_, Page<RunRecord>>;
}
