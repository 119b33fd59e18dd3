//! Counters of an archiver, for metrics and conditions.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::history::error::HistoryError;

/// A snapshot of an [`Archiver`](super::Archiver). Totals are since it was created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiverStatus {
    /// Records that are queued or being written.
    pub queued_records: u64,
    /// Bytes of output that are queued or being written.
    pub queued_bytes: u64,
    /// Records stored.
    pub stored_records: u64,
    /// Bytes of output stored.
    pub stored_bytes: u64,
    /// The same after compression.
    pub stored_packed_bytes: u64,
    /// Records refused because the queue was full.
    pub refused_records: u64,
    /// Runs of output refused because the queue was full.
    pub refused_output: u64,
    /// Records and runs of output that History will never take.
    pub rejected: u64,
    /// Failed writes by [`HistoryError::category`]; each is retried.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long the oldest record or output has been queued.
    pub lag: Duration,
    /// Error of the last failed write.
    pub last_error: Option<String>,
    /// Whether the last write succeeded; true before the first.
    pub is_up: bool,
}

impl ArchiverStatus {
    /// Failed writes of every category.
    pub fn total_failures(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Running totals of an archiver.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<ArchiverStatus>);

/// Whether a success or failure changed the availability of History.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// History became unavailable, or available again.
    Changed,
    /// As before.
    Unchanged,
}

impl Totals {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ArchiverStatus { is_up: true, ..ArchiverStatus::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, ArchiverStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refused_record(&self) {
        self.lock().refused_records += 1;
    }

    pub(super) fn refused_output(&self) {
        self.lock().refused_output += 1;
    }

    pub(super) fn rejected(&self) {
        self.lock().rejected += 1;
    }

    pub(super) fn stored_records(&self, count: usize) {
        self.lock().stored_records += count as u64;
    }

    pub(super) fn stored_output(&self, bytes: u64, packed: u64) {
        let mut totals = self.lock();
        totals.stored_bytes += bytes;
        totals.stored_packed_bytes += packed;
    }

    pub(super) fn failed(&self, error: &HistoryError) -> Transition {
        let mut totals = self.lock();
        *totals.failures.entry(error.category()).or_default() += 1;
        totals.last_error = Some(error.to_string());
        transition(&mut totals.is_up, false)
    }

    pub(super) fn succeeded(&self) -> Transition {
        transition(&mut self.lock().is_up, true)
    }

    /// The totals, with nothing queued.
    pub(super) fn snapshot(&self) -> ArchiverStatus {
        self.lock().clone()
    }
}

fn transition(is_up: &mut bool, now: bool) -> Transition {
    if std::mem::replace(is_up, now) == now { Transition::Unchanged } else { Transition::Changed }
}
