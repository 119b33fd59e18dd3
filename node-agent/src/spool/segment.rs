//! The bytes of a segment: a header, then records.
//!
//! All numbers are little-endian. The header is 40 bytes, the head of a record 44; `docs/spool-format.md` has the
//! table. The checksum of a record covers its head and its data.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sentinel_protocol::limits::MAX_RECORD_DATA;
use sentinel_protocol::log::{DropReason, RecordHead, Stream};

use super::log_position::LogPosition;

pub(super) const HEADER_LEN: usize = 40;
pub(super) const HEAD_LEN: usize = 44;

/// The name and version of the format.
const HEADER_MAGIC: &[u8; 8] = b"SNSPOOL1";
const RECORD_MAGIC: &[u8; 4] = b"REC1";

/// The header of a segment that begins at this position.
pub(super) fn encode_header(start: &LogPosition) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(HEADER_MAGIC);
    bytes[8..16].copy_from_slice(&start.position.to_le_bytes());
    bytes[16..24].copy_from_slice(&start.offsets[0].to_le_bytes());
    bytes[24..32].copy_from_slice(&start.offsets[1].to_le_bytes());
    let crc = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Where a segment begins; `None` when the bytes are not a valid header.
pub(super) fn decode_header(bytes: &[u8]) -> Option<LogPosition> {
    let bytes = bytes.get(..HEADER_LEN)?;
    let sound = &bytes[..8] == HEADER_MAGIC
        && number32(bytes, 32) == crc32fast::hash(&bytes[..32])
        && bytes[36..] == [0; 4];
    let start = LogPosition { position: number(bytes, 8), offsets: [number(bytes, 16), number(bytes, 24)] };
    // A valid checksum over impossible numbers was written by another program.
    (sound && start.offsets[0].checked_add(start.offsets[1]) == Some(start.position)).then_some(start)
}

/// The head of a record with this data (empty for a hole).
pub(super) fn encode_head(head: &RecordHead, data: &[u8]) -> [u8; HEAD_LEN] {
    let mut bytes = [0; HEAD_LEN];
    bytes[..4].copy_from_slice(RECORD_MAGIC);
    bytes[4] = match head.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    bytes[5] = match head.dropped {
        None => 0,
        Some(DropReason::SpoolFull) => 1,
        Some(DropReason::LimitReached) => 2,
        Some(DropReason::DiskFull) => 3,
        Some(DropReason::Unreadable) => 4,
        Some(DropReason::NotSent) => 5,
    };
    bytes[8..16].copy_from_slice(&head.len.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.position.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.offset.to_le_bytes());
    bytes[32..40].copy_from_slice(&head.at_micros.to_le_bytes());
    let crc = checksum(&bytes, data);
    bytes[40..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(head: &[u8], data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[..40]);
    crc.update(data);
    crc.finalize()
}

/// What some bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A record, and the number of bytes it takes in the file.
    Record(RecordHead, usize),
    /// An incomplete record.
    Short,
    /// Not a valid record at this position.
    Bad,
}

/// Decodes the record at `place`.
pub(super) fn decode(bytes: &[u8], place: &LogPosition) -> Decoded {
    let Some((head, data_len)) = bytes.get(..HEAD_LEN).and_then(|head| decode_head(head, place)) else {
        return if bytes.len() < HEAD_LEN { Decoded::Short } else { Decoded::Bad };
    };
    match bytes.get(HEAD_LEN..HEAD_LEN + data_len) {
        None => Decoded::Short,
        Some(data) if checksum(bytes, data) == number32(bytes, 40) => {
            Decoded::Record(head, HEAD_LEN + data_len)
        }
        Some(_) => Decoded::Bad,
    }
}

/// The head, before its checksum is verified, and the number of data bytes after it.
fn decode_head(bytes: &[u8], place: &LogPosition) -> Option<(RecordHead, usize)> {
    let stream = match bytes[4] {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return None,
    };
    let dropped = match bytes[5] {
        0 => None,
        1 => Some(DropReason::SpoolFull),
        2 => Some(DropReason::LimitReached),
        3 => Some(DropReason::DiskFull),
        4 => Some(DropReason::Unreadable),
        5 => Some(DropReason::NotSent),
        _ => return None,
    };
    let head = RecordHead {
        stream,
        position: number(bytes, 16),
        offset: number(bytes, 24),
        len: number(bytes, 8),
        at_micros: number(bytes, 32).cast_signed(),
        dropped,
    };
    let data_len = if dropped.is_some() { 0 } else { usize::try_from(head.len).ok()? };
    let sound = &bytes[..4] == RECORD_MAGIC
        && bytes[6..8] == [0; 2]
        && data_len <= MAX_RECORD_DATA
        && head.len > 0
        && head.position == place.position
        && head.offset == place.offset(stream);
    sound.then_some((head, data_len))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The result of [`walk`].
#[derive(Debug)]
pub(super) struct Walked {
    /// The position after the last valid record.
    pub(super) end: LogPosition,
    /// Bytes of the file up to there.
    pub(super) file_len: u64,
}

/// Visits the records of a segment up to the first invalid one; `None` without a valid header.
pub(super) fn walk(file: &File, mut visit: impl FnMut(&RecordHead)) -> io::Result<Option<Walked>> {
    let mut buffer = vec![0; 2 * (HEAD_LEN + MAX_RECORD_DATA)];
    let filled = read_full(file, &mut buffer[..HEADER_LEN], 0)?;
    let Some(mut place) = decode_header(&buffer[..filled]) else { return Ok(None) };
    let mut offset = HEADER_LEN as u64;
    loop {
        let filled = read_full(file, &mut buffer, offset)?;
        let mut at = 0;
        while let Decoded::Record(head, len) = decode(&buffer[at..filled], &place) {
            visit(&head);
            place = place.after(head.stream, head.len);
            at += len;
        }
        if at == 0 {
            return Ok(Some(Walked { end: place, file_len: offset }));
        }
        offset += at as u64;
    }
}

/// Fills the buffer from this offset on, up to the end of the file.
pub(super) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_segment_header_with_any_bit_flipped() {
        let start = LogPosition { position: 30, offsets: [10, 20] };
        let bytes = encode_header(&start);
        assert_eq!(decode_header(&bytes), Some(start));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_header(&flipped), None, "bit {bit} flipped was accepted");
        }
    }

    #[test]
    fn rejects_a_record_with_any_byte_missing_or_bit_flipped() {
        let place = LogPosition { position: 30, offsets: [10, 20] };
        let data = b"some output\n";
        let head = place.head(Stream::Stderr, data.len() as u64, -5, None);
        let mut bytes = encode_head(&head, data).to_vec();
        bytes.extend_from_slice(data);
        assert_eq!(decode(&bytes, &place), Decoded::Record(head, bytes.len()));
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len], &place), Decoded::Short);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(decode(&flipped, &place), Decoded::Record(..)),
                "bit {bit} flipped was accepted"
            );
        }
    }
}
