//! The parts of a log, and their heads, which are the same in frames and in JSON.

use bytes::Bytes;
use sentinel_protocol::log::{DropReason, Stream};
use serde::Deserialize;

/// A part of a log.
#[derive(Debug)]
pub enum LogItem {
    /// Bytes of output.
    Bytes {
        /// Which stream.
        stream: Stream,
        /// When they were written, by the node's clock, microseconds since the Unix epoch.
        at_micros: i64,
        /// The bytes: of a record, or of as much of one as has arrived.
        data: Bytes,
        /// Position after them.
        end: u64,
    },
    /// Bytes that are missing here.
    Hole {
        /// Which stream.
        stream: Stream,
        /// Their number.
        len: u64,
        /// Why.
        why: DropReason,
        /// Position after them.
        end: u64,
    },
    /// The log is complete.
    End,
    /// The log ends here for now.
    Pause {
        /// Bytes of a finished log that its node still holds; 0 while the Attempt is active.
        missing: u64,
    },
}

/// The head of a part, which is all of it where the log is JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) kind: String,
    pub(super) stream: Option<Stream>,
    #[serde(default)]
    pub(super) position: u64,
    #[serde(default)]
    pub(super) len: u64,
    #[serde(default)]
    pub(super) at_micros: i64,
    /// The bytes in base64, where they are not behind it.
    pub(super) data: Option<String>,
    pub(super) dropped: Option<DropReason>,
    #[serde(default)]
    ended: bool,
    #[serde(default)]
    missing: u64,
}

impl Head {
    /// The part of a log that has no bytes; `None` for a kind of a newer server.
    pub(super) fn item(&self) -> Option<LogItem> {
        let end = self.position.saturating_add(self.len);
        match (self.kind.as_str(), self.stream, self.dropped) {
            ("record", Some(stream), Some(why)) => Some(LogItem::Hole { stream, len: self.len, why, end }),
            ("end", _, _) if self.ended => Some(LogItem::End),
            ("end", _, _) => Some(LogItem::Pause { missing: self.missing }),
            _ => None,
        }
    }
}
