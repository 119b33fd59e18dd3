//! Output as it is archived: runs of records, compressed together.
//!
//! Stored form, format 1: one byte `1`; the length of the content as 4 bytes, little-endian; the content as one zstd
//! frame with its own checksum. The content is the length of the heads (4 bytes), the heads, and all bytes of output
//! one after the other. Heads are a few bytes each: flags (stream, dropped), length, and the differences of time and
//! offset to the predicted ones. Positions follow from the first one, since a segment has no hole.

use bytes::{BufMut, Bytes, BytesMut};
use sentinel_core::stream::lines::LineCount;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};

use super::error::HistoryError;

/// Most bytes of output in one segment: far below the 16 MiB of a MongoDB document.
pub const MAX_SEGMENT_DATA: usize = 1 << 20;

/// Most records in one segment, so that many tiny ones do not make it slow to read.
pub const MAX_SEGMENT_RECORDS: usize = 16_384;

/// Stores keep positions as signed numbers.
pub(super) const MAX_POSITION: u64 = i64::MAX as u64;

/// Level 1: output is compressed by the operator while it is archived.
const ZSTD_LEVEL: i32 = 1;
const FORMAT: u8 = 1;
/// Largest content that is unpacked: data, and heads of at most 32 bytes.
const MAX_CONTENT: usize = MAX_SEGMENT_DATA + MAX_SEGMENT_RECORDS * 32 + 4;

/// A run of output records without a hole between them, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSegment {
    /// The Attempt that wrote it.
    pub attempt: AttemptId,
    /// Position of the first byte.
    pub first: u64,
    /// Position behind the last byte, dropped ones included.
    pub end: u64,
    /// Number of records.
    pub records: u32,
    /// Bytes of output, before compression.
    pub raw_bytes: u64,
    /// Its lines; `None` in an archive of a release that did not count them.
    pub lines: Option<LineCount>,
    /// The records in the stored form.
    pub packed: Bytes,
}

/// The lines of a segment, without its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLines {
    /// Position of the first byte.
    pub first: u64,
    /// Position behind the last byte.
    pub end: u64,
    /// Its lines; `None` where they were not counted.
    pub lines: Option<LineCount>,
}

/// Packs segments one after the other. The compressor's tables and the two buffers take megabytes: allocating them for
/// each segment costs more than the compression.
pub struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    content: Vec<u8>,
    frame: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// Allocates the compressor.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> std::io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
        Ok(Self { compressor, content: Vec::new(), frame: Vec::new() })
    }

    /// Packs records that follow one another.
    ///
    /// # Errors
    /// [`HistoryError::Unstorable`] when there are none, when there is a hole or an overlap between them, when a record
    /// carries another number of bytes than its head states, or when they exceed the limits of a segment.
    pub fn pack(&mut self, attempt: AttemptId, records: &[LogRecord]) -> Result<OutputSegment, HistoryError> {
        let unstorable =
            |message: String| HistoryError::Unstorable { what: format!("output of {attempt}"), message };
        let first = records.first().ok_or_else(|| unstorable("no records".to_owned()))?.head.position;
        let mut end = first;
        let mut raw_bytes = 0;
        for LogRecord { head, data } in records {
            let expected = if head.dropped.is_some() { 0 } else { head.len };
            if head.position != end || head.len == 0 || data.len() as u64 != expected {
                return Err(unstorable(format!(
                    "the record at {} of {} bytes carries {} and should begin at {end}",
                    head.position,
                    head.len,
                    data.len()
                )));
            }
            end = end
                .checked_add(head.len)
                .filter(|end| *end <= MAX_POSITION)
                .ok_or_else(|| unstorable("positions overflow".to_owned()))?;
            raw_bytes += data.len();
        }
        if raw_bytes > MAX_SEGMENT_DATA || records.len() > MAX_SEGMENT_RECORDS {
            return Err(unstorable(format!("{raw_bytes} bytes in {} records", records.len())));
        }
        let packed = self.stored_form(records).map_err(|e| unstorable(e.to_string()))?;
        Ok(OutputSegment {
            attempt,
            first,
            end,
            records: records.len() as u32,
            raw_bytes: raw_bytes as u64,
            lines: Some(LineCount::of(records)),
            packed,
        })
    }

    fn stored_form(&mut self, records: &[LogRecord]) -> std::io::Result<Bytes> {
        put_content(&mut self.content, records);
        self.frame.clear();
        self.frame.reserve(zstd::zstd_safe::compress_bound(self.content.len()));
        self.compressor.compress_to_buffer(&self.content, &mut self.frame)?;
        let mut packed = BytesMut::with_capacity(self.frame.len() + 5);
        packed.put_u8(FORMAT);
        packed.put_u32_le(self.content.len() as u32);
        packed.put_slice(&self.frame);
        Ok(packed.freeze())
    }
}

impl OutputSegment {
    /// Packs a single segment; see [`Packer::pack`].
    ///
    /// # Errors
    /// Those of [`Packer::pack`].
    pub fn pack(attempt: AttemptId, records: &[LogRecord]) -> Result<Self, HistoryError> {
        match Packer::new() {
            Ok(mut packer) => packer.pack(attempt, records),
            Err(error) => {
                let what = format!("output of {attempt}");
                Err(HistoryError::Unstorable { what, message: error.to_string() })
            }
        }
    }

    /// The records, as they were packed.
    ///
    /// # Errors
    /// [`HistoryError::Unreadable`] when the stored form is damaged or of a newer release.
    pub fn unpack(&self) -> Result<Vec<LogRecord>, HistoryError> {
        unpack(self.first, self.end, &self.packed).map_err(|message| HistoryError::Unreadable {
            what: format!("output of {} from {} to {}", self.attempt, self.first, self.end),
            message,
        })
    }
}

fn put_content(content: &mut Vec<u8>, records: &[LogRecord]) {
    let mut heads = Vec::with_capacity(records.len() * 8 + 8);
    let mut predicted = Prediction::default();
    for LogRecord { head, .. } in records {
        let stream = match head.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        let dropped = match head.dropped {
            None => 0,
            Some(DropReason::SpoolFull) => 1,
            Some(DropReason::LimitReached) => 2,
            Some(DropReason::DiskFull) => 3,
            Some(DropReason::Unreadable) => 4,
            Some(DropReason::NotSent) => 5,
        };
        heads.push(stream | dropped << 1);
        put_varint(&mut heads, head.len);
        put_varint(&mut heads, zigzag(head.at_micros.wrapping_sub(predicted.at_micros)));
        put_varint(&mut heads, zigzag(head.offset.wrapping_sub(predicted.offset(head.stream)) as i64));
        predicted.update(head);
    }
    content.clear();
    content.put_u32_le(heads.len() as u32);
    content.extend_from_slice(&heads);
    for record in records {
        content.extend_from_slice(&record.data);
    }
}

fn unpack(first: u64, end: u64, packed: &[u8]) -> Result<Vec<LogRecord>, String> {
    let (format, rest) = packed.split_first().ok_or("it is empty")?;
    if *format != FORMAT {
        return Err(format!("it has format {format}, and this release reads format {FORMAT}"));
    }
    let (length, frame) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_CONTENT {
        return Err(format!("its header claims {length} bytes"));
    }
    let content = zstd::bulk::decompress(frame, length).map_err(|e| e.to_string())?;
    if content.len() != length {
        return Err(format!("it holds {} bytes instead of {length}", content.len()));
    }
    let mut content = Bytes::from(content);
    let heads_length =
        u32::from_le_bytes(*content.first_chunk::<4>().ok_or("its heads are missing")?) as usize;
    if content.len() < 4 + heads_length {
        return Err("its heads are cut short".to_owned());
    }
    let mut data = content.split_off(4 + heads_length);
    let records = read_heads(first, &content[4..], &mut data).ok_or("its heads are damaged")?;
    if records.last().map(LogRecord::end) != Some(end) || !data.is_empty() {
        return Err("its heads do not match its bytes".to_owned());
    }
    Ok(records)
}

/// `None` when the heads are truncated, or claim more bytes than there are.
fn read_heads(first: u64, mut heads: &[u8], data: &mut Bytes) -> Option<Vec<LogRecord>> {
    let mut records = Vec::new();
    let mut predicted = Prediction::default();
    let mut position = first;
    while let Some((flags, rest)) = heads.split_first() {
        heads = rest;
        let stream = if flags & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
        let dropped = match flags >> 1 {
            0 => None,
            1 => Some(DropReason::SpoolFull),
            2 => Some(DropReason::LimitReached),
            3 => Some(DropReason::DiskFull),
            4 => Some(DropReason::Unreadable),
            5 => Some(DropReason::NotSent),
            _ => return None,
        };
        let len = get_varint(&mut heads)?;
        let at_micros = predicted.at_micros.wrapping_add(unzigzag(get_varint(&mut heads)?));
        let offset = predicted.offset(stream).wrapping_add(unzigzag(get_varint(&mut heads)?) as u64);
        let head = RecordHead { stream, position, offset, len, at_micros, dropped };
        let expected = if dropped.is_some() { 0 } else { usize::try_from(len).ok()? };
        if expected > data.len() {
            return None;
        }
        records.push(LogRecord { head, data: data.split_to(expected) });
        predicted.update(&head);
        position = position.checked_add(len)?;
    }
    Some(records)
}

/// The prediction for the next head: the same time, and offsets without a jump.
#[derive(Default)]
struct Prediction {
    at_micros: i64,
    stdout: u64,
    stderr: u64,
}

impl Prediction {
    fn offset(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    fn update(&mut self, head: &RecordHead) {
        self.at_micros = head.at_micros;
        let offset = match head.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *offset = head.offset.wrapping_add(head.len);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn get_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attempt() -> AttemptId {
        "task/1/node/1".parse().unwrap()
    }

    prop_compose! {
        fn records()(
            first in prop_oneof![Just(0), 0..1_u64 << 40, Just(MAX_POSITION - (1 << 45))],
            parts in prop::collection::vec(
                (any::<bool>(), 0..5_u8, prop::collection::vec(any::<u8>(), 1..300), any::<u64>(), any::<i64>()),
                1..30,
            ),
        ) -> Vec<LogRecord> {
            let mut position = first;
            parts.into_iter().map(|(stderr, kind, data, offset, at_micros)| {
                let dropped = [
                    None,
                    Some(DropReason::SpoolFull),
                    Some(DropReason::LimitReached),
                    Some(DropReason::DiskFull),
                    Some(DropReason::Unreadable),
                    Some(DropReason::NotSent),
                ][usize::from(kind)];
                let len = if dropped.is_some() { data.len() as u64 * 1_000_000_007 } else { data.len() as u64 };
                let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
                let head = RecordHead { stream, position, offset, len, at_micros, dropped };
                position += len;
                LogRecord { head, data: if dropped.is_some() { Bytes::new() } else { data.into() } }
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn unpack_returns_what_was_packed(records in records()) {
            let segment = OutputSegment::pack(attempt(), &records).unwrap();
            prop_assert_eq!(segment.end, records.last().unwrap().end());
            prop_assert_eq!(segment.unpack().unwrap(), records);
        }

        #[test]
        fn a_flipped_bit_never_changes_the_output(records in records(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut segment = OutputSegment::pack(attempt(), &records).unwrap();
            let mut packed = segment.packed.to_vec();
            let at = at.index(packed.len());
            packed[at] ^= 1_u8 << bit;
            segment.packed = packed.into();
            // Some bits of a frame's header carry nothing; then the records must be the same.
            if let Ok(unpacked) = segment.unpack() {
                prop_assert_eq!(unpacked, records);
            }
        }

        #[test]
        fn garbage_is_an_error(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut packed = vec![FORMAT];
            packed.extend(garbage);
            let segment = OutputSegment {
                attempt: attempt(), first: 0, end: 1, records: 1, raw_bytes: 1, lines: None, packed: packed.into(),
            };
            prop_assert!(segment.unpack().is_err());
        }
    }

    #[test]
    fn rejects_a_hole_between_records() {
        let record = |position: u64| LogRecord {
            head: RecordHead {
                stream: Stream::Stdout,
                position,
                offset: position,
                len: 1,
                at_micros: 0,
                dropped: None,
            },
            data: Bytes::from_static(b"x"),
        };
        assert!(OutputSegment::pack(attempt(), &[record(0), record(1)]).is_ok());
        let error = OutputSegment::pack(attempt(), &[record(0), record(2)]).unwrap_err().to_string();
        assert!(error.contains("task/1/node/1") && error.contains("should begin at 1"), "{error}");
        assert!(OutputSegment::pack(attempt(), &[]).is_err());
    }
}
