//! Numbers that others keep, asked for at each scrape.

use std::time::Duration;

use super::registry::{Counter, Kind, Registry};
use crate::controller::Moments;
use crate::gateway;
use crate::history::archive::{Archiver, ArchiverStatus};
use crate::presence::mirror::{MirrorStatus, PresenceMirror};

/// How the archive keeps up.
pub fn archive(metrics: &Registry, archiver: &Archiver) {
    type Value = fn(&ArchiverStatus) -> f64;
    let add = |kind, name, help, value: Value| {
        let archiver = archiver.clone();
        metrics.computed(kind, name, help, &[], move || value(&archiver.status()));
    };
    add(Kind::Gauge, "sentinel_archive_up", "1 while writes to History succeed.", |s| {
        f64::from(u8::from(s.is_up))
    });
    add(Kind::Gauge, "sentinel_archive_lag_seconds", "How long the oldest thing waits for History.", |s| {
        s.lag.as_secs_f64()
    });
    add(Kind::Gauge, "sentinel_archive_queued_records", "Records that wait for History.", |s| {
        s.queued_entries as f64
    });
    add(Kind::Gauge, "sentinel_archive_queued_bytes", "Bytes of output that wait for History.", |s| {
        s.queued_bytes as f64
    });
    add(Kind::Counter, "sentinel_archive_stored_records_total", "Records stored.", |s| {
        s.stored_entries as f64
    });
    add(Kind::Counter, "sentinel_archive_stored_bytes_total", "Bytes of output stored.", |s| {
        s.stored_bytes as f64
    });
    add(Kind::Counter, "sentinel_archive_packed_bytes_total", "The same after compression.", |s| {
        s.stored_packed_bytes as f64
    });
    add(
        Kind::Counter,
        "sentinel_archive_refused_records_total",
        "Records refused because too many waited.",
        |s| s.refused_entries as f64,
    );
    add(
        Kind::Counter,
        "sentinel_archive_refused_output_total",
        "Output refused because too much waited.",
        |s| s.refused_output as f64,
    );
    add(Kind::Counter, "sentinel_archive_rejected_total", "Things that History will never take.", |s| {
        s.rejected as f64
    });
    add(Kind::Counter, "sentinel_archive_failures_total", "Writes that failed and are tried again.", |s| {
        s.failures as f64
    });
}

/// How the mirror of Presence does.
pub fn presence(metrics: &Registry, mirror: &PresenceMirror) {
    type Value = fn(&MirrorStatus) -> f64;
    let add = |kind, name, help, value: Value| {
        let mirror = mirror.clone();
        metrics.computed(kind, name, help, &[], move || value(&mirror.status()));
    };
    add(Kind::Gauge, "sentinel_presence_up", "1 while writes to the Presence store succeed.", |s| {
        f64::from(u8::from(s.is_up))
    });
    add(Kind::Gauge, "sentinel_presence_queued", "Nodes whose word waits.", |s| s.queued as f64);
    add(Kind::Counter, "sentinel_presence_renewed_total", "Records written.", |s| s.renewed as f64);
    add(Kind::Counter, "sentinel_presence_dropped_total", "Records that were never written.", |s| {
        s.dropped as f64
    });
    add(Kind::Counter, "sentinel_presence_failures_total", "Flushes that failed.", |s| s.failed as f64);
}

/// How many agents can be reached: heard of within `dead_after`, over a Session that stands.
pub fn agents(metrics: &Registry, registry: &gateway::Registry, moments: &Moments, dead_after: Duration) {
    let (known, reachable) = (registry.clone(), registry.clone());
    let moments = moments.clone();
    let dead_after = dead_after.as_millis() as u64;
    metrics.computed(
        Kind::Gauge,
        "sentinel_nodes_known",
        "Nodes whose agent was heard of.",
        &[],
        move || known.count(|_, _| true) as f64,
    );
    metrics.computed(
        Kind::Gauge,
        "sentinel_nodes_reachable",
        "Nodes whose agent is reachable.",
        &[],
        move || {
            let now = moments.moment();
            let is_near =
                |stands, heard: Option<_>| stands && heard.is_some_and(|at| now.since(at) <= dead_after);
            reachable.count(is_near) as f64
        },
    );
}

/// Answers of an HTTP listener by their class.
#[derive(Debug, Clone)]
pub struct Answers([Counter; 5]);

impl Answers {
    /// Under the name of the listener.
    pub fn new(metrics: &Registry, listener: &'static str) -> Self {
        const HELP: &str = "Answers to HTTP requests, by class of status.";
        let class = |code| {
            metrics.counter_with(
                "sentinel_http_answers_total",
                HELP,
                &[("listener", listener), ("code", code)],
            )
        };
        Self(["1xx", "2xx", "3xx", "4xx", "5xx"].map(class))
    }

    /// An answer went out.
    pub fn count(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.0[class].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let metrics = Registry::new();
        let answers = Answers::new(&metrics, "api");
        for code in [200, 201, 404, 503] {
            answers.count(http::StatusCode::from_u16(code).unwrap());
        }
        let text = metrics.render();
        for line in ["code=\"2xx\"} 2", "code=\"4xx\"} 1", "code=\"5xx\"} 1", "code=\"3xx\"} 0"] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
