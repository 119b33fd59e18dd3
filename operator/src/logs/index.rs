//! Where in an archived log its lines are: a list of positions with the lines before each, built once from the line counts
//! of the archive's segments and extended as the archive grows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Most logs with an index in memory, the least recently used ones are dropped. They take up to 15 MiB.
const MAX_INDEXES: usize = 64;

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

    /// Adds what was archived since. Returns whether that is all that is archived.
    async fn extend(
        &mut self,
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
        &mut self,
        history: &dyn History,
        attempt: &AttemptId,
        segment: SegmentLines,
        holes: Holes,
    ) -> Result<bool, HistoryError> {
        match segment.lines {
            Some(lines) if segment.first == self.end.position => self.push(segment.end, &lines),
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
        &mut self,
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
        self.push(position, &lines);
        Ok(true)
    }

    fn push(&mut self, end: u64, lines: &LineCount) {
        if let Some(last) = self.checkpoints.last_mut()
            && last.position == self.end.position
        {
            last.at_micros = lines.at_micros;
        }
        self.end = Checkpoint { position: end, mark: self.end.mark.after(lines), at_micros: i64::MAX };
        self.checkpoints.push(self.end);
        if self.checkpoints.len() > MAX_CHECKPOINTS {
            let mut at = 0;
            self.checkpoints.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
    }
}

type Shared = Arc<tokio::sync::Mutex<LineIndex>>;

/// The indexes of the logs that were read last.
#[derive(Debug, Default)]
pub(super) struct LineIndexes(Mutex<VecDeque<(AttemptId, Shared)>>);

impl LineIndexes {
    /// The index of a log, with all that is archived now.
    ///
    /// # Errors
    /// Those of reading History.
    pub(super) async fn of(
        &self,
        history: &dyn History,
        attempt: &AttemptId,
    ) -> Result<LineIndex, HistoryError> {
        let shared = self.shared(attempt);
        // Readers of one log wait for each other here, so that it is indexed once.
        let mut index = shared.lock().await;
        let is_whole = index.extend(history, attempt, Holes::Stop).await?;
        let mut found = index.clone();
        drop(index);
        if !is_whole {
            found.extend(history, attempt, Holes::Count).await?;
        }
        Ok(found)
    }

    fn shared(&self, attempt: &AttemptId) -> Shared {
        let mut indexes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = indexes.iter().position(|(id, _)| id == attempt).and_then(|at| indexes.remove(at));
        let entry =
            found.unwrap_or_else(|| (attempt.clone(), Arc::new(tokio::sync::Mutex::new(LineIndex::new()))));
        let shared = entry.1.clone();
        indexes.push_back(entry);
        if indexes.len() > MAX_INDEXES {
            indexes.pop_front();
        }
        shared
    }
}
