//! What is between those who record and the writer.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use sentinel_audit::Record;
use sentinel_protocol::time::UnixMillis;

use crate::metrics::{Counter, Registry};

/// A record that waits for the writer.
#[derive(Debug, PartialEq)]
pub(super) struct Queued {
    pub(super) at: UnixMillis,
    pub(super) record: Record,
    pub(super) weight: usize,
    /// Whether the heads of the chain are to be exchanged for it.
    pub(super) is_news: bool,
}

/// What is counted of the queue and the writer.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) queued_bytes: AtomicUsize,
    /// Records that found the queue full, and are not recorded as lost yet.
    pub(super) overflowed: AtomicU64,
    /// The number of the last record that is news.
    pub(super) news: AtomicU64,
    pub(super) written: Counter,
    pub(super) lost: Counter,
    pub(super) omitted: Counter,
}

impl Counted {
    pub(super) fn new(metrics: &Registry) -> Self {
        Self {
            queued_bytes: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            news: AtomicU64::new(0),
            written: metrics.counter("sentinel_audit_records_total", "Audit records written."),
            lost: metrics.counter(
                "sentinel_audit_records_lost_total",
                "Audit records that could not be written, or came faster than they could be. The chain states how many.",
            ),
            omitted: metrics.counter(
                "sentinel_audit_records_omitted_total",
                "Minor audit records that were left out: their parties had caused too many. The chain states whose.",
            ),
        }
    }
}
