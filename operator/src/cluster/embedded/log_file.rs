//! One log of an embedded cluster: changes, each durable with one write into blocks that the disk has already.
//!
//! ```text
//!   0     header    "SNCHLOG" and the version of this format, u8; generation, u64; CRC-32 of both, u32
//!   4096  records   length of the rest behind the CRC, u32; CRC-32 of generation and rest, u32;
//!                   rest: sequence, u64; length of the file's name, u16; name; new content of the file
//! ```
//!
//! Numbers are little-endian. A record without content removes its file. The first record whose CRC does not fit ends the
//! log: what a power cut tore, or what an earlier generation left. `disk` has how two logs take turns.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::files;

const MAGIC: &[u8; 7] = b"SNCHLOG";
const VERSION: u8 = 1;

/// Length of the header with its CRC, bytes.
const HEADER: usize = 20;

/// Where the records begin: in a block of their own.
const RECORDS: u64 = 4096;

/// Length of a record's length and CRC, bytes.
const FRAME: usize = 8;

/// Largest log that is read, bytes: far beyond what a log grows to while a disk is full.
const MAX_LOG: u64 = 1 << 30;

/// A change: the new content of a file, or none for its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Its path in the directory of the cluster.
    pub(super) file: String,
    pub(super) content: Vec<u8>,
}

/// What a log holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) generation: u64,
    /// The sequence of the first change.
    pub(super) first: Option<u64>,
    pub(super) changes: Vec<Change>,
}

/// A log that is appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    pub(super) path: PathBuf,
    pub(super) generation: u64,
    end: u64,
    /// Bytes of the file, whose blocks exist.
    allocated: u64,
}

impl Change {
    /// Bytes that it takes in a log at most.
    pub(super) fn encoded_len(&self) -> u64 {
        (FRAME + 10 + self.file.len() + self.content.len()) as u64
    }
}

impl LogFile {
    /// Opens a log and makes it empty; one that does not exist is made with this many bytes for records.
    pub(super) fn open(path: &Path, capacity: u64, generation: u64) -> io::Result<Self> {
        if !path.exists() {
            make(path, capacity)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut log = Self { file, path: path.to_owned(), generation, end: RECORDS, allocated: 0 };
        log.reset(capacity, generation)?;
        Ok(log)
    }

    /// Bytes of its records.
    pub(super) fn len(&self) -> u64 {
        self.end - RECORDS
    }

    /// Makes it empty, durably, before anything is written under the new generation. It is cut only after that: a log that
    /// is shorter under its old generation has lost changes.
    pub(super) fn reset(&mut self, capacity: u64, generation: u64) -> io::Result<()> {
        self.file.write_all_at(&header(generation), 0)?;
        self.file.sync_data()?;
        if self.file.metadata()?.len() > RECORDS + capacity {
            self.file.set_len(RECORDS + capacity)?;
        }
        self.generation = generation;
        self.end = RECORDS;
        self.allocated = self.file.metadata()?.len();
        Ok(())
    }

    /// Bytes that can be appended whatever room the disk has.
    pub(super) fn room(&self) -> u64 {
        self.allocated.saturating_sub(self.end)
    }

    /// Has room for this many bytes, by a longer file where it must.
    pub(super) fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let wanted = (self.end + bytes).next_multiple_of(RECORDS);
        if wanted > self.allocated {
            let zeros = vec![0; usize::try_from(wanted - self.allocated).unwrap_or(0)];
            self.file.write_all_at(&zeros, self.allocated)?;
            self.file.sync_all()?;
            self.allocated = wanted;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn break_down(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }

    /// Appends changes, the first with this sequence. They are durable when it returns.
    pub(super) fn append(&mut self, first: u64, changes: &[Change]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (sequence, change) in (first..).zip(changes) {
            encode(&mut bytes, self.generation, sequence, change)?;
        }
        self.file.write_all_at(&bytes, self.end)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// Makes a log whose blocks are written: a write into blocks that are only reserved would change the file system's own
/// records too, and wait for them.
fn make(path: &Path, capacity: u64) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    let zeros = vec![0; 1 << 16];
    let mut left = RECORDS + capacity;
    while left > 0 {
        let some = left.min(zeros.len() as u64);
        file.write_all(&zeros[..usize::try_from(some).unwrap_or(zeros.len())])?;
        left -= some;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Reads a log; `None` when it does not exist, or was being made empty.
///
/// # Errors
/// Also when it was made by a newer release.
pub(super) fn read(path: &Path) -> io::Result<Option<Held>> {
    match files::read(path, MAX_LOG) {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<Held>> {
    let Some((head, crc)) = bytes.get(..HEADER).map(|header| header.split_at(HEADER - 4)) else {
        return Ok(None);
    };
    if number(crc) != u64::from(crc32fast::hash(head)) || !head.starts_with(MAGIC) {
        return Ok(None);
    }
    if head[MAGIC.len()] != VERSION {
        let message =
            format!("it has version {} of a newer release; this one supports {VERSION}", head[MAGIC.len()]);
        return Err(io::Error::other(message));
    }
    let generation = number(&head[MAGIC.len() + 1..]);
    let mut held = Held { generation, first: None, changes: Vec::new() };
    let mut rest = bytes.get(usize::try_from(RECORDS).unwrap_or(usize::MAX)..).unwrap_or_default();
    while let Some((sequence, change, after)) = decode(rest, generation) {
        let first = *held.first.get_or_insert(sequence);
        if sequence != first + held.changes.len() as u64 {
            break;
        }
        held.changes.push(change);
        rest = after;
    }
    Ok(Some(held))
}

fn header(generation: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.push(VERSION);
    header.extend(generation.to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

fn encode(bytes: &mut Vec<u8>, generation: u64, sequence: u64, change: &Change) -> io::Result<()> {
    let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "the change is too large for a log");
    let name = u16::try_from(change.file.len()).map_err(too_large)?;
    let mut rest = sequence.to_le_bytes().to_vec();
    rest.extend(name.to_le_bytes());
    rest.extend(change.file.as_bytes());
    rest.extend(&change.content);
    bytes.extend(u32::try_from(rest.len()).map_err(too_large)?.to_le_bytes());
    bytes.extend(crc_of(generation, &rest).to_le_bytes());
    bytes.extend(rest);
    Ok(())
}

/// The first record, and what follows it.
fn decode(bytes: &[u8], generation: u64) -> Option<(u64, Change, &[u8])> {
    let (frame, rest) = bytes.split_at_checked(FRAME)?;
    let (length, crc) = frame.split_at(4);
    let (rest, after) = rest.split_at_checked(usize::try_from(number(length)).ok()?)?;
    if u64::from(crc_of(generation, rest)) != number(crc) {
        return None;
    }
    let (sequence, rest) = rest.split_at_checked(8)?;
    let (name, rest) = rest.split_at_checked(2)?;
    let (name, content) = rest.split_at_checked(usize::try_from(number(name)).ok()?)?;
    let file = String::from_utf8(name.to_vec()).ok()?;
    Some((number(sequence), Change { file, content: content.to_vec() }, after))
}

fn crc_of(generation: u64, rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&generation.to_le_bytes());
    crc.update(rest);
    crc.finalize()
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;

    fn change(file: &str, content: &str) -> Change {
        Change { file: file.to_owned(), content: content.as_bytes().to_vec() }
    }

    #[test]
    fn a_torn_tail_ends_a_log_and_an_earlier_generation_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(&path, 10_000, 7).unwrap();
        let all = [change("a", "1"), change("b", ""), change("a", "2")];
        log.append(5, &all[..1]).unwrap();
        log.append(6, &all[1..]).unwrap();
        let held = |count: usize| Held { generation: 7, first: Some(5), changes: all[..count].to_vec() };
        let whole = fs::read(&path).unwrap();
        assert_eq!(parse(&whole).unwrap(), Some(held(3)));
        let end = usize::try_from(log.end).unwrap();
        for torn in end - 20..end {
            let mut bytes = whole.clone();
            bytes[torn] ^= 1;
            assert_eq!(parse(&bytes).unwrap(), Some(held(2)), "byte {torn}");
        }
        log.reset(10_000, 9).unwrap();
        log.append(8, &all[2..]).unwrap();
        let held = Held { generation: 9, first: Some(8), changes: all[2..].to_vec() };
        assert_eq!(read(&path).unwrap(), Some(held), "the second record is still there, of generation 7");
    }

    /// A stop before the new header would otherwise leave a log of the old generation without its last changes, and the next
    /// start would refuse it as damaged.
    #[test]
    fn a_log_is_not_cut_before_it_is_empty() {
        let file = File::from(memfd_create("log", MemfdFlags::ALLOW_SEALING).unwrap());
        let of_it = file.try_clone().unwrap();
        let mut log = LogFile { file, path: PathBuf::new(), generation: 7, end: RECORDS, allocated: 0 };
        log.reset(100, 7).unwrap();
        let grown = [change("a", &"x".repeat(200)), change("b", "")];
        log.append(1, &grown).unwrap();
        fcntl_add_seals(&of_it, SealFlags::FUTURE_WRITE).unwrap();
        let refused = log.reset(100, 9);
        assert!(refused.is_err(), "no header can be written");
        let mut bytes = vec![0; usize::try_from(of_it.metadata().unwrap().len()).unwrap()];
        of_it.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(
            parse(&bytes).unwrap(),
            Some(Held { generation: 7, first: Some(1), changes: grown.to_vec() })
        );
    }

    #[test]
    fn a_log_of_a_newer_release_is_refused() {
        let mut bytes = header(1);
        bytes[MAGIC.len()] = VERSION + 1;
        let crc = crc32fast::hash(&bytes[..HEADER - 4]).to_le_bytes();
        bytes[HEADER - 4..].copy_from_slice(&crc);
        assert!(parse(&bytes).unwrap_err().to_string().contains("newer release"));
        bytes[0] = 0;
        assert_eq!(parse(&bytes).unwrap(), None, "torn while it was made empty");
    }

    #[test]
    fn what_was_reserved_can_be_appended_and_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogFile::open(&path, 4096, 1).unwrap();
        let change = Change { file: "tasks/a".to_owned(), content: vec![b'x'; 10_000] };
        assert!(log.room() < change.encoded_len());
        log.reserve(change.encoded_len()).unwrap();
        assert!(log.room() >= change.encoded_len());
        let len = fs::metadata(&path).unwrap().len();
        log.append(1, std::slice::from_ref(&change)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), len, "it was not long enough");
        assert_eq!(read(&path).unwrap().unwrap().changes, [change]);
    }
}
