//! How many sockets one agent may have: two of each kind, so that a new one can replace a half-dead one.
//!
//! At the limit the oldest is closed. An agent whose network was cut always gets in with its newest socket, and one that
//! opens sockets without end has two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::NodeName;
use tokio_util::sync::CancellationToken;

/// Sockets of one kind per agent.
pub const MAX_SOCKETS: usize = 2;

/// The two kinds of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SocketKind {
    Control,
    Logs,
}

type Key = (NodeName, SocketKind);

/// The slots of all agents. Cloning it gives the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct SocketSlots(Arc<Mutex<OpenSockets>>);

#[derive(Debug, Default)]
struct OpenSockets {
    next: u64,
    /// Oldest first.
    by_agent: HashMap<Key, Vec<(u64, CancellationToken)>>,
}

/// The slot of one socket, released on drop.
#[derive(Debug)]
pub(super) struct SocketSlot {
    slots: SocketSlots,
    key: Key,
    number: u64,
    /// Cancelled when a newer socket takes the slot.
    pub(super) evicted: CancellationToken,
    /// Whether this socket took the slot of an older one.
    pub(super) evicted_oldest: bool,
}

impl SocketSlots {
    /// A slot for another socket of this agent; evicts the oldest at the limit.
    pub(super) fn take(&self, node: &NodeName, kind: SocketKind) -> SocketSlot {
        let key = (node.clone(), kind);
        let evicted = CancellationToken::new();
        let mut open = self.lock();
        open.next += 1;
        let number = open.next;
        let sockets = open.by_agent.entry(key.clone()).or_default();
        let mut evicted_oldest = false;
        while sockets.len() >= MAX_SOCKETS {
            let (_, oldest) = sockets.remove(0);
            oldest.cancel();
            evicted_oldest = true;
        }
        sockets.push((number, evicted.clone()));
        drop(open);
        SocketSlot { slots: self.clone(), key, number, evicted, evicted_oldest }
    }

    fn lock(&self) -> MutexGuard<'_, OpenSockets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        if let Some(sockets) = open.by_agent.get_mut(&self.key) {
            sockets.retain(|(number, _)| *number != self.number);
            if sockets.is_empty() {
                open.by_agent.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_socket_of_a_kind_evicts_the_first() {
        let slots = SocketSlots::default();
        let node = NodeName::new("n").unwrap();
        let first = slots.take(&node, SocketKind::Logs);
        let second = slots.take(&node, SocketKind::Logs);
        assert!(!second.evicted_oldest);
        let control = slots.take(&node, SocketKind::Control);
        assert!(!control.evicted_oldest);
        let third = slots.take(&node, SocketKind::Logs);
        assert!(third.evicted_oldest);
        assert_eq!([&first, &second, &third].map(|slot| slot.evicted.is_cancelled()), [true, false, false]);
        drop((first, second));
        assert!(!slots.take(&node, SocketKind::Logs).evicted_oldest);
    }

    #[test]
    fn an_agent_without_sockets_takes_no_memory() {
        let slots = SocketSlots::default();
        drop(slots.take(&NodeName::new("n").unwrap(), SocketKind::Control));
        assert!(slots.lock().by_agent.is_empty());
    }
}
