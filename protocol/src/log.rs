//! The log stream: records, positions and credit.
//!
//! An Attempt has **one** log, in the order in which its supervisor read the two pipes. Every byte of either stream has
//! a **position** in it, including dropped bytes. So a position is a cursor for a reader, a gap is recorded with its
//! reason (`dropped`), and a duplicate record is recognised by its position. A record also has the **offset** in its
//! own stream, so that one stream can be read alone.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, SessionId};
use crate::refusal::SessionRefusal;

/// One of the two streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in the API and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DropReason {
    /// The Spool was full for longer than `output.maxBlock`.
    SpoolFull,
    /// The output exceeded `output.limit`.
    LimitReached,
    /// The node's disk was full.
    DiskFull,
    /// The record on the node's disk was damaged or could not be read.
    Unreadable,
    /// The node reported the bytes and did not send them. Only an operator records this.
    NotSent,
}

impl DropReason {
    /// The reason for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "the spool on the node was full",
            Self::LimitReached => "output.limit was reached",
            Self::DiskFull => "the node's disk was full",
            Self::Unreadable => "the record on the node's disk was unreadable",
            Self::NotSent => "the node did not send it",
        }
    }
}

/// A contiguous piece of output, or a gap where output was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Position, length and kind.
    pub head: RecordHead,
    /// The bytes; empty for a gap.
    pub data: Bytes,
}

impl LogRecord {
    /// The position after the last byte of this record.
    pub fn end(&self) -> u64 {
        self.head.position.saturating_add(self.head.len)
    }

    /// The part of this record from `position` on; `None` when the record ends before it.
    #[must_use]
    pub fn from_position(mut self, position: u64) -> Option<Self> {
        if position <= self.head.position {
            return Some(self);
        }
        if position >= self.end() {
            return None;
        }
        let skip = position - self.head.position;
        self.head.position += skip;
        self.head.offset += skip;
        self.head.len -= skip;
        if self.head.dropped.is_none() {
            self.data = self.data.slice(skip as usize..);
        }
        Some(self)
    }

    /// Its first bytes, at most so many but at least one, and the rest. A mark of missing bytes is not divided.
    #[must_use]
    pub fn split(self, bytes: u64) -> (Self, Option<Self>) {
        let position = self.head.position.saturating_add(bytes.max(1));
        if self.head.dropped.is_some() || position >= self.end() {
            return (self, None);
        }
        let rest = self.clone().from_position(position);
        let mut first = self;
        first.head.len = position - first.head.position;
        first.data.truncate(first.head.len as usize);
        (first, rest)
    }

    /// The part of it before a position; `None` when there is none.
    #[must_use]
    pub fn until_position(mut self, position: u64) -> Option<Self> {
        if position >= self.end() {
            return Some(self);
        }
        if position <= self.head.position {
            return None;
        }
        self.head.len = position - self.head.position;
        if self.head.dropped.is_none() {
            self.data.truncate(self.head.len as usize);
        }
        Some(self)
    }
}

/// The head of a [`LogRecord`], sent as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordHead {
    /// The stream it belongs to.
    pub stream: Stream,
    /// Position of the first byte in the Attempt's log.
    pub position: u64,
    /// Offset of the first byte in its own stream.
    pub offset: u64,
    /// Number of bytes, present or dropped.
    pub len: u64,
    /// When the supervisor read them: microseconds since the Unix epoch, by the node's clock.
    pub at_micros: i64,
    /// Why the bytes are missing; `None` when they are in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DropReason>,
}

/// A text frame on the log socket, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum LogControl {
    /// From the agent: the first frame, which binds the socket to the control Session of the same agent.
    Hello {
        /// The control Session.
        session: SessionId,
    },
    /// From the agent: the node has output of this Attempt from `oldest` on. Answered by a Credit.
    Open {
        /// Which Attempt.
        attempt: AttemptId,
        /// The first position that is still on the node.
        oldest: u64,
    },
    /// From the operator: how far the agent may send, and how far the output is archived.
    Credit {
        /// Which Attempt.
        attempt: AttemptId,
        /// The agent may send all bytes before this position.
        granted: u64,
        /// All bytes before this position are archived; the node may delete them.
        archived: u64,
    },
    /// From the operator: the socket is refused or ended; it closes after this.
    Refuse {
        /// Why.
        refusal: SessionRefusal,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(position: u64, data: &'static [u8]) -> LogRecord {
        LogRecord {
            head: RecordHead {
                stream: Stream::Stdout,
                position,
                offset: position,
                len: data.len() as u64,
                at_micros: 0,
                dropped: None,
            },
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn trims_a_record_at_a_position_inside_it() {
        let cut = record(10, b"abcdef").from_position(12).unwrap();
        assert_eq!(
            (cut.head.position, cut.head.offset, cut.head.len, &cut.data[..]),
            (12, 12, 4, &b"cdef"[..])
        );
    }

    #[test]
    fn drops_earlier_and_keeps_later_records() {
        assert!(record(10, b"abc").from_position(13).is_none());
        assert_eq!(record(10, b"abc").from_position(3), Some(record(10, b"abc")));
    }
}
