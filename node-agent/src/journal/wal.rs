//! The write-ahead log: one file of preallocated blocks, by which an Attempt is durable before its directory is.
//!
//! A new directory with a file costs the disk several writes in sequence, a block that exists already costs one. So the agent
//! writes an accepted request and its start into a slot, and its directory without waiting, and syncs the log once before the command
//! is executed, for all that wait at that moment. Until a power cut the directory is the truth, as the kernel keeps what was written
//! when a process dies; after one, [`super::redo`] restores from the log what the directories have lost.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attempt_dir::AttemptDir;
use super::attempt_record::{Accepted, AttemptState};
use super::error::JournalError;
use super::record_file;
use super::wal_slot::{
    Part, SLOT_SIZE, Slot, SlotId, WAL, offset, open_existing, pad_to_blocks, read_frame, sync_blocks,
};

/// Slots of a new log; 2 MiB with the header. Where all are in use, an Attempt's directory is synced instead.
const SLOTS: u64 = 127;

/// The header, in the place of slot 0.
const HEADER: &[u8] = b"SNWAL001 slots of 16384 bytes; see docs/spool-format.md\n";

/// The log, as the agent has it.
#[derive(Debug)]
pub(super) struct Wal {
    file: Arc<File>,
    path: PathBuf,
    slots: Mutex<Slots>,
    /// Whether a sync has failed: a later one would prove nothing.
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Slots {
    free: Vec<u32>,
    /// By the name of the Attempt's directory.
    used: HashMap<String, SlotId>,
    /// Attempts whose request may not be durable yet.
    pending: HashSet<String>,
}

/// A slot with a request, as it was found.
pub(super) struct Found {
    pub(super) accepted: Accepted,
    pub(super) slot: Slot,
    pub(super) id: SlotId,
}

impl Wal {
    /// Opens the log of a state directory, creating it where it is missing or has an unknown form.
    pub(super) fn open(root: &Path) -> Result<Self, JournalError> {
        let path = root.join(WAL);
        let existing = open_existing(&path).ok().filter(has_header);
        let file = match existing {
            Some(file) => file,
            None => create(root, &path)?,
        };
        Self::over(file, path)
    }

    fn over(file: File, path: PathBuf) -> Result<Self, JournalError> {
        let len = file.metadata().map_err(|e| JournalError::io("examine", &path, e))?.len();
        let last = u32::try_from(len / SLOT_SIZE).unwrap_or(u32::MAX);
        // Popped from the end: low numbers first, so that their blocks stay in the page cache.
        let free = (1..last).rev().collect();
        let slots = Mutex::new(Slots { free, ..Slots::default() });
        Ok(Self { file: Arc::new(file), path, slots, failed: AtomicBool::new(false) })
    }

    /// The requests in the log of a state directory that an agent may be using; none without a log.
    pub(super) fn read(root: &Path) -> Vec<Found> {
        let path = root.join(WAL);
        let Some(file) = open_existing(&path).ok().filter(has_header) else { return Vec::new() };
        Self::over(file, path).map(|wal| wal.requests()).unwrap_or_default()
    }

    /// The requests in the log.
    pub(super) fn requests(&self) -> Vec<Found> {
        let all = self.slots().free.clone();
        let found = |index| {
            let (generation, payload) = read_frame(&self.file, index, Part::Request)?;
            let accepted = Accepted::from_json(&payload).ok()?;
            let id = SlotId { index, generation };
            let slot = Slot::of(Arc::clone(&self.file), self.path.clone(), id)?;
            (accepted.slot == Some(id)).then_some(Found { accepted, slot, id })
        };
        all.into_iter().filter_map(found).collect()
    }

    /// Keeps a slot that was found for its Attempt. The request is written anew, so that its block, which is that of the start too,
    /// reaches the disk with the next sync: one of an earlier agent may have failed. The start itself may be written by another
    /// process at this moment.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub(super) fn keep(&self, attempt: &str, id: SlotId) -> Result<(), JournalError> {
        let (from, to) = (offset(id.index, Part::Request), offset(id.index, Part::Exit));
        let mut blocks = vec![0; usize::try_from(to - from).unwrap_or(0)];
        let rewritten =
            self.file.read_exact_at(&mut blocks, from).and_then(|()| self.file.write_all_at(&blocks, from));
        rewritten.map_err(|e| JournalError::io("write", &self.path, e))?;
        let mut slots = self.slots();
        slots.free.retain(|index| *index != id.index);
        slots.used.insert(attempt.to_owned(), id);
        slots.pending.insert(attempt.to_owned());
        Ok(())
    }

    /// Writes a request into a free slot, not durable yet, and notes the slot in it; false when there is no room.
    pub(super) fn begin(&self, accepted: &mut Accepted) -> Result<bool, JournalError> {
        let mut slots = self.slots();
        let Some(&index) = slots.free.last() else { return Ok(false) };
        let id = SlotId { index, generation: uuid::Uuid::new_v4().as_u64_pair().0 };
        accepted.slot = Some(id);
        let payload = serde_json::to_vec(&accepted)
            .map_err(|source| JournalError::Encode { path: self.path.clone(), source })?;
        let Some(frame) = Part::Request.frame(id.generation, &payload) else {
            accepted.slot = None;
            return Ok(false);
        };
        // With the place of *starting*, which is in the same block.
        let mut blocks = vec![0; Part::Request.offset() as usize];
        blocks.extend_from_slice(&frame);
        pad_to_blocks(&mut blocks);
        self.file
            .write_all_at(&blocks, offset(index, Part::Start))
            .map_err(|e| JournalError::io("write", &self.path, e))?;
        let name = accepted.start.attempt.directory_name();
        slots.free.pop();
        slots.used.insert(name.clone(), id);
        slots.pending.insert(name);
        Ok(true)
    }

    /// Writes into an Attempt's slot that its command may start as soon as the log was synced; false without a slot, or when it
    /// does not fit.
    pub(super) fn log_start(&self, attempt: &str, starting: &AttemptState) -> Result<bool, JournalError> {
        let Some(id) = self.slots().used.get(attempt).copied() else { return Ok(false) };
        let slot = Slot::of(Arc::clone(&self.file), self.path.clone(), id);
        let logged = slot.map_or(Ok(false), |slot| slot.write(Part::Start, starting))?;
        if logged {
            self.slots().pending.insert(attempt.to_owned());
        }
        Ok(logged)
    }

    /// Whether the Attempt's request is durable.
    pub(super) fn is_durable(&self, attempt: &str) -> bool {
        !self.slots().pending.contains(attempt)
    }

    /// Notes that the log was synced after the Attempt's request was written, to start or conclude it.
    pub(super) fn note_durable(&self, attempt: &str) {
        self.slots().pending.remove(attempt);
    }

    /// Makes every request durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        let pending = std::mem::take(&mut self.slots().pending);
        if pending.is_empty() {
            return Ok(());
        }
        let synced = if self.failed.load(Ordering::Relaxed) {
            Err(self.unsafe_now())
        } else {
            sync_blocks(&self.file, &self.path)
        };
        if synced.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            self.slots().pending.extend(pending);
        }
        synced
    }

    fn unsafe_now(&self) -> JournalError {
        let source = std::io::Error::other("an earlier sync has failed");
        JournalError::Unsafe { path: self.path.clone(), source }
    }

    /// Whether an Attempt has a slot.
    fn has(&self, attempt: &str) -> bool {
        self.slots().used.contains_key(attempt)
    }

    /// Frees the slot of an Attempt that is durable otherwise, or over for good.
    pub(super) fn release(&self, attempt: &str) {
        let used = {
            let mut slots = self.slots();
            slots.pending.remove(attempt);
            slots.used.remove(attempt)
        };
        // Not under the lock: the next Attempt waits for that, while this thread waits for the disk or a processor.
        if let Some(id) = used {
            self.clear(id.index);
            self.slots().free.push(id.index);
        }
    }

    /// Erases a request, so that it is not restored. Not synced: what comes back after a power cut is found to be obsolete.
    pub(super) fn clear(&self, index: u32) {
        let _ = self.file.write_all_at(&[0; 4], offset(index, Part::Request));
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the directories of Attempts durable whose results wait longer, so that their slots become free. For a thread that may
/// wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints(pub(super) Arc<Wal>);

impl Checkpoints {
    /// Whether an Attempt has a slot.
    pub(crate) fn needs(&self, dir: &AttemptDir) -> bool {
        self.0.has(dir.name())
    }

    /// Makes an Attempt that has ended durable without its slot, and frees the slot.
    ///
    /// # Errors
    /// When something could not be synced; the slot stays.
    pub(crate) fn make(&self, dir: &AttemptDir) -> Result<(), JournalError> {
        if self.needs(dir) && dir.path().exists() {
            dir.make_durable()?;
            self.0.release(dir.name());
        }
        Ok(())
    }
}

fn has_header(file: &File) -> bool {
    let mut header = vec![0; HEADER.len()];
    file.read_exact_at(&mut header, 0).is_ok() && header == HEADER
}

/// Zeros are written, not only allocated: the first write to an allocated block changes the file system's own records.
fn create(root: &Path, path: &Path) -> Result<File, JournalError> {
    let new = root.join("wal.new");
    let _ = fs::remove_file(&new);
    let made = fill(&new).and_then(|file| {
        fs::rename(&new, path).map_err(|e| JournalError::io("rename", &new, e))?;
        record_file::sync_dir(root)?;
        Ok(file)
    });
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    made
}

fn fill(new: &Path) -> Result<File, JournalError> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create_new(true).mode(0o600).open(new);
    let mut file = opened.map_err(|e| JournalError::io("create", new, e))?;
    let mut slot = vec![0; SLOT_SIZE as usize];
    slot[..HEADER.len()].copy_from_slice(HEADER);
    for _ in 0..=SLOTS {
        file.write_all(&slot).map_err(|e| JournalError::io("write", new, e))?;
        slot[..HEADER.len()].fill(0);
    }
    record_file::sync(&file, new)?;
    Ok(file)
}
