//! Where a reader begins who wants the last lines of a log, or what was written since a moment: found here, by reading
//! as little of the log as that takes, so that nothing is sent only to be thrown away.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use sentinel_core::stream::tail::Follow;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};

use super::reader::{LogReader, ReadError};

/// Bytes at the end of a log in which its last lines are searched first; four times as many each time after.
const FIRST_WINDOW: u64 = 64 << 10;

/// Bytes within which a moment is searched record by record.
const NEAR: u64 = 256 << 10;

/// How long output may take to arrive of a command that has ended.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part {
    /// First position.
    pub from: u64,
    /// Only so many last lines.
    pub tail: Option<usize>,
    /// Only what was written since, by the node's clock, microseconds since the Unix epoch.
    pub since_micros: Option<i64>,
    /// Only lines of this stream count.
    pub stream: Option<OutputStream>,
}

impl LogReader {
    /// The position at which the wanted part begins in what there is of the log now.
    ///
    /// # Errors
    /// As those of reading.
    pub async fn start_of(&self, attempt: &AttemptId, part: Part) -> Result<u64, ReadError> {
        if part.tail.is_none() && part.since_micros.is_none() {
            return Ok(part.from);
        }
        let end = self.end_of(attempt).await?.max(part.from);
        let mut start = part.from;
        if let Some(micros) = part.since_micros {
            start = self.since(attempt, micros, start..end).await?;
        }
        match part.tail {
            Some(lines) => self.tail(attempt, lines, part.stream, start..end).await,
            None => Ok(start),
        }
    }

    /// The first record of the range that was written at or after the moment. The node's clock may have been set while
    /// the command ran; then it is one of those where times pass the moment.
    async fn since(
        &self,
        attempt: &AttemptId,
        micros: i64,
        mut range: std::ops::Range<u64>,
    ) -> Result<u64, ReadError> {
        while range.end - range.start > NEAR {
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
            // A hole of the archive has no time.
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

    /// The position behind the line end before the last lines of the range.
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
            // Output of a command that has just ended may be on its way; what does not come soon is not waited for.
            let mut records: Pin<Box<dyn Stream<Item = _> + Send>> = if self.has_ended(attempt) {
                Box::pin(self.open_to(attempt.clone(), start, range.end))
            } else {
                Box::pin(self.open(attempt.clone(), start, Follow::No))
            };
            while last.end < range.end
                && let Ok(Some(record)) = tokio::time::timeout(ARRIVES_WITHIN, records.next()).await
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

/// The line ends of the records that came last.
struct LastLines {
    wanted: usize,
    stream: Option<OutputStream>,
    /// Positions behind line ends, at most one more than are wanted and that of an unfinished line.
    ends: VecDeque<u64>,
    /// Position behind everything.
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

    /// Where the wanted lines begin; `None` when that lies before what was seen.
    fn start(&self) -> Option<u64> {
        // What stands behind the last line end is a line as well.
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
    fn the_last_lines_begin_behind_the_line_end_before_them() {
        use OutputStream::{Stderr, Stdout};
        let text = [(Stdout, "one\ntwo\n"), (Stderr, "oops\n"), (Stdout, "three\n")];
        assert_eq!(start(1, None, &text), Some(113));
        assert_eq!(start(2, None, &text), Some(108));
        assert_eq!(start(3, None, &text), Some(104));
        assert_eq!(start(4, None, &text), None, "the line before may have begun earlier");
        assert_eq!(start(2, Some(Stdout), &text), Some(104));
        assert_eq!(start(1, Some(Stderr), &text), None);
        let unfinished = [(Stdout, "one\ntwo\nthr"), (Stdout, "ee")];
        assert_eq!(start(1, None, &unfinished), Some(108));
        assert_eq!(start(2, None, &unfinished), Some(104));
        assert_eq!(start(1, None, &[(Stdout, "one line only")]), None);
    }
}
