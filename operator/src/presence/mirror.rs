//! From the gateway to a Presence store without anybody waiting: the latest word of each node, flushed four times a
//! second.
//!
//! While the store is away the latest words stay, bounded by the number of nodes; older ones are dropped and counted.
//! When it is back, everything that has not expired meanwhile is written with the next flush.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_protocol::ids::NodeName;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::Presence;
use super::record::PresenceRecord;

/// Times and bounds of a [`PresenceMirror`].
#[derive(Debug, Clone, Copy)]
pub struct MirrorOptions {
    /// Time to live of each record; at least one second.
    pub ttl: Duration,
    /// Time between flushes.
    pub every: Duration,
    /// Nodes that may wait; others are dropped.
    pub max_nodes: usize,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_millis(sentinel_protocol::limits::DEAD_AFTER_MS),
            every: Duration::from_millis(250),
            max_nodes: 50_000,
        }
    }
}

/// A look at a [`PresenceMirror`]. Totals are since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Nodes whose word waits.
    pub queued: u64,
    /// Records written.
    pub renewed: u64,
    /// Records that were never written: a newer one came, they expired, or too many waited.
    pub dropped: u64,
    /// Flushes that failed.
    pub failed: u64,
    /// Why the last failed flush failed.
    pub last_error: Option<String>,
    /// Whether the last flush succeeded; true before the first.
    pub is_up: bool,
}

/// The latest word on a node.
#[derive(Debug, Clone)]
enum Word {
    Here(Box<PresenceRecord>, Instant),
    Gone,
}

#[derive(Debug, Default)]
struct State {
    words: BTreeMap<NodeName, Word>,
    renewed: u64,
    dropped: u64,
    failed: u64,
    last_error: Option<String>,
    is_down: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    options: MirrorOptions,
    flush_now: Notify,
}

/// Takes words on nodes. Cloning it gives the same mirror.
#[derive(Debug, Clone)]
pub struct PresenceMirror(Arc<Shared>);

impl PresenceMirror {
    /// A mirror and its work, which somebody must run.
    pub fn new(presence: Arc<dyn Presence>, options: MirrorOptions) -> (Self, MirrorWork) {
        let shared = Arc::new(Shared { state: Mutex::default(), options, flush_now: Notify::new() });
        (Self(Arc::clone(&shared)), MirrorWork { presence, shared })
    }

    /// The node was heard of.
    pub fn renew(&self, record: PresenceRecord) {
        let node = record.node.clone();
        self.0.say(node, Word::Here(Box::new(record), Instant::now()));
    }

    /// The node's agent has said goodbye. A node that is merely silent needs no word: its record expires.
    pub fn withdraw(&self, node: NodeName) {
        self.0.say(node, Word::Gone);
    }

    /// Flushes soon instead of at the next turn.
    pub fn flush(&self) {
        self.0.flush_now.notify_one();
    }

    /// How it does.
    pub fn status(&self) -> MirrorStatus {
        let state = self.0.state();
        MirrorStatus {
            queued: state.words.len() as u64,
            renewed: state.renewed,
            dropped: state.dropped,
            failed: state.failed,
            last_error: state.last_error.clone(),
            is_up: !state.is_down,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, node: NodeName, word: Word) {
        let mut state = self.state();
        if state.words.len() >= self.options.max_nodes && !state.words.contains_key(&node) {
            state.dropped += 1;
            return;
        }
        if let Some(Word::Here(..)) = state.words.insert(node, word) {
            state.dropped += 1;
        }
    }

    fn take(&self) -> BTreeMap<NodeName, Word> {
        std::mem::take(&mut self.state().words)
    }

    /// What could not be written waits again, unless there is newer.
    fn put_back(&self, words: BTreeMap<NodeName, Word>) {
        let mut state = self.state();
        for (node, word) in words {
            let is_full = state.words.len() >= self.options.max_nodes;
            if is_full || state.words.contains_key(&node) {
                state.dropped += u64::from(matches!(word, Word::Here(..)));
            } else {
                state.words.insert(node, word);
            }
        }
    }
}

/// The work of a [`PresenceMirror`].
pub struct MirrorWork {
    presence: Arc<dyn Presence>,
    shared: Arc<Shared>,
}

impl MirrorWork {
    /// Flushes until it is dropped. Nothing is owed to a mirror, so it may be dropped at any time.
    pub async fn run(self) {
        let mut turns = tokio::time::interval(self.shared.options.every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.shared.flush_now.notified() => {}
            }
            self.flush().await;
        }
    }

    async fn flush(&self) {
        let words = self.shared.take();
        if words.is_empty() {
            return;
        }
        let (mut records, mut gone) = (Vec::new(), Vec::new());
        let mut expired = 0;
        for (node, word) in &words {
            match word {
                Word::Here(_, heard) if heard.elapsed() >= self.shared.options.ttl => expired += 1,
                Word::Here(record, _) => records.push((**record).clone()),
                Word::Gone => gone.push(node.clone()),
            }
        }
        let count = records.len() as u64;
        let outcome = self.write(records, gone).await;
        let mut state = self.shared.state();
        state.dropped += expired;
        match outcome {
            Ok(()) => {
                state.renewed += count;
                state.is_down = false;
            }
            Err(error) => {
                state.failed += 1;
                state.is_down = true;
                state.last_error = Some(error.to_string());
                drop(state);
                let ttl = self.shared.options.ttl;
                let living = words
                    .into_iter()
                    .filter(|(_, word)| !matches!(word, Word::Here(_, at) if at.elapsed() >= ttl));
                self.shared.put_back(living.collect());
            }
        }
    }

    async fn write(
        &self,
        records: Vec<PresenceRecord>,
        gone: Vec<NodeName>,
    ) -> Result<(), super::PresenceError> {
        if !records.is_empty() {
            self.presence.renew(records, self.shared.options.ttl).await?;
        }
        if !gone.is_empty() {
            self.presence.withdraw(gone).await?;
        }
        Ok(())
    }
}
