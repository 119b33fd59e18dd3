//! The controller's counters.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ReconcileError;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What the controller has done since the start, for metrics.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)+
            errors: [AtomicU64; ReconcileError::CATEGORIES.len()],
        }

        impl Counters {
            /// Names and values, as they are now.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)+]
            }
        }
    };
}

counters! {
    /// Passes over a Task: a reconcile may make several in a row.
    reconciles,
    /// Reconciles that failed.
    failed_reconciles,
    /// Reconciles that panicked.
    panicked_reconciles,
    /// Background tasks that panicked.
    panicked_tasks,
    /// Statuses written.
    status_writes,
    /// Writes refused because the Task had changed meanwhile.
    conflicts,
    /// Runs begun.
    runs_begun,
    /// Runs ended.
    runs_ended,
    /// `Start` messages queued for Sessions.
    starts,
    /// Attempts that follow one that ended.
    retries,
    /// `Cancel` messages queued for Sessions.
    cancels,
    /// `Forget` messages queued for Sessions.
    forgets,
    /// Messages without a Session, or with a full send queue.
    undelivered,
    /// Records that the archiver had no room for.
    unarchived,
    /// Cluster events dropped because too many were in flight, or published shortly before.
    dropped_events,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed reconcile by the category of its error.
    pub(super) fn failed(&self, error: &ReconcileError) {
        Self::add(&self.failed_reconciles);
        let category = error.category();
        let known = ReconcileError::CATEGORIES.iter().position(|(name, _)| *name == category);
        if let Some(counter) = known.and_then(|index| self.errors.get(index)) {
            Self::add(counter);
        }
    }

    /// Failed reconciles whose error has this category.
    pub fn errors(&self, category: &str) -> u64 {
        let known = ReconcileError::CATEGORIES.iter().position(|(name, _)| *name == category);
        known.and_then(|index| self.errors.get(index)).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
