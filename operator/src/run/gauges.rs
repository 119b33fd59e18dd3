//! Metrics of the components, computed at each scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::controller::{Counters, ReconcileError, RunStore};
use crate::history::HistoryError;
use crate::history::archive::{Archiver, ArchiverStatus};
use crate::metrics::{Kind, Registry};
use crate::presence::PresenceError;
use crate::presence::mirror::{MirrorStatus, PresenceMirror};

/// The components.
pub(super) struct Gauges {
    pub(super) archiver: Archiver,
    pub(super) mirror: PresenceMirror,
    pub(super) runs: RunStore,
    pub(super) counters: Arc<Counters>,
    /// Set once History has answered.
    pub(super) history_answered: Arc<AtomicBool>,
    /// Set once the presence store has answered at the start.
    pub(super) presence_answered: Arc<AtomicBool>,
}

impl Gauges {
    /// Publishes all of them.
    pub(super) fn publish(&self, metrics: &Registry) {
        self.archive(metrics);
        self.presence(metrics);
        self.controller(metrics);
    }

    fn controller(&self, metrics: &Registry) {
        let runs = self.runs.clone();
        let help = "Tasks whose Runs are kept in memory.";
        metrics.computed(Kind::Gauge, "sentinel_controller_ledgers", help, &[], move || runs.len() as f64);
        for (index, (what, _)) in self.counters.all().into_iter().enumerate() {
            let counters = self.counters.clone();
            metrics.computed(
                Kind::Counter,
                "sentinel_controller_events_total",
                "What the controller has done, by kind.",
                &[("kind", what)],
                move || counters.all().get(index).map_or(0.0, |(_, value)| *value as f64),
            );
        }
        for (category, retryable) in ReconcileError::CATEGORIES {
            let counters = self.counters.clone();
            metrics.computed(
                Kind::Counter,
                "sentinel_reconcile_errors_total",
                "Failed reconciles by the category of their error, and whether a retry alone may succeed.",
                &[("category", category), ("retryable", if retryable { "true" } else { "false" })],
                move || counters.errors(category) as f64,
            );
        }
    }

    fn archive(&self, metrics: &Registry) {
        let publish = |kind, name, help, value: fn(&ArchiverStatus) -> f64| {
            let archiver = self.archiver.clone();
            metrics.computed(kind, name, help, &[], move || value(&archiver.status()));
        };
        let up = "1 while History answers, 0 while it does not.";
        let (archiver, answered) = (self.archiver.clone(), self.history_answered.clone());
        metrics.computed(Kind::Gauge, "sentinel_history_up", up, &[], move || {
            f64::from(u8::from(answered.load(Ordering::Relaxed) && archiver.status().is_up))
        });
        let lag = "Seconds that the oldest queued record or output has waited for History.";
        publish(Kind::Gauge, "sentinel_history_lag_seconds", lag, |status| status.lag.as_secs_f64());
        let queued = "Records queued for History.";
        publish(Kind::Gauge, "sentinel_history_queued_records", queued, |status| {
            status.queued_records as f64
        });
        let queued = "Bytes of output queued for History.";
        publish(Kind::Gauge, "sentinel_history_queued_bytes", queued, |status| status.queued_bytes as f64);
        let stored = "Records stored in History.";
        publish(Kind::Counter, "sentinel_history_stored_records_total", stored, |status| {
            status.stored_records as f64
        });
        let stored = "Bytes of output stored in History.";
        publish(Kind::Counter, "sentinel_history_stored_bytes_total", stored, |status| {
            status.stored_bytes as f64
        });
        let packed = "Bytes of output stored in History, compressed.";
        publish(Kind::Counter, "sentinel_history_stored_packed_bytes_total", packed, |status| {
            status.stored_packed_bytes as f64
        });
        let failures = "Writes to History that failed and are retried, by category of the error.";
        for category in HistoryError::CATEGORIES {
            let archiver = self.archiver.clone();
            metrics.computed(
                Kind::Counter,
                "sentinel_history_failures_total",
                failures,
                &[("category", category)],
                move || archiver.status().failures.get(category).copied().unwrap_or(0) as f64,
            );
        }
        let refused = "Records and output refused because the queue was full; agents will resend them.";
        publish(Kind::Counter, "sentinel_history_refused_total", refused, |status| {
            (status.refused_records + status.refused_output) as f64
        });
        let rejected = "Records and output that History rejected for good.";
        publish(Kind::Counter, "sentinel_history_rejected_total", rejected, |status| status.rejected as f64);
    }

    fn presence(&self, metrics: &Registry) {
        let publish = |kind, name, help, value: fn(&MirrorStatus) -> f64| {
            let mirror = self.mirror.clone();
            metrics.computed(kind, name, help, &[], move || value(&mirror.status()));
        };
        let up = "1 while presence can be mirrored, 0 while it cannot.";
        let (mirror, answered) = (self.mirror.clone(), self.presence_answered.clone());
        metrics.computed(Kind::Gauge, "sentinel_presence_up", up, &[], move || {
            let status = mirror.status();
            let has_answered = answered.load(Ordering::Relaxed) || status.renewed > 0;
            f64::from(u8::from(has_answered && status.is_up))
        });
        let queued = "Nodes whose latest presence is queued for the mirror.";
        publish(Kind::Gauge, "sentinel_presence_queued", queued, |status| status.queued as f64);
        let renewed = "Presence records written.";
        publish(Kind::Counter, "sentinel_presence_renewed_total", renewed, |status| status.renewed as f64);
        let dropped =
            "Presence records never written: replaced by a newer one, expired, or the queue was full.";
        publish(Kind::Counter, "sentinel_presence_dropped_total", dropped, |status| status.dropped as f64);
        let failed = "Flushes of presence that failed, by category of the error.";
        for category in PresenceError::CATEGORIES {
            let mirror = self.mirror.clone();
            metrics.computed(
                Kind::Counter,
                "sentinel_presence_failed_total",
                failed,
                &[("category", category)],
                move || mirror.status().failures.get(category).copied().unwrap_or(0) as f64,
            );
        }
    }
}
