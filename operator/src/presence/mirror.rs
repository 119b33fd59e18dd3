//! Copies the latest record of each node to a Presence store four times a second, without blocking the gateway.
//!
//! While the store is unavailable the latest records stay queued, bounded by the number of nodes; older ones are dropped
//! and counted. When it is available again, every record that has not expired is written with the next flush.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_protocol::ids::NodeName;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::record::PresenceRecord;
use super::store::Presence;

/// Times and bounds of a [`PresenceMirror`].
#[derive(Debug, Clone, Copy)]
pub struct MirrorOptions {
    /// Time to live of each record; at least one second.
    pub ttl: Duration,
    /// Time between flushes.
    pub flush_interval: Duration,
    /// Nodes that may be queued; others are dropped.
    pub max_nodes: usize,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_millis(sentinel_protocol::limits::DEAD_AFTER_MS),
            flush_interval: Duration::from_millis(250),
            max_nodes: 50_000,
        }
    }
}

/// A snapshot of a [`PresenceMirror`]. Totals are since it was created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Nodes whose record is queued.
    pub queued: u64,
    /// Records written.
    pub renewed: u64,
    /// Records that were never written: a newer one came, they expired, or the queue was full.
    pub dropped: u64,
    /// Failed flushes by [`PresenceError::category`](super::PresenceError::category).
    pub failures: BTreeMap<&'static str, u64>,
    /// Error of the last failed flush.
    pub last_error: Option<String>,
    /// Whether the last flush succeeded; true before the first.
    pub is_up: bool,
}

impl MirrorStatus {
    /// Failed flushes of every category.
    pub fn total_failures(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// The latest record of a node, and when it was handed over.
#[derive(Debug, Clone)]
struct QueuedPresence {
    record: PresenceRecord,
    since: Instant,
}

#[derive(Debug, Default)]
struct MirrorState {
    queue: BTreeMap<NodeName, QueuedPresence>,
    /// `queued` is taken from `queue`.
    totals: MirrorStatus,
}

#[derive(Debug)]
struct MirrorInner {
    state: Mutex<MirrorState>,
    options: MirrorOptions,
    flush_now: Notify,
}

/// Queues records of nodes. Clones share one mirror.
#[derive(Debug, Clone)]
pub struct PresenceMirror(Arc<MirrorInner>);

impl PresenceMirror {
    /// A mirror and its work, which the caller must run.
    pub fn new(presence: Arc<dyn Presence>, options: MirrorOptions) -> (Self, MirrorWork) {
        let totals = MirrorStatus { is_up: true, ..MirrorStatus::default() };
        let state = Mutex::new(MirrorState { totals, ..MirrorState::default() });
        let inner = Arc::new(MirrorInner { state, options, flush_now: Notify::new() });
        (Self(Arc::clone(&inner)), MirrorWork { presence, inner })
    }

    /// Queues the record of a node, which replaces an older one. A node that is not renewed expires.
    pub fn renew(&self, record: PresenceRecord) {
        let mut state = self.0.state();
        if state.queue.len() >= self.0.options.max_nodes && !state.queue.contains_key(&record.node) {
            state.totals.dropped += 1;
            return;
        }
        let queued = QueuedPresence { since: Instant::now(), record };
        if state.queue.insert(queued.record.node.clone(), queued).is_some() {
            state.totals.dropped += 1;
        }
    }

    /// Flushes soon instead of at the next interval.
    pub fn flush(&self) {
        self.0.flush_now.notify_one();
    }

    /// Its counters, and how much is queued.
    pub fn status(&self) -> MirrorStatus {
        let state = self.0.state();
        MirrorStatus { queued: state.queue.len() as u64, ..state.totals.clone() }
    }
}

impl MirrorInner {
    fn state(&self) -> MutexGuard<'_, MirrorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the queue; expired records are dropped and counted.
    fn take_unexpired(&self) -> Vec<QueuedPresence> {
        let mut state = self.state();
        let taken = std::mem::take(&mut state.queue);
        let count = taken.len();
        let ttl = self.options.ttl;
        let unexpired: Vec<_> = taken.into_values().filter(|queued| queued.since.elapsed() < ttl).collect();
        state.totals.dropped += (count - unexpired.len()) as u64;
        unexpired
    }

    /// Queues again what could not be written, unless there is a newer record.
    fn put_back(&self, unwritten: Vec<QueuedPresence>) {
        let mut state = self.state();
        for queued in unwritten {
            let node = &queued.record.node;
            if state.queue.len() >= self.options.max_nodes || state.queue.contains_key(node) {
                state.totals.dropped += 1;
            } else {
                state.queue.insert(node.clone(), queued);
            }
        }
    }
}

/// The work of a [`PresenceMirror`].
pub struct MirrorWork {
    presence: Arc<dyn Presence>,
    inner: Arc<MirrorInner>,
}

impl MirrorWork {
    /// Flushes until it is dropped, which is safe at any time.
    pub async fn run(self) {
        let mut interval = tokio::time::interval(self.inner.options.flush_interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.inner.flush_now.notified() => {}
            }
            self.flush().await;
        }
    }

    async fn flush(&self) {
        let queued = self.inner.take_unexpired();
        if queued.is_empty() {
            return;
        }
        let records = queued.iter().map(|queued| queued.record.clone()).collect();
        let written = self.presence.renew(records, self.inner.options.ttl).await;
        let mut state = self.inner.state();
        match written {
            Ok(()) => {
                state.totals.renewed += queued.len() as u64;
                state.totals.is_up = true;
            }
            Err(error) => {
                *state.totals.failures.entry(error.category()).or_default() += 1;
                state.totals.is_up = false;
                state.totals.last_error = Some(error.to_string());
                if error.is_retryable() {
                    drop(state);
                    self.inner.put_back(queued);
                } else {
                    state.totals.dropped += queued.len() as u64;
                }
            }
        }
    }
}
