//! One slot of the write-ahead log: the records of one Attempt, durable before its directory is.
//!
//! ```text
//! slot n of `wal`, 16 KiB at n × 16 KiB (slot 0 is the header)
//!        0   start     state *Starting*, by the agent             1 KiB
//!     1024   request   the accepted Start, by the agent           7 KiB
//!     8192   exit      how it ended, by the holder of the lock    8 KiB
//! ```
//!
//! Each part is a frame: magic, length, generation, CRC-32 of the three and of the payload; then the payload, JSON. Start and
//! exit count only with the generation of the request beside them, so that what is left of an earlier Attempt never does.
//! Start and request share the first block where they can, so that one write makes both durable.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::JournalError;

/// The file's name in the state directory.
pub(super) const WAL: &str = "wal";

/// Bytes of a slot.
pub(super) const SLOT_SIZE: u64 = 16 << 10;

/// Bytes of a file system's block.
const BLOCK: usize = 4 << 10;

const MAGIC: [u8; 4] = *b"SNW1";
/// Magic, length, generation, checksum.
const FRAME_HEAD: usize = 4 + 4 + 8 + 4;

/// A slot, and the request that it was allocated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotId {
    /// Its number in the file, from 1.
    pub index: u32,
    /// Unique for each accepted request.
    pub generation: u64,
}

/// A part of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Start,
    Request,
    Exit,
}

impl Part {
    pub(super) fn offset(self) -> u64 {
        match self {
            Self::Start => 0,
            Self::Request => 1 << 10,
            Self::Exit => 8 << 10,
        }
    }

    fn room(self) -> usize {
        match self {
            Self::Start => 1 << 10,
            Self::Request => 7 << 10,
            Self::Exit => 8 << 10,
        }
    }

    /// The frame around a payload; `None` when it is too long.
    pub(super) fn frame(self, generation: u64, payload: &[u8]) -> Option<Vec<u8>> {
        let len = u32::try_from(payload.len()).ok()?;
        if FRAME_HEAD + payload.len() > self.room() {
            return None;
        }
        let mut frame = Vec::with_capacity(FRAME_HEAD + payload.len());
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(&generation.to_le_bytes());
        frame.extend_from_slice(&checksum(&frame, payload).to_le_bytes());
        frame.extend_from_slice(payload);
        Some(frame)
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(payload);
    crc.finalize()
}

/// Generation and payload of a frame; `None` for anything else.
fn unframe(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD)?;
    let number = |range: std::ops::Range<usize>| head.get(range).and_then(|bytes| bytes.try_into().ok());
    let len = u32::from_le_bytes(number(4..8)?);
    let crc = u32::from_le_bytes(number(16..20)?);
    let generation = u64::from_le_bytes(head[8..16].try_into().ok()?);
    let payload = rest.get(..usize::try_from(len).ok()?)?;
    (head[..4] == MAGIC && checksum(&head[..16], payload) == crc).then_some((generation, payload))
}

/// An open slot.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    file: Arc<File>,
    path: PathBuf,
    id: SlotId,
}

impl Slot {
    /// Opens the slot of a request; `None` if the slot has been reused for another request, or the log is missing.
    pub(super) fn open(state_dir: &Path, id: SlotId) -> Option<Self> {
        let path = state_dir.join(WAL);
        let file = open_existing(&path).ok()?;
        Self::of(Arc::new(file), path, id)
    }

    pub(super) fn of(file: Arc<File>, path: PathBuf, id: SlotId) -> Option<Self> {
        let slot = Self { file, path, id };
        slot.bytes(Part::Request).is_some().then_some(slot)
    }

    /// The payload of a part, if it belongs to this request.
    fn bytes(&self, part: Part) -> Option<Vec<u8>> {
        let (generation, payload) = read_frame(&self.file, self.id.index, part)?;
        (generation == self.id.generation).then_some(payload)
    }

    /// What a part records; `None` when nothing.
    pub(super) fn read<T: DeserializeOwned>(&self, part: Part) -> Option<T> {
        serde_json::from_slice(&self.bytes(part)?).ok()
    }

    /// Writes a part, not durable yet; false when it does not fit.
    pub(super) fn write<T: Serialize>(&self, part: Part, value: &T) -> Result<bool, JournalError> {
        let payload = serde_json::to_vec(value)
            .map_err(|source| JournalError::Encode { path: self.path.clone(), source })?;
        let Some(mut frame) = part.frame(self.id.generation, &payload) else { return Ok(false) };
        if part == Part::Exit {
            pad_to_blocks(&mut frame);
        }
        self.file
            .write_all_at(&frame, offset(self.id.index, part))
            .map_err(|e| JournalError::io("write", &self.path, e))?;
        Ok(true)
    }

    /// Makes everything in the log durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        sync_blocks(&self.file, &self.path)
    }
}

/// A block that is written as a whole need not be read first.
pub(super) fn pad_to_blocks(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

/// The blocks exist and were written before, so that only their content has to reach the disk.
pub(super) fn sync_blocks(file: &File, path: &Path) -> Result<(), JournalError> {
    file.sync_data().map_err(|source| JournalError::Unsafe { path: path.to_owned(), source })
}

pub(super) fn offset(index: u32, part: Part) -> u64 {
    u64::from(index) * SLOT_SIZE + part.offset()
}

/// Generation and payload of a part.
pub(super) fn read_frame(file: &File, index: u32, part: Part) -> Option<(u64, Vec<u8>)> {
    // Most are shorter than a block.
    for len in [4096.min(part.room()), part.room()] {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset(index, part)).ok()?;
        if let Some((generation, payload)) = unframe(&bytes) {
            return Some((generation, payload.to_vec()));
        }
    }
    None
}

pub(super) fn open_existing(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_with_any_byte_missing_or_bit_flipped_is_none() {
        let frame = Part::Request.frame(7, b"{\"a\":1}").unwrap();
        assert_eq!(unframe(&frame), Some((7, &b"{\"a\":1}"[..])));
        for len in 0..frame.len() {
            assert_eq!(unframe(&frame[..len]), None, "cut to {len} bytes");
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unframe(&flipped), None, "bit {bit} flipped");
        }
    }

    #[test]
    fn what_is_too_long_for_its_part_is_not_framed() {
        for part in [Part::Start, Part::Request, Part::Exit] {
            let longest = part.room() - FRAME_HEAD;
            assert!(part.frame(1, &vec![b' '; longest]).is_some());
            assert!(part.frame(1, &vec![b' '; longest + 1]).is_none());
        }
        assert_eq!(Part::Exit.offset() + Part::Exit.room() as u64, SLOT_SIZE);
    }
}
