//! How many sockets one agent may have: two of each kind, so that a new one can replace a half-dead one.
//!
//! At the limit the oldest is closed. An agent whose network was cut always gets in with its newest socket, and one that
//! opens sockets without end has two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::NodeName;
use tokio::task::AbortHandle;

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
    by_agent: HashMap<Key, Vec<OpenSocket>>,
    /// Every socket is closed, also one that is only about to run.
    are_closed: bool,
}

#[derive(Debug)]
struct OpenSocket {
    number: u64,
    /// Its task, once it runs.
    task: Option<AbortHandle>,
}

/// The slot of one socket, released on drop.
#[derive(Debug)]
pub(super) struct SocketSlot {
    slots: SocketSlots,
    key: Key,
    number: u64,
    /// Whether this socket took the slot of an older one.
    pub(super) evicted_oldest: bool,
}

impl SocketSlots {
    /// A slot for another socket of this agent; evicts the oldest at the limit.
    pub(super) fn take(&self, node: &NodeName, kind: SocketKind) -> SocketSlot {
        let key = (node.clone(), kind);
        let mut open = self.lock();
        open.next += 1;
        let number = open.next;
        let sockets = open.by_agent.entry(key.clone()).or_default();
        let mut evicted_oldest = false;
        while sockets.len() >= MAX_SOCKETS {
            if let Some(task) = sockets.remove(0).task {
                task.abort();
            }
            evicted_oldest = true;
        }
        sockets.push(OpenSocket { number, task: None });
        drop(open);
        SocketSlot { slots: self.clone(), key, number, evicted_oldest }
    }

    /// Runs the task of a socket with its slot, until it ends or a newer socket takes the slot. (A token that each task
    /// waits for beside its socket would be asked at every message.)
    pub(super) fn run(&self, slot: SocketSlot, spawn: impl FnOnce(SocketSlot) -> AbortHandle) {
        let (key, number) = (slot.key.clone(), slot.number);
        let task = spawn(slot);
        let mut open = self.lock();
        let are_closed = open.are_closed;
        let socket =
            open.by_agent.get_mut(&key).and_then(|open| open.iter_mut().find(|s| s.number == number));
        match socket {
            Some(socket) if !are_closed => socket.task = Some(task),
            // Evicted, or closed with all others, before it ran; or ended already.
            _ => task.abort(),
        }
    }

    /// Closes every socket, and each that is about to run.
    pub(super) fn close_all(&self) {
        let mut open = self.lock();
        open.are_closed = true;
        for task in open.by_agent.values().flatten().filter_map(|socket| socket.task.as_ref()) {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenSockets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        if let Some(sockets) = open.by_agent.get_mut(&self.key) {
            sockets.retain(|socket| socket.number != self.number);
            if sockets.is_empty() {
                open.by_agent.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a task that ends only when it is aborted.
    fn run(slots: &SocketSlots, slot: SocketSlot) -> AbortHandle {
        let mut handle = None;
        slots.run(slot, |slot| {
            let task = tokio::spawn(async move {
                let _slot = slot;
                std::future::pending::<()>().await;
            });
            handle.insert(task.abort_handle()).clone()
        });
        handle.unwrap()
    }

    async fn until_finished(task: &AbortHandle) {
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_third_socket_of_a_kind_evicts_the_first() {
        let slots = SocketSlots::default();
        let node = NodeName::new("n").unwrap();
        let mut running = Vec::new();
        for (kind, evicts) in [
            (SocketKind::Logs, false),
            (SocketKind::Logs, false),
            (SocketKind::Control, false),
            (SocketKind::Logs, true),
        ] {
            let slot = slots.take(&node, kind);
            assert_eq!(slot.evicted_oldest, evicts, "{kind:?}");
            running.push(run(&slots, slot));
        }
        until_finished(&running[0]).await;
        assert!(running[1..].iter().all(|task| !task.is_finished()));
        running[1].abort();
        until_finished(&running[1]).await;
        assert!(!slots.take(&node, SocketKind::Logs).evicted_oldest);
    }

    #[tokio::test]
    async fn a_socket_that_is_evicted_before_it_runs_is_closed() {
        let slots = SocketSlots::default();
        let node = NodeName::new("n").unwrap();
        let [first, second, third] = [(); 3].map(|()| slots.take(&node, SocketKind::Logs));
        until_finished(&run(&slots, first)).await;
        let [second, third] = [second, third].map(|slot| run(&slots, slot));
        assert!(!second.is_finished() && !third.is_finished());
    }

    #[tokio::test]
    async fn all_sockets_are_closed_and_those_about_to_run() {
        let slots = SocketSlots::default();
        let node = NodeName::new("n").unwrap();
        let (running, waiting) = (slots.take(&node, SocketKind::Logs), slots.take(&node, SocketKind::Logs));
        let running = run(&slots, running);
        slots.close_all();
        until_finished(&running).await;
        until_finished(&run(&slots, waiting)).await;
    }

    #[test]
    fn an_agent_without_sockets_takes_no_memory() {
        let slots = SocketSlots::default();
        drop(slots.take(&NodeName::new("n").unwrap(), SocketKind::Control));
        assert!(slots.lock().by_agent.is_empty());
    }
}
