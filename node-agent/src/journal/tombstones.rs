//! Tombstones, by which a repeated `Start` of a forgotten Attempt is recognised: append-only files of checksummed lines.
//!
//! Each line is `<8 hexadecimal digits of crc32> <JSON>`. A new file is created at every start of the
//! agent, so that nothing is appended after a torn line. Whole files are removed when they are too old, or when there
//! are too many tombstones. Only their locations are kept in memory.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::time::UnixMillis;
use sha2::{Digest, Sha256};

use super::attempt_record::Tombstone;
use super::error::JournalError;
use super::record_file;

/// How long a tombstone is kept, milliseconds: 30 days.
const KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// Largest number of tombstones; beyond, the oldest file is removed.
const MAX_COUNT: usize = 100_000;
/// Tombstones per file.
const PER_FILE: usize = 5_000;
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
    current: Option<File>,
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

    /// Adds one; durable on return.
    pub(super) fn add(&mut self, tombstone: &Tombstone) -> Result<(), JournalError> {
        if self.current.is_none() || self.files.back().is_none_or(|file| file.keys.len() >= PER_FILE) {
            self.create_file(tombstone.ended_at)?;
            self.make_room()?;
        }
        let (Some(file), Some(file_entry)) = (&mut self.current, self.files.back_mut()) else {
            return Ok(());
        };
        let path = self.root.join(format!("{:020}.log", file_entry.number));
        let json = serde_json::to_string(tombstone)
            .map_err(|source| JournalError::Encode { path: path.clone(), source })?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let written = file
            .seek(SeekFrom::End(0))
            .and_then(|offset| file.write_all(line.as_bytes()).map(|()| offset))
            .map_err(|e| JournalError::io("write", &path, e))
            .and_then(|offset| record_file::sync(file, &path).map(|()| offset));
        match written {
            Ok(offset) => {
                let key = key(&tombstone.attempt);
                file_entry.keys.push(key);
                self.locations.insert(key, TombstoneLocation { file: file_entry.number, offset });
                Ok(())
            }
            Err(error) => {
                // The file may end in a torn line, or in one that is not on the disk: create another.
                self.current = None;
                Err(error)
            }
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
        self.current = Some(file);
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
