//! The archive of Runs, Executions, Attempts and their output, and the heads of audit chains.
//!
//! [`History`] is the interface: what the rest of the operator asks of an archive. Two implementations share one
//! contract suite (`tests/history_contract.rs`): [`embedded::EmbeddedHistory`], one SQLite file for dev mode, and
//! [`mongo::MongoHistory`]. Callers never block on either: they hand records and output to [`archive::Archiver`], which
//! batches, retries for as long as it takes and reports when something is durable.
//!
//! What every implementation guarantees:
//!
//! * A write is answered only after it is durable, and may be repeated without harm.
//! * Records of one id may come in any order; the one that knows most wins ([`rank`]). So a late `Running` does not
//!   undo an end, and `Lost`, which the operator concludes, is corrected by an agent's result, never the reverse.
//! * No transactions. The order of writes takes their place: output, then Attempts and Executions, then Runs.
//! * Whatever is older than the retention is not returned any more, whether it has been removed yet or not.
//!
//! History decides nothing: losing it delays an outcome and never alters one.

pub mod archive;
pub mod embedded;
pub mod error;
pub mod head;
#[cfg(feature = "drivers")]
pub mod mongo;
pub mod outcome;
pub mod query;
pub mod rank;
pub mod record;
pub mod segment;
mod stitch;
pub mod store;

pub use self::error::HistoryError;
pub use self::head::{AuditHeadQuery, AuditHeadRecord};
pub use self::outcome::OutcomeName;
pub use self::query::{ExecutionQuery, Page, PageToken, Ran, RunQuery, Span};
pub use self::record::{
    AttemptRecord, ExecutionRecord, HistoryRecord, RecordSource, RunContext, RunCounts, RunRecord, RunVerdict,
};
pub use self::segment::{OutputSegment, SegmentLines};
pub use self::store::{DEFAULT_RETENTION, History, HistoryFuture, outcome_of};
