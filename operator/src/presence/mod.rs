//! Which agents can be reached, for others to read.
//!
//! [`Presence`] is a mirror: the gateway's registry knows which agents are heard of and every decision reads that.
//! What is written here is for people and programs outside, so losing it changes nothing but what they can see. Two
//! versions behind one contract suite (`tests/presence_contract.rs`): [`memory::MemoryPresence`] and
//! [`redis::RedisPresence`]. Callers hand their records to [`mirror::PresenceMirror`], which never makes them wait.

pub mod error;
pub mod memory;
pub mod mirror;
pub mod record;
pub mod redis;

use std::time::Duration;

use futures_util::future::BoxFuture;
use sentinel_protocol::ids::NodeName;

pub use self::error::PresenceError;
pub use self::record::PresenceRecord;

/// What a Presence answers with, some time later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, PresenceError>>;

/// Short-lived records of reachable agents.
pub trait Presence: Send + Sync + 'static {
    /// Writes the records, each to be gone `ttl` from now unless it is renewed. `ttl` is at least one second.
    fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> Answer<'_, ()>;

    /// Removes the records of these nodes; those that have none are no error.
    fn withdraw(&self, nodes: Vec<NodeName>) -> Answer<'_, ()>;

    /// All records that have not expired, by node.
    fn list(&self) -> Answer<'_, Vec<PresenceRecord>>;

    /// Asks the store whether it would answer.
    fn check(&self) -> Answer<'_, ()>;
}
