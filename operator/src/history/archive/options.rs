//! What an archiver is configured with, and what it notifies its owner of.

use std::time::Duration;

use sentinel_protocol::ids::{AttemptId, RunNumber, TaskUid};
use sentinel_protocol::stage::Stage;

use crate::history::record::{HistoryRecord, RecordSource, RunVerdict};

/// Bounds and times of an [`Archiver`](super::Archiver).
#[derive(Debug, Clone, Copy)]
pub struct ArchiverOptions {
    /// Ids (Attempts, Runs) whose latest record may be queued; more are refused.
    pub max_records: usize,
    /// Bytes that these records may take; more are refused.
    pub max_record_bytes: usize,
    /// Bytes of output that may be queued, over all Attempts; more are refused.
    pub max_output_bytes: usize,
    /// Most records in one write.
    pub batch: usize,
    /// How long a record or a short run of output waits for others to be written with it.
    pub delay: Duration,
    /// Output of an Attempt is written at once when this many bytes are queued; at most
    /// [`MAX_SEGMENT_DATA`](crate::history::segment::MAX_SEGMENT_DATA).
    pub segment_bytes: usize,
    /// First pause after a failure; it doubles from there.
    pub retry_min: Duration,
    /// Longest pause after failures.
    pub retry_max: Duration,
}

impl Default for ArchiverOptions {
    fn default() -> Self {
        Self {
            max_records: 100_000,
            max_record_bytes: 128 << 20,
            max_output_bytes: 16 << 20,
            batch: 500,
            delay: Duration::from_millis(50),
            segment_bytes: 512 << 10,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// Something is durable, or never will be.
#[derive(Debug, Clone, PartialEq)]
pub enum Archived {
    /// History holds this Attempt at this stage and every earlier one.
    Attempt {
        /// The Attempt.
        id: AttemptId,
        /// Its stage in History.
        stage: Stage,
        /// Who stated the stored record.
        source: RecordSource,
    },
    /// History holds this Run.
    Run {
        /// The Task.
        task_uid: TaskUid,
        /// The Run.
        run: RunNumber,
        /// Its verdict, once it has one.
        verdict: Option<RunVerdict>,
    },
    /// History holds all output from where it was opened up to `end`.
    Output {
        /// The Attempt that wrote it.
        attempt: AttemptId,
        /// Position behind the last byte.
        end: u64,
    },
    /// History will never take this record; submitting it again is pointless.
    RejectedRecord {
        /// The record.
        record: Box<HistoryRecord>,
        /// Why.
        message: String,
    },
    /// History will never take this output; the Attempt's output is closed.
    RejectedOutput {
        /// The Attempt that wrote it.
        attempt: AttemptId,
        /// Why.
        message: String,
    },
}
