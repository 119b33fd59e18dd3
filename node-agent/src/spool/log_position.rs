//! A position in the log over both streams, with the offset in each.

use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};

/// A position between two bytes of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogPosition {
    pub(crate) position: u64,
    /// Offsets in stdout and stderr.
    pub(crate) offsets: [u64; 2],
}

/// The index of a stream in an array of two.
pub(crate) fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Both streams, in the order of [`index`].
pub(crate) const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl LogPosition {
    pub(crate) fn offset(&self, stream: Stream) -> u64 {
        self.offsets[index(stream)]
    }

    /// The position after `len` more bytes of `stream`.
    pub(crate) fn after(mut self, stream: Stream, len: u64) -> Self {
        self.position = self.position.saturating_add(len);
        let offset = &mut self.offsets[index(stream)];
        *offset = offset.saturating_add(len);
        self
    }

    /// The position after these many bytes of both streams.
    pub(crate) fn after_both(self, lens: [u64; 2]) -> Self {
        self.after(Stream::Stdout, lens[0]).after(Stream::Stderr, lens[1])
    }

    /// Bytes of each stream from here to `later`; `None` when that is not a later position.
    pub(crate) fn distance(&self, later: &Self) -> Option<[u64; 2]> {
        let lens =
            [later.offsets[0].checked_sub(self.offsets[0])?, later.offsets[1].checked_sub(self.offsets[1])?];
        (self.after_both(lens) == *later).then_some(lens)
    }

    /// Whether no output of both streams leads from here to `next`, although it is not before this.
    pub(crate) fn contradicts(&self, next: &Self) -> bool {
        next.position >= self.position && self.distance(next).is_none()
    }

    pub(crate) fn head(
        &self,
        stream: Stream,
        len: u64,
        at_micros: i64,
        dropped: Option<DropReason>,
    ) -> RecordHead {
        RecordHead { stream, position: self.position, offset: self.offset(stream), len, at_micros, dropped }
    }

    /// The holes for these many bytes from here on: one per stream, as their order is not known.
    pub(crate) fn holes(
        self,
        lens: [u64; 2],
        at_micros: i64,
        reason: DropReason,
    ) -> impl Iterator<Item = LogRecord> {
        let mut place = self;
        STREAMS.into_iter().zip(lens).filter(|(_, len)| *len > 0).map(move |(stream, len)| {
            let head = place.head(stream, len, at_micros, Some(reason));
            place = place.after(stream, len);
            LogRecord { head, data: bytes::Bytes::new() }
        })
    }
}
