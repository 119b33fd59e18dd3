//! Tombstones, by which a repeated `Start` of a forgotten Attempt is recognised: append-only files of checksummed lines.
//!
//! Each line is `<8 hexadecimal digits of crc32> <JSON>`; zeros may follow the last one. A new file is created at every start of the
//! agent, so that nothing is appended after a torn line. Whole files are removed when they are too old, or when there
//! are too many tombstones. Only their locations are kept in memory.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::time::UnixMillis;
use sha2::{Digest, Sha256};

use super::attempt_record::Tombstone;
use super::error::JournalError;
use super::record_file;
use super::wal_slot::sync_blocks;

/// How long a tombstone is kept, milliseconds: 30 days.
const KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// Largest number of tombstones; beyond, the oldest file is removed.
const MAX_COUNT: usize = 100_000;
/// Tombstones per file.
const PER_FILE: usize = 5_000;
/// Bytes by which a file is prepared.
const PREPARED: u64 = 64 << 10;
/// Longest line that is read, bytes.
const MAX_LINE: u64 = 64 << 10;

type Key = [u8; 16];

#[derive(Debug, Clone, Copy)]
struct TombstoneLocation {
    file: u64,
    offset: u64,
}

#[derive(Debug)]
struct TombstoneFile {
    number: u64,
    keys: Vec<Key>,
}

#[derive(Debug)]
pub(super) struct Tombstones {
    root: PathBuf,
    locations: HashMap<Key, TombstoneLocation>,
    /// Oldest first.
    files: VecDeque<TombstoneFile>,
    current: Option<CurrentFile>,
}

/// The file that is appended to. Its end is prepared with zeros, so that most tombstones only replace zeros: that costs the disk
/// one write, and a longer file costs it several.
#[derive(Debug)]
struct CurrentFile {
    file: Arc<File>,
    len: u64,
    prepared: u64,
}

impl CurrentFile {
    /// Appends a line; returns where it begins.
    fn append(&mut self, line: &[u8], path: &Path) -> Result<u64, JournalError> {
        let (start, end) = (self.len, self.len + line.len() as u64);
        let write = |bytes: &[u8], at| {
            self.file.write_all_at(bytes, at).map_err(|e| JournalError::io("write", path, e))
        };
        if end > self.prepared {
            // Where there is no room for more, the line is written alone.
            for prepared in [end.next_multiple_of(PREPARED), end] {
                let zeros = vec![0; usize::try_from(prepared - self.prepared).unwrap_or(0)];
                match write(&zeros, self.prepared) {
                    Err(error) if error.is_disk_full() && prepared > end => {}
                    written => {
                        written?;
                        record_file::sync(&self.file, path)?;
                        self.prepared = prepared;
                        break;
                    }
                }
            }
        }
        write(line, start)?;
        self.len = end;
        Ok(start)
    }
}

/// Files with tombstones that may not be durable yet.
#[derive(Debug)]
#[must_use]
pub(super) struct Unsynced(Vec<(Arc<File>, PathBuf)>);

impl Unsynced {
    /// Makes them durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.0.iter().try_for_each(|(file, path)| sync_blocks(file, path))
    }
}

impl Tombstones {
    /// Reads the files; those older than 30 days are removed. A damaged line is skipped.
    pub(super) fn open(root: &Path, now: UnixMillis) -> Result<Self, JournalError> {
        let mut tombstones =
            Self { root: root.to_owned(), locations: HashMap::new(), files: VecDeque::new(), current: None };
        for number in tombstones.numbers()? {
            if i64::try_from(number).is_ok_and(|begun| now.since(UnixMillis(begun)) > KEPT_MS + KEPT_MS / 30)
            {
                tombstones.remove_file(number)?;
            } else {
                tombstones.read_file(number)?;
            }
        }
        Ok(tombstones)
    }

    pub(super) fn len(&self) -> usize {
        self.locations.len()
    }

    pub(super) fn find(&self, id: &AttemptId) -> Option<Tombstone> {
        let location = self.locations.get(&key(id))?;
        let mut file = File::open(self.path(location.file)).ok()?;
        file.seek(SeekFrom::Start(location.offset)).ok()?;
        let mut line = Vec::new();
        BufReader::new(file.take(MAX_LINE)).read_until(b'\n', &mut line).ok()?;
        parse(&line).filter(|tombstone| tombstone.attempt == *id)
    }

    /// Appends some; durable once the result was synced.
    pub(super) fn append(&mut self, tombstones: &[Tombstone]) -> Result<Unsynced, JournalError> {
        let mut unsynced = Unsynced(Vec::new());
        for tombstone in tombstones {
            if let Err(error) = self.append_one(tombstone, &mut unsynced) {
                // The file may end in a torn line: create another.
                self.current = None;
                return Err(error);
            }
        }
        Ok(unsynced)
    }

    fn append_one(&mut self, tombstone: &Tombstone, unsynced: &mut Unsynced) -> Result<(), JournalError> {
        if self.current.is_none() || self.files.back().is_none_or(|file| file.keys.len() >= PER_FILE) {
            self.create_file(tombstone.ended_at)?;
            self.make_room()?;
        }
        let (Some(current), Some(file_entry)) = (&mut self.current, self.files.back_mut()) else {
            return Ok(());
        };
        let path = self.root.join(format!("{:020}.log", file_entry.number));
        let json = serde_json::to_string(tombstone)
            .map_err(|source| JournalError::Encode { path: path.clone(), source })?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let offset = current.append(line.as_bytes(), &path)?;
        let key = key(&tombstone.attempt);
        file_entry.keys.push(key);
        self.locations.insert(key, TombstoneLocation { file: file_entry.number, offset });
        if unsynced.0.last().is_none_or(|(_, last)| *last != path) {
            unsynced.0.push((Arc::clone(&current.file), path));
        }
        Ok(())
    }

    /// Appends no more to a file that could not be synced.
    pub(super) fn give_up(&mut self, unsynced: &Unsynced) {
        if self
            .current
            .as_ref()
            .is_some_and(|current| unsynced.0.iter().any(|(file, _)| Arc::ptr_eq(file, &current.file)))
        {
            self.current = None;
        }
    }

    fn create_file(&mut self, now: UnixMillis) -> Result<(), JournalError> {
        let after_last = self.files.back().map_or(0, |file| file.number + 1);
        let mut number = u64::try_from(now.0).unwrap_or(0).max(after_last);
        let file = loop {
            let path = self.path(number);
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            match opened {
                Ok(file) => break file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(JournalError::io("create", &path, error)),
            }
        };
        record_file::sync_dir(&self.root)?;
        self.files.push_back(TombstoneFile { number, keys: Vec::new() });
        self.current = Some(CurrentFile { file: Arc::new(file), len: 0, prepared: 0 });
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), JournalError> {
        while self.locations.len() > MAX_COUNT - PER_FILE && self.files.len() > 1 {
            let Some(oldest) = self.files.pop_front() else { return Ok(()) };
            for key in oldest.keys {
                if self.locations.get(&key).is_some_and(|location| location.file == oldest.number) {
                    self.locations.remove(&key);
                }
            }
            self.remove_file(oldest.number)?;
        }
        Ok(())
    }

    fn read_file(&mut self, number: u64) -> Result<(), JournalError> {
        let path = self.path(number);
        let file = File::open(&path).map_err(|e| JournalError::io("open", &path, e))?;
        let mut reader = BufReader::new(file);
        let mut file_entry = TombstoneFile { number, keys: Vec::new() };
        let mut offset = 0;
        loop {
            let mut line = Vec::new();
            let read = (&mut reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .map_err(|e| JournalError::io("read", &path, e))?;
            if read == 0 {
                break;
            }
            if let Some(tombstone) = parse(&line) {
                let key = key(&tombstone.attempt);
                file_entry.keys.push(key);
                self.locations.insert(key, TombstoneLocation { file: number, offset });
            }
            offset += read as u64;
        }
        self.files.push_back(file_entry);
        Ok(())
    }

    /// Numbers of the files, oldest first. Anything else in the folder is ignored.
    fn numbers(&self) -> Result<Vec<u64>, JournalError> {
        let list = |e| JournalError::io("list", &self.root, e);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(list)? {
            let name = entry.map_err(list)?.file_name();
            let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn remove_file(&self, number: u64) -> Result<(), JournalError> {
        let path = self.path(number);
        fs::remove_file(&path).map_err(|e| JournalError::io("remove", &path, e))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.root.join(format!("{number:020}.log"))
    }
}

fn parse(line: &[u8]) -> Option<Tombstone> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (crc, json) = line.split_once(' ')?;
    let matches = crc.len() == 8 && u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json.as_bytes());
    matches.then(|| serde_json::from_str(json).ok()).flatten()
}

fn key(id: &AttemptId) -> Key {
    let digest = Sha256::digest(id.to_string().as_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}
