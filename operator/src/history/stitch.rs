//! One log out of segments that may overlap: after a crash, output is sent again and divided differently.

use std::collections::BTreeMap;

use sentinel_protocol::log::LogRecord;

use super::error::HistoryError;
use super::segment::OutputSegment;

/// How far output is covered without a hole, from segments added in any order.
pub(super) struct Coverage {
    end: u64,
    /// Segments after a hole, first → end.
    beyond: BTreeMap<u64, u64>,
}

impl Coverage {
    /// No segment yet; coverage begins at `from`.
    pub(super) fn from(from: u64) -> Self {
        Self { end: from, beyond: BTreeMap::new() }
    }

    /// Adds a segment from `first` to `end`.
    pub(super) fn add(&mut self, first: u64, end: u64) {
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

/// Collects records from a position on.
pub(super) struct Stitch {
    position: u64,
    room: usize,
    records: Vec<LogRecord>,
}

impl Stitch {
    /// Collects about `max_bytes` from `from` on.
    pub(super) fn new(from: u64, max_bytes: usize) -> Self {
        Self { position: from, room: max_bytes, records: Vec::new() }
    }

    /// The position of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether there is enough.
    pub(super) fn is_full(&self) -> bool {
        self.room == 0 && !self.records.is_empty()
    }

    /// Nothing is held before `first`: continue there.
    pub(super) fn skip_to(&mut self, first: u64) {
        self.position = self.position.max(first);
    }

    /// Takes the records of a segment at and after the position, which must be inside it.
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

    /// The collected records.
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
        fn coverage_ends_at_the_first_missing_byte(
            segments in prop::collection::vec((0..60_u64, 1..20_u64), 0..12),
            from in 0..40_u64,
        ) {
            let mut coverage = Coverage::from(from);
            let mut covered = [false; 100];
            for (first, len) in segments {
                coverage.add(first, first + len);
                covered[first as usize..(first + len) as usize].fill(true);
            }
            let naive = (from..100).find(|at| !covered[*at as usize]).unwrap();
            prop_assert_eq!(coverage.end(), naive);
        }
    }
}
