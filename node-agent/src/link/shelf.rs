//! Reads the Spools for the log socket, one job at a time on a blocking thread.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sentinel_core::stream::outflow::{OutputRead, before};
use sentinel_protocol::codec::encode_record;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::agent::chain;
use crate::journal::AttemptDir;
use crate::spool::{Reader, SpoolError};

/// Bytes read at once.
const BATCH: usize = 1 << 20;

/// Where the output of an Attempt is.
struct Source {
    dir: AttemptDir,
    reader: Option<Reader>,
}

/// What a job did.
pub(super) enum Done {
    /// It read: frames for the socket, up to this position. No frame means that nothing was there.
    Read { turn: OutputRead, frames: Vec<Bytes>, until: u64 },
    /// It could not read.
    Failed { turn: OutputRead },
    /// It only let go of what is archived.
    Released,
}

struct Job {
    attempt: AttemptId,
    dir: AttemptDir,
    reader: Option<Reader>,
    release: Option<u64>,
    turn: Option<OutputRead>,
    chunk: Bytes,
}

/// What a job leaves.
struct Worked {
    attempt: AttemptId,
    reader: Option<Reader>,
    chunk: Bytes,
    done: Done,
}

/// The open Spools.
#[derive(Default)]
pub(super) struct Shelf {
    sources: BTreeMap<AttemptId, Source>,
    /// Archived positions up to which the node lets go.
    releases: BTreeMap<AttemptId, u64>,
    /// Attempts whose Spool is closed once that is done.
    finished: BTreeSet<AttemptId>,
    working: Option<JoinHandle<Worked>>,
    /// Memory for the next job to read into, while there is output.
    chunk: Bytes,
}

impl Shelf {
    pub(super) fn add(&mut self, attempt: AttemptId, dir: AttemptDir) {
        self.sources.entry(attempt).or_insert(Source { dir, reader: None });
    }

    pub(super) fn remove(&mut self, attempt: &AttemptId) {
        self.sources.remove(attempt);
        self.releases.remove(attempt);
        self.finished.remove(attempt);
    }

    /// Lets go of everything before this position, in time.
    pub(super) fn release(&mut self, attempt: &AttemptId, position: u64) {
        if self.sources.contains_key(attempt) {
            self.releases.insert(attempt.clone(), position);
        }
    }

    /// Closes the Spool when what was released is gone.
    pub(super) fn finish(&mut self, attempt: &AttemptId) {
        if self.releases.contains_key(attempt) {
            self.finished.insert(attempt.clone());
        } else {
            self.remove(attempt);
        }
    }

    /// Whether a job is under way.
    pub(super) fn is_working(&self) -> bool {
        self.working.is_some()
    }

    /// Whether there is something to let go of.
    pub(super) fn has_releases(&self) -> bool {
        !self.releases.is_empty()
    }

    /// Begins the next job, if none is under way. Releases come first: they are short, and a command may be waiting
    /// for the room.
    pub(super) fn begin(&mut self, turn: impl FnOnce() -> Option<OutputRead>) {
        if self.working.is_some() {
            return;
        }
        let (attempt, release, turn) = if let Some((attempt, position)) = self.releases.pop_first() {
            (attempt, Some(position), None)
        } else if let Some(turn) = turn() {
            (turn.attempt.clone(), None, Some(turn))
        } else {
            return;
        };
        let Some(source) = self.sources.get_mut(&attempt) else { return };
        let (dir, reader) = (source.dir.clone(), source.reader.take());
        let chunk = std::mem::take(&mut self.chunk);
        let job = Job { attempt, dir, reader, release, turn, chunk };
        self.working = Some(spawn_blocking(move || work(job)));
    }

    /// Waits for the job under way; forever when there is none. Dropping the wait loses nothing.
    pub(super) async fn done(&mut self) -> Done {
        let Some(working) = &mut self.working else { return std::future::pending().await };
        let worked = working.await;
        self.working = None;
        let Worked { attempt, reader, chunk, done } = match worked {
            Ok(worked) => worked,
            Err(error) => {
                tracing::error!(%error, "reading output failed");
                return Done::Released;
            }
        };
        self.chunk = chunk;
        if self.finished.contains(&attempt) && !self.releases.contains_key(&attempt) {
            self.remove(&attempt);
        } else if let Some(source) = self.sources.get_mut(&attempt) {
            source.reader = reader;
        }
        done
    }
}

fn work(job: Job) -> Worked {
    let Job { attempt, dir, reader, release, turn, chunk } = job;
    let opened = reader.map_or_else(|| Reader::open(&dir), Ok);
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => {
            complain(&attempt, &error);
            let done = turn.map_or(Done::Released, |turn| Done::Failed { turn });
            return Worked { attempt, reader: None, chunk, done };
        }
    };
    if let Some(position) = release
        && let Err(error) = reader.release(position)
    {
        complain(&attempt, &error);
    }
    let Some(turn) = turn else {
        return Worked { attempt, reader: Some(reader), chunk, done: Done::Released };
    };
    reader.lend(chunk);
    let room = usize::try_from(turn.until - turn.from).unwrap_or(usize::MAX);
    let done = match reader.read(turn.from, BATCH.min(room)) {
        Ok(records) => encode(&attempt, turn, records),
        Err(error) => {
            complain(&attempt, &error);
            Done::Failed { turn }
        }
    };
    let mut chunk = reader.reclaim();
    if matches!(&done, Done::Read { frames, .. } if frames.is_empty()) {
        // Nothing comes for now.
        chunk = Bytes::new();
    }
    Worked { attempt, reader: Some(reader), chunk, done }
}

fn encode(attempt: &AttemptId, turn: OutputRead, records: Vec<LogRecord>) -> Done {
    let mut frames = Vec::with_capacity(records.len());
    let mut until = turn.from;
    for record in records {
        let record = record.from_position(until).and_then(|record| before(record, turn.until));
        let Some(record) = record else { continue };
        match encode_record(attempt, &record) {
            Ok(frame) => frames.push(frame),
            Err(error) => {
                tracing::error!(%attempt, %error, "failed to encode output");
                return Done::Failed { turn };
            }
        }
        until = record.end();
    }
    Done::Read { turn, frames, until }
}

fn complain(attempt: &AttemptId, error: &SpoolError) {
    tracing::warn!(%attempt, error = chain(error), "unable to read the output of an attempt");
}
