//! What publishers and subscribers share: a channel per Attempt, and the memory of all of them.
//!
//! Lock order: shard, then channel, then pool.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_core::stream::credit::{CreditPool, CreditRules, Window};
use sentinel_core::stream::tail::{End, Tail};
use sentinel_protocol::ids::AttemptId;
use tokio::sync::{Notify, watch};

use crate::history::archive::{Archiver, OutputRefusal};
use crate::metrics::Counter;

const SHARDS: usize = 16;

/// Everything behind a [`Hub`](super::Hub).
pub(super) struct HubInner {
    shards: Vec<Mutex<HashMap<AttemptId, Arc<Channel>>>>,
    hasher: RandomState,
    pool: Mutex<CreditPool>,
    pub(super) credit: CreditRules,
    /// Archived bytes that are kept per Attempt.
    recent: u64,
    /// Notified when memory is freed.
    pub(super) freed: Notify,
    /// Channels whose next record the archiver refused because its queue was full.
    stalled: Mutex<Vec<Arc<Channel>>>,
    pub(super) archiver: Archiver,
    pub(super) rejected: Counter,
}

/// One Attempt's log.
pub(super) struct Channel {
    pub(super) attempt: AttemptId,
    state: Mutex<ChannelState>,
    /// Changes whenever a reader has a reason to read again.
    pub(super) changed: watch::Sender<()>,
}

#[derive(Default)]
pub(super) struct ChannelState {
    pub(super) tail: Option<Tail>,
    pub(super) publisher: Option<ActivePublisher>,
    /// Number of the latest publisher.
    pub(super) last_publisher: u64,
    pub(super) end: End,
    pub(super) subscribers: usize,
    /// Whether it is in `stalled`.
    is_stalled: bool,
}

/// The publisher whose records are taken.
pub(super) struct ActivePublisher {
    pub(super) number: u64,
    pub(super) window: Window,
    /// The credit that was last sent to the agent: granted and archived positions.
    pub(super) sent: Option<(u64, u64)>,
    pub(super) wake: Arc<Notify>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    pub(super) fn state(&self) -> MutexGuard<'_, ChannelState> {
        lock(&self.state)
    }

    /// Wakes the readers.
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Records where the log ends.
    pub(super) fn set_end(&self, end: End) {
        let mut state = self.state();
        // A known end is never replaced by an unknown one.
        if !matches!(state.end, End::At(_)) {
            state.end = end;
        }
        drop(state);
        self.notify();
    }
}

impl HubInner {
    pub(super) fn new(archiver: Archiver, credit: CreditRules, recent: u64, rejected: Counter) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            pool: Mutex::new(CreditPool::new(credit)),
            credit,
            recent,
            freed: Notify::new(),
            stalled: Mutex::default(),
            archiver,
            rejected,
        }
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, CreditPool> {
        lock(&self.pool)
    }

    fn shard(&self, attempt: &AttemptId) -> MutexGuard<'_, HashMap<AttemptId, Arc<Channel>>> {
        lock(&self.shards[self.hasher.hash_one(attempt) as usize % SHARDS])
    }

    pub(super) fn find(&self, attempt: &AttemptId) -> Option<Arc<Channel>> {
        self.shard(attempt).get(attempt).cloned()
    }

    /// The channel of an Attempt, changed under the shard's lock, so that it cannot be removed as unused before.
    pub(super) fn join<T>(
        &self,
        attempt: &AttemptId,
        change: impl FnOnce(&mut ChannelState) -> T,
    ) -> (Arc<Channel>, T) {
        let mut shard = self.shard(attempt);
        let new = || {
            Arc::new(Channel {
                attempt: attempt.clone(),
                state: Mutex::default(),
                changed: watch::Sender::new(()),
            })
        };
        let channel = shard.entry(attempt.clone()).or_insert_with(new).clone();
        let changed = change(&mut channel.state());
        (channel, changed)
    }

    pub(super) fn mark_archived(&self, channel: &Channel, end: u64) {
        let mut state = channel.state();
        let Some(tail) = &mut state.tail else { return };
        tail.note_archived(end);
        self.trim(tail);
        if let Some(publisher) = &state.publisher {
            publisher.wake.notify_one();
        }
    }

    /// Drops archived records beyond the most recent ones.
    fn trim(&self, tail: &mut Tail) {
        let mut pool = self.pool();
        let freed = tail.trim(self.recent.min(pool.recent_allowance()));
        pool.shrink(freed);
        drop(pool);
        if freed > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Hands new records to the archiver, as many as it takes; the rest follows once it has stored others.
    pub(super) fn forward(&self, channel: &Arc<Channel>) {
        let mut state = channel.state();
        let ChannelState { tail: Some(tail), is_stalled, .. } = &mut *state else { return };
        let mut reopened = false;
        while let Some(record) = tail.next_unhanded() {
            let end = record.end();
            match self.archiver.output(&channel.attempt, record) {
                Ok(()) => tail.note_handed(end),
                Err(OutputRefusal::Full) => {
                    if !std::mem::replace(is_stalled, true) {
                        lock(&self.stalled).push(channel.clone());
                    }
                    return;
                }
                Err(OutputRefusal::NotOpen | OutputRefusal::Hole { .. }) if !reopened => {
                    // The archiver has dropped the Attempt: once more from where everything is archived.
                    reopened = true;
                    let expected = self.archiver.open_output(&channel.attempt, tail.archived());
                    tail.hand_back(expected);
                }
                Err(error) => {
                    let AttemptId { task: task_uid, run, node, attempt } = &channel.attempt;
                    tracing::error!(
                        %task_uid, %run, %node, attempt, position = end, %error,
                        "a record of output is not archived"
                    );
                    self.rejected.add(1);
                    tail.note_handed(end);
                }
            }
        }
    }

    pub(super) fn retry_stalled(&self) {
        let stalled = std::mem::take(&mut *lock(&self.stalled));
        for channel in stalled {
            channel.state().is_stalled = false;
            self.forward(&channel);
        }
    }

    /// Removes a channel without publisher, readers and unarchived records.
    pub(super) fn remove_if_unused(&self, channel: &Arc<Channel>) {
        let mut shard = self.shard(&channel.attempt);
        let mut state = channel.state();
        let is_unarchived = state.tail.as_ref().is_some_and(|tail| tail.archived() < tail.held().end);
        if is_unarchived || state.publisher.is_some() || state.subscribers > 0 {
            return;
        }
        if let Some(tail) = state.tail.take() {
            self.pool().shrink(tail.cost());
        }
        drop(state);
        shard.remove(&channel.attempt);
        drop(shard);
        self.freed.notify_waiters();
        self.archiver.close_output(&channel.attempt);
    }
}
