//! Presence in the memory of this process, for dev mode.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::time::UnixMillis;

use super::record::PresenceRecord;
use super::store::{Presence, PresenceFuture};
use crate::clock::Clock;

/// Presence that ends with the process. Bounded by the number of nodes that are renewed within one time to live.
#[derive(Debug, Default)]
pub struct MemoryPresence {
    clock: Clock,
    records: Mutex<BTreeMap<NodeName, (UnixMillis, PresenceRecord)>>,
}

impl MemoryPresence {
    /// Empty; expiry by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, records: Mutex::default() }
    }

    /// The records, after expired ones are removed.
    fn unexpired(&self) -> MutexGuard<'_, BTreeMap<NodeName, (UnixMillis, PresenceRecord)>> {
        let now = self.clock.now();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.retain(|_, (expires, _)| *expires > now);
        records
    }
}

impl Presence for MemoryPresence {
    fn renew(&self, records: Vec<PresenceRecord>, ttl: Duration) -> PresenceFuture<'_, ()> {
        let expires = self.clock.now().plus(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let renewed = records.into_iter().map(|record| (record.node.clone(), (expires, record)));
        self.unexpired().extend(renewed);
        std::future::ready(Ok(())).boxed()
    }

    fn list(&self) -> PresenceFuture<'_, Vec<PresenceRecord>> {
        let records = self.unexpired().values().map(|(_, record)| record.clone()).collect();
        std::future::ready(Ok(records)).boxed()
    }

    fn check(&self) -> PresenceFuture<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }
}
