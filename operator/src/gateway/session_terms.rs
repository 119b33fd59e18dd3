//! What a Session starts with: the operator's epoch, and the credit of a new Attempt's output.

use std::sync::atomic::{AtomicU64, Ordering};

use sentinel_core::lease;
use sentinel_protocol::ids::Epoch;

/// See the module.
#[derive(Debug)]
pub(super) struct SessionTerms {
    epoch: AtomicU64,
    highest_epoch: AtomicU64,
    initial_credit: AtomicU64,
}

impl Default for SessionTerms {
    fn default() -> Self {
        Self { epoch: AtomicU64::new(1), highest_epoch: AtomicU64::new(0), initial_credit: AtomicU64::new(0) }
    }
}

impl SessionTerms {
    pub(super) fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.load(Ordering::Relaxed)).unwrap_or(Epoch::MAX)
    }

    pub(super) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.get(), Ordering::Relaxed);
    }

    pub(super) fn highest_epoch(&self) -> Epoch {
        Epoch::new(self.highest_epoch.load(Ordering::Relaxed)).unwrap_or(Epoch::MAX)
    }

    /// Takes in an epoch that an agent reports; `false`, and no change, when no leader can have had it.
    pub(super) fn observe_epoch(&self, epoch: Epoch) -> bool {
        let is_credible = lease::is_credible(epoch, self.epoch());
        if is_credible {
            self.highest_epoch.fetch_max(epoch.get(), Ordering::Relaxed);
        }
        is_credible
    }

    pub(super) fn initial_credit(&self) -> u64 {
        self.initial_credit.load(Ordering::Relaxed)
    }

    pub(super) fn set_initial_credit(&self, credit: u64) {
        self.initial_credit.store(credit, Ordering::Relaxed);
    }
}
