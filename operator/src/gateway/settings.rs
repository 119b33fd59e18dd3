//! The timeouts of the gateway.

use std::time::Duration;

use sentinel_protocol::limits::{DEAD_AFTER_MS, HEARTBEAT_MS, HELLO_WITHIN_MS};

/// The timeouts of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Interval of heartbeats, and of pings in the other direction.
    pub heartbeat: Duration,
    /// Silence after which a connection is dead.
    pub dead_after: Duration,
    /// Time for the first message.
    pub hello_within: Duration,
    /// Interval at which the token of a Session is reviewed again, give or take a quarter.
    pub review_every: Duration,
    /// How long a log socket may wait for memory before it is closed.
    pub room_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(HEARTBEAT_MS),
            dead_after: Duration::from_millis(DEAD_AFTER_MS),
            hello_within: Duration::from_millis(HELLO_WITHIN_MS),
            // With its quarter, and a review that is cached for some seconds, within the minute that docs/security.md promises.
            review_every: Duration::from_secs(40),
            room_within: Duration::from_secs(5),
        }
    }
}
