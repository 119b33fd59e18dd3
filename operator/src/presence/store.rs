//! The interface of a Presence store.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::error::PresenceError;
use super::record::PresenceRecord;

/// The future that every method of [`Presence`] returns.
pub type PresenceFuture<'a, T> = BoxFuture<'a, Result<T, PresenceError>>;

/// Short-lived records of reachable agents.
pub trait Presence: Send + Sync + 'static {
    /// Writes the records; each expires after `ttl` unless it is renewed. `ttl` is at least one second.
    fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> PresenceFuture<'_, ()>;

    /// All records that have not expired, by node.
    fn list(&self) -> PresenceFuture<'_, Vec<PresenceRecord>>;

    /// Probes the store.
    fn check(&self) -> PresenceFuture<'_, ()>;
}
