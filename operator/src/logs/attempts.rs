//! What a reader of logs asks of the connected agents.

use sentinel_protocol::ids::AttemptId;

/// The Attempts that connected agents own.
pub trait ReportedAttempts: Send + Sync + 'static {
    /// Position behind the last byte of the Attempt's log, once its connected agent has reported that it ended.
    fn log_end(&self, attempt: &AttemptId) -> Option<u64>;

    /// Whether the node's agent is connected, has sent all of its Inventory, and does not own this Attempt.
    fn is_released(&self, attempt: &AttemptId) -> bool;
}
