//! The few numbers that one part of the agent says and another shows. Counters and gauges only; nothing is decided
//! by them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sentinel_protocol::ids::Epoch;
use sentinel_protocol::metrics::NodeMetrics;

/// The numbers.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    highest_epoch: AtomicU64,
    living: AtomicU64,
    limit: AtomicU64,
    unacknowledged: AtomicU64,
    waiting: AtomicU64,
    ignored: AtomicU64,
    unsent: AtomicU64,
}

impl Vitals {
    pub(crate) fn highest_epoch(&self) -> Epoch {
        Epoch::new(self.highest_epoch.load(Relaxed)).unwrap_or(Epoch::MAX)
    }

    pub(crate) fn set_highest_epoch(&self, epoch: Epoch) {
        self.highest_epoch.store(epoch.get(), Relaxed);
    }

    /// How many Attempts may live at once.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(u64::from(limit), Relaxed);
    }

    pub(crate) fn set_counts(&self, living: usize, unacknowledged: usize) {
        self.living.store(living as u64, Relaxed);
        self.unacknowledged.store(unacknowledged as u64, Relaxed);
    }

    /// Bytes of output that wait on the disk.
    pub(crate) fn set_waiting(&self, bytes: u64) {
        self.waiting.store(bytes, Relaxed);
    }

    /// A message of the operator was ignored.
    pub(crate) fn count_ignored(&self) {
        self.ignored.fetch_add(1, Relaxed);
    }

    /// A message to the operator found its queue full.
    pub(crate) fn count_unsent(&self) {
        if self.unsent.fetch_add(1, Relaxed).is_multiple_of(1000) {
            tracing::warn!("the operator takes messages too slowly; reports wait for their repetition");
        }
    }

    /// A sample of the node, completed by what the agent knows of itself.
    pub(crate) fn complete(&self, node: NodeMetrics) -> NodeMetrics {
        NodeMetrics {
            running: u32::try_from(self.living.load(Relaxed)).unwrap_or(u32::MAX),
            unacknowledged: u32::try_from(self.unacknowledged.load(Relaxed)).unwrap_or(u32::MAX),
            running_limit: u32::try_from(self.limit.load(Relaxed)).unwrap_or(u32::MAX),
            spooled: self.waiting.load(Relaxed),
            ..node
        }
    }
}
