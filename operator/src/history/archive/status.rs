//! How the archiver does, for metrics and conditions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::entries::EntryQueue;
use super::output::OutputQueue;

/// A look at an [`Archiver`](super::Archiver). Totals are since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiverStatus {
    /// Records that wait or are on their way.
    pub queued_entries: u64,
    /// Bytes of output that wait or are on their way.
    pub queued_bytes: u64,
    /// Records stored.
    pub stored_entries: u64,
    /// Bytes of output stored.
    pub stored_bytes: u64,
    /// The same after compression.
    pub stored_packed_bytes: u64,
    /// Records refused because too many waited.
    pub refused_entries: u64,
    /// Runs of output refused because too much waited.
    pub refused_output: u64,
    /// Records and runs of output that History will never take.
    pub rejected: u64,
    /// Writes that failed; each is tried again.
    pub failures: u64,
    /// How long the oldest thing has been waiting.
    pub lag: Duration,
    /// Why the last failed write failed.
    pub last_error: Option<String>,
    /// Whether the last write succeeded; true before the first.
    pub is_up: bool,
}

#[derive(Debug, Default)]
pub(super) struct Status(Mutex<Totals>);

#[derive(Debug, Default)]
struct Totals {
    stored_entries: u64,
    stored_bytes: u64,
    stored_packed_bytes: u64,
    refused_entries: u64,
    refused_output: u64,
    rejected: u64,
    failures: u64,
    last_error: Option<String>,
    is_down: bool,
}

/// What a success or failure means to whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// History went away, or came back.
    Turned,
    /// As before.
    Same,
}

impl Status {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refused_entry(&self) {
        self.totals().refused_entries += 1;
    }

    pub(super) fn refused_output(&self) {
        self.totals().refused_output += 1;
    }

    pub(super) fn rejected(&self) {
        self.totals().rejected += 1;
    }

    pub(super) fn stored_entries(&self, count: usize) {
        self.totals().stored_entries += count as u64;
    }

    pub(super) fn stored_output(&self, bytes: u64, packed: u64) {
        let mut totals = self.totals();
        totals.stored_bytes += bytes;
        totals.stored_packed_bytes += packed;
    }

    pub(super) fn failed(&self, message: String) -> Change {
        let mut totals = self.totals();
        totals.failures += 1;
        totals.last_error = Some(message);
        if std::mem::replace(&mut totals.is_down, true) { Change::Same } else { Change::Turned }
    }

    pub(super) fn succeeded(&self) -> Change {
        if std::mem::replace(&mut self.totals().is_down, false) { Change::Turned } else { Change::Same }
    }

    pub(super) fn snapshot(&self, entries: &EntryQueue, output: &OutputQueue) -> ArchiverStatus {
        let (queued_entries, oldest_entry) = entries.waiting();
        let (queued_bytes, oldest_output) = output.waiting();
        let oldest = [oldest_entry, oldest_output].into_iter().flatten().min();
        let totals = self.totals();
        ArchiverStatus {
            queued_entries: queued_entries as u64,
            queued_bytes: queued_bytes as u64,
            stored_entries: totals.stored_entries,
            stored_bytes: totals.stored_bytes,
            stored_packed_bytes: totals.stored_packed_bytes,
            refused_entries: totals.refused_entries,
            refused_output: totals.refused_output,
            rejected: totals.rejected,
            failures: totals.failures,
            lag: oldest.map(|at| Instant::now().saturating_duration_since(at)).unwrap_or_default(),
            last_error: totals.last_error.clone(),
            is_up: !totals.is_down,
        }
    }
}
