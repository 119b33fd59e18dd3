//! The tail of each Attempt's log, held until History has it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sentinel_core::stream::credit::{CreditPool, CreditRules, Window};
use sentinel_core::stream::tail::{self, Accepted, End, Follow, Next, Read, Tail};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{DropReason, LogControl, LogRecord, RecordHead, Stream};
use tokio::sync::{Notify, watch};

use crate::history::archive::{Archiver, OutputRefusal};
use crate::metrics::{Counter, Kind, Registry as MetricsRegistry};

const SHARDS: usize = 16;

/// Bytes that one look of a reader gets at most.
const READ_BYTES: usize = 256 << 10;

/// The numbers of a [`Hub`].
#[derive(Debug, Clone, Copy)]
pub struct HubRules {
    /// Memory and windows.
    pub credit: CreditRules,
    /// Archived bytes that are kept per Attempt, so that a reader who is nearly up to date need not ask History.
    pub recent: u64,
}

impl Default for HubRules {
    fn default() -> Self {
        Self { credit: CreditRules::default(), recent: 256 << 10 }
    }
}

/// The tails of all Attempts with output. Cloning it gives the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    shards: Vec<Mutex<HashMap<AttemptId, Arc<Channel>>>>,
    hasher: RandomState,
    pool: Mutex<CreditPool>,
    /// Memory was freed.
    room: Notify,
    /// Attempts whose next record the archiver would not take for want of room.
    stalled: Mutex<Vec<Arc<Channel>>>,
    archiver: Archiver,
    rules: HubRules,
    lost: Counter,
}

/// One Attempt's log.
struct Channel {
    attempt: AttemptId,
    state: Mutex<State>,
    /// Moves whenever there is something new to see.
    news: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    tail: Option<Tail>,
    source: Option<Source>,
    sources: u64,
    end: End,
    readers: usize,
    /// Waits for room in the archiver.
    is_stalled: bool,
}

/// Who sends it.
struct Source {
    number: u64,
    window: Window,
    told: Option<(u64, u64)>,
    wake: Arc<Notify>,
}

/// Output of an Attempt that comes over a log socket; gives its window back when it is dropped.
pub struct Inlet {
    hub: Hub,
    channel: Arc<Channel>,
    number: u64,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is held.
    New,
    /// It was there before.
    Repeated,
    /// Something before it is missing; it was not taken.
    Gap {
        /// Where the log goes on.
        expected: u64,
    },
    /// The agent was not allowed to send that far.
    BeyondCredit {
        /// How far it was.
        granted: u64,
    },
    /// Another socket has taken the Attempt over.
    Superseded,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("rules", &self.0.rules).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// An empty hub; output goes on to this archiver.
    pub fn new(archiver: Archiver, rules: HubRules, metrics: &MetricsRegistry) -> Self {
        let lost = metrics.counter(
            "sentinel_logs_rejected_total",
            "Times that History refused output for good; it is not archived.",
        );
        let hub = Self(Arc::new(Shared {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            pool: Mutex::new(CreditPool::new(rules.credit)),
            room: Notify::new(),
            stalled: Mutex::default(),
            archiver,
            rules,
            lost,
        }));
        let gauge = |name, help, value: fn(&CreditPool) -> u64| {
            let shared = Arc::downgrade(&hub.0);
            metrics.computed(Kind::Gauge, name, help, &[], move || {
                shared.upgrade().map_or(0.0, |shared| value(&lock(&shared.pool)) as f64)
            });
        };
        gauge("sentinel_logs_held_bytes", "Memory in use for output.", CreditPool::held);
        gauge(
            "sentinel_logs_reserved_bytes",
            "Output that agents may send or that waits for History.",
            CreditPool::reserved,
        );
        gauge("sentinel_logs_short", "1 while memory for output is short.", |pool| {
            u64::from(pool.is_short())
        });
        hub
    }

    /// Position up to which an agent may send before it has heard anything about a new Attempt.
    pub fn initial_credit(&self) -> u64 {
        self.0.rules.credit.min_window
    }

    /// An agent has output of this Attempt from `oldest` on; `wake` is notified when it is to be told of more credit.
    /// Whoever had it open before gets nothing more in.
    pub fn open(&self, attempt: &AttemptId, oldest: u64, wake: Arc<Notify>) -> Inlet {
        let (channel, number) = self.join(attempt, |state| self.begin(state, oldest, wake));
        self.0.archiver.open_output(attempt, oldest);
        channel.news.send_replace(());
        Inlet { hub: self.clone(), channel, number }
    }

    fn begin(&self, state: &mut State, oldest: u64, wake: Arc<Notify>) -> u64 {
        let mut pool = lock(&self.0.pool);
        if let Some(older) = state.source.take() {
            pool.close(older.window);
            older.wake.notify_one();
        }
        // An agent only lets go of what it was told is archived: what lies before `oldest` is, or is gone for good.
        if state.tail.as_ref().is_none_or(|tail| tail.held().end < oldest) {
            let before = state.tail.replace(Tail::new(oldest)).map_or(0, |tail| tail.cost());
            pool.shrink(before);
        }
        let archived = state.tail.as_ref().map_or(oldest, Tail::archived);
        let window = pool.open(archived);
        state.sources += 1;
        state.source = Some(Source { number: state.sources, window, told: None, wake });
        state.sources
    }

    /// Waits until there is room for a record.
    pub async fn room_for(&self, record: &LogRecord) {
        let cost = tail::cost(record);
        loop {
            // Listens before it looks, so that what is freed in between is not missed.
            let mut freed = std::pin::pin!(self.0.room.notified());
            freed.as_mut().enable();
            if lock(&self.0.pool).has_room(cost) {
                return;
            }
            freed.await;
        }
    }

    /// Whether so much is held that nothing more is granted.
    pub fn is_short(&self) -> bool {
        lock(&self.0.pool).is_short()
    }

    /// Returns when memory was freed since it was called.
    pub async fn freed(&self) {
        self.0.room.notified().await;
    }

    /// History holds the output of this Attempt up to `end`.
    pub fn archived(&self, attempt: &AttemptId, end: u64) {
        if let Some(channel) = self.find(attempt) {
            self.note_archived(&channel, end);
            self.tidy(&channel);
        }
        self.retry_stalled();
    }

    /// History will never take the output of this Attempt that waits now. It is let go of: what cannot be stored must
    /// not stop the node for ever.
    pub fn rejected(&self, attempt: &AttemptId) {
        self.0.lost.add(1);
        let end = self.find(attempt).and_then(|c| lock(&c.state).tail.as_ref().map(|tail| tail.held().end));
        self.archived(attempt, end.unwrap_or(0));
    }

    /// Output of this Attempt from where it has come to until `end` will not come: a hole takes its place, in the archive
    /// as well. `archived` is how far History holds it, for an Attempt of which nothing is held here.
    pub fn give_up(&self, attempt: &AttemptId, archived: u64, end: u64) {
        let (channel, ()) = self.join(attempt, |state| {
            let tail = state.tail.get_or_insert_with(|| Tail::new(archived));
            let position = tail.held().end;
            if position < end {
                let head = RecordHead {
                    stream: Stream::Stdout,
                    position,
                    offset: position,
                    len: end - position,
                    at_micros: 0,
                    dropped: Some(DropReason::NotSent),
                };
                if let Accepted::New { cost } = tail.accept(LogRecord { head, data: Bytes::new() }) {
                    lock(&self.0.pool).grow(cost);
                }
            }
        });
        self.0.archiver.open_output(attempt, archived);
        self.hand_on(&channel);
        channel.news.send_replace(());
    }

    /// How far output of this Attempt is here, archived or not; `None` when nothing of it is.
    pub fn held_position(&self, attempt: &AttemptId) -> Option<u64> {
        let channel = self.find(attempt)?;
        let state = lock(&channel.state);
        state.tail.as_ref().map(|tail| tail.held().end)
    }

    /// Where the log of this Attempt ends is known now.
    pub fn ended(&self, attempt: &AttemptId, end: End) {
        let Some(channel) = self.find(attempt) else { return };
        let mut state = lock(&channel.state);
        // The supervisor's word stands against "nobody knows".
        if !matches!(state.end, End::At(_)) {
            state.end = end;
        }
        drop(state);
        channel.news.send_replace(());
    }

    /// How far output of this Attempt is archived, as far as the hub knows.
    pub fn archived_position(&self, attempt: &AttemptId) -> Option<u64> {
        let channel = self.find(attempt)?;
        let state = lock(&channel.state);
        state.tail.as_ref().map(Tail::archived)
    }

    /// Somebody reads this Attempt.
    pub(super) fn watch(&self, attempt: &AttemptId) -> Watch {
        let (channel, ()) = self.join(attempt, |state| state.readers += 1);
        let news = channel.news.subscribe();
        Watch { hub: self.clone(), channel, news }
    }

    fn shard(&self, attempt: &AttemptId) -> MutexGuard<'_, HashMap<AttemptId, Arc<Channel>>> {
        lock(&self.0.shards[self.0.hasher.hash_one(attempt) as usize % SHARDS])
    }

    fn find(&self, attempt: &AttemptId) -> Option<Arc<Channel>> {
        self.shard(attempt).get(attempt).cloned()
    }

    /// The channel of an Attempt, changed before anybody can find it unused and drop it.
    fn join<T>(&self, attempt: &AttemptId, change: impl FnOnce(&mut State) -> T) -> (Arc<Channel>, T) {
        let mut shard = self.shard(attempt);
        let fresh = || {
            Arc::new(Channel {
                attempt: attempt.clone(),
                state: Mutex::default(),
                news: watch::Sender::new(()),
            })
        };
        let channel = shard.entry(attempt.clone()).or_insert_with(fresh).clone();
        let joined = change(&mut lock(&channel.state));
        (channel, joined)
    }

    fn note_archived(&self, channel: &Channel, end: u64) {
        let mut state = lock(&channel.state);
        let Some(tail) = &mut state.tail else { return };
        tail.note_archived(end);
        self.trim(tail);
        if let Some(source) = &state.source {
            source.wake.notify_one();
        }
    }

    /// Lets go of what is archived and not worth keeping.
    fn trim(&self, tail: &mut Tail) {
        let mut pool = lock(&self.0.pool);
        let freed = tail.trim(self.0.rules.recent.min(pool.recent_allowance()));
        pool.shrink(freed);
        drop(pool);
        if freed > 0 {
            self.0.room.notify_waiters();
        }
    }

    /// Hands on to the archiver what it will take; what it will not take waits for its next word.
    fn hand_on(&self, channel: &Arc<Channel>) {
        let mut state = lock(&channel.state);
        let State { tail: Some(tail), is_stalled, .. } = &mut *state else { return };
        let mut reopened = false;
        while let Some(record) = tail.next_unhanded() {
            let end = record.end();
            match self.0.archiver.output(&channel.attempt, record) {
                Ok(()) => tail.note_handed(end),
                Err(OutputRefusal::Full) => {
                    if !std::mem::replace(is_stalled, true) {
                        lock(&self.0.stalled).push(channel.clone());
                    }
                    return;
                }
                Err(OutputRefusal::NotOpen | OutputRefusal::Hole { .. }) if !reopened => {
                    // It let go of the Attempt: once more from where everything is archived.
                    reopened = true;
                    let expected = self.0.archiver.open_output(&channel.attempt, tail.archived());
                    tail.hand_back(expected);
                }
                Err(error) => {
                    tracing::error!(attempt = %channel.attempt, %error, "a record of output is not archived");
                    self.0.lost.add(1);
                    tail.note_handed(end);
                }
            }
        }
    }

    fn retry_stalled(&self) {
        let stalled = std::mem::take(&mut *lock(&self.0.stalled));
        for channel in stalled {
            lock(&channel.state).is_stalled = false;
            self.hand_on(&channel);
        }
    }

    /// Drops a channel that nobody needs.
    fn tidy(&self, channel: &Arc<Channel>) {
        let mut shard = self.shard(&channel.attempt);
        let mut state = lock(&channel.state);
        let is_waiting = state.tail.as_ref().is_some_and(|tail| tail.archived() < tail.held().end);
        if is_waiting || state.source.is_some() || state.readers > 0 {
            return;
        }
        if let Some(tail) = state.tail.take() {
            lock(&self.0.pool).shrink(tail.cost());
        }
        drop(state);
        shard.remove(&channel.attempt);
        drop(shard);
        self.0.room.notify_waiters();
        self.0.archiver.close_output(&channel.attempt);
    }
}

impl Inlet {
    /// The Attempt.
    pub fn attempt(&self) -> &AttemptId {
        &self.channel.attempt
    }

    /// Takes a record in and hands it on. Ask [`Hub::room_for`] first.
    pub fn accept(&self, record: LogRecord) -> Taken {
        let mut state = lock(&self.channel.state);
        let initial = self.hub.initial_credit();
        let State { tail: Some(tail), source: Some(source), .. } = &mut *state else {
            return Taken::Superseded;
        };
        if source.number != self.number {
            return Taken::Superseded;
        }
        let granted = source.window.granted().max(initial);
        if record.end() > granted {
            return Taken::BeyondCredit { granted };
        }
        match tail.accept(compact(record)) {
            Accepted::Gap { expected } => return Taken::Gap { expected },
            Accepted::Repeated => return Taken::Repeated,
            Accepted::New { cost } => lock(&self.hub.0.pool).grow(cost),
        }
        drop(state);
        self.hub.hand_on(&self.channel);
        self.channel.news.send_replace(());
        Taken::New
    }

    /// Bytes that the agent may send, or has sent, and that are not archived.
    pub fn outstanding(&self) -> u64 {
        let state = lock(&self.channel.state);
        state
            .source
            .as_ref()
            .filter(|source| source.number == self.number)
            .map_or(0, |s| s.window.outstanding())
    }

    /// The credit to send to the agent, if it differs from what it was sent last. `more` bounds what is granted beyond
    /// that.
    pub fn credit(&self, more: u64) -> Option<LogControl> {
        let mut state = lock(&self.channel.state);
        let State { tail: Some(tail), source: Some(source), .. } = &mut *state else { return None };
        if source.number != self.number {
            return None;
        }
        let archived = tail.archived();
        lock(&self.hub.0.pool).advance(&mut source.window, archived, tail.held().end, more);
        let now = (source.window.granted(), archived);
        if source.told == Some(now) {
            return None;
        }
        source.told = Some(now);
        Some(LogControl::Credit { attempt: self.channel.attempt.clone(), granted: now.0, archived: now.1 })
    }

    /// Whether the agent has sent all that it may.
    pub fn is_spent(&self) -> bool {
        let state = lock(&self.channel.state);
        match (&state.tail, &state.source) {
            (Some(tail), Some(source)) => source.window.granted() <= tail.held().end,
            _ => false,
        }
    }

    /// Whether it is known where the log ends.
    pub fn has_end(&self) -> bool {
        matches!(lock(&self.channel.state).end, End::At(_))
    }

    /// Whether History holds all there will ever be.
    pub fn is_complete(&self) -> bool {
        let state = lock(&self.channel.state);
        let archived = state.tail.as_ref().map(Tail::archived);
        matches!((state.end, archived), (End::At(end), Some(archived)) if archived >= end)
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut state = lock(&self.channel.state);
        if let Some(source) = state.source.take_if(|source| source.number == self.number) {
            lock(&self.hub.0.pool).close(source.window);
        }
        drop(state);
        self.hub.tidy(&self.channel);
    }
}

/// A short record out of a large frame would keep all of the frame in memory.
fn compact(mut record: LogRecord) -> LogRecord {
    if record.data.len() < 32 << 10 {
        record.data = record.data.to_vec().into();
    }
    record
}

/// A reader's view of one Attempt.
pub(super) struct Watch {
    hub: Hub,
    channel: Arc<Channel>,
    news: watch::Receiver<()>,
}

/// What a reader finds.
pub(super) enum Look {
    /// These records.
    Records(Vec<LogRecord>),
    /// Nothing here; what to do instead.
    Go(Next),
}

impl Watch {
    /// What there is at a position. News from here on are seen by [`Watch::news`].
    pub(super) fn look(&mut self, position: u64, follow: Follow, searched: Option<u64>) -> Look {
        self.news.mark_unchanged();
        let state = lock(&self.channel.state);
        match tail::next(position, state.tail.as_ref(), state.end, follow, searched) {
            Next::Held => match state.tail.as_ref().map(|tail| tail.read(position, READ_BYTES)) {
                Some(Read::Records(records)) => Look::Records(records),
                _ => Look::Go(Next::Wait),
            },
            next => Look::Go(next),
        }
    }

    /// Where the log ends, as far as the hub knows.
    pub(super) fn end(&self) -> End {
        lock(&self.channel.state).end
    }

    /// Position behind the last byte that the hub holds, if it holds any of this log.
    pub(super) fn held_end(&self) -> Option<u64> {
        lock(&self.channel.state).tail.as_ref().map(|tail| tail.held().end)
    }

    /// Says where the log ends, from another source.
    pub(super) fn set_end(&self, end: End) {
        self.hub.ended(&self.channel.attempt, end);
    }

    /// Returns when there is something new since the last look.
    pub(super) async fn news(&mut self) {
        // The sender lives as long as the channel, which we hold.
        let _ = self.news.changed().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.channel.state).readers -= 1;
        self.hub.tidy(&self.channel);
    }
}
