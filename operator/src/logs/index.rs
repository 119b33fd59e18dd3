//! Where in an archived log its lines are: a list of positions with the lines before each, built once from the line counts
//! of the archive's segments and extended as the archive grows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use sentinel_core::stream::cursor::MAX_LOGS;
use sentinel_core::stream::lines::{LineCount, LineMark};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::Stream;

use super::missing::missing_record;
use crate::history::error::HistoryError;
use crate::history::segment::{MAX_SEGMENT_DATA, SegmentLines};
use crate::history::store::History;

/// Segments per read of History.
const SEGMENTS: usize = 1000;

/// Most checkpoints of a log; beyond that every second one is dropped.
const MAX_CHECKPOINTS: usize = 4096;

/// Most logs with an index in memory, and most bytes of their checkpoints: those of two merged Runs, or of one whose logs
/// are all so long that they have the most checkpoints. The least recently used ones are dropped.
const MAX_INDEXES: (usize, usize) = (2 * MAX_LOGS, MAX_LOGS * MAX_CHECKPOINTS * size_of::<Checkpoint>());

/// A position, and how many lines begin earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The position.
    pub(super) position: u64,
    /// How many lines begin earlier.
    pub(super) mark: LineMark,
    /// When the record there was written, by the node's clock, microseconds since the Unix epoch; 0 if unknown, the
    /// largest number where none is indexed yet.
    pub(super) at_micros: i64,
}

/// What becomes of a hole in an archive, which may still be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holes {
    /// The index ends there.
    Stop,
    /// It counts as output that was dropped.
    Count,
}

/// The checkpoints of one log, from its beginning to the end of what is archived.
#[derive(Debug, Clone)]
pub(super) struct LineIndex {
    checkpoints: Vec<Checkpoint>,
    /// The end, where the next segment begins.
    end: Checkpoint,
}

impl LineIndex {
    fn new() -> Self {
        let end = Checkpoint::default();
        Self { checkpoints: vec![end], end }
    }

    /// The end of what is indexed.
    pub(super) fn end(&self) -> Checkpoint {
        self.end
    }

    /// The last checkpoint before which fewer lines begin than `line`: of one stream, or of both.
    pub(super) fn before_line(&self, line: u64, stream: Option<Stream>) -> Checkpoint {
        self.last_where(|checkpoint| checkpoint.mark.lines(stream) < line)
    }

    /// The last checkpoint at or before a position.
    pub(super) fn before_position(&self, position: u64) -> Checkpoint {
        self.last_where(|checkpoint| checkpoint.position <= position)
    }

    /// The last checkpoint within so many bytes behind a position, or else the next one; `None` at the end.
    pub(super) fn within(&self, position: u64, bytes: u64) -> Option<u64> {
        let next = self.checkpoints.partition_point(|checkpoint| checkpoint.position <= position);
        let next = self.checkpoints.get(next).map_or(self.end.position, |checkpoint| checkpoint.position);
        let last = self.before_position(position.saturating_add(bytes)).position;
        Some(next.max(last)).filter(|end| *end > position)
    }

    /// The last checkpoint that was written before a time. If the node's clock was set meanwhile, it is one of those at
    /// which the time is passed.
    pub(super) fn before_time(&self, micros: i64) -> Checkpoint {
        self.last_where(|checkpoint| checkpoint.at_micros < micros)
    }

    fn last_where(&self, is_before: impl Fn(&Checkpoint) -> bool) -> Checkpoint {
        if is_before(&self.end) {
            return self.end;
        }
        let after = self.checkpoints.partition_point(is_before);
        self.checkpoints[after.saturating_sub(1)]
    }

    /// Adds what was archived since, to a copy if there is any while others read this one. Returns whether that is all that
    /// is archived.
    async fn extend(
        self: &mut Arc<Self>,
        history: &dyn History,
        attempt: &AttemptId,
        holes: Holes,
    ) -> Result<bool, HistoryError> {
        loop {
            let from = self.end.position;
            let segments = history.output_lines(attempt.clone(), from, SEGMENTS).await?;
            let is_last = segments.len() < SEGMENTS;
            for segment in segments {
                if segment.end > self.end.position && !self.add(history, attempt, segment, holes).await? {
                    return Ok(false);
                }
            }
            if is_last || self.end.position == from {
                return Ok(true);
            }
        }
    }

    /// Adds a segment; `false` at a hole that is not counted.
    async fn add(
        self: &mut Arc<Self>,
        history: &dyn History,
        attempt: &AttemptId,
        segment: SegmentLines,
        holes: Holes,
    ) -> Result<bool, HistoryError> {
        match segment.lines {
            Some(lines) if segment.first == self.end.position => {
                Arc::make_mut(self).push(segment.end, &lines);
            }
            // An overlap, a hole, or an archive of a release that did not count lines.
            _ => {
                while self.end.position < segment.end {
                    if !self.count(history, attempt, segment.end, holes).await? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Reads the next output, at most up to `until`, and counts its lines; `false` at a hole that is not counted.
    async fn count(
        self: &mut Arc<Self>,
        history: &dyn History,
        attempt: &AttemptId,
        until: u64,
        holes: Holes,
    ) -> Result<bool, HistoryError> {
        let from = self.end.position;
        let records = history.output(attempt.clone(), from, MAX_SEGMENT_DATA).await?;
        if holes == Holes::Stop && records.first().is_none_or(|record| record.head.position > from) {
            return Ok(false);
        }
        let (mut lines, mut position) = (LineCount::default(), from);
        for record in records {
            let is_hole = record.head.position > position;
            if record.head.position >= until || (is_hole && holes == Holes::Stop) {
                break;
            }
            if is_hole {
                lines.add(&missing_record(position, record.head.position));
            }
            position = record.end();
            lines.add(&record);
        }
        if position == from {
            // It has expired meanwhile.
            lines.add(&missing_record(from, until));
            position = until;
        }
        Arc::make_mut(self).push(position, &lines);
        Ok(true)
    }

    fn push(&mut self, end: u64, lines: &LineCount) {
        if let Some(last) = self.checkpoints.last_mut()
            && last.position == self.end.position
        {
            last.at_micros = lines.at_micros;
        }
        self.end = Checkpoint { position: end, mark: self.end.mark.after(lines), at_micros: i64::MAX };
        if self.checkpoints.len() == MAX_CHECKPOINTS {
            let mut at = 0;
            self.checkpoints.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        self.checkpoints.push(self.end);
    }

    /// Bytes of its checkpoints.
    fn size(&self) -> usize {
        self.checkpoints.capacity() * size_of::<Checkpoint>()
    }
}

type Shared = Arc<tokio::sync::Mutex<Arc<LineIndex>>>;

/// The indexes of the logs that were read last.
#[derive(Debug, Default)]
pub(super) struct LineIndexes(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    attempt: AttemptId,
    index: Shared,
    /// Bytes of the index when it was read last.
    size: usize,
}

impl LineIndexes {
    /// The index of a log, with all that is archived now. Readers share it.
    ///
    /// # Errors
    /// Those of reading History.
    pub(super) async fn of(
        &self,
        history: &dyn History,
        attempt: &AttemptId,
    ) -> Result<Arc<LineIndex>, HistoryError> {
        let shared = self.shared(attempt);
        // Readers of one log wait for each other here, so that it is indexed once.
        let mut index = shared.lock().await;
        let extended = index.extend(history, attempt, Holes::Stop).await;
        let mut found = Arc::clone(&index);
        drop(index);
        self.note_size(attempt, found.size());
        if !extended? {
            found.extend(history, attempt, Holes::Count).await?;
        }
        Ok(found)
    }

    fn shared(&self, attempt: &AttemptId) -> Shared {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.iter().position(|entry| entry.attempt == *attempt);
        let entry = known.and_then(|at| entries.remove(at)).unwrap_or_else(|| {
            let index = Arc::new(LineIndex::new());
            let size = index.size();
            Entry { attempt: attempt.clone(), index: Arc::new(tokio::sync::Mutex::new(index)), size }
        });
        let shared = Arc::clone(&entry.index);
        entries.push_back(entry);
        shrink(&mut entries);
        shared
    }

    fn note_size(&self, attempt: &AttemptId, size: usize) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.iter_mut().rev().find(|entry| entry.attempt == *attempt) {
            entry.size = size;
        }
        shrink(&mut entries);
    }
}

/// Drops the least recently used ones beyond the bound.
fn shrink(entries: &mut VecDeque<Entry>) {
    let mut size: usize = entries.iter().map(|entry| entry.size).sum();
    while entries.len() > MAX_INDEXES.0 || size > MAX_INDEXES.1 {
        let Some(dropped) = entries.pop_front() else { return };
        size -= dropped.size;
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::log::{LogRecord, RecordHead};

    use super::*;
    use crate::history::OutputSegment;
    use crate::history::embedded::{EmbeddedHistory, EmbeddedOptions};

    fn attempt(number: usize) -> AttemptId {
        format!("t/1/n/{number}").parse().unwrap()
    }

    fn segment(attempt: AttemptId, position: u64) -> OutputSegment {
        let head =
            RecordHead { stream: Stream::Stdout, position, offset: 0, len: 2, at_micros: 1, dropped: None };
        OutputSegment::pack(attempt, &[LogRecord { head, data: "x\n".into() }]).unwrap()
    }

    fn history(folder: &tempfile::TempDir) -> EmbeddedHistory {
        EmbeddedHistory::open(folder.path().join("history.db"), EmbeddedOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn readers_share_the_index_of_a_log_and_keep_what_they_have_while_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder);
        history.append_output(vec![segment(attempt(1), 0)]).await.unwrap();
        let indexes = LineIndexes::default();
        let first = indexes.of(&history, &attempt(1)).await.unwrap();
        let second = indexes.of(&history, &attempt(1)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second), "a copy");
        history.append_output(vec![segment(attempt(1), 2)]).await.unwrap();
        let third = indexes.of(&history, &attempt(1)).await.unwrap();
        assert_eq!((first.end.position, third.end.position), (2, 4));
        assert_eq!(third.end.mark.lines(None), 2);
    }

    #[tokio::test]
    async fn the_indexes_of_a_merged_run_fit() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder);
        let indexes = LineIndexes::default();
        let mut found = Vec::new();
        for number in 1..=MAX_LOGS {
            found.push(indexes.of(&history, &attempt(number)).await.unwrap());
        }
        for (number, before) in (1..=MAX_LOGS).zip(&found) {
            let again = indexes.of(&history, &attempt(number)).await.unwrap();
            assert!(Arc::ptr_eq(before, &again), "log {number} was indexed again");
        }
    }

    #[test]
    fn indexes_are_bounded_in_number_and_bytes() {
        let most = MAX_INDEXES.1 / MAX_LOGS;
        let mut index = LineIndex::new();
        for end in 1..=3 * MAX_CHECKPOINTS as u64 {
            index.push(end, &LineCount::default());
            assert!(index.size() <= most, "{} bytes", index.size());
        }
        let entry = |number, size| Entry {
            attempt: attempt(number),
            index: Arc::new(tokio::sync::Mutex::new(Arc::new(LineIndex::new()))),
            size,
        };
        let kept = |size| {
            let mut entries: VecDeque<Entry> = (1..=1000).map(|number| entry(number, size)).collect();
            shrink(&mut entries);
            assert_eq!(entries.back().map(|entry| entry.attempt.clone()), Some(attempt(1000)));
            entries.len()
        };
        assert_eq!((kept(0), kept(most), kept(2 * most)), (2 * MAX_LOGS, MAX_LOGS, MAX_LOGS / 2));
    }
}
