//! One log out of segments that may overlap, because output is sent again after a crash and cut differently then.

use std::collections::BTreeMap;

use sentinel_protocol::log::LogRecord;

use super::error::HistoryError;
use super::segment::OutputSegment;

/// How far output is covered without a hole, from segments offered in any order.
pub(super) struct Coverage {
    end: u64,
    /// Segments behind a hole, first → end.
    beyond: BTreeMap<u64, u64>,
}

impl Coverage {
    /// Nothing is known yet from `from` on.
    pub(super) fn from(from: u64) -> Self {
        Self { end: from, beyond: BTreeMap::new() }
    }

    /// There is a segment from `first` to `end`.
    pub(super) fn offer(&mut self, first: u64, end: u64) {
        if first > self.end {
            let longest = self.beyond.entry(first).or_insert(end);
            *longest = end.max(*longest);
            return;
        }
        self.end = self.end.max(end);
        while let Some(next) = self.beyond.first_entry()
            && *next.key() <= self.end
        {
            self.end = self.end.max(next.remove());
        }
    }

    /// Position behind the last byte that is covered.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}

/// Records that are put together from a position on.
pub(super) struct Stitch {
    position: u64,
    room: usize,
    records: Vec<LogRecord>,
}

impl Stitch {
    /// Nothing yet; up to about `max_bytes` are wanted from `from` on.
    pub(super) fn new(from: u64, max_bytes: usize) -> Self {
        Self { position: from, room: max_bytes, records: Vec::new() }
    }

    /// The position that is wanted next.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether there is enough.
    pub(super) fn is_full(&self) -> bool {
        self.room == 0 && !self.records.is_empty()
    }

    /// Nothing is held before `first`: go on there.
    pub(super) fn skip_to(&mut self, first: u64) {
        self.position = self.position.max(first);
    }

    /// Takes from a segment what lies at and behind the position, which must be inside it.
    pub(super) fn take(&mut self, segment: &OutputSegment) -> Result<(), HistoryError> {
        for record in segment.unpack()? {
            if self.is_full() {
                return Ok(());
            }
            if let Some(record) = record.from_position(self.position) {
                self.position = record.end();
                self.room = self.room.saturating_sub(record.data.len());
                self.records.push(record);
            }
        }
        Ok(())
    }

    /// What was put together.
    pub(super) fn finish(self) -> Vec<LogRecord> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn coverage_ends_at_the_first_byte_that_no_segment_has(
            segments in prop::collection::vec((0..60_u64, 1..20_u64), 0..12),
            from in 0..40_u64,
        ) {
            let mut coverage = Coverage::from(from);
            let mut there = [false; 100];
            for (first, len) in segments {
                coverage.offer(first, first + len);
                there[first as usize..(first + len) as usize].fill(true);
            }
            let naive = (from..100).find(|at| !there[*at as usize]).unwrap();
            prop_assert_eq!(coverage.end(), naive);
        }
    }
}
