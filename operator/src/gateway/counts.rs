//! What the gateway counts.

use crate::metrics::{Counter, Gauge, Histogram, Registry};

/// Something that only a broken or hostile agent does.
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

/// The gateway's metrics.
#[derive(Debug, Clone)]
pub struct GatewayMetrics {
    /// Sessions that stand.
    pub sessions: Gauge,
    /// Log sockets that are open.
    pub log_sockets: Gauge,
    /// Sessions begun.
    pub begun: Counter,
    /// Sessions that took the place of another.
    pub replaced: Counter,
    /// Sessions ended for silence.
    pub silent: Counter,
    /// Sessions ended because the agent did not read.
    pub not_reading: Counter,
    /// Sessions declined or ended for what the agent sent.
    pub malformed: Counter,
    /// Sessions declined for their protocol version.
    pub version: Counter,
    /// Sessions ended because their token was no longer accepted.
    pub expired: Counter,
    /// Messages of a kind that this build does not know.
    pub unknown: Counter,
    /// Heartbeats.
    pub heartbeats: Counter,
    /// Reports and Inventory entries.
    pub reports: Counter,
    /// `Start`s that agents declined.
    pub declined: Counter,
    /// Reports about another node than the token's.
    pub foreign: SecurityEvent,
    /// Reports that contradict what an Attempt was started for.
    pub conflicts: SecurityEvent,
    /// Reports about Attempts that no operator can have started.
    pub unstarted: SecurityEvent,
    /// Epochs that cannot have been led.
    pub epoch_jumps: SecurityEvent,
    /// Sockets closed because their agent opened more than it may have.
    pub too_many_sockets: SecurityEvent,
    /// Messages that were not finished in time.
    pub slow_messages: SecurityEvent,
    /// Ends of output beyond what `output.limit` allows.
    pub output_lies: SecurityEvent,
    /// Reports not kept because their agent owns too much that no Task asks for.
    pub dropped_reports: Counter,
    /// Output offered of Attempts that are not known.
    pub unknown_output: Counter,
    /// Ends whose output did not come, and was marked as missing.
    pub output_given_up: Counter,
    /// Reports that no ledger was open for.
    pub strays: Counter,
    /// Results not taken for archiving because too many waited; the agent says them again.
    pub not_archived: Counter,
    /// Acks sent.
    pub acks: Counter,
    /// Time from handing a `Start` to a Session until it was written to the socket.
    pub dispatch: Histogram,
    /// Log records taken.
    pub records: Counter,
    /// Bytes of output taken.
    pub log_bytes: Counter,
    /// Log records that were there before.
    pub repeated: Counter,
    /// Log sockets closed because something was missing before a record.
    pub gaps: Counter,
    /// Log sockets closed because there was no room for a record for too long.
    pub no_room: Counter,
    refused: [(&'static str, Counter); 7],
}

impl GatewayMetrics {
    /// Under their names in the registry.
    pub fn new(registry: &Registry) -> Self {
        const ENDED: &str = "Sessions declined or ended by the gateway, by reason.";
        const REFUSED: &str = "Connections of agents refused before a Session, by reason.";
        let ended = |reason| {
            registry.counter_with("sentinel_gateway_sessions_ended_total", ENDED, &[("reason", reason)])
        };
        let refused = |reason| {
            (reason, registry.counter_with("sentinel_gateway_refused_total", REFUSED, &[("reason", reason)]))
        };
        let security = |kind| {
            let help = "Things that only a broken or hostile agent does.";
            let counter =
                registry.counter_with("sentinel_gateway_security_events_total", help, &[("kind", kind)]);
            SecurityEvent(counter)
        };
        Self {
            sessions: registry.gauge("sentinel_gateway_sessions", "Sessions of agents that stand."),
            log_sockets: registry
                .gauge("sentinel_gateway_log_sockets", "Log sockets of agents that are open."),
            begun: registry.counter("sentinel_gateway_sessions_begun_total", "Sessions of agents begun."),
            replaced: ended("Replaced"),
            silent: ended("Silent"),
            not_reading: ended("NotReading"),
            malformed: ended("Malformed"),
            version: ended("Version"),
            expired: ended("Unauthenticated"),
            unknown: registry.counter(
                "sentinel_gateway_unknown_messages_total",
                "Messages of a kind that this release does not know, ignored.",
            ),
            heartbeats: registry.counter("sentinel_gateway_heartbeats_total", "Heartbeats heard."),
            reports: registry
                .counter("sentinel_gateway_reports_total", "Reports and Inventory entries heard."),
            declined: registry.counter("sentinel_gateway_declined_total", "Starts that agents declined."),
            foreign: security("ForeignReport"),
            conflicts: security("SpecHashConflict"),
            unstarted: security("UnstartedAttempt"),
            epoch_jumps: security("EpochJump"),
            too_many_sockets: security("TooManySockets"),
            slow_messages: security("SlowMessage"),
            output_lies: security("OutputBeyondLimit"),
            dropped_reports: registry.counter(
                "sentinel_gateway_reports_dropped_total",
                "Reports not kept because their agent owns too much that no Task asks for; agents say them again.",
            ),
            unknown_output: registry.counter(
                "sentinel_gateway_unknown_output_total",
                "Offers of output, and records of it, of Attempts that are not known.",
            ),
            output_given_up: registry.counter(
                "sentinel_gateway_output_given_up_total",
                "Ends whose output did not come in time and was archived as missing.",
            ),
            strays: registry.counter(
                "sentinel_gateway_stray_reports_total",
                "Reports about Attempts of Runs that nobody keeps a ledger of.",
            ),
            not_archived: registry.counter(
                "sentinel_gateway_results_not_taken_total",
                "Results not taken for archiving because too many waited; agents say them again.",
            ),
            acks: registry.counter("sentinel_gateway_acks_total", "Acks handed to Sessions."),
            dispatch: registry.histogram_with(
                "sentinel_gateway_dispatch_seconds",
                "Time from handing a message to a Session until it was written to the socket.",
                &[],
            ),
            records: registry.counter("sentinel_logs_records_total", "Log records taken from agents."),
            log_bytes: registry.counter("sentinel_logs_bytes_total", "Bytes of output taken from agents."),
            repeated: registry.counter("sentinel_logs_repeated_total", "Log records that were there before."),
            gaps: registry.counter(
                "sentinel_logs_gaps_total",
                "Log sockets closed because something was missing before a record; the agent sends it again.",
            ),
            no_room: registry.counter(
                "sentinel_logs_no_room_total",
                "Log sockets closed because memory was short for too long; the agent keeps the output.",
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
