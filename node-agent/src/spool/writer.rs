//! Writes the Spool: the supervisor's side. Writing never fails: output that the disk does not take becomes a hole.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sentinel_protocol::limits::MAX_RECORD_DATA;
use sentinel_protocol::log::{DropReason, RecordHead, Stream};
use sentinel_protocol::request::OutputRules;

use super::SpoolError;
use super::drops::{self, Dropped};
use super::files::{SpoolFile, delete};
use super::log_position::{LogPosition, STREAMS, index};
use super::segment::{self, HEAD_LEN, HEADER_LEN};

/// Largest segment, bytes.
const MAX_SEGMENT: u64 = 4 << 20;
/// Smallest segment, however small the window, bytes.
const MIN_SEGMENT: u64 = 4 << 10;
/// Room kept for the last holes on a full disk, bytes.
const RESERVE: u64 = 4 << 10;
/// A drop file of this size is not appended to, bytes.
const MAX_DROPS_FILE: u64 = 256 << 10;
/// A growing hole is written at least this often, in bytes and microseconds.
const HOLE_BYTES: u64 = 64 << 20;
const HOLE_MICROS: i64 = 1_000_000;

/// Whether there is room for more output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Read the pipes.
    Open,
    /// The window is full: do not read the pipes until something is released, or until this time.
    Blocked {
        /// Milliseconds on the clock whose time [`Writer::room`] was given.
        until_ms: u64,
    },
}

/// Totals of a Spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of stdout and stderr, dropped ones included.
    pub bytes: [u64; 2],
    /// The dropped ones among them.
    pub dropped: [u64; 2],
    /// Position after the last record.
    pub end: u64,
    /// Milliseconds for which a full window blocked the command.
    pub blocked_ms: u64,
}

#[derive(Debug)]
struct OpenSegment {
    start: LogPosition,
    bytes: u64,
}

/// A hole that is not yet on disk.
#[derive(Debug)]
struct Hole {
    start: LogPosition,
    lens: [u64; 2],
    reason: DropReason,
    since_micros: i64,
}

/// The window is full. The command is blocked once per stall; a stall ends when something is released.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since_ms: u64,
    exhausted: bool,
}

/// Writes the Spool of one Attempt.
#[derive(Debug)]
pub struct Writer {
    log: PathBuf,
    rules: OutputRules,
    segment_size: u64,
    /// Oldest first; the last one is written to while `file` is open.
    segments: VecDeque<OpenSegment>,
    file: Option<File>,
    /// The position after everything, the hole in memory included.
    place: LogPosition,
    hole: Option<Hole>,
    kept: u64,
    dropped: [u64; 2],
    drops: Option<(SpoolFile, u64, u64)>,
    stall: Option<Stall>,
    blocked_ms: u64,
}

impl Writer {
    /// Creates a Spool in this empty folder.
    ///
    /// # Errors
    /// When there is no room for the reserve.
    pub fn create(log: &Path, rules: OutputRules) -> Result<Self, SpoolError> {
        reserve(log)?;
        Ok(Self::over_reserve(log, rules))
    }

    /// As [`Self::create`], where [`reserve`] was called before.
    pub fn over_reserve(log: &Path, rules: OutputRules) -> Self {
        Self {
            log: log.to_owned(),
            rules,
            segment_size: (rules.spool / 4).clamp(MIN_SEGMENT, MAX_SEGMENT),
            segments: VecDeque::new(),
            file: None,
            place: LogPosition::default(),
            hole: None,
            kept: 0,
            dropped: [0; 2],
            drops: None,
            stall: None,
            blocked_ms: 0,
        }
    }

    /// Whether the pipes may be read now. When a stall has lasted `maxBlock`, the oldest output is dropped until there is
    /// room.
    pub fn room(&mut self, now_ms: u64, at_micros: i64) -> Room {
        // Beyond the limit nothing is kept, so there is always room.
        if self.on_disk() < self.rules.spool || self.kept >= self.rules.limit {
            self.end_wait(now_ms);
            return Room::Open;
        }
        let stall = *self.stall.get_or_insert(Stall { since_ms: now_ms, exhausted: false });
        let until_ms = stall.since_ms.saturating_add(self.rules.max_block_ms);
        if !stall.exhausted && now_ms < until_ms {
            return Room::Blocked { until_ms };
        }
        self.end_wait(now_ms);
        while self.on_disk() >= self.rules.spool && !self.segments.is_empty() {
            self.drop_oldest(at_micros);
        }
        Room::Open
    }

    /// Appends output. Bytes beyond the limit, and bytes that the disk does not take, become a hole.
    pub fn append(&mut self, stream: Stream, data: &[u8], at_micros: i64) {
        let room = self.rules.limit.saturating_sub(self.kept);
        let (kept, beyond) = data.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(data.len()));
        let record_len = MAX_RECORD_DATA.min(self.segment_size as usize);
        let mut rest = kept;
        while !rest.is_empty() {
            let (record, behind) = rest.split_at(rest.len().min(record_len));
            self.append_record(stream, record, at_micros);
            rest = behind;
        }
        if !beyond.is_empty() {
            self.append_hole(stream, beyond.len() as u64, DropReason::LimitReached, at_micros);
            self.write_old_hole(at_micros);
        }
    }

    /// Records output that is not read, because the window is full and the Attempt is over.
    pub fn leave_out(&mut self, stream: Stream, len: u64, at_micros: i64) {
        if len > 0 {
            self.append_hole(stream, len, DropReason::SpoolFull, at_micros);
        }
    }

    /// Detects segments that the reader has released.
    pub fn detect_released(&mut self, now_ms: u64) {
        let before = self.segments.len();
        while self.segments.len() > 1
            && self
                .segments
                .front()
                .is_some_and(|s| !SpoolFile::segment(s.start.position).path(&self.log).exists())
        {
            self.segments.pop_front();
        }
        if self.segments.len() < before {
            self.end_wait(now_ms);
            self.stall = None;
        }
    }

    /// Writes the last hole and returns the totals. The reserve has room for this on a full disk.
    pub fn finish(&mut self, now_ms: u64) -> Written {
        self.end_wait(now_ms);
        let reserve = self.log.join("reserve");
        if self.write_hole().is_err() {
            self.write_hole_into(&reserve);
        } else {
            let _ = fs::remove_file(&reserve);
        }
        self.written()
    }

    /// The totals until now.
    pub fn written(&self) -> Written {
        Written {
            bytes: self.place.offsets,
            dropped: self.dropped,
            end: self.place.position,
            blocked_ms: self.blocked_ms,
        }
    }

    /// Syncs the files, best effort: a loss is detected as a hole.
    pub fn sync(&mut self) {
        for segment in &self.segments {
            if let Ok(file) = File::open(SpoolFile::segment(segment.start.position).path(&self.log)) {
                let _ = file.sync_data();
            }
        }
        if let Ok(log) = File::open(&self.log) {
            let _ = log.sync_all();
        }
    }

    fn on_disk(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn end_wait(&mut self, now_ms: u64) {
        if let Some(stall) = &mut self.stall
            && !stall.exhausted
        {
            self.blocked_ms += now_ms.saturating_sub(stall.since_ms);
            stall.exhausted = true;
        }
    }

    fn append_record(&mut self, stream: Stream, data: &[u8], at_micros: i64) {
        let len = data.len() as u64;
        let head = self.place.head(stream, len, at_micros, None);
        let taken = self.write_hole().and_then(|()| self.write_record(&head, data));
        if taken.is_ok() {
            self.kept += len;
            self.place = self.place.after(stream, len);
        } else {
            self.append_hole(stream, len, DropReason::DiskFull, at_micros);
        }
    }

    fn append_hole(&mut self, stream: Stream, len: u64, reason: DropReason, at_micros: i64) {
        if self.hole.as_ref().is_some_and(|hole| hole.reason != reason) && self.write_hole().is_err() {
            // The disk is still full; the hole grows under the reason that it has.
        }
        let start = self.place;
        let hole = self.hole.get_or_insert(Hole { start, lens: [0; 2], reason, since_micros: at_micros });
        hole.lens[index(stream)] += len;
        self.dropped[index(stream)] += len;
        self.place = hole.start.after_both(hole.lens);
    }

    fn write_old_hole(&mut self, at_micros: i64) {
        let old = self.hole.as_ref().is_some_and(|hole| {
            hole.lens[0] + hole.lens[1] >= HOLE_BYTES
                || at_micros.saturating_sub(hole.since_micros) >= HOLE_MICROS
        });
        if old {
            // Retried with the next output.
            let _ = self.write_hole();
        }
    }

    fn write_hole(&mut self) -> io::Result<()> {
        let Some(mut hole) = self.hole.take() else { return Ok(()) };
        while let Some(stream) = STREAMS.into_iter().find(|stream| hole.lens[index(*stream)] > 0) {
            let len = hole.lens[index(stream)];
            let head = hole.start.head(stream, len, hole.since_micros, Some(hole.reason));
            if let Err(error) = self.write_record(&head, &[]) {
                self.hole = Some(hole);
                return Err(error);
            }
            hole.start = hole.start.after(stream, len);
            hole.lens[index(stream)] = 0;
        }
        Ok(())
    }

    /// Writes a record completely or not at all.
    fn write_record(&mut self, head: &RecordHead, data: &[u8]) -> io::Result<()> {
        if self.segments.back().is_some_and(|segment| segment.bytes >= self.segment_size) {
            self.file = None;
        }
        if self.file.is_none() {
            self.create_segment(head)?;
        }
        let (Some(file), Some(segment)) = (&mut self.file, self.segments.back_mut()) else { return Ok(()) };
        let head_bytes = segment::encode_head(head, data);
        match write_all_vectored(file, &head_bytes, data) {
            Ok(()) => {
                segment.bytes += (HEAD_LEN + data.len()) as u64;
                Ok(())
            }
            Err(error) => {
                // Where truncating fails too, a torn end remains, and the next segment shows what is missing.
                let cut = file
                    .set_len(segment.bytes)
                    .and_then(|()| io::Seek::seek(file, io::SeekFrom::Start(segment.bytes)).map(drop));
                if cut.is_err() {
                    self.file = None;
                }
                Err(error)
            }
        }
    }

    /// Creates a segment at the position of this record.
    fn create_segment(&mut self, head: &RecordHead) -> io::Result<()> {
        let mut offsets = [head.position - head.offset; 2];
        offsets[index(head.stream)] = head.offset;
        let start = LogPosition { position: head.position, offsets };
        let path = SpoolFile::segment(start.position).path(&self.log);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        if let Err(error) = file.write_all(&segment::encode_header(&start)) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.segments.push_back(OpenSegment { start, bytes: HEADER_LEN as u64 });
        self.file = Some(file);
        Ok(())
    }

    /// The last resort on a full disk: the reserve becomes the last segment.
    fn write_hole_into(&mut self, reserve: &Path) {
        let Some(hole) = self.hole.take() else { return };
        let mut bytes = segment::encode_header(&hole.start).to_vec();
        for record in hole.start.holes(hole.lens, hole.since_micros, hole.reason) {
            bytes.extend_from_slice(&segment::encode_head(&record.head, &[]));
        }
        let written = OpenOptions::new().write(true).open(reserve).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.set_len(bytes.len() as u64)
        });
        if written.is_ok()
            && fs::rename(reserve, SpoolFile::segment(hole.start.position).path(&self.log)).is_ok()
        {
            self.segments.push_back(OpenSegment { start: hole.start, bytes: bytes.len() as u64 });
        }
    }

    /// Drops the oldest segment: its lengths are recorded, then it is deleted.
    fn drop_oldest(&mut self, at_micros: i64) {
        let Some(oldest) = self.segments.pop_front() else { return };
        if self.segments.is_empty() {
            self.file = None;
        }
        let end = match (self.segments.front(), &self.hole) {
            (Some(next), _) => next.start,
            (None, Some(hole)) => hole.start,
            (None, None) => self.place,
        };
        let entry = SpoolFile::segment(oldest.start.position);
        let path = entry.path(&self.log);
        let mut dropped = Dropped::new(&oldest.start, at_micros);
        let mut newly = [0; 2];
        let walked = File::open(&path).and_then(|file| {
            segment::walk(&file, |head| {
                dropped.push(head.stream, head.len);
                if head.dropped.is_none() {
                    newly[index(head.stream)] += head.len;
                }
            })
        });
        if matches!(&walked, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return; // Released meanwhile: the reader has read it all.
        }
        // The rest of the segment is unreadable, but its lengths are known.
        if let Some(rest) = dropped.end().distance(&end) {
            for (stream, len) in STREAMS.into_iter().zip(rest) {
                dropped.push(stream, len);
                newly[index(stream)] += len;
            }
        }
        self.dropped[0] += newly[0];
        self.dropped[1] += newly[1];
        let recorded = self.record_dropped(&dropped);
        let _ = delete(&self.log, entry);
        if recorded.is_err() {
            // On a full disk the deletion makes room. Should this fail too, the reader detects the hole by the positions
            // on both sides of it.
            let _ = self.record_dropped(&dropped);
        }
    }

    fn record_dropped(&mut self, dropped: &Dropped) -> Result<(), SpoolError> {
        let start = dropped.start().position;
        let (entry, len) = match self.drops {
            Some((entry, end, len)) if end == start && len < MAX_DROPS_FILE => (entry, len),
            _ => (SpoolFile::dropped(start), 0),
        };
        let added = drops::append(&entry.path(&self.log), dropped)?;
        self.drops = Some((entry, dropped.end().position, len + added));
        Ok(())
    }
}

/// Creates the reserve of a Spool, unless it exists.
///
/// # Errors
/// When there is no room for it.
pub(crate) fn reserve(log: &Path) -> Result<(), SpoolError> {
    let reserve = log.join("reserve");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&reserve);
    let file = file.map_err(|e| SpoolError::io("create", &reserve, e))?;
    if file.metadata().is_ok_and(|metadata| metadata.len() >= RESERVE) {
        return Ok(());
    }
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            (&file).write_all(&[0; RESERVE as usize]).map_err(|e| SpoolError::io("reserve", &reserve, e))?;
        }
        Err(errno) => return Err(SpoolError::io("reserve", &reserve, errno)),
    }
    Ok(())
}

fn write_all_vectored(file: &mut File, head: &[u8], data: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(data)];
    let mut slices = &mut slices[..];
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
