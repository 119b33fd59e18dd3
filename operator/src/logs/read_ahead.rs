//! What readers have read of the archive and not passed on: a bound for all of them together, however many do not read.

use std::sync::Arc;

use bytes::Bytes;
use sentinel_protocol::log::LogRecord;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Readers that hold a whole read at the same time; each further one holds a piece.
const WHOLE_READS: usize = 16;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

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

/// The first piece of what was read from a position on. It is a copy, so that it keeps nothing else in memory.
pub(super) fn first_piece(records: Vec<LogRecord>, from: u64) -> Vec<LogRecord> {
    let mut first = records.into_iter().find_map(|record| record.from_position(from));
    if let Some(record) = &mut first
        && record.head.dropped.is_none()
    {
        let len = record.data.len().min(PIECE);
        record.head.len = len as u64;
        record.data = Bytes::copy_from_slice(&record.data[..len]);
    }
    first.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::log::{RecordHead, Stream};

    use super::*;

    #[test]
    fn a_piece_continues_in_the_next_one() {
        let data = Bytes::from((0..150_000u32).map(|at| at as u8).collect::<Vec<_>>());
        let len = data.len() as u64;
        let head =
            RecordHead { stream: Stream::Stdout, position: 10, offset: 0, len, at_micros: 1, dropped: None };
        let records = vec![LogRecord { head, data: data.clone() }];
        let (mut read, mut position) = (Vec::new(), 0);
        while let [piece] = &first_piece(records.clone(), position)[..] {
            assert!(piece.data.len() <= PIECE && piece.head.len == piece.data.len() as u64);
            assert_eq!((piece.head.position, piece.head.offset), (position.max(10), read.len() as u64));
            read.extend_from_slice(&piece.data);
            position = piece.end();
        }
        assert_eq!((read, position), (data.to_vec(), 10 + len));
    }
}
