//! The thread that writes the records: to the directory, the stream, or both.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use sentinel_audit::directory::{Directory, SyncedHead};
use sentinel_audit::{Chain, Record};
use sentinel_protocol::time::UnixMillis;

use super::queue::{Counted, Queued};
use super::stream::Stream;
use crate::clock::Clock;
use crate::metrics::Counter;

/// How long a record waits for others before it is made durable.
const SYNC_WITHIN: Duration = Duration::from_millis(500);

/// Records that are written before the disk is asked to confirm them.
const BATCH: usize = 1024;

/// Where the chain is.
pub(super) enum Kept {
    /// In a directory.
    Directory(Box<Directory>),
    /// In the stream alone.
    Memory(Chain, SyncedHead),
}

/// The writer.
pub(super) struct AuditWriter {
    pub(super) kept: Kept,
    pub(super) stream: Option<Stream>,
    pub(super) counted: Arc<Counted>,
    pub(super) clock: Clock,
    /// Lines that the stream did not take.
    pub(super) not_streamed: Counter,
}

impl AuditWriter {
    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Receiver<Queued>) {
        self.note_news();
        // That it began is to be durable too.
        let mut unsynced_since = Some(Instant::now());
        loop {
            let wait =
                unsynced_since.map_or(SYNC_WITHIN, |since| SYNC_WITHIN.saturating_sub(since.elapsed()));
            let received = queue.recv_timeout(wait);
            let is_closed = received == Err(RecvTimeoutError::Disconnected);
            if let Ok(first) = received {
                unsynced_since.get_or_insert_with(Instant::now);
                for Queued { at, record, weight, is_news } in
                    std::iter::once(first).chain(queue.try_iter().take(BATCH))
                {
                    self.counted.queued_bytes.fetch_sub(weight, Relaxed);
                    self.write(at, Some(&record));
                    if is_news {
                        self.note_news();
                    }
                }
            }
            if is_closed || unsynced_since.is_some_and(|since| since.elapsed() >= SYNC_WITHIN) {
                unsynced_since = None;
                self.write(self.clock.reading().wall, None);
                self.sync();
            }
            if is_closed {
                return;
            }
        }
    }

    fn note_news(&self) {
        let head = match &self.kept {
            Kept::Directory(directory) => directory.head(),
            Kept::Memory(chain, _) => chain.head(),
        };
        self.counted.news.store(head.map_or(0, |head| head.seq), Relaxed);
    }

    /// Writes a record, and before it what was lost.
    fn write(&mut self, at: UnixMillis, record: Option<&Record>) {
        let overflowed = self.counted.overflowed.swap(0, Relaxed);
        let Self { kept, stream, not_streamed, counted, .. } = self;
        let mut copy = |line: &[u8]| {
            counted.written.add(1);
            if let Some(stream) = stream
                && let Err(error) = stream.write(line)
            {
                not_streamed.add(1);
                tracing::warn!(%error, "unable to write an audit record to --audit-log; will retry with the next");
            }
        };
        match kept {
            Kept::Directory(directory) => {
                let before = directory.lost();
                if overflowed > 0 {
                    directory.lose(overflowed, OVERFLOWED.to_owned());
                }
                match record {
                    Some(record) => directory.append_and(at, record, &mut copy),
                    None => drop(directory.record_gap(at, &mut copy)),
                }
                counted.lost.add(directory.lost() - before - overflowed);
            }
            Kept::Memory(chain, _) => {
                let gap = Record::Gap { lost: overflowed, why: OVERFLOWED.into() };
                for record in (overflowed > 0).then_some(&gap).into_iter().chain(record) {
                    append(chain, at, record, &mut copy);
                }
            }
        }
    }

    fn sync(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.follow_rotation();
        }
        match &mut self.kept {
            Kept::Directory(directory) => {
                if let Some(unsynced) = directory.take_unsynced()
                    && let Err(error) = unsynced.sync()
                {
                    tracing::error!(%error, "failed to make audit records durable; agents are not given their head any more");
                }
            }
            Kept::Memory(chain, head) => head.raise(chain.head()),
        }
    }
}

/// Why records were lost that found the queue full.
const OVERFLOWED: &str = "they came faster than they could be written";

pub(super) fn append(chain: &mut Chain, at: UnixMillis, record: &Record, written: &mut dyn FnMut(&[u8])) {
    match chain.next(at, record) {
        Ok(next) => {
            chain.advance(&next);
            written(&next.line);
        }
        Err(error) => tracing::error!(%error, kind = record.kind(), "failed to write an audit record"),
    }
}
