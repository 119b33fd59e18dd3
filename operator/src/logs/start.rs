//! Finds where a reader begins who wants the last lines of a log, or what was written since a given time. Reads as little
//! of the log as possible and sends none of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use sentinel_core::stream::tail::Follow;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};

use super::reader::{LogReader, ReadError};

/// Bytes at the end of a log in which its last lines are searched first; four times as many in each next round.
const FIRST_WINDOW: u64 = 64 << 10;

/// Bytes below which a time is searched record by record instead of by bisection.
const LINEAR_SEARCH_BYTES: u64 = 256 << 10;

/// How long a search waits for output of a command that has just ended.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Which part of a log to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogParams {
    /// First position.
    pub from: u64,
    /// Only this many last lines.
    pub tail: Option<usize>,
    /// Only what was written since, by the node's clock, microseconds since the Unix epoch.
    pub since_micros: Option<i64>,
    /// Only lines of this stream count.
    pub stream: Option<OutputStream>,
}

impl LogReader {
    /// The position at which that part begins in the log as it is now.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn start_position(&self, attempt: &AttemptId, params: LogParams) -> Result<u64, ReadError> {
        if params.tail.is_none() && params.since_micros.is_none() {
            return Ok(params.from);
        }
        let end = self.end_of(attempt).await?.max(params.from);
        let mut start = params.from;
        if let Some(micros) = params.since_micros {
            start = self.since(attempt, micros, start..end).await?;
        }
        match params.tail {
            Some(lines) => self.tail(attempt, lines, params.stream, start..end).await,
            None => Ok(start),
        }
    }

    /// The first record of the range that was written at or after a time. If the node's clock was set while the command
    /// ran, it is one of the records at which the time is passed.
    async fn since(
        &self,
        attempt: &AttemptId,
        micros: i64,
        mut range: std::ops::Range<u64>,
    ) -> Result<u64, ReadError> {
        while range.end - range.start > LINEAR_SEARCH_BYTES {
            let middle = range.start + (range.end - range.start) / 2;
            match self.first_at(attempt, middle).await? {
                Some(record) if record.head.at_micros < micros => range.start = middle,
                Some(_) => range.end = middle,
                None => range.end = middle,
            }
        }
        let end = self.end_of(attempt).await?;
        let mut records = Box::pin(self.open(attempt.clone(), range.start, Follow::No));
        while let Some(record) = records.next().await {
            let record = record?;
            // A hole in the archive has no time.
            if record.head.at_micros >= micros && record.head.at_micros != 0 {
                return Ok(record.head.position);
            }
        }
        Ok(end.max(range.start))
    }

    async fn first_at(&self, attempt: &AttemptId, position: u64) -> Result<Option<LogRecord>, ReadError> {
        let mut records = Box::pin(self.open(attempt.clone(), position, Follow::No));
        while let Some(record) = records.next().await {
            let record = record?;
            if record.head.at_micros != 0 {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The position after the line end that precedes the last lines of the range.
    async fn tail(
        &self,
        attempt: &AttemptId,
        lines: usize,
        stream: Option<OutputStream>,
        range: std::ops::Range<u64>,
    ) -> Result<u64, ReadError> {
        if lines == 0 {
            return Ok(range.end);
        }
        let mut window = FIRST_WINDOW;
        loop {
            let start = range.end.saturating_sub(window).max(range.start);
            let mut last = LastLines::new(lines, stream);
            // Output of a command that has just ended may still arrive; the wait for it is short.
            let mut records: Pin<Box<dyn Stream<Item = _> + Send>> = if self.has_ended(attempt) {
                Box::pin(self.open_to(attempt.clone(), start, range.end))
            } else {
                Box::pin(self.open(attempt.clone(), start, Follow::No))
            };
            while last.end < range.end
                && let Ok(Some(record)) = tokio::time::timeout(ARRIVAL_TIMEOUT, records.next()).await
            {
                last.take(&record?);
            }
            match last.start() {
                Some(position) => return Ok(position),
                None if start == range.start => return Ok(start),
                None => window = window.saturating_mul(4),
            }
        }
    }
}

/// The last line ends of the records so far.
struct LastLines {
    wanted: usize,
    stream: Option<OutputStream>,
    /// Positions after line ends: at most one more than wanted.
    ends: VecDeque<u64>,
    /// Position after the last record.
    end: u64,
}

impl LastLines {
    fn new(wanted: usize, stream: Option<OutputStream>) -> Self {
        Self { wanted, stream, ends: VecDeque::new(), end: 0 }
    }

    fn take(&mut self, record: &LogRecord) {
        if self.stream.is_none_or(|stream| stream == record.head.stream) {
            let ends = record.data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            for (index, _) in ends {
                self.ends.push_back(record.head.position + index as u64 + 1);
                if self.ends.len() > self.wanted + 1 {
                    self.ends.pop_front();
                }
            }
            self.end = record.end();
        }
    }

    /// Where the wanted lines begin; `None` when that lies before the first record.
    fn start(&self) -> Option<u64> {
        // Bytes after the last line end are a line as well.
        let unfinished = self.ends.back().is_some_and(|last| *last < self.end);
        let before = if unfinished { self.wanted } else { self.wanted + 1 };
        self.ends.len().checked_sub(before).and_then(|index| self.ends.get(index)).copied()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sentinel_protocol::log::RecordHead;

    use super::*;

    fn start(
        lines: usize,
        stream: Option<OutputStream>,
        text: &[(OutputStream, &'static str)],
    ) -> Option<u64> {
        let mut last = LastLines::new(lines, stream);
        let mut position = 100;
        for (stream, text) in text {
            let len = text.len() as u64;
            let head = RecordHead { stream: *stream, position, offset: 0, len, at_micros: 1, dropped: None };
            last.take(&LogRecord { head, data: Bytes::from_static(text.as_bytes()) });
            position += len;
        }
        last.start()
    }

    #[test]
    fn last_lines_begin_after_the_preceding_line_end() {
        use OutputStream::{Stderr, Stdout};
        let text = [(Stdout, "one\ntwo\n"), (Stderr, "oops\n"), (Stdout, "three\n")];
        assert_eq!(start(1, None, &text), Some(113));
        assert_eq!(start(2, None, &text), Some(108));
        assert_eq!(start(3, None, &text), Some(104));
        assert_eq!(start(4, None, &text), None, "the first line may have begun earlier");
        assert_eq!(start(2, Some(Stdout), &text), Some(104));
        assert_eq!(start(1, Some(Stderr), &text), None);
        let unfinished = [(Stdout, "one\ntwo\nthr"), (Stdout, "ee")];
        assert_eq!(start(1, None, &unfinished), Some(108));
        assert_eq!(start(2, None, &unfinished), Some(104));
        assert_eq!(start(1, None, &[(Stdout, "one line only")]), None);
    }
}
