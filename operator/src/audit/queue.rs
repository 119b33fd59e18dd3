//! What is between those who record and the writer.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use sentinel_audit::Record;
use sentinel_protocol::time::UnixMillis;

use crate::metrics::Counter;

/// A record that waits for the writer.
#[derive(Debug, PartialEq)]
pub(super) struct Queued {
    pub(super) at: UnixMillis,
    pub(super) record: Record,
    pub(super) weight: usize,
}

/// What is counted of the queue and the writer.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) queued_bytes: AtomicUsize,
    /// Records that found the queue full, and are not recorded as lost yet.
    pub(super) overflowed: AtomicU64,
    /// The number of the last record that is not the head of another chain.
    pub(super) news: AtomicU64,
    pub(super) written: Counter,
    pub(super) lost: Counter,
}
