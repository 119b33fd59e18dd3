//! What readers have read of the archive and not passed on: a bound for all of them together, however many do not read.

use std::sync::Arc;

use bytes::Bytes;
use sentinel_protocol::log::LogRecord;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Readers that hold a whole read at the same time; each further one holds a piece.
const WHOLE_READS: usize = 16;

/// Bytes of a piece.
pub(super) const PIECE: usize = 64 << 10;

/// The places of readers that hold a whole read. Cloning it shares them.
#[derive(Debug, Clone)]
pub(super) struct ReadAhead(Arc<Semaphore>);

impl Default for ReadAhead {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WHOLE_READS)))
    }
}

impl ReadAhead {
    /// A place for a whole read, until it is dropped; `None` while others hold all of them. No reader waits for one,
    /// because one that stalls keeps its place.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// The first bytes of what was read from a position on. They are a copy, so that they keep nothing else in memory: records
/// share the segment that they are read from.
pub(super) fn first_bytes(records: Vec<LogRecord>, from: u64, bytes: usize) -> Vec<LogRecord> {
    let mut first = Vec::new();
    let mut room = bytes;
    for mut record in records.into_iter().filter_map(|record| record.from_position(from)) {
        if room == 0 {
            break;
        }
        if record.head.dropped.is_none() {
            let len = record.data.len().min(room);
            room -= len;
            record.head.len = len as u64;
            record.data = Bytes::copy_from_slice(&record.data[..len]);
        }
        first.push(record);
    }
    first
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::log::{RecordHead, Stream};

    use super::*;

    fn part(record: &LogRecord, range: std::ops::Range<usize>) -> LogRecord {
        let mut head = record.head;
        head.position += range.start as u64;
        head.offset += range.start as u64;
        head.len = range.len() as u64;
        LogRecord { head, data: record.data.slice(range) }
    }

    #[test]
    fn a_piece_continues_in_the_next_one() {
        let data = Bytes::from((0..150_000u32).map(|at| at as u8).collect::<Vec<_>>());
        let len = data.len() as u64;
        let head =
            RecordHead { stream: Stream::Stdout, position: 10, offset: 0, len, at_micros: 1, dropped: None };
        let record = LogRecord { head, data };
        let records: Vec<LogRecord> = (0..30).map(|at| part(&record, at * 5_000..(at + 1) * 5_000)).collect();
        for records in [vec![record.clone()], records] {
            let (mut read, mut position) = (Vec::new(), 0);
            loop {
                let piece = first_bytes(records.clone(), position, PIECE);
                let Some(last) = piece.last() else { break };
                let bytes: usize = piece.iter().map(|record| record.data.len()).sum();
                assert_eq!(bytes, PIECE.min(record.data.len() - read.len()));
                let end = last.end();
                for record in piece {
                    assert_eq!(record.head.len, record.data.len() as u64);
                    assert_eq!(record.head.position, 10 + read.len() as u64);
                    read.extend_from_slice(&record.data);
                }
                position = end;
            }
            assert_eq!((&read[..], position), (&record.data[..], 10 + len));
        }
    }
}
