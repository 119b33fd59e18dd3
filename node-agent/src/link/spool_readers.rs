//! Reads the Spools for the log socket, one job at a time on a blocking thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use sentinel_core::stream::outflow::{OutputRead, before};
use sentinel_protocol::codec::encode_record;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::agent_metrics::AgentMetrics;
use crate::journal::AttemptDir;
use crate::shortage::describe;
use crate::spans::attempt_span;
use crate::spool::{Reader, SpoolError};

/// Bytes read at once.
const BATCH: usize = 1 << 20;

/// The Spool of one Attempt; the reader is absent while a job has it.
struct OpenSpool {
    dir: AttemptDir,
    reader: Option<Reader>,
}

/// The result of a job.
#[derive(Debug)]
pub(super) enum ReadResult {
    /// Frames for the socket, up to position `until`; none when there was nothing to read.
    Read { read: OutputRead, frames: Vec<Bytes>, until: u64 },
    /// The Spool could not be read.
    Failed { read: OutputRead },
    /// Archived output was released, and nothing was read.
    Released,
}

struct Job {
    attempt: AttemptId,
    dir: AttemptDir,
    reader: Option<Reader>,
    release: Option<u64>,
    read: Option<OutputRead>,
    chunk: Bytes,
}

struct JobResult {
    attempt: AttemptId,
    reader: Option<Reader>,
    chunk: Bytes,
    result: ReadResult,
}

/// The job under way, with what has to be repaired should it panic.
struct RunningJob {
    task: JoinHandle<JobResult>,
    release: Option<(AttemptId, u64)>,
    read: Option<OutputRead>,
}

/// The open Spools.
pub(super) struct SpoolReaders {
    spools: BTreeMap<AttemptId, OpenSpool>,
    /// Archived positions up to which output is to be deleted.
    releases: BTreeMap<AttemptId, u64>,
    /// Those whose job panicked; they are repeated at the next [`Self::retry_releases`].
    failed_releases: Vec<(AttemptId, u64)>,
    /// Attempts whose Spool is closed once their releases are done.
    finished: BTreeSet<AttemptId>,
    running: Option<RunningJob>,
    /// Memory for the next job to read into, while there is output.
    chunk: Bytes,
    metrics: Arc<AgentMetrics>,
}

impl SpoolReaders {
    pub(super) fn new(metrics: Arc<AgentMetrics>) -> Self {
        Self {
            spools: BTreeMap::new(),
            releases: BTreeMap::new(),
            failed_releases: Vec::new(),
            finished: BTreeSet::new(),
            running: None,
            chunk: Bytes::new(),
            metrics,
        }
    }

    pub(super) fn add(&mut self, attempt: AttemptId, dir: AttemptDir) {
        self.spools.entry(attempt).or_insert(OpenSpool { dir, reader: None });
    }

    pub(super) fn remove(&mut self, attempt: &AttemptId) {
        self.spools.remove(attempt);
        self.releases.remove(attempt);
        self.finished.remove(attempt);
    }

    /// Has everything before this position deleted, by one of the next jobs.
    pub(super) fn release(&mut self, attempt: &AttemptId, position: u64) {
        if self.spools.contains_key(attempt) {
            self.releases.insert(attempt.clone(), position);
        }
    }

    /// Closes the Spool when its releases are done.
    pub(super) fn finish(&mut self, attempt: &AttemptId) {
        if self.releases.contains_key(attempt) {
            self.finished.insert(attempt.clone());
        } else {
            self.remove(attempt);
        }
    }

    /// Whether a job is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Whether output is still to be deleted.
    pub(super) fn has_releases(&self) -> bool {
        !self.releases.is_empty() || !self.failed_releases.is_empty()
    }

    /// Has output deleted whose job panicked.
    pub(super) fn retry_releases(&mut self) {
        for (attempt, position) in std::mem::take(&mut self.failed_releases) {
            if !self.releases.contains_key(&attempt) {
                self.release(&attempt, position);
            }
        }
    }

    /// Starts the next job, unless one is under way. Releases come first: they are short, and a command may be blocked
    /// until there is room.
    pub(super) fn start_next(&mut self, next_read: impl FnOnce() -> Option<OutputRead>) {
        if self.running.is_some() {
            return;
        }
        let (attempt, release, read) = if let Some((attempt, position)) = self.releases.pop_first() {
            (attempt, Some(position), None)
        } else if let Some(read) = next_read() {
            (read.attempt.clone(), None, Some(read))
        } else {
            return;
        };
        let Some(spool) = self.spools.get_mut(&attempt) else { return };
        let (dir, reader) = (spool.dir.clone(), spool.reader.take());
        let chunk = std::mem::take(&mut self.chunk);
        let repair = (release.map(|position| (attempt.clone(), position)), read.clone());
        let job = Job { attempt, dir, reader, release, read, chunk };
        let task = spawn_blocking(move || {
            let span = attempt_span(&job.attempt);
            span.in_scope(|| run_job(job))
        });
        self.running = Some(RunningJob { task, release: repair.0, read: repair.1 });
    }

    /// Waits for the job under way; forever when there is none. Cancel safe.
    pub(super) async fn finished(&mut self) -> ReadResult {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let done = (&mut running.task).await;
        let Some(RunningJob { release, read, .. }) = self.running.take() else { return ReadResult::Released };
        if let Ok(done) = done {
            return self.close_or_keep(done);
        }
        self.metrics.count_restart("spool reader");
        self.failed_releases.extend(release);
        read.map_or(ReadResult::Released, |read| ReadResult::Failed { read })
    }

    fn close_or_keep(&mut self, done: JobResult) -> ReadResult {
        let JobResult { attempt, reader, chunk, result } = done;
        self.chunk = chunk;
        if self.finished.contains(&attempt) && !self.releases.contains_key(&attempt) {
            self.remove(&attempt);
        } else if let Some(spool) = self.spools.get_mut(&attempt) {
            spool.reader = reader;
        }
        result
    }
}

fn run_job(job: Job) -> JobResult {
    let Job { attempt, dir, reader, release, read, chunk } = job;
    let opened = reader.map_or_else(|| Reader::open(&dir), Ok);
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => {
            log_failure(&error);
            let result = read.map_or(ReadResult::Released, |read| ReadResult::Failed { read });
            return JobResult { attempt, reader: None, chunk, result };
        }
    };
    if let Some(position) = release
        && let Err(error) = reader.release(position)
    {
        log_failure(&error);
    }
    let Some(read) = read else {
        return JobResult { attempt, reader: Some(reader), chunk, result: ReadResult::Released };
    };
    reader.set_buffer(chunk);
    let room = usize::try_from(read.until - read.from).unwrap_or(usize::MAX);
    let result = match reader.read(read.from, BATCH.min(room)) {
        Ok(records) => encode(&attempt, read, records),
        Err(error) => {
            log_failure(&error);
            ReadResult::Failed { read }
        }
    };
    let mut chunk = reader.take_buffer();
    if matches!(&result, ReadResult::Read { frames, .. } if frames.is_empty()) {
        // No more output for now: the memory is not kept.
        chunk = Bytes::new();
    }
    JobResult { attempt, reader: Some(reader), chunk, result }
}

fn encode(attempt: &AttemptId, read: OutputRead, records: Vec<LogRecord>) -> ReadResult {
    let mut frames = Vec::with_capacity(records.len());
    let mut until = read.from;
    for record in records {
        let record = record.from_position(until).and_then(|record| before(record, read.until));
        let Some(record) = record else { continue };
        match encode_record(attempt, &record) {
            Ok(frame) => frames.push(frame),
            Err(error) => {
                tracing::error!(%error, "failed to encode output");
                return ReadResult::Failed { read };
            }
        }
        until = record.end();
    }
    ReadResult::Read { read, frames, until }
}

fn log_failure(error: &SpoolError) {
    tracing::warn!(
        category = error.category().as_str(),
        retryable = error.is_retryable(),
        error = describe(error),
        "unable to read output; will retry"
    );
}

#[cfg(test)]
mod tests {
    use sentinel_core::stream::outflow::Outflow;

    use super::*;

    /// The read was never taken back, so that no output of the Attempt was sent until the next connection.
    #[tokio::test]
    async fn a_panicking_job_fails_its_read_and_repeats_its_release() {
        let attempt: AttemptId = "u/1/n/1".parse().unwrap();
        let metrics = Arc::new(AgentMetrics::default());
        let mut readers = SpoolReaders::new(metrics);
        let dir = tempfile::tempdir().unwrap();
        readers.add(attempt.clone(), AttemptDir::at(dir.path()));
        let mut outflow = Outflow::new();
        outflow.begin(attempt.clone(), 100);
        outflow.wrote(&attempt);
        outflow.openings();
        let read = outflow.next_read().unwrap();
        let task = spawn_blocking(|| panic!("a defect of the reader"));
        let release = Some((attempt.clone(), 7));
        readers.running = Some(RunningJob { task, release, read: Some(read.clone()) });
        let ReadResult::Failed { read: failed } = readers.finished().await else { panic!("not failed") };
        assert_eq!(failed, read);
        assert!(readers.has_releases() && !readers.is_busy());
        readers.retry_releases();
        readers.start_next(|| None);
        assert!(readers.is_busy(), "the release is repeated");
    }
}
