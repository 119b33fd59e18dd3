//! How many sockets one agent has: two of each kind, so that a new one can take over from one that is half dead.
//!
//! The rule at the bound: the oldest is closed. An agent whose network was cut always gets in with its newest socket, and
//! one that opens them without end has two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::NodeName;
use tokio_util::sync::CancellationToken;

/// Sockets of one kind that one agent has, at most.
pub const MAX_SOCKETS: usize = 2;

/// Which of the two sockets of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Socket {
    Control,
    Logs,
}

type Key = (NodeName, Socket);

/// All seats. Cloning it gives the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: HashMap<Key, Vec<(u64, CancellationToken)>>,
}

/// One seat, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    key: Key,
    number: u64,
    /// Cancelled when a newer socket needs the seat.
    pub(super) cut: CancellationToken,
}

/// Whether a seat was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It was.
    Free,
    /// The oldest socket had to go.
    Made,
}

impl Seats {
    /// A seat for one more socket of this agent.
    pub(super) fn take(&self, node: &NodeName, socket: Socket) -> (Seat, Room) {
        let key = (node.clone(), socket);
        let cut = CancellationToken::new();
        let mut taken = self.lock();
        taken.next += 1;
        let number = taken.next;
        let sockets = taken.by.entry(key.clone()).or_default();
        let mut room = Room::Free;
        while sockets.len() >= MAX_SOCKETS {
            let (_, oldest) = sockets.remove(0);
            oldest.cancel();
            room = Room::Made;
        }
        sockets.push((number, cut.clone()));
        drop(taken);
        (Seat { seats: self.clone(), key, number, cut }, room)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(sockets) = taken.by.get_mut(&self.key) {
            sockets.retain(|(number, _)| *number != self.number);
            if sockets.is_empty() {
                taken.by.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_socket_of_a_kind_closes_the_first() {
        let seats = Seats::default();
        let node = NodeName::new("n").unwrap();
        let (first, _) = seats.take(&node, Socket::Logs);
        let (second, room) = seats.take(&node, Socket::Logs);
        assert_eq!(room, Room::Free);
        let (_control, room) = seats.take(&node, Socket::Control);
        assert_eq!(room, Room::Free);
        let (third, room) = seats.take(&node, Socket::Logs);
        assert_eq!(room, Room::Made);
        assert_eq!([&first, &second, &third].map(|seat| seat.cut.is_cancelled()), [true, false, false]);
        drop((first, second));
        let (_fourth, room) = seats.take(&node, Socket::Logs);
        assert_eq!(room, Room::Free);
    }

    #[test]
    fn nothing_stays_of_an_agent_without_sockets() {
        let seats = Seats::default();
        drop(seats.take(&NodeName::new("n").unwrap(), Socket::Control));
        assert!(seats.lock().by.is_empty());
    }
}
