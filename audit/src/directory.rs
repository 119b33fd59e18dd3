//! The directory that a chain is kept in: files of whole lines, each named after the number of its first record. A full file is
//! followed by another, and the oldest are removed.
//!
//! A record is written by one `write(2)` and is durable after the next [`Unsynced::sync`], which another thread may call. What
//! cannot be written is counted, and recorded as a gap once writing is possible again: a full disk stops nothing.
#![expect(clippy::disallowed_types, reason = "it writes files")]

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::ChainId;
use sentinel_protocol::time::UnixMillis;

use crate::chain::Chain;
use crate::line::{Line, MAX_LINE, decode};
use crate::record::Record;
use crate::request::Bytes;

/// The end of the names of the files.
const SUFFIX: &str = ".jsonl";

/// A file has this part of the bytes that are kept.
const FILES: u64 = 8;

/// The least that can be kept, bytes.
pub const MIN_KEPT: u64 = 1 << 20;

/// How often the lock is tried, and the pause in between.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process appends to it.
    #[error(
        "{path} is in use: another process appends to this audit chain, and two would part it. Stop it, or use another directory"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |source| DirectoryError::Io { doing, path, source }
}

/// Who appends, for the record of that.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The program.
    pub program: &'static str,
    /// Its release.
    pub version: &'static str,
    /// The node or host.
    pub on: String,
}

/// A chain in its directory, and the only one that appends to it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Open for its lock.
    handle: Arc<File>,
    chain: Chain,
    file: Arc<File>,
    current: PathBuf,
    /// Bytes of whole lines in the file.
    len: u64,
    /// A line was written in part, and is still to be removed.
    is_torn: bool,
    /// Earlier files, oldest first, with their bytes.
    earlier: VecDeque<(PathBuf, u64)>,
    kept: u64,
    gap: Option<(u64, String)>,
    lost: u64,
    unsynced: Vec<Arc<File>>,
    synced: SyncedHead,
}

impl Directory {
    /// Opens the chain in a directory, or begins one with this id, and records that. What the process before has written of a
    /// record in part is removed, and mentioned in that record. `synced` follows what is durable, and
    /// `written` is handed the line of that record.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing was changed but that the directory may exist now.
    pub fn open(
        path: &Path,
        kept: u64,
        id: ChainId,
        writer: &Writer,
        synced: SyncedHead,
        at: UnixMillis,
        written: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, DirectoryError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
        let handle = File::open(path).map_err(failed("open", path))?;
        lock(&handle, path)?;
        let End { chain, current, earlier, torn } = End::find(path, id)?;
        let (current, len) = current.unwrap_or_else(|| (file_of(path, chain.next_seq()), 0));
        let file = append_to(&current).map_err(failed("open", &current))?;
        file.set_len(len).map_err(failed("truncate", &current))?;
        let file = Arc::new(file);
        let mut directory = Self {
            path: path.to_owned(),
            handle: Arc::new(handle),
            chain,
            unsynced: vec![file.clone()],
            file,
            current,
            len,
            is_torn: false,
            earlier,
            kept: kept.max(MIN_KEPT),
            gap: None,
            lost: 0,
            synced,
        };
        let Writer { program, version, on } = writer;
        let (program, version, on) = ((*program).into(), (*version).into(), on.as_str().into());
        directory.append_and(at, &Record::Began { program, version, on, torn }, written);
        Ok(directory)
    }

    /// Appends a record. One that cannot be written is counted and recorded as lost later.
    pub fn append(&mut self, at: UnixMillis, record: &Record) {
        self.append_and(at, record, &mut |_| {});
    }

    /// The same, and hands each line that was written to `written`: of a gap that is recorded now, and of the record.
    pub fn append_and(&mut self, at: UnixMillis, record: &Record, written: &mut dyn FnMut(&[u8])) {
        if !self.record_gap(at, written) {
            return self.lose(1, String::new());
        }
        if let Err(error) = self.write(at, record, written) {
            self.lose(1, error.to_string());
        }
        if self.len >= self.kept / FILES {
            self.rotate();
        }
    }

    /// Records what was lost before, if anything; false when that is not possible yet.
    pub fn record_gap(&mut self, at: UnixMillis, written: &mut dyn FnMut(&[u8])) -> bool {
        let Some((lost, why)) = self.gap.take() else { return true };
        let gap = Record::Gap { lost, why: why.as_str().into() };
        let done = self.write(at, &gap, written).is_ok();
        if !done {
            self.gap = Some((lost, why));
        }
        done
    }

    /// Counts records that are lost for another reason: they are recorded as lost, like those that cannot be written.
    pub fn lose(&mut self, records: u64, why: String) {
        self.lost = self.lost.saturating_add(records);
        let gap = self.gap.get_or_insert((0, why));
        gap.0 = gap.0.saturating_add(records);
    }

    /// Records lost since this process began to append, the ones that are recorded as lost included.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The last record.
    pub fn head(&self) -> Option<AuditHead> {
        self.chain.head()
    }

    /// The last record that is durable, for other threads.
    pub fn synced(&self) -> SyncedHead {
        self.synced.clone()
    }

    /// What is to be made durable; `None` if nothing was written since.
    pub fn take_unsynced(&mut self) -> Option<Unsynced> {
        if self.unsynced.is_empty() {
            return None;
        }
        let files = std::mem::take(&mut self.unsynced);
        Some(Unsynced {
            files,
            directory: self.handle.clone(),
            head: self.chain.head(),
            synced: self.synced.clone(),
        })
    }

    /// Takes back what could not be handed to a thread.
    pub fn put_back(&mut self, mut unsynced: Unsynced) {
        unsynced.files.append(&mut self.unsynced);
        self.unsynced = unsynced.files;
    }

    /// Whether something is to be made durable.
    pub fn has_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    fn write(&mut self, at: UnixMillis, record: &Record, seen: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.len)?;
            self.is_torn = false;
        }
        let next = self.chain.next(at, record).map_err(io::Error::other)?;
        match (&*self.file).write(&next.line) {
            Ok(written) if written == next.line.len() => {
                self.len += written as u64;
                self.chain.advance(&next);
                self.note_written();
                seen(&next.line);
                Ok(())
            }
            written => {
                self.is_torn = self.file.set_len(self.len).is_err();
                written.and(Err(io::Error::from(io::ErrorKind::StorageFull)))
            }
        }
    }

    fn note_written(&mut self) {
        if !self.unsynced.last().is_some_and(|last| Arc::ptr_eq(last, &self.file)) {
            self.unsynced.push(self.file.clone());
        }
    }

    /// Continues in another file, and removes the oldest. Where none can be created, this one grows.
    fn rotate(&mut self) {
        let next = file_of(&self.path, self.chain.next_seq());
        let Ok(file) = append_to(&next) else { return };
        self.earlier.push_back((std::mem::replace(&mut self.current, next), self.len));
        self.file = Arc::new(file);
        self.len = 0;
        let mut total: u64 = self.earlier.iter().map(|(_, len)| len).sum();
        while total + self.kept / FILES > self.kept
            && let Some((oldest, len)) = self.earlier.pop_front()
        {
            // One that cannot be removed is seen again when the chain is opened.
            let _ = fs::remove_file(oldest);
            total -= len;
        }
        self.unsynced.push(self.file.clone());
    }
}

/// Takes the lock of a directory. Another one in this process may have had it, and a process that is being forked has it until it
/// executes its program.
#[expect(clippy::disallowed_methods, reason = "there is nothing to be notified by")]
fn lock(handle: &File, path: &Path) -> Result<(), DirectoryError> {
    for _ in 0..LOCK_TRIES {
        match handle.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
    }
    Err(DirectoryError::InUse { path: path.to_owned() })
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is forking has a copy of the file until it runs its program.
        let _ = self.handle.unlock();
    }
}

/// Where a chain ends.
struct End {
    chain: Chain,
    /// The last file, and how many of its bytes are whole lines.
    current: Option<(PathBuf, u64)>,
    earlier: VecDeque<(PathBuf, u64)>,
    torn: Option<Bytes>,
}

impl End {
    fn find(path: &Path, id: ChainId) -> Result<Self, DirectoryError> {
        let mut earlier = VecDeque::new();
        for file in files(path).map_err(failed("read", path))? {
            let len = fs::metadata(&file).map_err(failed("read", &file))?.len();
            earlier.push_back((file, len));
        }
        let mut torn = None;
        while let Some((file, len)) = earlier.pop_back() {
            let (line, whole, rest) = last_line(&file, len).map_err(failed("read", &file))?;
            torn = rest.or(torn);
            if let Some(line) = line {
                let chain = Chain::after(line.head());
                return Ok(Self { chain, current: Some((file, whole)), earlier, torn });
            }
            if len == 0 {
                fs::remove_file(&file).map_err(failed("remove", &file))?;
            } else {
                // Kept for people: nothing in it is a record.
                let aside = file.with_extension("damaged");
                fs::rename(&file, aside).map_err(failed("rename", &file))?;
            }
        }
        Ok(Self { chain: Chain::new(id), current: None, earlier, torn })
    }
}

/// The last whole line of a file that is a record, where it ends, and what is behind it.
fn last_line(path: &Path, len: u64) -> io::Result<(Option<Line>, u64, Option<Bytes>)> {
    let mut file = File::open(path)?;
    // Usually the last line is whole and short. What is behind the last one is at most one record that was written in part, and
    // after a power cut what was not durable.
    for tail in [64 << 10, 2 * MAX_LINE as u64, u64::MAX] {
        let from = len.saturating_sub(tail);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut file).take(len - from).read_to_end(&mut bytes)?;
        let mut end = bytes.len();
        while let Some(newline) = bytes[..end].iter().rposition(|byte| *byte == b'\n') {
            let begin = bytes[..newline].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if let Ok(line) = decode(&bytes[begin..newline]) {
                let rest = &bytes[newline + 1..];
                let torn = (!rest.is_empty()).then(|| Bytes::of(rest));
                return Ok((Some(line), from + newline as u64 + 1, torn));
            }
            end = newline;
        }
        if from == 0 {
            return Ok((None, 0, (!bytes.is_empty()).then(|| Bytes::of(&bytes))));
        }
    }
    Ok((None, 0, None))
}

/// What was written and may not be durable yet.
#[derive(Debug)]
pub struct Unsynced {
    files: Vec<Arc<File>>,
    directory: Arc<File>,
    head: Option<AuditHead>,
    synced: SyncedHead,
}

impl Unsynced {
    /// Makes it durable. After a failure no head is given to others any more: the kernel may have dropped what was not written,
    /// and the next attempt would prove nothing.
    ///
    /// # Errors
    /// The disk did not confirm it.
    pub fn sync(self) -> io::Result<()> {
        let made =
            self.files.iter().try_for_each(|file| file.sync_data()).and_then(|()| self.directory.sync_all());
        match &made {
            Ok(()) => self.synced.raise(self.head),
            Err(_) => self.synced.give_up(),
        }
        made
    }
}

/// The last durable record of a chain, shared with other threads.
#[derive(Debug, Clone, Default)]
pub struct SyncedHead(Arc<Mutex<Durable>>);

#[derive(Debug, Default)]
enum Durable {
    #[default]
    Nothing,
    Up(AuditHead),
    /// A sync has failed.
    Unknown,
}

impl SyncedHead {
    /// It; `None` when nothing is durable, or that is not known.
    pub fn get(&self) -> Option<AuditHead> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Durable::Up(head) => Some(head.clone()),
            Durable::Nothing | Durable::Unknown => None,
        }
    }

    /// It is durable up to there.
    pub fn raise(&self, to: Option<AuditHead>) {
        let mut durable = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*durable, to) {
            (Durable::Unknown, _) | (_, None) => {}
            // Two threads may sync, and the one that began first end last.
            (Durable::Up(known), Some(to)) if known.seq >= to.seq => {}
            (_, Some(to)) => *durable = Durable::Up(to),
        }
    }

    fn give_up(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Durable::Unknown;
    }
}

fn file_of(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}{SUFFIX}"))
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The files of a directory, oldest first.
///
/// # Errors
/// It cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = directory.join(entry?.file_name());
        if number_of(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The digits that the name of a file of a directory has.
fn number_of(path: &Path) -> Option<&str> {
    let number = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    (number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

/// The record that a file of a directory is named after; `None` for a file of another name.
pub fn named_after(path: &Path) -> Option<u64> {
    number_of(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Export;
    use crate::verify::verify;

    #[test]
    fn a_full_disk_is_counted_and_recorded_when_it_is_possible_again() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer { program: "node-agent", version: "1", on: "n-1".into() };
        let id = ChainId::new("c").unwrap();
        let mut directory =
            Directory::open(folder.path(), 0, id, &writer, SyncedHead::default(), UnixMillis(1), &mut |_| {})
                .unwrap();
        let record =
            |pid| Record::Started { attempt: "u/1/n-1/1".parse().unwrap(), pid, started_at: UnixMillis(5) };
        let full = Arc::new(OpenOptions::new().append(true).open("/dev/full").unwrap());
        let file = std::mem::replace(&mut directory.file, full);
        (0..3).for_each(|pid| directory.append(UnixMillis(2), &record(pid)));
        assert_eq!((directory.lost(), directory.head().unwrap().seq), (3, 1));
        directory.file = file;
        // Part of a record was written, and could not be removed then.
        (&*directory.file).write_all(b"{\"v\":1").unwrap();
        directory.append(UnixMillis(3), &record(7));
        let mut records = Vec::new();
        let export = std::io::BufReader::new(Export::open(folder.path()).unwrap());
        let chains = verify(export, |_, line| records.push(line.record.clone().unwrap())).unwrap();
        assert!(
            matches!(&records[1], Record::Gap { lost: 3, why } if why.contains("No space left")),
            "{records:?}"
        );
        assert_eq!((chains[0].lost, &records[2]), (3, &record(7)));
    }

    #[test]
    fn after_a_failed_sync_no_head_is_given_to_others() {
        let head = |seq| {
            let hash = crate::line::sha256(b"");
            AuditHead { chain: ChainId::new("c").unwrap(), seq, hash }
        };
        let synced = SyncedHead::default();
        synced.raise(Some(head(2)));
        synced.raise(Some(head(1)));
        assert_eq!(synced.get(), Some(head(2)), "a sync that began earlier ends last");
        synced.give_up();
        synced.raise(Some(head(3)));
        assert_eq!(synced.get(), None);
    }
}
