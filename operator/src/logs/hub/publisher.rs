//! Output of one Attempt as it arrives over a log socket.

use std::sync::Arc;

use sentinel_core::stream::tail::{Accepted, End, Tail};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogControl, LogRecord};

use super::inner::{Channel, ChannelState, HubInner};

/// Data of a record below this is copied out of its frame.
const COPY_BELOW: usize = 32 << 10;

/// Takes the output of one Attempt; returns its credit window to the pool when it is dropped.
pub struct LogPublisher {
    hub: Arc<HubInner>,
    channel: Arc<Channel>,
    number: u64,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishResult {
    /// It is held.
    New,
    /// It was held before.
    Repeated,
    /// It does not follow the last record; it was not taken.
    Gap {
        /// Where the log continues.
        expected: u64,
    },
    /// The agent had no credit for it.
    BeyondCredit {
        /// Up to where it had.
        granted: u64,
    },
    /// Another socket has taken the Attempt over.
    Superseded,
}

impl LogPublisher {
    pub(super) fn new(hub: Arc<HubInner>, channel: Arc<Channel>, number: u64) -> Self {
        Self { hub, channel, number }
    }

    /// The Attempt.
    pub fn attempt(&self) -> &AttemptId {
        &self.channel.attempt
    }

    /// Holds a record and forwards it to the archiver. Await [`Hub::room_for`](super::Hub::room_for) before.
    pub fn publish(&self, record: LogRecord) -> PublishResult {
        let mut state = self.channel.state();
        let ChannelState { tail: Some(tail), publisher: Some(publisher), .. } = &mut *state else {
            return PublishResult::Superseded;
        };
        if publisher.number != self.number {
            return PublishResult::Superseded;
        }
        let granted = publisher.window.granted().max(self.hub.credit.min_window);
        if record.end() > granted {
            return PublishResult::BeyondCredit { granted };
        }
        match tail.accept(compact(record)) {
            Accepted::Gap { expected } => return PublishResult::Gap { expected },
            Accepted::Repeated => return PublishResult::Repeated,
            Accepted::New { cost } => self.hub.pool().grow(cost),
        }
        drop(state);
        self.hub.forward(&self.channel);
        self.channel.notify();
        PublishResult::New
    }

    /// Bytes that the agent may send, or has sent, and that are not archived.
    pub fn outstanding(&self) -> u64 {
        let state = self.channel.state();
        let publisher = state.publisher.as_ref().filter(|publisher| publisher.number == self.number);
        publisher.map_or(0, |publisher| publisher.window.outstanding())
    }

    /// The credit to send to the agent, if it differs from the last one sent. At most `more` bytes are added to it.
    pub fn credit(&self, more: u64) -> Option<LogControl> {
        let mut state = self.channel.state();
        let ChannelState { tail: Some(tail), publisher: Some(publisher), .. } = &mut *state else {
            return None;
        };
        if publisher.number != self.number {
            return None;
        }
        let archived = tail.archived();
        self.hub.pool().advance(&mut publisher.window, archived, tail.held().end, more);
        let granted = publisher.window.granted();
        if publisher.sent.replace((granted, archived)) == Some((granted, archived)) {
            return None;
        }
        Some(LogControl::Credit { attempt: self.channel.attempt.clone(), granted, archived })
    }

    /// Whether the agent has used all of its credit.
    pub fn is_spent(&self) -> bool {
        let state = self.channel.state();
        match (&state.tail, &state.publisher) {
            (Some(tail), Some(publisher)) => publisher.window.granted() <= tail.held().end,
            _ => false,
        }
    }

    /// Whether the end of the log is known.
    pub fn has_end(&self) -> bool {
        matches!(self.channel.state().end, End::At(_))
    }

    /// Whether History holds the whole log.
    pub fn is_complete(&self) -> bool {
        let state = self.channel.state();
        let archived = state.tail.as_ref().map(Tail::archived);
        matches!((state.end, archived), (End::At(end), Some(archived)) if archived >= end)
    }
}

impl Drop for LogPublisher {
    fn drop(&mut self) {
        let mut state = self.channel.state();
        if let Some(publisher) = state.publisher.take_if(|publisher| publisher.number == self.number) {
            self.hub.pool().close(publisher.window);
        }
        drop(state);
        self.hub.remove_if_unused(&self.channel);
    }
}

/// Copies short data, so that it does not keep a large frame in memory.
fn compact(mut record: LogRecord) -> LogRecord {
    if record.data.len() < COPY_BELOW {
        record.data = record.data.to_vec().into();
    }
    record
}
