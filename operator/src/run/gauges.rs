//! What the parts say about themselves, asked at each scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::controller::{Counters, Ledgers};
use crate::history::archive::{Archiver, ArchiverStatus};
use crate::metrics::{Kind, Registry};
use crate::presence::mirror::{MirrorStatus, PresenceMirror};

/// Whom to ask.
pub(super) struct Gauges {
    pub(super) archiver: Archiver,
    pub(super) mirror: PresenceMirror,
    pub(super) ledgers: Ledgers,
    pub(super) counters: Arc<Counters>,
    /// Set when History has answered for the first time.
    pub(super) history_answered: Arc<AtomicBool>,
    /// Set when the presence store has answered at the start.
    pub(super) presence_answered: Arc<AtomicBool>,
}

impl Gauges {
    /// Makes all of it part of the metrics.
    pub(super) fn publish(&self, metrics: &Registry) {
        self.archive(metrics);
        self.presence(metrics);
        let ledgers = self.ledgers.clone();
        metrics.computed(
            Kind::Gauge,
            "sentinel_controller_ledgers",
            "Tasks whose Runs are kept in memory.",
            &[],
            move || ledgers.len() as f64,
        );
        for (index, (what, _)) in self.counters.all().into_iter().enumerate() {
            let counters = self.counters.clone();
            metrics.computed(
                Kind::Counter,
                "sentinel_controller_events_total",
                "What the controller did, by kind.",
                &[("kind", what)],
                move || counters.all().get(index).map_or(0.0, |(_, value)| *value as f64),
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
        let lag = "Seconds for which the oldest record or output has waited for History.";
        publish(Kind::Gauge, "sentinel_history_lag_seconds", lag, |status| status.lag.as_secs_f64());
        let queued = "Records that wait for History.";
        publish(Kind::Gauge, "sentinel_history_queued_records", queued, |status| {
            status.queued_entries as f64
        });
        let queued = "Bytes of output that wait for History.";
        publish(Kind::Gauge, "sentinel_history_queued_bytes", queued, |status| status.queued_bytes as f64);
        let stored = "Records that History took.";
        publish(Kind::Counter, "sentinel_history_stored_records_total", stored, |status| {
            status.stored_entries as f64
        });
        let stored = "Bytes of output that History took.";
        publish(Kind::Counter, "sentinel_history_stored_bytes_total", stored, |status| {
            status.stored_bytes as f64
        });
        let packed = "The same, compressed.";
        publish(Kind::Counter, "sentinel_history_stored_packed_bytes_total", packed, |status| {
            status.stored_packed_bytes as f64
        });
        let failures = "Writes that History did not take and that are tried again.";
        publish(Kind::Counter, "sentinel_history_failures_total", failures, |status| status.failures as f64);
        let refused = "Records and output not taken for want of room; they are said again by the agents.";
        publish(Kind::Counter, "sentinel_history_refused_total", refused, |status| {
            (status.refused_entries + status.refused_output) as f64
        });
        let rejected = "Records and output that History will never take.";
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
        let queued = "Nodes whose latest word waits to be mirrored.";
        publish(Kind::Gauge, "sentinel_presence_queued", queued, |status| status.queued as f64);
        let renewed = "Presence records written.";
        publish(Kind::Counter, "sentinel_presence_renewed_total", renewed, |status| status.renewed as f64);
        let dropped = "Presence records never written: a newer one came, they expired, or too many waited.";
        publish(Kind::Counter, "sentinel_presence_dropped_total", dropped, |status| status.dropped as f64);
        let failed = "Flushes of presence that failed.";
        publish(Kind::Counter, "sentinel_presence_failed_total", failed, |status| status.failed as f64);
    }
}
