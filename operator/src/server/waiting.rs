//! Connections whose other end has not proved who it is yet: a pool of their own, and a bound for each address.
//!
//! Without it strangers that say nothing, or little, take the places of those who may be here. Who has proved who it is
//! leaves this pool ([`Waiting::leave`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::network;

/// The pool.
#[derive(Debug, Clone)]
pub(super) struct Lobby {
    places: Arc<Semaphore>,
    per_address: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place in it, until it is left or dropped.
#[derive(Debug)]
pub struct Waiting(Mutex<Option<Place>>);

#[derive(Debug)]
struct Place {
    address: IpAddr,
    lobby: Lobby,
    _permit: OwnedSemaphorePermit,
}

impl Lobby {
    pub(super) fn new(places: usize, per_address: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), per_address, addresses: Arc::default() }
    }

    /// A place in the pool; waits while all are taken. Dropping the wait loses nothing.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// The place is for this address; `None` when it has as many as it may have.
    pub(super) fn seat(&self, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<Waiting> {
        let address = network(address);
        let mut addresses = self.addresses();
        let count = addresses.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        drop(addresses);
        Some(Waiting(Mutex::new(Some(Place { address, lobby: self.clone(), _permit: permit }))))
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The other end has proved who it is: the place is free for the next.
    pub fn leave(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.lobby.addresses();
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

    async fn enter(lobby: &Lobby, address: &str) -> Option<Waiting> {
        let permit = lobby.place().await.unwrap();
        lobby.seat(permit, address.parse().unwrap())
    }

    #[tokio::test]
    async fn one_address_takes_its_share_and_who_leaves_makes_room() {
        let lobby = Lobby::new(3, 2);
        let first = enter(&lobby, "10.0.0.1").await.unwrap();
        let _second = enter(&lobby, "10.0.0.1").await.unwrap();
        assert!(enter(&lobby, "10.0.0.1").await.is_none());
        let other = enter(&lobby, "10.0.0.2").await.unwrap();
        assert_eq!(lobby.places.available_permits(), 0);
        first.leave();
        assert!(enter(&lobby, "10.0.0.1").await.is_some());
        drop(other);
        assert!(
            !lobby.addresses().contains_key(&"10.0.0.2".parse().unwrap()),
            "an address without places stays"
        );
    }
}
