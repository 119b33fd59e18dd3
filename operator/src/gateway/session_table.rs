//! The Session of each node. Nodes are spread over shards; nothing is awaited under a lock.
//!
//! Lock order: a shard, then an entry of it. A Session begins, and an entry is removed, under the shard's write lock, so
//! that no Session begins in an entry that has just been removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use sentinel_core::samples::SampleRing;
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::secret::SealingKey;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Hello;

use super::attempt_index::AttemptIndex;
use super::clock_offset::ClockOffset;
use super::outbox::Outbox;

const SHARDS: usize = 32;

type Shard = RwLock<HashMap<NodeName, Arc<NodeEntry>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct SessionTable {
    shards: Vec<Shard>,
}

/// What is known of the agent of one node.
#[derive(Debug, Default)]
pub(super) struct NodeEntry {
    /// Milliseconds of the monotonic clock; 0 is never.
    last_seen: AtomicU64,
    state: Mutex<NodeState>,
}

#[derive(Debug, Default)]
pub(super) struct NodeState {
    /// The current Session.
    pub(super) live: Option<LiveSession>,
    /// The latest Hello.
    pub(super) hello: Option<Arc<Hello>>,
    /// The latest metrics.
    pub(super) sample: Option<Sample>,
    /// Those of the last 15 minutes, once it has sent a Heartbeat.
    pub(super) samples: Option<Box<SampleRing>>,
    /// How far its clock is from the operator's.
    pub(super) clock: ClockOffset,
}

/// The current Session of a node.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) session: SessionId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) inventory: InventoryState,
    /// What the values of Secrets are sealed to; `None` where its agent takes none.
    pub(super) sealing_key: Option<SealingKey>,
    pub(super) owned: AttemptIndex,
}

/// Whether an agent has sent its whole Inventory in this Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InventoryState {
    /// Parts of it are outstanding.
    Pending,
    /// All of it was received.
    Complete,
}

/// Metrics of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When this operator received them, by its wall clock.
    pub at: UnixMillis,
    /// The metrics.
    pub metrics: Arc<NodeMetrics>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl SessionTable {
    pub(super) fn find(&self, node: &NodeName) -> Option<Arc<NodeEntry>> {
        self.shard(node).read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// All entries, in no order.
    pub(super) fn all(&self) -> Vec<(NodeName, Arc<NodeEntry>)> {
        let mut entries = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            entries.extend(shard.iter().map(|(name, entry)| (name.clone(), entry.clone())));
        }
        entries
    }

    /// Number of entries for which `is_counted` holds.
    pub(super) fn count(&self, is_counted: impl Fn(&NodeEntry) -> bool) -> usize {
        let count = |shard: &Shard| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.values().filter(|entry| is_counted(entry)).count()
        };
        self.shards.iter().map(count).sum()
    }

    /// Begins a Session, with its Hello; returns the Session that it replaces.
    pub(super) fn begin(
        &self,
        node: &NodeName,
        session: LiveSession,
        hello: Hello,
        now: Now,
    ) -> Option<LiveSession> {
        let mut shard = self.shard(node).write().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.entry(node.clone()).or_default();
        entry.touch(now.monotonic);
        let mut state = entry.lock();
        state.hello = Some(Arc::new(hello));
        state.clock.begin(now.wall);
        state.live.replace(session)
    }

    /// Removes the entry of a node that has no Session and was not seen since `last_seen`.
    pub(super) fn remove_idle(&self, node: &NodeName, last_seen: Option<Monotonic>) -> bool {
        let mut shard = self.shard(node).write().unwrap_or_else(PoisonError::into_inner);
        let is_idle = |entry: &Arc<NodeEntry>| entry.lock().live.is_none() && entry.last_seen() == last_seen;
        if !shard.get(node).is_some_and(is_idle) {
            return false;
        }
        shard.remove(node);
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
            let len = shard.len();
            shard.shrink_to(2 * len);
        }
        true
    }

    fn shard(&self, node: &NodeName) -> &Shard {
        // The map hashes the name anyway; names of nodes differ mostly in their last characters.
        let sum =
            node.as_str().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.shards[sum % SHARDS]
    }
}

impl NodeEntry {
    pub(super) fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame was received.
    pub(super) fn touch(&self, now: Monotonic) {
        // 0 means never, so the first millisecond counts as the second.
        self.last_seen.fetch_max(now.0.max(1), Ordering::Relaxed);
    }

    pub(super) fn last_seen(&self) -> Option<Monotonic> {
        match self.last_seen.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Monotonic(at)),
        }
    }
}

impl NodeState {
    /// The Session of this name, while it is the current one.
    pub(super) fn current(&mut self, session: &SessionId) -> Option<&mut LiveSession> {
        self.live.as_mut().filter(|live| live.session == *session)
    }

    /// Takes in the metrics of a Heartbeat.
    pub(super) fn record(&mut self, now: Monotonic, sample: Sample) {
        match &mut self.samples {
            Some(samples) => samples.record(now, &sample.metrics),
            None => self.samples = Some(Box::new(SampleRing::new(now, &sample.metrics))),
        }
        self.sample = Some(sample);
    }

    /// The current Session, once its Inventory is complete.
    pub(super) fn active(&self) -> Option<&LiveSession> {
        self.live.as_ref().filter(|live| live.inventory == InventoryState::Complete)
    }
}

/// A Hello for unit tests.
#[cfg(test)]
pub(super) fn hello() -> Hello {
    Hello {
        versions: vec![],
        agent_version: "0.1.0".into(),
        boot_id: "boot".into(),
        state_id: "state".into(),
        highest_epoch: sentinel_protocol::ids::Epoch::default(),
        environments: vec![],
        os: "linux".into(),
        arch: "x86_64".into(),
        kernel: "6.1.0".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn at(millis: u64) -> Now {
        Now { monotonic: Monotonic(millis), wall: UnixMillis(0) }
    }

    #[test]
    fn a_session_never_begins_in_a_removed_entry() {
        let (table, node) = (SessionTable::default(), NodeName::new("n").unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if let Some(entry) = table.find(&node) {
                        table.remove_idle(&node, entry.last_seen());
                    }
                }
            });
            for number in 0..20_000_u64 {
                let session = SessionId::new(format!("s-{number}")).unwrap();
                let live = LiveSession {
                    session: session.clone(),
                    outbox: Arc::default(),
                    inventory: InventoryState::Pending,
                    sealing_key: None,
                    owned: AttemptIndex::default(),
                };
                table.begin(&node, live, hello(), at(1));
                let entry = table.find(&node);
                let is_current = entry.is_some_and(|entry| {
                    let mut state = entry.lock();
                    let is_current = state.current(&session).is_some();
                    state.live = None;
                    is_current
                });
                if !is_current {
                    done.store(true, Ordering::Relaxed);
                    panic!("session {number} is lost");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn keeps_an_entry_with_a_session_or_seen_meanwhile() {
        let (table, node) = (SessionTable::default(), NodeName::new("n").unwrap());
        let session = SessionId::new("s").unwrap();
        let owned = AttemptIndex::default();
        let inventory = InventoryState::Complete;
        let live = LiveSession { session, outbox: Arc::default(), inventory, sealing_key: None, owned };
        table.begin(&node, live, hello(), at(5));
        assert!(!table.remove_idle(&node, Some(Monotonic(5))), "it has a session");
        table.find(&node).unwrap().lock().live = None;
        assert!(!table.remove_idle(&node, Some(Monotonic(4))), "it was seen meanwhile");
        assert!(table.remove_idle(&node, Some(Monotonic(5))));
        assert!(table.find(&node).is_none());
    }
}
