//! Output on its way: records, positions and credit.
//!
//! An Attempt has **one** log, in the order in which its supervisor read the two pipes. Every byte of either
//! stream takes one **position** in it, a dropped byte too; so a position is a cursor for a viewer, a hole is a
//! fact (`Dropped`) and never a guess, and a repeated record is recognised by where it stands. A record also says
//! the **offset** in its own stream, so that one stream can be read alone.

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
    /// The word used in the API and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Why bytes are missing at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DropReason {
    /// The spool was full for longer than `output.maxBlock`.
    SpoolFull,
    /// The output was longer than `output.limit`.
    LimitReached,
    /// The node's disk took no more.
    DiskFull,
    /// The record on the node's disk could not be read back.
    Unreadable,
    /// The node did not send it, though it had reported it. Only the operator writes this.
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

/// A run of output, or a hole where output was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it stands and what it is.
    pub head: RecordHead,
    /// The bytes; empty for a hole.
    pub data: Bytes,
}

impl LogRecord {
    /// Position of the first byte behind this record.
    pub fn end(&self) -> u64 {
        self.head.position.saturating_add(self.head.len)
    }

    /// The part of this record from `position` on; `None` when nothing of it lies there.
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
}

/// The small head of a [`LogRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordHead {
    /// Which stream.
    pub stream: Stream,
    /// Position of the first byte in the Attempt's log.
    pub position: u64,
    /// Position of the first byte in its own stream.
    pub offset: u64,
    /// Number of bytes, there or missing.
    pub len: u64,
    /// When the supervisor read them, microseconds since the Unix epoch by the node's clock.
    pub at_micros: i64,
    /// Set when the bytes are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DropReason>,
}

/// Text frames on the log socket, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum LogControl {
    /// Agent: the first frame; ties the socket to the control Session of the same agent.
    Hello {
        /// The control Session.
        session: SessionId,
    },
    /// Agent: I have output of this Attempt from `oldest` on. Answered by a Credit.
    Open {
        /// Which Attempt.
        attempt: AttemptId,
        /// First position that is still on the node.
        oldest: u64,
    },
    /// Operator: up to where the agent may send, and up to where History holds all of it.
    Credit {
        /// Which Attempt.
        attempt: AttemptId,
        /// The agent may send every byte before this position.
        granted: u64,
        /// Every byte before this position is archived and may leave the node.
        archived: u64,
    },
    /// Operator: the socket is declined; it closes after this.
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
    fn record_is_cut_at_a_position() {
        let cut = record(10, b"abcdef").from_position(12).unwrap();
        assert_eq!(
            (cut.head.position, cut.head.offset, cut.head.len, &cut.data[..]),
            (12, 12, 4, &b"cdef"[..])
        );
    }

    #[test]
    fn a_record_before_the_position_is_gone_and_one_behind_it_is_whole() {
        assert!(record(10, b"abc").from_position(13).is_none());
        assert_eq!(record(10, b"abc").from_position(3), Some(record(10, b"abc")));
    }
}
