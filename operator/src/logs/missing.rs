//! Holes in an archived log.

use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};

/// Marks bytes that the archive once held, or should have held.
pub(super) fn missing_record(from: u64, to: u64) -> LogRecord {
    LogRecord {
        head: RecordHead {
            stream: Stream::Stdout,
            position: from,
            offset: from,
            len: to - from,
            at_micros: 0,
            dropped: Some(DropReason::Unreadable),
        },
        data: bytes::Bytes::new(),
    }
}
