//! Connections whose client has not authenticated yet: a pool of their own, with a bound per address.
//!
//! Without it, strangers that send nothing, or little, would occupy the slots of authenticated clients. A connection
//! leaves the pool when its client authenticates ([`UnauthenticatedSlot::release`]) or when it closes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::network;

/// The pool. Cloning it gives the same pool.
#[derive(Debug, Clone)]
pub(super) struct UnauthenticatedPool {
    slots: Arc<Semaphore>,
    per_address: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A slot in the pool, until it is released or dropped.
#[derive(Debug)]
pub struct UnauthenticatedSlot(Mutex<Option<AddressSlot>>);

#[derive(Debug)]
struct AddressSlot {
    address: IpAddr,
    pool: UnauthenticatedPool,
    _permit: OwnedSemaphorePermit,
}

impl UnauthenticatedPool {
    pub(super) fn new(slots: usize, per_address: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)), per_address, addresses: Arc::default() }
    }

    /// A permit for one connection; waits while all are taken. Cancel-safe.
    pub(super) async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Assigns the permit to a connection from `address`; `None` when that address is at its limit.
    pub(super) fn assign(
        &self,
        permit: OwnedSemaphorePermit,
        address: IpAddr,
    ) -> Option<UnauthenticatedSlot> {
        let address = network(address);
        let mut addresses = self.addresses();
        let count = addresses.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        drop(addresses);
        let slot = AddressSlot { address, pool: self.clone(), _permit: permit };
        Some(UnauthenticatedSlot(Mutex::new(Some(slot))))
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnauthenticatedSlot {
    /// The client has authenticated: the slot is free for another connection.
    pub fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut addresses = self.pool.addresses();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connect(pool: &UnauthenticatedPool, address: &str) -> Option<UnauthenticatedSlot> {
        let permit = pool.acquire().await.unwrap();
        pool.assign(permit, address.parse().unwrap())
    }

    #[tokio::test]
    async fn bounds_each_address_and_frees_released_slots() {
        let pool = UnauthenticatedPool::new(3, 2);
        let first = connect(&pool, "10.0.0.1").await.unwrap();
        let _second = connect(&pool, "10.0.0.1").await.unwrap();
        assert!(connect(&pool, "10.0.0.1").await.is_none());
        let other = connect(&pool, "10.0.0.2").await.unwrap();
        assert_eq!(pool.slots.available_permits(), 0);
        first.release();
        assert!(connect(&pool, "10.0.0.1").await.is_some());
        drop(other);
        assert!(
            !pool.addresses().contains_key(&"10.0.0.2".parse().unwrap()),
            "an address without slots is still in the map"
        );
    }
}
