//! Reads the Spool: the agent's side.

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use sentinel_protocol::limits::MAX_RECORD_DATA;
use sentinel_protocol::log::{DropReason, LogRecord};
use sentinel_protocol::to_operator::Ended;

use super::SpoolError;
use super::drops;
use super::files::{SpoolFile, SpoolFileKind, delete, list};
use super::log_position::LogPosition;
use super::segment::{self, Decoded, HEAD_LEN, HEADER_LEN};
use crate::journal::AttemptDir;

/// Bytes read from a segment at once.
const CHUNK: usize = 1 << 20;
/// Bytes that a record counts for beside its data, so that many small ones do not make a batch huge.
const RECORD_COST: usize = 64;

/// Reads the output of one Attempt while its supervisor writes it, and afterwards.
#[derive(Debug)]
pub struct Reader {
    attempt: AttemptDir,
    log: PathBuf,
    exit: Option<Ended>,
    cursor: Option<Cursor>,
    /// The position after the last record that was returned.
    last: LogPosition,
    /// The bytes read last. Their memory is reused once no record refers to it: the kernel clears new memory first, which
    /// costs more than reading into it.
    chunk: Bytes,
}

/// An open segment, and the next record in it.
#[derive(Debug)]
struct Cursor {
    entry: SpoolFile,
    file: File,
    start: LogPosition,
    place: LogPosition,
    offset: u64,
}

/// The records to return.
struct Batch {
    from: u64,
    room: usize,
    records: Vec<LogRecord>,
}

impl Batch {
    fn push(&mut self, record: LogRecord) {
        if let Some(record) = record.from_position(self.from) {
            self.room = self.room.saturating_sub(record.data.len() + RECORD_COST);
            self.records.push(record);
        }
    }

    fn is_full(&self) -> bool {
        self.room == 0 && !self.records.is_empty()
    }
}

/// How one pass over the files ended.
enum ReadPass {
    /// At the end of the log, or with a full batch.
    Done(LogPosition),
    /// A file was deleted between listing and opening it.
    Again,
}

impl Reader {
    /// Opens the Spool of an Attempt.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub fn open(attempt: &AttemptDir) -> Result<Self, SpoolError> {
        let log = attempt.log();
        list(&log)?;
        let (last, chunk) = (LogPosition::default(), Bytes::new());
        Ok(Self { attempt: attempt.clone(), log, exit: None, cursor: None, last, chunk })
    }

    /// Memory to read into, from another reader or an earlier read of this one.
    pub(crate) fn set_buffer(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    /// Takes that memory back, for another reader.
    pub(crate) fn take_buffer(&mut self) -> Bytes {
        std::mem::take(&mut self.chunk)
    }

    /// The first position that is still on the node (a hole counts). 0 when nothing was written yet; the end of the log when
    /// all of it was released.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn oldest(&mut self) -> Result<u64, SpoolError> {
        self.load_exit()?;
        let first = list(&self.log)?.first().map(|entry| entry.position);
        Ok(first.unwrap_or_else(|| self.exit.as_ref().map_or(0, |exit| exit.output.end)))
    }

    /// Records from this position on, of about `max_bytes` in all, at least one if there is one. The first is cut so
    /// that it begins at `from`; it begins later only where earlier output was released. Empty means that there is no more output
    /// yet, or, when the Attempt has ended and `from` is its `output.end`, the end.
    ///
    /// # Errors
    /// When the disk cannot be read. A damaged record is not an error but a hole.
    pub fn read(&mut self, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, SpoolError> {
        let mut batch = Batch { from, room: max_bytes.max(1), records: Vec::new() };
        // A listed file is missing only when it was released or dropped meanwhile. The next call tries again.
        for _ in 0..4 {
            match self.pass(&mut batch)? {
                ReadPass::Done(last) => {
                    self.last = last;
                    break;
                }
                ReadPass::Again if batch.records.is_empty() => {}
                ReadPass::Again => break,
            }
        }
        Ok(batch.records)
    }

    /// Everything before this position is archived: files that end before it are deleted.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn release(&mut self, position: u64) -> Result<(), SpoolError> {
        self.load_exit()?;
        let files = list(&self.log)?;
        let mut released = false;
        for (at, entry) in files.iter().enumerate() {
            // The last one is being written, until the Attempt has ended.
            let next = files.get(at + 1).map(|next| next.position);
            let end = next.or_else(|| self.exit.as_ref().map(|exit| exit.output.end));
            if end.is_some_and(|end| end <= position) {
                delete(&self.log, *entry)?;
                released = true;
            }
        }
        if released {
            self.attempt.wake_supervisor();
        }
        Ok(())
    }

    fn load_exit(&mut self) -> Result<(), SpoolError> {
        if self.exit.is_none() {
            self.exit = self.attempt.exit().map_err(SpoolError::Exit)?;
        }
        Ok(())
    }

    fn pass(&mut self, batch: &mut Batch) -> Result<ReadPass, SpoolError> {
        // In this order: when the exit record exists, the list is final.
        self.load_exit()?;
        let files = list(&self.log)?;
        let from = batch.from;
        let mut place = match from {
            0 => Some(LogPosition::default()),
            _ => Some(self.last).filter(|last| last.position == from),
        };
        let first = files.partition_point(|entry| entry.position <= from).saturating_sub(1);
        for entry in files.get(first..).unwrap_or_default() {
            let behind = match entry.kind {
                SpoolFileKind::Drop => self.read_drops(*entry, place, batch)?,
                SpoolFileKind::Segment => match self.enter(*entry, from)? {
                    SegmentOpen::Gone => return Ok(ReadPass::Again),
                    SegmentOpen::Unreadable => None,
                    // A segment whose lengths are recorded as dropped, and which is about to be deleted.
                    SegmentOpen::At(start)
                        if place.is_some_and(|p| p.position > start.position.max(from)) =>
                    {
                        None
                    }
                    // It contradicts what is before it: what it has counts as unreadable.
                    SegmentOpen::At(start) if place.is_some_and(|place| place.contradicts(&start)) => {
                        self.cursor = None;
                        None
                    }
                    SegmentOpen::At(start) => {
                        fill_gap(place, &start, batch);
                        Some(self.read_segment(batch)?)
                    }
                },
            };
            place = behind.or(place);
            if batch.is_full() {
                return Ok(ReadPass::Done(place.unwrap_or_default()));
            }
        }
        if let (Some(exit), Some(place)) = (&self.exit, &mut place) {
            let offsets = [exit.output.stdout.bytes, exit.output.stderr.bytes];
            let end = LogPosition { position: exit.output.end, offsets };
            if fill_gap(Some(*place), &end, batch) {
                *place = end;
            }
        }
        Ok(ReadPass::Done(place.unwrap_or(self.last)))
    }

    fn read_drops(
        &self,
        entry: SpoolFile,
        mut place: Option<LogPosition>,
        batch: &mut Batch,
    ) -> Result<Option<LogPosition>, SpoolError> {
        for dropped in drops::read(&entry.path(&self.log))? {
            fill_gap(place, &dropped.start(), batch);
            let mut at = dropped.start();
            for hole in dropped.holes() {
                if batch.is_full() {
                    return Ok(Some(at));
                }
                at = at.after(hole.head.stream, hole.head.len);
                batch.push(hole);
            }
            place = Some(at);
        }
        Ok(place)
    }

    /// Opens a segment, unless it is open and `from` is after what was read of it.
    fn enter(&mut self, entry: SpoolFile, from: u64) -> Result<SegmentOpen, SpoolError> {
        if let Some(cursor) = &self.cursor
            && cursor.entry == entry
            && (cursor.place.position <= from || cursor.offset == HEADER_LEN as u64)
        {
            return Ok(SegmentOpen::At(cursor.start));
        }
        self.cursor = None;
        let path = entry.path(&self.log);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SegmentOpen::Gone),
            Err(error) => return Err(SpoolError::io("open", &path, error)),
        };
        let mut header = [0; HEADER_LEN];
        let filled =
            segment::read_full(&file, &mut header, 0).map_err(|e| SpoolError::io("read", &path, e))?;
        let start =
            segment::decode_header(&header[..filled]).filter(|start| start.position == entry.position);
        let Some(start) = start else { return Ok(SegmentOpen::Unreadable) };
        self.cursor = Some(Cursor { entry, file, start, place: start, offset: HEADER_LEN as u64 });
        Ok(SegmentOpen::At(start))
    }

    /// Adds records of the open segment until the batch is full or no valid record follows.
    fn read_segment(&mut self, batch: &mut Batch) -> Result<LogPosition, SpoolError> {
        let Some(cursor) = &mut self.cursor else { return Ok(self.last) };
        let path = cursor.entry.path(&self.log);
        let failed = |e| SpoolError::io("read", &path, e);
        while !batch.is_full() {
            let len = cursor.file.metadata().map_err(failed)?.len();
            let want = batch.room.clamp(HEAD_LEN + MAX_RECORD_DATA, CHUNK);
            let want = usize::try_from(len.saturating_sub(cursor.offset)).unwrap_or(want).min(want);
            let mut buffer = match std::mem::take(&mut self.chunk).try_into_mut() {
                Ok(mut used) => {
                    used.resize(want, 0);
                    used
                }
                Err(_) => BytesMut::zeroed(want),
            };
            let filled = segment::read_full(&cursor.file, &mut buffer, cursor.offset).map_err(failed)?;
            buffer.truncate(filled);
            let chunk = buffer.freeze();
            let taken = cursor.decode_chunk(&chunk, batch);
            self.chunk = chunk;
            if taken == 0 {
                break;
            }
        }
        Ok(cursor.place)
    }
}

/// The result of opening a segment.
enum SegmentOpen {
    /// It is open and begins at this position.
    At(LogPosition),
    /// It has no valid header (yet).
    Unreadable,
    /// It was deleted.
    Gone,
}

impl Cursor {
    /// Decodes valid records from the front of `chunk`; returns the bytes used.
    fn decode_chunk(&mut self, chunk: &Bytes, batch: &mut Batch) -> usize {
        let mut at = 0;
        while !batch.is_full()
            && let Decoded::Record(head, len) = segment::decode(&chunk[at..], &self.place)
        {
            batch.push(LogRecord { head, data: chunk.slice(at + HEAD_LEN..at + len) });
            self.place = self.place.after(head.stream, head.len);
            self.offset += len as u64;
            at += len;
        }
        at
    }
}

/// Adds holes for what is missing between a known position and the next file. Returns whether something is missing.
fn fill_gap(place: Option<LogPosition>, next: &LogPosition, batch: &mut Batch) -> bool {
    let Some(place) = place.filter(|place| place.position < next.position) else { return false };
    let Some(lens) = place.distance(next) else { return false };
    for hole in place.holes(lens, 0, DropReason::Unreadable) {
        batch.push(hole);
    }
    true
}
