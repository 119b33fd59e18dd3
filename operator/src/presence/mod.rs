//! Which agents are reachable, for readers outside of the operator.
//!
//! [`Presence`] is a mirror: the gateway's registry knows which agents are connected, and every decision reads that. So
//! losing Presence changes nothing but what outsiders can read. Two implementations share one contract suite
//! (`tests/presence_contract.rs`): [`memory::MemoryPresence`] and [`redis::RedisPresence`]. Callers hand their records
//! to [`mirror::PresenceMirror`], which never blocks them.

pub mod error;
pub mod memory;
pub mod mirror;
pub mod record;
#[cfg(feature = "drivers")]
pub mod redis;
pub mod store;

pub use self::error::PresenceError;
pub use self::record::PresenceRecord;
pub use self::store::{Presence, PresenceFuture};
