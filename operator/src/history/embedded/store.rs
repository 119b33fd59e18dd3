//! [`History`] over the file: writes go to the writer's thread, reads to threads that may block.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use rusqlite::Connection;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::writer::{self, Job, QUEUE, Work};
use super::{reader, schema};
use crate::clock::Clock;
use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadQuery, AuditHeadRecord};
use crate::history::query::{ExecutionQuery, Page, RunQuery};
use crate::history::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RunRecord};
use crate::history::segment::{OutputSegment, SegmentLines};
use crate::history::store::{DEFAULT_RETENTION, History, HistoryFuture};

/// Concurrent reads; others wait.
const MAX_READERS: usize = 4;

/// How an [`EmbeddedHistory`] behaves.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Records and output are kept this long after they last changed.
    pub retention: Duration,
    /// The time that expiry is measured by.
    pub clock: Clock,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { retention: DEFAULT_RETENTION, clock: Clock::system() }
    }
}

/// History in one file. Dropping it ends its thread after all queued writes.
#[derive(Debug)]
pub struct EmbeddedHistory {
    jobs: mpsc::Sender<Job>,
    readers: Arc<ReaderPool>,
    clock: Clock,
}

impl EmbeddedHistory {
    /// Opens the file; creates it when it does not exist.
    ///
    /// # Errors
    /// [`HistoryError::Open`] when the file is not a history file, is of a newer release, or cannot be written.
    pub fn open(path: impl Into<PathBuf>, options: EmbeddedOptions) -> Result<Self, HistoryError> {
        let path: PathBuf = path.into();
        let opened = |source| HistoryError::Open { path: path.clone(), source };
        create_private(&path).map_err(|e| opened(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        let connection = schema::open_writer(&path).map_err(opened)?;
        schema::create_tables(&connection).map_err(opened)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let clock = options.clock.clone();
        let retention = u64::try_from(options.retention.as_millis()).unwrap_or(u64::MAX);
        std::thread::Builder::new()
            .name("history-writer".to_owned())
            .spawn(move || writer::run(connection, queue, &options.clock, retention))
            .map_err(|e| opened(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        Ok(Self { jobs, readers: Arc::new(ReaderPool::new(&path)), clock })
    }

    /// Removes all expired rows now; otherwise the writer removes them in small steps.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn sweep(&self) -> Result<(), HistoryError> {
        self.write("remove expired rows", Work::Sweep).await
    }

    async fn write(&self, action: &'static str, work: Work) -> Result<(), HistoryError> {
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { work, done }).await.map_err(|_| HistoryError::Closed { action })?;
        answer.await.map_err(|_| HistoryError::Closed { action })?
    }

    fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection, i64) -> Result<T, HistoryError> + Send + 'static,
    ) -> HistoryFuture<'_, T> {
        let readers = Arc::clone(&self.readers);
        let now = self.clock.now().0;
        let reading = async move {
            let permits = Arc::clone(&readers.permits);
            let permit = permits.acquire_owned().await.map_err(|_| HistoryError::Closed { action })?;
            let reading = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let connection = readers.take().map_err(|source| HistoryError::Sqlite { action, source })?;
                let outcome = read(&connection, now);
                readers.put_back(connection);
                outcome
            });
            reading.await.map_err(|_| HistoryError::Panicked { action })?
        };
        async move {
            // A task of its own: a caller that does not poll, for example because its client does not read, holds no permit.
            let reading = AbortOnDropHandle::new(tokio::spawn(reading));
            reading.await.map_err(|_| HistoryError::Panicked { action })?
        }
        .boxed()
    }
}

/// Creates a missing file for its owner alone: commands print secrets. SQLite gives its own files the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

impl History for EmbeddedHistory {
    fn prepare(&self) -> HistoryFuture<'_, ()> {
        self.write("create tables", Work::Prepare).boxed()
    }

    fn check(&self) -> HistoryFuture<'_, ()> {
        self.read("check", |connection, _| {
            connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
                .map_err(|source| HistoryError::Sqlite { action: "check", source })
        })
    }

    fn record(&self, records: Vec<HistoryRecord>) -> HistoryFuture<'_, ()> {
        self.write("record", Work::Record(records)).boxed()
    }

    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()> {
        self.write("append output", Work::Append(segments)).boxed()
    }

    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>> {
        self.read("read output", move |connection, now| {
            reader::output(connection, &attempt, from, max_bytes, now)
        })
    }

    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64> {
        self.read("find the end of archived output", move |connection, now| {
            reader::output_end(connection, &attempt, from, now)
        })
    }

    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>> {
        self.read("read the lines of output", move |connection, now| {
            reader::output_lines(connection, &attempt, from, limit, now)
        })
    }

    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>> {
        self.read("read an attempt", move |connection, now| reader::attempt(connection, &id, now))
    }

    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>> {
        self.read("list executions", move |connection, now| reader::executions(connection, &query, now))
    }

    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>> {
        self.read("list runs", move |connection, now| reader::runs(connection, &query, now))
    }

    fn record_audit_heads(&self, heads: Vec<AuditHeadRecord>) -> HistoryFuture<'_, ()> {
        self.write("record audit heads", Work::Heads(heads)).boxed()
    }

    fn audit_heads(&self, query: AuditHeadQuery) -> HistoryFuture<'_, Page<AuditHeadRecord>> {
        self.read("list audit heads", move |connection, now| reader::audit_heads(connection, &query, now))
    }
}

/// Read-only connections, opened on demand and kept.
#[derive(Debug)]
struct ReaderPool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl ReaderPool {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_READERS {
            idle.push(connection);
        }
    }
}
