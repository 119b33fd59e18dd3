//! The seam over the file: hands writes to the writer's thread, and reads to threads that may block.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use rusqlite::Connection;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::writer::{Job, QUEUE, Work, write_all};
use super::{reader, schema};
use crate::clock::Clock;
use crate::history::error::HistoryError;
use crate::history::query::{ExecutionQuery, Page, RunQuery};
use crate::history::record::{AttemptRecord, Entry, ExecutionRecord, RunRecord};
use crate::history::segment::OutputSegment;
use crate::history::{Answer, DEFAULT_RETENTION, History};

/// Reads at a time; others wait.
const READERS: usize = 4;

/// How an [`EmbeddedHistory`] behaves.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Records and output are kept this long after they last changed.
    pub retention: Duration,
    /// Tells what has expired.
    pub clock: Clock,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { retention: DEFAULT_RETENTION, clock: Clock::system() }
    }
}

/// History in one file. Dropping it ends its thread after what is queued is written.
#[derive(Debug)]
pub struct EmbeddedHistory {
    jobs: mpsc::Sender<Job>,
    readers: Arc<Readers>,
    clock: Clock,
}

impl EmbeddedHistory {
    /// Opens the file, and makes it when it is not there.
    ///
    /// # Errors
    /// [`HistoryError::Open`] when the file is no history, of a newer release, or cannot be written.
    pub fn open(path: impl Into<PathBuf>, options: EmbeddedOptions) -> Result<Self, HistoryError> {
        let path: PathBuf = path.into();
        let opened = |source| HistoryError::Open { path: path.clone(), source };
        make_private(&path).map_err(|e| opened(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        let writer = schema::open_writer(&path).map_err(opened)?;
        schema::make_tables(&writer).map_err(opened)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let clock = options.clock.clone();
        let retention = u64::try_from(options.retention.as_millis()).unwrap_or(u64::MAX);
        std::thread::Builder::new()
            .name("history-writer".to_owned())
            .spawn(move || write_all(writer, queue, &options.clock, retention))
            .map_err(|e| opened(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        Ok(Self { jobs, readers: Arc::new(Readers::new(&path)), clock })
    }

    /// Removes everything that has expired, now; otherwise it goes by itself little by little.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn sweep(&self) -> Result<(), HistoryError> {
        self.write("remove what has expired", Work::Sweep).await
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
    ) -> Answer<'_, T> {
        let readers = Arc::clone(&self.readers);
        let now = self.clock.now().0;
        async move {
            let _permit = readers.permits.acquire().await.map_err(|_| HistoryError::Closed { action })?;
            let reading = Arc::clone(&readers);
            tokio::task::spawn_blocking(move || {
                let connection = reading.take().map_err(|source| HistoryError::Sqlite { action, source })?;
                let outcome = read(&connection, now);
                reading.give_back(connection);
                outcome
            })
            .await
            .map_err(|_| HistoryError::Closed { action })?
        }
        .boxed()
    }
}

/// Makes the file, when it is not there, for its owner alone: commands print secrets. SQLite's own files beside it get
/// the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

impl History for EmbeddedHistory {
    fn prepare(&self) -> Answer<'_, ()> {
        self.write("make tables", Work::Prepare).boxed()
    }

    fn check(&self) -> Answer<'_, ()> {
        self.read("check", |connection, _| {
            connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
                .map_err(|source| HistoryError::Sqlite { action: "check", source })
        })
    }

    fn record(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        self.write("record", Work::Record(entries)).boxed()
    }

    fn append_output(&self, segments: Vec<OutputSegment>) -> Answer<'_, ()> {
        self.write("append output", Work::Append(segments)).boxed()
    }

    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> Answer<'_, Vec<LogRecord>> {
        self.read("read output", move |connection, now| {
            reader::output(connection, &attempt, from, max_bytes, now)
        })
    }

    fn output_end(&self, attempt: AttemptId, from: u64) -> Answer<'_, u64> {
        self.read("find the end of archived output", move |connection, now| {
            reader::output_end(connection, &attempt, from, now)
        })
    }

    fn attempt(&self, id: AttemptId) -> Answer<'_, Option<AttemptRecord>> {
        self.read("read an attempt", move |connection, now| reader::attempt(connection, &id, now))
    }

    fn executions(&self, query: ExecutionQuery) -> Answer<'_, Page<ExecutionRecord>> {
        self.read("list executions", move |connection, now| reader::executions(connection, &query, now))
    }

    fn runs(&self, query: RunQuery) -> Answer<'_, Page<RunRecord>> {
        self.read("list runs", move |connection, now| reader::runs(connection, &query, now))
    }
}

/// Connections that only read, made when they are needed and kept.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::new(Vec::new()), permits: Semaphore::new(READERS) }
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(connection);
        }
    }
}
