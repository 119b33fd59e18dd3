//! The hub as the gateway and the readers hold it.

use std::sync::Arc;

use bytes::Bytes;
use sentinel_core::stream::credit::{CreditPool, CreditRules};
use sentinel_core::stream::tail::{self, Accepted, End, Tail};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};
use tokio::sync::Notify;

use super::inner::{ActivePublisher, ChannelState, HubInner};
use super::publisher::LogPublisher;
use super::subscriber::LogSubscriber;
use crate::history::archive::Archiver;
use crate::metrics::{Kind, Registry as MetricsRegistry};

/// The limits of a [`Hub`].
#[derive(Debug, Clone, Copy)]
pub struct HubRules {
    /// Memory and windows.
    pub credit: CreditRules,
    /// Archived bytes that are kept per Attempt, so that a reader who is nearly up to date need not query History.
    pub recent: u64,
}

impl Default for HubRules {
    fn default() -> Self {
        Self { credit: CreditRules::default(), recent: 256 << 10 }
    }
}

/// The tails of all Attempts with output. Clones share one hub.
#[derive(Clone)]
pub struct Hub(Arc<HubInner>);

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("credit", &self.0.credit).finish_non_exhaustive()
    }
}

impl Hub {
    /// An empty hub that forwards output to this archiver.
    pub fn new(archiver: Archiver, rules: HubRules, metrics: &MetricsRegistry) -> Self {
        let rejected = metrics.counter(
            "sentinel_logs_rejected_total",
            "Times that History rejected output for good; that output is not archived.",
        );
        let hub = Self(Arc::new(HubInner::new(archiver, rules.credit, rules.recent, rejected)));
        let gauge = |name, help, value: fn(&CreditPool) -> u64| {
            let inner = Arc::downgrade(&hub.0);
            metrics.computed(Kind::Gauge, name, help, &[], move || {
                inner.upgrade().map_or(0.0, |inner| value(&inner.pool()) as f64)
            });
        };
        gauge("sentinel_logs_held_bytes", "Memory in use for output.", CreditPool::held);
        gauge(
            "sentinel_logs_reserved_bytes",
            "Output that agents may send or that is not archived yet.",
            CreditPool::reserved,
        );
        gauge("sentinel_logs_short", "1 while memory for output is short, else 0.", |pool| {
            u64::from(pool.is_short())
        });
        hub
    }

    /// Position up to which an agent may send output of a new Attempt before it receives any credit.
    pub fn initial_credit(&self) -> u64 {
        self.0.credit.min_window
    }

    /// An agent has output of this Attempt from `oldest` on; `wake` is notified when there may be more credit to send.
    /// An earlier publisher of the Attempt is superseded.
    pub fn open(&self, attempt: &AttemptId, oldest: u64, wake: Arc<Notify>) -> LogPublisher {
        let (channel, number) = self.0.join(attempt, |state| self.activate(state, oldest, wake));
        self.0.archiver.open_output(attempt, oldest);
        channel.notify();
        LogPublisher::new(self.0.clone(), channel, number)
    }

    fn activate(&self, state: &mut ChannelState, oldest: u64, wake: Arc<Notify>) -> u64 {
        let mut pool = self.0.pool();
        if let Some(older) = state.publisher.take() {
            pool.close(older.window);
            older.wake.notify_one();
        }
        // An agent drops only output that was reported as archived: what lies before `oldest` is archived, or lost.
        if state.tail.as_ref().is_none_or(|tail| tail.held().end < oldest) {
            let before = state.tail.replace(Tail::new(oldest)).map_or(0, |tail| tail.cost());
            pool.shrink(before);
        }
        let archived = state.tail.as_ref().map_or(oldest, Tail::archived);
        let window = pool.open(archived);
        state.last_publisher += 1;
        let number = state.last_publisher;
        state.publisher = Some(ActivePublisher { number, window, sent: None, wake });
        number
    }

    /// Waits until there is room for a record.
    pub async fn room_for(&self, record: &LogRecord) {
        let cost = tail::cost(record);
        loop {
            // Registered before the check, so that what is freed in between is not missed.
            let mut freed = std::pin::pin!(self.0.freed.notified());
            freed.as_mut().enable();
            if self.0.pool().has_room(cost) {
                return;
            }
            freed.await;
        }
    }

    /// Whether so much is held that nothing more is granted.
    pub fn is_short(&self) -> bool {
        self.0.pool().is_short()
    }

    /// Returns when memory was freed since it was called.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// History holds the output of this Attempt up to `end`.
    pub fn archived(&self, attempt: &AttemptId, end: u64) {
        if let Some(channel) = self.0.find(attempt) {
            self.0.mark_archived(&channel, end);
            self.0.remove_if_unused(&channel);
        }
        self.0.retry_stalled();
    }

    /// History will never take the queued output of this Attempt. It is dropped: output that cannot be stored must not
    /// stop the node forever.
    pub fn rejected(&self, attempt: &AttemptId) {
        self.0.rejected.add(1);
        self.archived(attempt, self.held_position(attempt).unwrap_or(0));
    }

    /// The rest of this Attempt's output, up to `end`, will not arrive: it is marked as missing, also in the archive.
    /// `archived` is how far History holds it, for an Attempt without held output.
    pub fn give_up(&self, attempt: &AttemptId, archived: u64, end: u64) {
        let (channel, ()) = self.0.join(attempt, |state| {
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
                    self.0.pool().grow(cost);
                }
            }
        });
        self.0.archiver.open_output(attempt, archived);
        self.0.forward(&channel);
        channel.notify();
    }

    /// Position behind the last byte of this Attempt that is held, archived or not; `None` when none is.
    pub fn held_position(&self, attempt: &AttemptId) -> Option<u64> {
        self.0.find(attempt)?.state().tail.as_ref().map(|tail| tail.held().end)
    }

    /// Records where the log of this Attempt ends.
    pub fn ended(&self, attempt: &AttemptId, end: End) {
        if let Some(channel) = self.0.find(attempt) {
            channel.set_end(end);
        }
    }

    /// Position up to which output of this Attempt is archived, as far as the hub knows.
    pub fn archived_position(&self, attempt: &AttemptId) -> Option<u64> {
        self.0.find(attempt)?.state().tail.as_ref().map(Tail::archived)
    }

    /// Subscribes a reader to this Attempt.
    pub(in crate::logs) fn subscribe(&self, attempt: &AttemptId) -> LogSubscriber {
        let (channel, ()) = self.0.join(attempt, |state| state.subscribers += 1);
        LogSubscriber::new(self.0.clone(), channel)
    }
}
