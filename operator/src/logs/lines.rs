//! Lines of a log, by number, position or time, from History and the hub.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, unfold};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use sentinel_core::stream::lines::{LineCount, LineMark};
use sentinel_core::stream::tail::Follow;
use sentinel_core::stream::window::{FirstLine, LineWindow, WindowItem, WindowRange};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};
use tokio::time::{Instant, timeout_at};

use super::index::{Checkpoint, LineIndex};
use super::reader::{LogReader, ReadError};

/// How far behind a window the rest of its open lines is searched, bytes.
const REST_WITHIN: u64 = 1 << 20;

/// Output that followers receive at once, up to this many bytes: what arrives within this time. After a silence of that time
/// nothing is waited for.
const TOGETHER: (Duration, u64) = (Duration::from_millis(40), 64 << 10);

/// Memory of the lines that followers receive at once, bytes; short lines take much more of it than they have bytes.
const LINES_TOGETHER: usize = 256 << 10;

/// Bytes of a record that are made lines at once.
const SLICE: u64 = 1 << 10;

/// Where lines begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinesFrom {
    /// At the line with this number, from 1.
    Line(u64),
    /// At the last line that begins at or before this position.
    Position(u64),
    /// At the last lines, so many of them.
    Tail(u64),
    /// At the first line that began at or after a time by the node's clock, microseconds since the Unix epoch.
    Since(i64),
}

/// Which lines to read.
#[derive(Debug, Clone, Copy)]
pub struct LinesParams {
    /// Where they begin.
    pub from: LinesFrom,
    /// Most lines.
    pub count: usize,
    /// Only lines of this stream.
    pub stream: Option<OutputStream>,
}

/// Lines of a log as it is now.
#[derive(Debug, Clone)]
pub struct LogLines {
    /// The lines, and the gaps between them.
    pub items: Vec<WindowItem>,
    /// The position from which a follower receives every line that is not here, or not complete here.
    pub next: u64,
    /// Lines of the whole log.
    pub total: u64,
    /// Position behind the last byte.
    pub end: u64,
}

/// The lines before a position.
#[derive(Debug, Clone, Copy)]
pub struct KnownLines {
    /// How many they are.
    pub mark: LineMark,
    /// The position: where reading begins, so that the lines behind it have their numbers.
    pub position: u64,
}

/// Lines that are new or have changed.
#[derive(Debug, Clone)]
pub struct LinesUpdate {
    /// The lines, and the gaps between them. A line that was open before is there again.
    pub items: Vec<WindowItem>,
    /// The position from which a new follower receives all that this one has not received.
    pub next: u64,
}

impl LogReader {
    /// Lines of a log as it is now.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn lines(&self, attempt: &AttemptId, params: LinesParams) -> Result<LogLines, ReadError> {
        let index = self.line_index(attempt).await?;
        let (end, _) = self.scan(attempt, index.end(), |_, _| false).await?;
        let first = self.first_line(attempt, &index, end, params).await?;
        let from = match first {
            FirstLine::Number(number) => index.before_line(number, None),
            FirstLine::OfStream(number) => index.before_line(number, params.stream),
        };
        let range = WindowRange { first, count: params.count, stream: params.stream };
        let mut window = LineWindow::new(range, from.mark);
        let mut position = from.position;
        let mut records = Box::pin(self.open(attempt.clone(), position, Follow::No));
        while let Some(record) = records.next().await {
            let record = record?;
            position = record.end();
            window.add(&record);
            let is_far = window.beyond().is_some_and(|(_, beyond)| position > beyond + REST_WITHIN);
            if window.is_complete() || is_far {
                break;
            }
        }
        let beyond = window.beyond().map(|(_, position)| position);
        let next = [beyond, window.first_open()].into_iter().flatten().min().unwrap_or(position);
        let total = end.mark.lines(None).max(window.mark().lines(None));
        Ok(LogLines { items: window.into_items(), next, total, end: end.position.max(position) })
    }

    /// Every line that begins at or behind a position, as it is written, until the Attempt has ended and all of its log was
    /// read. An error is the last item.
    ///
    /// # Errors
    /// Those of reading, before the first line.
    pub async fn follow_lines(
        &self,
        attempt: &AttemptId,
        from: u64,
        stream: Option<OutputStream>,
    ) -> Result<BoxStream<'static, Result<LinesUpdate, ReadError>>, ReadError> {
        let KnownLines { mark, position } = self.lines_known_before(attempt, from).await?;
        let first = FirstLine::Number(mark.lines(None) + 1);
        let window = LineWindow::unbounded(first, stream, mark);
        let records = Box::pin(self.open(attempt.clone(), position, Follow::Yes).fuse());
        let followed = Followed { records, rest: None, window, from, position, last_at: None, failed: None };
        let updates =
            unfold(
                followed,
                |mut followed| async move { followed.next().await.map(|update| (update, followed)) },
            );
        Ok(updates.boxed())
    }

    /// The lines before a position, as far as this operator has them, and where that is: before the position when a new
    /// leader has less of a log than its readers have.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn lines_known_before(
        &self,
        attempt: &AttemptId,
        position: u64,
    ) -> Result<KnownLines, ReadError> {
        let index = self.line_index(attempt).await?;
        let Checkpoint { mark, position, .. } =
            self.known_at(attempt, index.before_position(position), position).await?;
        Ok(KnownLines { mark, position })
    }

    pub(super) async fn line_index(&self, attempt: &AttemptId) -> Result<Arc<LineIndex>, ReadError> {
        let index = self.indexes().of(self.history(), attempt).await;
        index.map_err(|source| ReadError { attempt: attempt.clone(), position: 0, source })
    }

    async fn first_line(
        &self,
        attempt: &AttemptId,
        index: &LineIndex,
        end: Checkpoint,
        params: LinesParams,
    ) -> Result<FirstLine, ReadError> {
        Ok(match params.from {
            LinesFrom::Line(number) => FirstLine::Number(number.max(1)),
            LinesFrom::Tail(count) => {
                let first = end.mark.lines(params.stream).saturating_sub(count) + 1;
                if params.stream.is_some() { FirstLine::OfStream(first) } else { FirstLine::Number(first) }
            }
            LinesFrom::Position(position) => {
                let behind = position.saturating_add(1);
                let mark = self.mark_at(attempt, index.before_position(position), behind).await?;
                FirstLine::Number(mark.lines(None).max(1))
            }
            LinesFrom::Since(micros) => {
                let (found, _) = self.since_time(attempt, index, micros).await?;
                FirstLine::Number(found.mark.lines(None) + 1)
            }
        })
    }

    async fn since_time(
        &self,
        attempt: &AttemptId,
        index: &LineIndex,
        micros: i64,
    ) -> Result<(Checkpoint, bool), ReadError> {
        let is_since =
            |record: &LogRecord, _: LineMark| record.head.at_micros >= micros && record.head.at_micros != 0;
        self.scan(attempt, index.before_time(micros), is_since).await
    }

    /// Where the first record is that was written at a time by the node's clock, or later; the end of the log, and `false`,
    /// when it has none yet.
    pub(super) async fn position_since(
        &self,
        attempt: &AttemptId,
        micros: i64,
    ) -> Result<(u64, bool), ReadError> {
        let index = self.line_index(attempt).await?;
        let (found, exists) = self.since_time(attempt, &index, micros).await?;
        Ok((found.position, exists))
    }

    /// How many lines, of one stream or both, begin before a position, and where to read for the last ones of them.
    pub(super) async fn before_last(
        &self,
        attempt: &AttemptId,
        position: u64,
        count: u64,
        stream: Option<OutputStream>,
    ) -> Result<(u64, Checkpoint), ReadError> {
        let index = self.line_index(attempt).await?;
        let mark = self.mark_at(attempt, index.before_position(position), position).await?;
        let lines = mark.lines(stream);
        Ok((lines, index.before_line(lines.saturating_sub(count) + 1, stream)))
    }

    /// The lines before a position.
    async fn mark_at(
        &self,
        attempt: &AttemptId,
        from: Checkpoint,
        position: u64,
    ) -> Result<LineMark, ReadError> {
        Ok(self.known_at(attempt, from, position).await?.mark)
    }

    async fn known_at(
        &self,
        attempt: &AttemptId,
        from: Checkpoint,
        position: u64,
    ) -> Result<Checkpoint, ReadError> {
        let mut records = Box::pin(self.open(attempt.clone(), from.position, Follow::No));
        let mut mark = from.mark;
        let mut at = from.position;
        while at < position
            && let Some(record) = records.next().await
        {
            let record = record?;
            at = record.end();
            let Some(record) = record.until_position(position) else { break };
            mark = mark.after(&LineCount::of([&record]));
        }
        Ok(Checkpoint { mark, position: at.min(position), ..from })
    }

    /// Reads until a record is the one; returns where that begins, or the end of the log and `false`.
    async fn scan(
        &self,
        attempt: &AttemptId,
        from: Checkpoint,
        is_it: impl Fn(&LogRecord, LineMark) -> bool + Send,
    ) -> Result<(Checkpoint, bool), ReadError> {
        let mut at = from;
        let mut records = Box::pin(self.open(attempt.clone(), from.position, Follow::No));
        while let Some(record) = records.next().await {
            let record = record?;
            if is_it(&record, at.mark) {
                return Ok((at, true));
            }
            at.mark = at.mark.after(&LineCount::of([&record]));
            at.position = record.end();
        }
        Ok((at, false))
    }
}

/// A log whose lines are followed.
struct Followed<S> {
    records: S,
    /// What is left of a record that lines are being made of.
    rest: Option<LogRecord>,
    window: LineWindow,
    /// Lines that begin before it are only counted.
    from: u64,
    position: u64,
    /// When the last record arrived.
    last_at: Option<Instant>,
    /// The error, which is reported behind the lines that were read.
    failed: Option<ReadError>,
}

impl<S: Stream<Item = Result<LogRecord, ReadError>> + Unpin> Followed<S> {
    async fn next(&mut self) -> Option<Result<LinesUpdate, ReadError>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        loop {
            let begun = (self.position, self.window.cost());
            let quiet_from = self.last_at.map(|last| last + TOGETHER.0);
            match self.record().await? {
                Ok(record) => self.add(record),
                Err(error) => return Some(Err(error)),
            }
            let is_flowing = quiet_from.is_some_and(|quiet_from| Instant::now() < quiet_from);
            self.gather(begun, is_flowing).await;
            let mut items = self.window.take_changed();
            items.retain(|item| item.position() >= self.from);
            if !items.is_empty() {
                let next = self.window.first_open().unwrap_or(self.position);
                return Some(Ok(LinesUpdate { items, next }));
            }
            if let Some(error) = self.failed.take() {
                return Some(Err(error));
            }
        }
    }

    /// Adds what has arrived, and while output flows what follows within a time.
    async fn gather(&mut self, begun: (u64, usize), is_flowing: bool) {
        let deadline = Instant::now() + TOGETHER.0;
        while self.position - begun.0 < TOGETHER.1
            && self.window.cost().saturating_sub(begun.1) < LINES_TOGETHER
        {
            let next = self.record();
            let next = if is_flowing { timeout_at(deadline, next).await.ok() } else { next.now_or_never() };
            match next.flatten() {
                Some(Ok(record)) => self.add(record),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    return;
                }
                None => return,
            }
        }
    }

    /// The next record, or what is left of one. Cancel safe.
    async fn record(&mut self) -> Option<Result<LogRecord, ReadError>> {
        match self.rest.take() {
            Some(rest) => Some(Ok(rest)),
            None => self.records.next().await,
        }
    }

    fn add(&mut self, record: LogRecord) {
        self.last_at = Some(Instant::now());
        let (slice, rest) = record.split(SLICE);
        self.rest = rest;
        self.position = slice.end();
        self.window.add(&slice);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::poll_fn;
    use sentinel_protocol::log::RecordHead;
    use tokio::sync::mpsc;

    use super::*;

    fn record(position: u64, text: &str) -> LogRecord {
        let len = text.len() as u64;
        let head = RecordHead {
            stream: OutputStream::Stdout,
            position,
            offset: position,
            len,
            at_micros: 1,
            dropped: None,
        };
        LogRecord { head, data: text.to_owned().into() }
    }

    fn followed(
        mut records: mpsc::Receiver<LogRecord>,
    ) -> Followed<impl Stream<Item = Result<LogRecord, ReadError>> + Unpin> {
        let window = LineWindow::unbounded(FirstLine::Number(1), None, LineMark::default());
        let records = poll_fn(move |cx| records.poll_recv(cx).map(|record| record.map(Ok)));
        Followed { records, rest: None, window, from: 0, position: 0, last_at: None, failed: None }
    }

    /// How many lines come next, and how long after a time.
    async fn next<S>(followed: &mut Followed<S>, since: Instant) -> (usize, Duration)
    where
        S: Stream<Item = Result<LogRecord, ReadError>> + Unpin,
    {
        let update = followed.next().await.unwrap().unwrap();
        (update.items.len(), since.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn lines_wait_for_others_only_while_output_flows() {
        let (sender, receiver) = mpsc::channel(8);
        let mut followed = followed(receiver);
        let millis = Duration::from_millis;
        let start = Instant::now();
        sender.send(record(0, "1\n")).await.unwrap();
        sender.send(record(2, "2\n")).await.unwrap();
        assert_eq!(next(&mut followed, start).await, (2, millis(0)), "what is there at first");
        tokio::time::advance(millis(39)).await;
        sender.send(record(4, "3\n")).await.unwrap();
        let more = async {
            tokio::time::sleep(millis(20)).await;
            sender.send(record(6, "4\n")).await.unwrap();
        };
        let (gathered, ()) = tokio::join!(next(&mut followed, start), more);
        assert_eq!(gathered, (2, millis(79)), "what follows while output flows");
        tokio::time::advance(millis(20)).await;
        sender.send(record(8, "5\n")).await.unwrap();
        assert_eq!(next(&mut followed, start).await, (1, millis(99)), "after a silence");
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_are_gathered_are_bounded() {
        let (sender, receiver) = mpsc::channel(16);
        let mut followed = followed(receiver);
        let text = "x".repeat((16 << 10) - 1) + "\n";
        for at in 0..10 {
            sender.send(record(at * (16 << 10), &text)).await.unwrap();
        }
        let start = Instant::now();
        let nothing = Duration::ZERO;
        assert_eq!(next(&mut followed, start).await, (4, nothing), "at first");
        assert_eq!(next(&mut followed, start).await, (4, nothing), "while output flows");
        assert_eq!(next(&mut followed, start).await, (2, TOGETHER.0));
    }
}
