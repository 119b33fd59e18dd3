//! A cursor over one Attempt's log: the hub near the end, History for what is older.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use sentinel_core::stream::tail::{End, Follow, Next};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use sentinel_protocol::stage::Stage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use super::attempts::ReportedAttempts;
use super::hub::{Available, Hub, LogSubscriber};
use super::index::LineIndexes;
use super::merged::memory::MergeMemory;
use super::missing::missing_record;
use super::read_ahead::{PIECE, ReadAhead, first_bytes};
use crate::history::error::HistoryError;
use crate::history::record::{AttemptRecord, RecordSource};
use crate::history::store::History;

/// Parts of logs that are searched at once: a search takes a whole core.
const MAX_SEARCHES: usize = 2;

/// Bytes per read of History.
const HISTORY_BYTES: usize = 1 << 20;

/// How often a waiting reader reads History and the state of the Attempt again.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Why a reader stopped early.
#[derive(Debug, thiserror::Error)]
#[error("failed to read output of {attempt} at position {position}")]
pub struct ReadError {
    /// The Attempt.
    pub attempt: AttemptId,
    /// Where it stopped; a new reader can continue here.
    pub position: u64,
    /// Why History could not be read.
    #[source]
    pub source: HistoryError,
}

impl ReadError {
    /// The kind of error: that of its source.
    pub fn category(&self) -> &'static str {
        self.source.category()
    }

    /// Whether a new reader can succeed later.
    pub fn is_retryable(&self) -> bool {
        self.source.is_retryable()
    }
}

/// Reads logs. Cloning it is cheap.
#[derive(Clone)]
pub struct LogReader {
    hub: Hub,
    history: Arc<dyn History>,
    attempts: Arc<dyn ReportedAttempts>,
    indexes: Arc<LineIndexes>,
    searches: Arc<Semaphore>,
    read_ahead: ReadAhead,
    merge_memory: MergeMemory,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    /// Reads the hub and this archive. Where a log ends is known from the agents' Reports, then from the archive.
    pub fn new(hub: Hub, history: Arc<dyn History>, attempts: impl ReportedAttempts) -> Self {
        Self {
            hub,
            history,
            attempts: Arc::new(attempts),
            indexes: Arc::default(),
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            read_ahead: ReadAhead::default(),
            merge_memory: MergeMemory::default(),
        }
    }

    /// The log of an Attempt from a position on, in order, without a gap or a repeat: the first record begins at
    /// `from`, each next one where the previous one ended, and missing bytes are a record that marks them.
    ///
    /// With [`Follow::No`] it ends with what exists now. With [`Follow::Yes`] it ends when the Attempt has ended and its
    /// whole log was read, however long that takes; while History is unavailable it waits. An error is the last item.
    pub fn open(
        &self,
        attempt: AttemptId,
        from: u64,
        follow: Follow,
    ) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
        stream(self.cursor(attempt, from, follow))
    }

    /// The same, holding at most about so many bytes of the log at a time.
    pub(super) fn open_within(
        &self,
        attempt: AttemptId,
        from: u64,
        follow: Follow,
        bytes: usize,
    ) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
        stream(Cursor { at_once: bytes.min(HISTORY_BYTES), ..self.cursor(attempt, from, follow) })
    }

    /// The same as it is now, about so many bytes at a time, for a caller that limits how many read at the same time, and
    /// that holds nothing afterwards.
    pub(super) fn open_briefly(
        &self,
        attempt: AttemptId,
        from: u64,
        bytes: u64,
    ) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
        let at_once = usize::try_from(bytes).unwrap_or(HISTORY_BYTES).min(HISTORY_BYTES);
        stream(Cursor { is_brief: true, at_once, ..self.cursor(attempt, from, Follow::No) })
    }

    /// The same for an Attempt that has ended and whose log is known to end at `end`: it ends there, and waits for what
    /// has not arrived from the node. The wait has no bound.
    pub fn open_to(
        &self,
        attempt: AttemptId,
        from: u64,
        end: u64,
    ) -> impl Stream<Item = Result<LogRecord, ReadError>> + Send + 'static {
        let cursor = self.cursor(attempt, from, Follow::Yes);
        cursor.subscriber.set_end(End::At(end));
        stream(cursor)
    }

    /// The archive.
    pub(super) fn history(&self) -> &dyn History {
        &*self.history
    }

    /// Waits until another part of a log may be searched.
    pub(super) async fn search_permit(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.searches).acquire_owned().await.ok()
    }

    /// The memory of readers of merged logs.
    pub(super) fn merge_memory(&self) -> &MergeMemory {
        &self.merge_memory
    }

    /// Where the lines of archived logs are.
    pub(super) fn indexes(&self) -> &LineIndexes {
        &self.indexes
    }

    /// Whether the node has reported the end of this Attempt, and with it the end of its log.
    pub(super) fn has_ended(&self, attempt: &AttemptId) -> bool {
        self.attempts.log_end(attempt).is_some()
    }

    /// Whether a position is the end of a log that has ended.
    pub(super) async fn is_whole(&self, attempt: &AttemptId, position: u64) -> bool {
        if let Some(end) = self.attempts.log_end(attempt) {
            return position >= end;
        }
        let is_end = |record: AttemptRecord| {
            record.stage == Stage::Ended
                && (record.source != RecordSource::Agent || position >= record.output.end)
        };
        self.history.attempt(attempt.clone()).await.ok().flatten().is_some_and(is_end)
    }

    /// Position behind the last byte that exists now.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn end_of(&self, attempt: &AttemptId) -> Result<u64, ReadError> {
        if let Some(end) = self.attempts.log_end(attempt) {
            return Ok(end);
        }
        if let Some(end) = self.hub.subscribe(attempt).held_end() {
            return Ok(end);
        }
        let failed = |source| ReadError { attempt: attempt.clone(), position: 0, source };
        match self.history.attempt(attempt.clone()).await.map_err(failed)? {
            Some(record) if record.stage == Stage::Ended && record.source == RecordSource::Agent => {
                Ok(record.output.end)
            }
            _ => self.history.output_end(attempt.clone(), 0).await.map_err(failed),
        }
    }

    fn cursor(&self, attempt: AttemptId, from: u64, follow: Follow) -> Cursor {
        Cursor {
            subscriber: self.hub.subscribe(&attempt),
            reader: self.clone(),
            attempt,
            position: from,
            follow,
            at_once: HISTORY_BYTES,
            searched: None,
            ready: VecDeque::new(),
            place: None,
            is_brief: false,
            state: CursorState::New,
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
    subscriber: LogSubscriber,
    attempt: AttemptId,
    position: u64,
    follow: Follow,
    /// Bytes per read.
    at_once: usize,
    /// The position at which History was last found to have nothing.
    searched: Option<u64>,
    ready: VecDeque<LogRecord>,
    /// Held while `ready` is what one read of History has returned.
    place: Option<OwnedSemaphorePermit>,
    /// Whether it needs no place.
    is_brief: bool,
    state: CursorState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CursorState {
    New,
    Reading,
    Failed,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<LogRecord, ReadError>> {
        if self.state == CursorState::New {
            self.refresh_end().await;
            self.state = CursorState::Reading;
        }
        while self.state == CursorState::Reading {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            self.place = None;
            match self.subscriber.read(self.position, self.follow, self.searched, self.at_once) {
                Available::Records(records) => self.take(records),
                Available::Nothing(Next::History { before }) => {
                    if let Err(source) = self.read_history(before).await {
                        self.state = CursorState::Failed;
                        let (attempt, position) = (self.attempt.clone(), self.position);
                        return Some(Err(ReadError { attempt, position, source }));
                    }
                }
                Available::Nothing(Next::Done) => return None,
                Available::Nothing(Next::Wait | Next::Held) => self.wait().await,
            }
        }
        None
    }

    /// Takes records, cut to begin where the last one ended; a hole becomes a record.
    fn take(&mut self, records: Vec<LogRecord>) {
        for record in records {
            let Some(record) = record.from_position(self.position) else { continue };
            if record.head.position > self.position {
                self.ready.push_back(missing_record(self.position, record.head.position));
            }
            self.position = record.end();
            self.ready.push_back(record);
        }
    }

    async fn read_history(&mut self, before: Option<u64>) -> Result<(), HistoryError> {
        // A reader of many logs takes little of each anyway.
        let is_small = !self.is_brief && self.at_once < HISTORY_BYTES;
        self.place = if self.is_brief || is_small { None } else { self.reader.read_ahead.place() };
        let is_whole = self.is_brief || is_small || self.place.is_some();
        let (history, attempt, from) = (self.reader.history.clone(), self.attempt.clone(), self.position);
        let read = match (is_small, is_whole) {
            (true, _) => read_first(history, attempt, from, self.at_once).await,
            (false, true) => history.output(attempt, from, self.at_once).await,
            (false, false) => read_first(history, attempt, from, PIECE).await,
        };
        let records = match (read, self.follow) {
            (Ok(records), _) => records,
            (Err(error), Follow::Yes) if error.is_retryable() => {
                self.wait_for_change().await;
                return Ok(());
            }
            (Err(error), _) => return Err(error),
        };
        let is_final = before.is_some() || self.are_holes_final();
        let at = self.position;
        self.take(if is_final { records } else { up_to_first_hole(records, at) });
        if self.position == at {
            match before {
                Some(before) => {
                    self.ready.push_back(missing_record(at, before));
                    self.position = before;
                }
                None => self.searched = Some(at),
            }
        }
        Ok(())
    }

    /// Whether holes in History cannot be filled any more: only History has any of this output.
    fn are_holes_final(&self) -> bool {
        match self.subscriber.end() {
            End::Unknown => true,
            End::At(_) => self.reader.attempts.is_released(&self.attempt),
            End::Open => false,
        }
    }

    async fn wait(&mut self) {
        self.wait_for_change().await;
        self.searched = None;
    }

    /// Waits for a change in the hub, and reads the state of the Attempt when none comes.
    async fn wait_for_change(&mut self) {
        if tokio::time::timeout(POLL_INTERVAL, self.subscriber.changed()).await.is_err() {
            self.refresh_end().await;
        }
    }

    /// Determines where the log ends, by the agent's Report or by History.
    async fn refresh_end(&mut self) {
        if matches!(self.subscriber.end(), End::At(_)) {
            return;
        }
        if let Some(end) = self.reader.attempts.log_end(&self.attempt) {
            return self.subscriber.set_end(End::At(end));
        }
        // While History is unavailable, the next call tries again.
        if let Ok(Some(record)) = self.reader.history.attempt(self.attempt.clone()).await
            && record.stage == Stage::Ended
        {
            self.subscriber.set_end(match record.source {
                RecordSource::Agent => End::At(record.output.end),
                RecordSource::Operator => End::Unknown,
            });
        }
    }
}

/// Reads some bytes from a position on, in a task of its own: a reader that is not polled while it reads holds no more of the
/// archive than these.
async fn read_first(
    history: Arc<dyn History>,
    attempt: AttemptId,
    from: u64,
    bytes: usize,
) -> Result<Vec<LogRecord>, HistoryError> {
    let reading = async move {
        let read = history.output(attempt, from, 1).await;
        read.map(|records| first_bytes(records, from, bytes))
    };
    let reading = AbortOnDropHandle::new(tokio::spawn(reading));
    reading.await.map_err(|_| HistoryError::Panicked { action: "read output" })?
}

/// The records that follow one another from a position on.
fn up_to_first_hole(mut records: Vec<LogRecord>, mut position: u64) -> Vec<LogRecord> {
    let contiguous = records.iter().take_while(|record| {
        let follows = record.head.position <= position;
        position = position.max(record.end());
        follows
    });
    let count = contiguous.count();
    records.truncate(count);
    records
}
