//! A cursor over one Attempt's log: the hub where it is near the end, History for what is older.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use sentinel_core::stream::tail::{End, Follow, Next};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream as OutputStream};
use sentinel_protocol::to_operator::{ReportedState, Stage};

use super::hub::{Hub, Look, Watch};
use crate::gateway::Registry;
use crate::history::{History, HistoryError, Source};

/// Bytes asked of History at once.
const HISTORY_BYTES: usize = 1 << 20;

/// How long a reader that waits goes without another look at History and at how the Attempt is.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why a reader got no further.
#[derive(Debug, thiserror::Error)]
#[error("failed to read output of {attempt} at position {position}")]
pub struct ReadError {
    /// Whose output.
    pub attempt: AttemptId,
    /// Where it stopped; a new reader can go on here.
    pub position: u64,
    /// What History said.
    #[source]
    pub source: HistoryError,
}

/// Reads logs. Cloning it is cheap.
#[derive(Clone)]
pub struct LogReader {
    hub: Hub,
    history: Arc<dyn History>,
    registry: Registry,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    /// Reads the hub and this archive; how an Attempt ended is asked of the agents' Reports, then of the archive.
    pub fn new(hub: Hub, history: Arc<dyn History>, registry: Registry) -> Self {
        Self { hub, history, registry }
    }

    /// The log of an Attempt from a position on, in order, without a gap or a repeat: the first record begins at
    /// `from`, each next one where the one before ended, and what is missing is a record that says so.
    ///
    /// With [`Follow::No`] it ends with what is there now. With [`Follow::Yes`] it ends when the Attempt is over and
    /// everything it wrote was read, however long that takes; while History is away it waits. An error is the last item.
    pub fn open(
        &self,
        attempt: AttemptId,
        from: u64,
        follow: Follow,
    ) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
        stream(self.cursor(attempt, from, follow))
    }

    /// The same for an Attempt that is over and whose log is known to end at `end`: it ends there, and waits for what
    /// has not arrived from the node. The wait has no bound.
    pub fn open_to(
        &self,
        attempt: AttemptId,
        from: u64,
        end: u64,
    ) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
        let cursor = self.cursor(attempt, from, Follow::Yes);
        cursor.watch.set_end(End::At(end));
        stream(cursor)
    }

    /// Whether the node has reported the end of this Attempt, and where its log ends.
    pub(super) fn has_ended(&self, attempt: &AttemptId) -> bool {
        let reported = self.registry.report(attempt).map(|report| report.state);
        matches!(reported, Some(ReportedState::Ended(_)))
    }

    /// Position behind the last byte that there is now.
    ///
    /// # Errors
    /// As those of reading.
    pub(super) async fn end_of(&self, attempt: &AttemptId) -> Result<u64, ReadError> {
        if let Some(ReportedState::Ended(ended)) = self.registry.report(attempt).map(|report| report.state) {
            return Ok(ended.output.end);
        }
        if let Some(end) = self.hub.watch(attempt).held_end() {
            return Ok(end);
        }
        let failed = |source| ReadError { attempt: attempt.clone(), position: 0, source };
        match self.history.attempt(attempt.clone()).await.map_err(failed)? {
            Some(record) if record.stage == Stage::Ended && record.source == Source::Agent => {
                Ok(record.output.end)
            }
            _ => self.history.output_end(attempt.clone(), 0).await.map_err(failed),
        }
    }

    fn cursor(&self, attempt: AttemptId, from: u64, follow: Follow) -> Cursor {
        Cursor {
            watch: self.hub.watch(&attempt),
            reader: self.clone(),
            attempt,
            position: from,
            follow,
            searched: None,
            ready: VecDeque::new(),
            state: Progress::New,
        }
    }
}

fn stream(cursor: Cursor) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
    unfold(cursor, |mut cursor| async move {
        let item = cursor.next().await?;
        Some((item, cursor))
    })
}

struct Cursor {
    reader: LogReader,
    watch: Watch,
    attempt: AttemptId,
    position: u64,
    follow: Follow,
    /// Where History was last found to have nothing.
    searched: Option<u64>,
    ready: VecDeque<LogRecord>,
    state: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    New,
    Going,
    Over,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<LogRecord, ReadError>> {
        if self.state == Progress::New {
            self.learn_end().await;
            self.state = Progress::Going;
        }
        while self.state == Progress::Going {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.watch.look(self.position, self.follow, self.searched) {
                Look::Records(records) => self.take(records),
                Look::Go(Next::History { before }) => {
                    if let Err(source) = self.ask_history(before).await {
                        self.state = Progress::Over;
                        let (attempt, position) = (self.attempt.clone(), self.position);
                        return Some(Err(ReadError { attempt, position, source }));
                    }
                }
                Look::Go(Next::Done) => return None,
                Look::Go(Next::Wait | Next::Held) => self.wait().await,
            }
        }
        None
    }

    /// Takes in records, cut to go on exactly where the last one ended; a hole becomes a record.
    fn take(&mut self, records: Vec<LogRecord>) {
        for record in records {
            let Some(record) = record.from_position(self.position) else { continue };
            if record.head.position > self.position {
                self.ready.push_back(missing(self.position, record.head.position));
            }
            self.position = record.end();
            self.ready.push_back(record);
        }
    }

    async fn ask_history(&mut self, before: Option<u64>) -> Result<(), HistoryError> {
        let asked = self.reader.history.output(self.attempt.clone(), self.position, HISTORY_BYTES).await;
        let records = match (asked, self.follow) {
            (Ok(records), _) => records,
            (Err(error), Follow::Yes) if error.retry() == crate::history::error::Retry::Later => {
                self.watch_for(LOOK_AGAIN).await;
                return Ok(());
            }
            (Err(error), _) => return Err(error),
        };
        let is_settled = before.is_some() || self.is_settled();
        let at = self.position;
        self.take(if is_settled { records } else { without_hole(records, at) });
        if self.position == at {
            match before {
                Some(before) => {
                    self.ready.push_back(missing(at, before));
                    self.position = before;
                }
                None => self.searched = Some(at),
            }
        }
        Ok(())
    }

    /// Whether nothing more will come to fill a hole: nobody holds any of this output but History.
    fn is_settled(&self) -> bool {
        match self.watch.end() {
            End::Unknown => true,
            End::At(_) => self.reader.registry.has_let_go(&self.attempt),
            End::Open => false,
        }
    }

    async fn wait(&mut self) {
        self.watch_for(LOOK_AGAIN).await;
        self.searched = None;
    }

    /// Waits for news, and looks up how the Attempt is when none come.
    async fn watch_for(&mut self, time: Duration) {
        if tokio::time::timeout(time, self.watch.news()).await.is_err() {
            self.learn_end().await;
        }
    }

    /// Where the log ends, by the agent's Report or by what History holds.
    async fn learn_end(&mut self) {
        if matches!(self.watch.end(), End::At(_)) {
            return;
        }
        let reported = self.reader.registry.report(&self.attempt).map(|report| report.state);
        if let Some(ReportedState::Ended(ended)) = reported {
            return self.watch.set_end(End::At(ended.output.end));
        }
        // Nobody waits for an archive that is away: the next look asks again.
        if let Ok(Some(record)) = self.reader.history.attempt(self.attempt.clone()).await
            && record.stage == Stage::Ended
        {
            self.watch.set_end(match record.source {
                Source::Agent => End::At(record.output.end),
                Source::Operator => End::Unknown,
            });
        }
    }
}

/// The records that follow one another from a position on.
fn without_hole(mut records: Vec<LogRecord>, mut position: u64) -> Vec<LogRecord> {
    let whole = records.iter().take_while(|record| {
        let follows = record.head.position <= position;
        position = position.max(record.end());
        follows
    });
    let whole = whole.count();
    records.truncate(whole);
    records
}

/// The record that says that bytes are gone which the archive once held, or should have.
fn missing(from: u64, to: u64) -> LogRecord {
    LogRecord {
        head: RecordHead {
            stream: OutputStream::Stdout,
            position: from,
            offset: from,
            len: to - from,
            at_micros: 0,
            dropped: Some(DropReason::Unreadable),
        },
        data: bytes::Bytes::new(),
    }
}
