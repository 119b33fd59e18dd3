//! One reader of one Attempt's log in the hub.

use std::sync::Arc;

use sentinel_core::stream::tail::{self, End, Follow, Next, Read};
use sentinel_protocol::log::LogRecord;
use tokio::sync::watch;

use super::inner::{Channel, HubInner};

/// Most bytes that one read returns.
const READ_BYTES: usize = 256 << 10;

/// A reader's subscription to one Attempt.
pub(in crate::logs) struct LogSubscriber {
    hub: Arc<HubInner>,
    channel: Arc<Channel>,
    changed: watch::Receiver<()>,
}

/// What the hub has for a reader.
pub(in crate::logs) enum Available {
    /// These records.
    Records(Vec<LogRecord>),
    /// No records; what to do instead.
    Nothing(Next),
}

impl LogSubscriber {
    /// `channel` counts it as a subscriber already.
    pub(super) fn new(hub: Arc<HubInner>, channel: Arc<Channel>) -> Self {
        let changed = channel.changed.subscribe();
        Self { hub, channel, changed }
    }

    /// Reads at a position. [`LogSubscriber::changed`] returns on changes from here on.
    pub(in crate::logs) fn read(
        &mut self,
        position: u64,
        follow: Follow,
        searched: Option<u64>,
        bytes: usize,
    ) -> Available {
        self.changed.mark_unchanged();
        let state = self.channel.state();
        match tail::next(position, state.tail.as_ref(), state.end, follow, searched) {
            Next::Held => match state.tail.as_ref().map(|tail| tail.read(position, bytes.min(READ_BYTES))) {
                Some(Read::Records(records)) => Available::Records(records),
                _ => Available::Nothing(Next::Wait),
            },
            next => Available::Nothing(next),
        }
    }

    /// Where the log ends, as far as the hub knows.
    pub(in crate::logs) fn end(&self) -> End {
        self.channel.state().end
    }

    /// Position behind the last byte that the hub holds, if it holds any of this log.
    pub(in crate::logs) fn held_end(&self) -> Option<u64> {
        self.channel.state().tail.as_ref().map(|tail| tail.held().end)
    }

    /// Records where the log ends, known from elsewhere.
    pub(in crate::logs) fn set_end(&self, end: End) {
        self.channel.set_end(end);
    }

    /// Returns when something has changed since the last read.
    pub(in crate::logs) async fn changed(&mut self) {
        // Never an error: the channel owns the sender, and this holds the channel.
        let _ = self.changed.changed().await;
    }
}

impl Drop for LogSubscriber {
    fn drop(&mut self) {
        self.channel.state().subscribers -= 1;
        self.hub.remove_if_unused(&self.channel);
    }
}
