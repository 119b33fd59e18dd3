//! The numbers that one part of the agent sets and another reports. Counters and gauges only; no decision reads them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sentinel_protocol::ids::Epoch;
use sentinel_protocol::metrics::NodeMetrics;

/// Messages that find the outgoing queue full are logged once for this many.
const LOG_EVERY_DROPPED: u64 = 1000;

/// Lost audit records are logged once for this many.
const LOG_EVERY_UNRECORDED: u64 = 100;

/// Counters and gauges of one agent.
#[derive(Debug, Default)]
pub(crate) struct AgentMetrics {
    highest_epoch: AtomicU64,
    active: AtomicU64,
    limit: AtomicU64,
    unacknowledged: AtomicU64,
    pending_output: AtomicU64,
    ignored: AtomicU64,
    dropped: AtomicU64,
    restarts: AtomicU64,
    unrecorded: AtomicU64,
    omitted: AtomicU64,
}

impl AgentMetrics {
    pub(crate) fn highest_epoch(&self) -> Epoch {
        Epoch::new(self.highest_epoch.load(Relaxed)).unwrap_or(Epoch::MAX)
    }

    pub(crate) fn set_highest_epoch(&self, epoch: Epoch) {
        self.highest_epoch.store(epoch.get(), Relaxed);
    }

    /// How many Attempts may be active at once.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(u64::from(limit), Relaxed);
    }

    pub(crate) fn set_counts(&self, active: usize, unacknowledged: usize) {
        self.active.store(active as u64, Relaxed);
        self.unacknowledged.store(unacknowledged as u64, Relaxed);
    }

    /// Bytes of output on the disk that were not sent yet.
    pub(crate) fn set_pending_output(&self, bytes: u64) {
        self.pending_output.store(bytes, Relaxed);
    }

    /// A message of the operator was ignored. Returns how many were, this one included.
    pub(crate) fn count_ignored(&self) -> u64 {
        self.ignored.fetch_add(1, Relaxed) + 1
    }

    /// A message to the operator found the outgoing queue full and was dropped.
    pub(crate) fn count_dropped(&self) {
        let dropped = self.dropped.fetch_add(1, Relaxed) + 1;
        if dropped % LOG_EVERY_DROPPED == 1 {
            tracing::warn!(dropped, "send queue full; reports will be retried");
        }
    }

    /// Audit records were lost: the disk is full, or the directory cannot be used.
    pub(crate) fn count_unrecorded(&self, records: u64) {
        let before = self.unrecorded.fetch_add(records, Relaxed);
        let total = before + records;
        if before / LOG_EVERY_UNRECORDED < total / LOG_EVERY_UNRECORDED || before == 0 {
            tracing::error!(
                total,
                "audit records of this node could not be written; the chain will state how many are missing"
            );
        }
    }

    /// An audit record was left out: the operator asks too often for what this node refuses or does not have.
    pub(crate) fn count_omitted(&self) {
        let total = self.omitted.fetch_add(1, Relaxed) + 1;
        if total % LOG_EVERY_UNRECORDED == 1 {
            tracing::warn!(
                total,
                "audit records of requests that this node refuses are left out: the operator sends too many; the chain will state how many"
            );
        }
    }

    /// A part of the agent panicked and is run again.
    pub(crate) fn count_restart(&self, part: &'static str) {
        let restarts = self.restarts.fetch_add(1, Relaxed) + 1;
        tracing::error!(part, restarts, "a part of the agent panicked; it is run again");
    }

    /// A sample of the node, completed by what the agent knows of itself.
    pub(crate) fn complete(&self, node: NodeMetrics) -> NodeMetrics {
        NodeMetrics {
            running: u32::try_from(self.active.load(Relaxed)).unwrap_or(u32::MAX),
            unacknowledged: u32::try_from(self.unacknowledged.load(Relaxed)).unwrap_or(u32::MAX),
            running_limit: u32::try_from(self.limit.load(Relaxed)).unwrap_or(u32::MAX),
            spooled: self.pending_output.load(Relaxed),
            ..node
        }
    }
}
