//! The metrics of the gateway, by part.

use std::time::Duration;

use super::registry::Registry;
use super::socket::SocketEnd;
use crate::clock::Clock;
use crate::metrics::{Counter, Gauge, Histogram, Kind, Registry as MetricsRegistry};

/// An event that only a faulty or hostile agent causes.
#[derive(Debug, Clone)]
pub struct SecurityEvent(Counter);

impl SecurityEvent {
    /// Counts it. `log` is called for the first, second, fourth, eighth … of them, with their number: an agent that
    /// repeats itself must not fill the log.
    pub fn note(&self, log: impl FnOnce(u64)) {
        self.0.add(1);
        let count = self.0.get();
        if count.is_power_of_two() {
            log(count);
        }
    }
}

/// The metrics of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayMetrics {
    /// Sessions.
    pub sessions: SessionMetrics,
    /// Events that only a faulty or hostile agent causes.
    pub security: SecurityMetrics,
    /// Reports and results.
    pub results: ResultMetrics,
    /// Log sockets.
    pub output: OutputMetrics,
    /// Messages of an unknown kind.
    pub unknown_messages: Counter,
    /// Heartbeats.
    pub heartbeats: Counter,
    /// Time from queueing a message for a Session until it was written to the socket.
    pub dispatch: Histogram,
    /// Tasks of sockets that panicked.
    pub socket_panics: Counter,
    refused: [(&'static str, Counter); 7],
}

/// Metrics of Sessions.
#[derive(Debug, Clone)]
pub struct SessionMetrics {
    /// Current Sessions.
    pub active: Gauge,
    /// Sessions begun.
    pub begun: Counter,
    ended: [(&'static str, Counter); 6],
}

/// Events that only a faulty or hostile agent causes.
#[derive(Debug, Clone)]
pub struct SecurityMetrics {
    /// Reports about another node than the token's.
    pub foreign_report: SecurityEvent,
    /// Reports for another spec than the Attempt was started for.
    pub spec_hash_conflict: SecurityEvent,
    /// Reports about Attempts that no operator can have started.
    pub unstarted_attempt: SecurityEvent,
    /// Epochs that no leader can have had.
    pub epoch_jump: SecurityEvent,
    /// Sockets closed because their agent opened more than it may.
    pub too_many_sockets: SecurityEvent,
    /// Messages that were not completed in time.
    pub slow_message: SecurityEvent,
    /// Ends of output beyond what `output.limit` allows.
    pub output_beyond_limit: SecurityEvent,
}

/// Metrics of Reports and results.
#[derive(Debug, Clone)]
pub struct ResultMetrics {
    /// Reports and Inventory entries.
    pub reports: Counter,
    /// `Start`s that agents declined.
    pub declined: Counter,
    /// Reports dropped because their agent owns too many Attempts of deleted Tasks.
    pub dropped: Counter,
    /// Reports of a Run without a ledger.
    pub orphaned: Counter,
    /// Results not queued for archiving because the queue was full.
    pub not_archived: Counter,
    /// Results whose output did not arrive and was archived as missing.
    pub output_given_up: Counter,
    /// Acks sent.
    pub acks: Counter,
}

/// Metrics of log sockets.
#[derive(Debug, Clone)]
pub struct OutputMetrics {
    /// Open log sockets.
    pub sockets: Gauge,
    /// Records accepted.
    pub records: Counter,
    /// Bytes accepted.
    pub bytes: Counter,
    /// Records received before.
    pub repeated: Counter,
    /// Log sockets closed because a record did not follow the previous one.
    pub gaps: Counter,
    /// Log sockets closed because memory was short for too long.
    pub no_room: Counter,
    /// Offers and records of output of unknown Attempts.
    pub unknown: Counter,
}

impl GatewayMetrics {
    /// The metrics, registered under their names.
    pub fn new(registry: &MetricsRegistry) -> Self {
        let refused = |reason| {
            let help = "Connections of agents refused before a Session, by reason.";
            let counter =
                registry.counter_with("sentinel_gateway_refused_total", help, &[("reason", reason)]);
            (reason, counter)
        };
        Self {
            sessions: SessionMetrics::new(registry),
            security: SecurityMetrics::new(registry),
            results: ResultMetrics::new(registry),
            output: OutputMetrics::new(registry),
            unknown_messages: registry.counter(
                "sentinel_gateway_unknown_messages_total",
                "Messages of a kind that this release does not know, ignored.",
            ),
            heartbeats: registry.counter("sentinel_gateway_heartbeats_total", "Heartbeats received."),
            dispatch: registry.histogram_with(
                "sentinel_gateway_dispatch_seconds",
                "Time from queueing a message for a Session until it was written to the socket.",
                &[],
            ),
            socket_panics: registry.counter(
                "sentinel_gateway_socket_panics_total",
                "Sockets of agents closed because their task panicked.",
            ),
            refused: [
                "Missing",
                "Malformed",
                "Invalid",
                "NotAnAgent",
                "Unavailable",
                "NotAWebSocket",
                "TooManyRequests",
            ]
            .map(refused),
        }
    }

    /// The counter of connections refused for this reason.
    pub fn refused(&self, reason: &str) -> &Counter {
        let found = self.refused.iter().find(|(known, _)| *known == reason);
        &found.unwrap_or(&self.refused[2]).1
    }
}

impl SessionMetrics {
    fn new(registry: &MetricsRegistry) -> Self {
        let ended = |reason| {
            let help = "Sessions declined or ended by the gateway, by reason.";
            let counter =
                registry.counter_with("sentinel_gateway_sessions_ended_total", help, &[("reason", reason)]);
            (reason, counter)
        };
        Self {
            active: registry.gauge("sentinel_gateway_sessions", "Current Sessions of agents."),
            begun: registry.counter("sentinel_gateway_sessions_begun_total", "Sessions of agents begun."),
            ended: ["Replaced", "Silent", "NotReading", "Malformed", "Version", "Unauthenticated"].map(ended),
        }
    }

    /// Counts the end of a Session, unless the agent ended it or this operator does not lead.
    pub(super) fn count_end(&self, end: &SocketEnd) {
        let reason = end.category();
        if let Some((_, counter)) = self.ended.iter().find(|(known, _)| *known == reason) {
            counter.add(1);
        }
    }
}

impl SecurityMetrics {
    fn new(registry: &MetricsRegistry) -> Self {
        let event = |kind| {
            let help = "Events that only a faulty or hostile agent causes, by kind.";
            let name = "sentinel_gateway_security_events_total";
            SecurityEvent(registry.counter_with(name, help, &[("kind", kind)]))
        };
        Self {
            foreign_report: event("ForeignReport"),
            spec_hash_conflict: event("SpecHashConflict"),
            unstarted_attempt: event("UnstartedAttempt"),
            epoch_jump: event("EpochJump"),
            too_many_sockets: event("TooManySockets"),
            slow_message: event("SlowMessage"),
            output_beyond_limit: event("OutputBeyondLimit"),
        }
    }
}

impl ResultMetrics {
    fn new(registry: &MetricsRegistry) -> Self {
        Self {
            reports: registry
                .counter("sentinel_gateway_reports_total", "Reports and Inventory entries received."),
            declined: registry.counter("sentinel_gateway_declined_total", "Starts that agents declined."),
            dropped: registry.counter(
                "sentinel_gateway_reports_dropped_total",
                "Reports dropped because their agent owns too many Attempts of deleted Tasks; agents resend them.",
            ),
            orphaned: registry.counter(
                "sentinel_gateway_stray_reports_total",
                "Reports about Attempts of Runs without a ledger.",
            ),
            not_archived: registry.counter(
                "sentinel_gateway_results_not_taken_total",
                "Results not queued for archiving because the queue was full; agents resend them.",
            ),
            output_given_up: registry.counter(
                "sentinel_gateway_output_given_up_total",
                "Results whose output did not arrive in time and was archived as missing.",
            ),
            acks: registry.counter("sentinel_gateway_acks_total", "Acks queued for Sessions."),
        }
    }
}

impl OutputMetrics {
    fn new(registry: &MetricsRegistry) -> Self {
        Self {
            sockets: registry.gauge("sentinel_gateway_log_sockets", "Open log sockets of agents."),
            records: registry.counter("sentinel_logs_records_total", "Log records accepted from agents."),
            bytes: registry.counter("sentinel_logs_bytes_total", "Bytes of output accepted from agents."),
            repeated: registry.counter("sentinel_logs_repeated_total", "Log records received before."),
            gaps: registry.counter(
                "sentinel_logs_gaps_total",
                "Log sockets closed because a record did not follow the previous one; the agent resends.",
            ),
            no_room: registry.counter(
                "sentinel_logs_no_room_total",
                "Log sockets closed because memory was short for too long; the agent keeps the output.",
            ),
            unknown: registry.counter(
                "sentinel_gateway_unknown_output_total",
                "Offers and records of output of unknown Attempts.",
            ),
        }
    }
}

/// Publishes how many nodes are known, and how many are reachable: seen within `dead_after`, with a current Session.
pub fn publish_node_gauges(
    metrics: &MetricsRegistry,
    registry: &Registry,
    clock: &Clock,
    dead_after: Duration,
) {
    let (known, reachable) = (registry.clone(), registry.clone());
    let clock = clock.clone();
    let dead_after = dead_after.as_millis() as u64;
    let help = "Nodes whose agent has connected, until the Node is deleted and no Run needs it.";
    metrics.computed(Kind::Gauge, "sentinel_nodes_known", help, &[], move || known.len() as f64);
    let help = "Nodes whose agent is reachable.";
    metrics.computed(Kind::Gauge, "sentinel_nodes_reachable", help, &[], move || {
        let now = clock.monotonic();
        reachable.count_reachable(|seen| now.since(seen) <= dead_after) as f64
    });
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::{Epoch, NodeName, SessionId};
    use sentinel_protocol::to_operator::Hello;

    use super::*;
    use crate::clock::Clock;

    fn hello() -> Hello {
        Hello {
            versions: vec![],
            agent_version: "0.1.0".into(),
            boot_id: "boot".into(),
            state_id: "state".into(),
            highest_epoch: Epoch::default(),
            environments: vec![],
            os: "linux".into(),
            arch: "x86_64".into(),
            kernel: "6.1.0".into(),
        }
    }

    #[test]
    fn the_registry_and_its_gauge_stay_small_while_thousands_of_nodes_come_and_go() {
        const AT_A_TIME: usize = 500;
        let (metrics, registry) = (MetricsRegistry::new(), Registry::new());
        let clock = Clock::system();
        publish_node_gauges(&metrics, &registry, &clock, Duration::from_secs(15));
        let has_line = |line: String| metrics.render().lines().any(|rendered| rendered == line);
        for generation in 0..20 {
            let nodes: Vec<NodeName> =
                (0..AT_A_TIME).map(|n| NodeName::new(format!("n-{generation}-{n}")).unwrap()).collect();
            let session = SessionId::new(format!("s-{generation}")).unwrap();
            for node in &nodes {
                registry.begin(node, session.clone(), hello(), clock.reading());
            }
            // The agents of the previous generation are disconnected, and its Nodes deleted.
            registry.remove_departed(|node, _| !nodes.contains(node));
            assert!(has_line(format!("sentinel_nodes_known {AT_A_TIME}")), "{}", metrics.render());
            assert!(has_line(format!("sentinel_nodes_reachable {AT_A_TIME}")), "{}", metrics.render());
            for node in &nodes {
                assert!(registry.end(node, &session));
            }
        }
        assert_eq!(registry.remove_departed(|_, _| true), AT_A_TIME);
        assert!(registry.is_empty() && has_line("sentinel_nodes_known 0".to_owned()));
    }
}
