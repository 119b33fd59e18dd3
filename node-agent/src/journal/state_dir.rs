//! The agent's state directory: Attempts, tombstones, the highest epoch.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::{AttemptId, Epoch};

use crate::private_dir;

use super::attempt_dir::{AttemptDir, EXIT_RESERVE, EXIT_ROOM, GONE, LOG, NEW, READY, REQUEST, make_dir};
use super::attempt_record::{Accepted, AttemptState, Loaded, Tombstone};
use super::error::JournalError;
use super::file_lock::FileLock;
use super::record_file;
use super::tombstones::Tombstones;
use super::wal::{Checkpoints, Wal};

/// The name of the directory with the node's audit chain, in the state directory.
pub const AUDIT: &str = "audit";

/// The state directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    state_id: String,
    tombstones: Mutex<Tombstones>,
    /// `None` where there is no room for it: every directory is synced then.
    wal: Option<Arc<Wal>>,
    _lock: FileLock,
}

impl StateDir {
    /// Opens the directory, creating it where it is missing, and locks it.
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another agent uses it, [`JournalError::Untrusted`] when other users can change it;
    /// otherwise the error of the disk.
    pub fn open(root: &Path) -> Result<Self, JournalError> {
        let root = private_dir::open(root)?;
        let lock = lock(&root)?;
        private_dir::open_within(&root.join("attempts"))?;
        private_dir::open_within(&root.join("tombstones"))?;
        let state_id = state_id(&root.join("state_id"))?;
        let tombstones = Mutex::new(Tombstones::open(&root.join("tombstones"), crate::host::wall_clock())?);
        record_file::sync_dir(&root)?;
        sweep(&root.join("attempts"))?;
        let wal = Wal::open(&root).inspect_err(|error| {
            tracing::warn!(
                error = with_source(error),
                "no write-ahead log; every start waits longer for the disk"
            );
        });
        let state = Self { root, state_id, tombstones, wal: wal.ok().map(Arc::new), _lock: lock };
        state.redo()?;
        Ok(state)
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its random id, generated once. It shows in the operator's log whether a node has a new state directory; no decision
    /// reads it.
    pub fn state_id(&self) -> &str {
        &self.state_id
    }

    /// Every Attempt, in the order of their names.
    ///
    /// # Errors
    /// When the directory itself cannot be read; a damaged Attempt is [`Loaded::Corrupt`].
    pub fn load(&self) -> Result<Vec<(AttemptDir, Loaded)>, JournalError> {
        let attempts = self.attempts();
        let mut found = Vec::new();
        for name in names(&attempts)? {
            if name.starts_with('.') {
                continue;
            }
            let dir = AttemptDir::at(attempts.join(name));
            let loaded = match dir.load() {
                Ok(loaded) => loaded,
                // A file that cannot be read at all (a directory in its place, bad blocks) makes only its own Attempt corrupt.
                Err(error) => Loaded::Corrupt { why: with_source(&error) },
            };
            found.push((dir, loaded));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Adds an Attempt to the Journal, with room for its exit record. It is durable once it was announced to start, or after
    /// [`Self::sync`].
    ///
    /// # Errors
    /// [`JournalError::Exists`] when it is already in the Journal; otherwise the error of the disk, and it is not in the Journal.
    pub fn create(&self, accepted: Accepted) -> Result<AttemptDir, JournalError> {
        self.create_in(None, accepted).map(|(dir, _)| dir)
    }

    /// As [`Self::create`], in the directory that a supervisor has prepared under this name, if it exists; the result shows
    /// whether it did.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub(crate) fn create_in(
        &self,
        ready: Option<&str>,
        mut accepted: Accepted,
    ) -> Result<(AttemptDir, bool), JournalError> {
        let attempts = self.attempts();
        let name = accepted.start.attempt.directory_name();
        let new = attempts.join(format!("{NEW}{name}"));
        let dir = self.attempt(&accepted.start.attempt);
        if dir.path().exists() {
            return Err(JournalError::Exists { name });
        }
        let logged = match &self.wal {
            Some(wal) => wal.begin(&mut accepted)?,
            None => false,
        };
        let rename =
            |from: &Path| fs::rename(from, dir.path()).map_err(|e| JournalError::io("rename", from, e));
        // The supervisor may be ending, and removing it.
        let prepared = ready
            .map(|ready| attempts.join(ready))
            .is_some_and(|ready| write_request(&ready, &accepted).is_ok() && rename(&ready).is_ok());
        if !prepared {
            let _ = fs::remove_dir_all(&new);
            if let Err(error) = fill(&new, &accepted).and_then(|()| rename(&new)) {
                let _ = fs::remove_dir_all(&new);
                self.release(&name);
                return Err(error);
            }
        }
        if !logged {
            record_file::sync_dir(&attempts)?;
        }
        Ok((dir, prepared))
    }

    /// Makes every request in the write-ahead log durable. Nothing about an Attempt may be sent before.
    ///
    /// # Errors
    /// [`JournalError::Unsafe`] when the log could not be synced.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.wal.as_ref().map_or(Ok(()), |wal| wal.sync())
    }

    /// Writes into the write-ahead log that an Attempt's command may start once [`Self::sync`] was called; false when the start has
    /// to be recorded in the Attempt's directory.
    ///
    /// Only a later boot reads it. In this one the directory shows whether the command may have started.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn log_start(&self, dir: &AttemptDir, starting: &AttemptState) -> Result<bool, JournalError> {
        self.wal.as_ref().map_or(Ok(false), |wal| wal.log_start(dir.name(), starting))
    }

    /// Whether the Attempt's request is durable.
    pub fn is_durable(&self, dir: &AttemptDir) -> bool {
        self.wal.as_ref().is_none_or(|wal| wal.is_durable(dir.name()))
    }

    /// Notes that the Attempt's command was started or that it ended: its request is durable then.
    pub fn note_durable(&self, dir: &AttemptDir) {
        if let Some(wal) = &self.wal {
            wal.note_durable(dir.name());
        }
    }

    /// By which the slots of ended Attempts become free; `None` without a write-ahead log.
    pub(crate) fn checkpoints(&self) -> Option<Checkpoints> {
        self.wal.clone().map(Checkpoints)
    }

    fn release(&self, name: &str) {
        if let Some(wal) = &self.wal {
            wal.release(name);
        }
    }

    /// Replaces an Attempt in the Journal that was accepted before a reboot; durable on return. At every moment either the
    /// old or the new one exists: the Attempt was in an Inventory, and without it the operator would conclude that it is
    /// lost.
    ///
    /// # Errors
    /// The error of the disk, and the Attempt is not in the Journal.
    pub fn replace(&self, accepted: &Accepted) -> Result<AttemptDir, JournalError> {
        let attempts = self.attempts();
        let dir = self.attempt(&accepted.start.attempt);
        let new = attempts.join(format!("{NEW}{}", dir.name()));
        let _ = fs::remove_dir_all(&new);
        let made = fill(&new, accepted).and_then(|()| exchange(&new, &dir));
        if let Err(error) = made {
            let _ = fs::remove_dir_all(&new);
            dir.remove()?;
            return Err(error);
        }
        record_file::sync_dir(&attempts)?;
        // This is the old one now; what remains of it is removed at the next start.
        let _ = fs::remove_dir_all(&new);
        Ok(dir)
    }

    /// The directory of an Attempt, whether it exists or not.
    pub fn attempt(&self, id: &AttemptId) -> AttemptDir {
        AttemptDir::at(self.attempts().join(id.directory_name()))
    }

    /// The tombstone of an Attempt.
    pub fn tombstone(&self, id: &AttemptId) -> Option<Tombstone> {
        self.tombstones().find(id)
    }

    /// Number of tombstones kept.
    pub fn tombstone_count(&self) -> usize {
        self.tombstones().len()
    }

    /// Adds a tombstone for an Attempt that has no directory; durable on return.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_tombstone(&self, tombstone: &Tombstone) -> Result<(), JournalError> {
        self.write_tombstones(std::slice::from_ref(tombstone))
    }

    /// Adds tombstones, all with one wait for the disk; durable on return.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_tombstones(&self, tombstones: &[Tombstone]) -> Result<(), JournalError> {
        let unsynced = self.tombstones().append(tombstones)?;
        // Not under the lock: every `Start` is compared with the tombstones.
        let synced = unsynced.sync();
        if synced.is_err() {
            self.tombstones().give_up(&unsynced);
        }
        synced
    }

    /// Writes the tombstone (durable), then removes the Attempt's directory.
    ///
    /// # Errors
    /// When it cannot be written, or something cannot be removed.
    pub fn compact(&self, dir: &AttemptDir, tombstone: &Tombstone) -> Result<(), JournalError> {
        self.write_tombstone(tombstone)?;
        self.remove(dir)
    }

    /// Removes an Attempt with its output.
    ///
    /// # Errors
    /// When a part of it cannot be removed.
    pub fn remove(&self, dir: &AttemptDir) -> Result<(), JournalError> {
        dir.remove()?;
        self.release(dir.name());
        Ok(())
    }

    /// The highest epoch seen. 0 when none was, and when the record has an epoch that no leader can have had: no command
    /// could carry a higher one, so the agent would refuse all of them. The next leader's epoch replaces it.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn highest_epoch(&self) -> Result<Epoch, JournalError> {
        let path = self.root.join("highest_epoch");
        let number: u64 = record_file::read(&path)?.unwrap_or_default();
        Ok(Epoch::new(number).ok().filter(|epoch| *epoch < Epoch::MAX).unwrap_or_else(|| {
            tracing::error!(
                path = %path.display(), recorded = number, highest = %Epoch::MAX,
                "the recorded epoch is out of range; it is treated as unknown, and the journal is kept"
            );
            Epoch::ZERO
        }))
    }

    /// Records a higher epoch; durable on return. A lower one is not written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_highest_epoch(&self, epoch: Epoch) -> Result<(), JournalError> {
        if epoch <= self.highest_epoch()? {
            return Ok(());
        }
        record_file::replace(&self.root.join("highest_epoch"), &epoch)
    }

    /// Bytes available to this process on the file system.
    ///
    /// # Errors
    /// When the file system cannot be queried.
    pub fn free_bytes(&self) -> Result<u64, JournalError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|e| JournalError::io("measure", &self.root, e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn attempts(&self) -> PathBuf {
        self.root.join("attempts")
    }

    pub(super) fn wal(&self) -> Option<&Arc<Wal>> {
        self.wal.as_ref()
    }

    fn tombstones(&self) -> MutexGuard<'_, Tombstones> {
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that an Attempt needs before it gets its name: the request, room for the exit record, the folder of its Spool.
pub(super) fn fill(new: &Path, accepted: &Accepted) -> Result<(), JournalError> {
    make_dir(new)?;
    make_dir(&new.join(LOG))?;
    record_file::reserve(&new.join(EXIT_RESERVE), EXIT_ROOM)?;
    write_request(new, accepted)
}

fn write_request(new: &Path, accepted: &Accepted) -> Result<(), JournalError> {
    let request = new.join(REQUEST);
    if accepted.slot.is_some() {
        return record_file::write_hidden_unsynced(&request, accepted);
    }
    // Syncs the directory as well, and with it the two names above.
    record_file::write_hidden(&request, accepted)
}

/// Exchanges the two directories atomically, where the file system can.
fn exchange(new: &Path, dir: &AttemptDir) -> Result<(), JournalError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, new, CWD, dir.path(), RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOENT) => {
            dir.remove()?;
            fs::rename(new, dir.path()).map_err(|e| JournalError::io("rename", new, e))
        }
        Err(errno) => Err(JournalError::io("exchange", new, errno)),
    }
}

fn lock(root: &Path) -> Result<FileLock, JournalError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(|e| JournalError::io("open", &path, e))?;
    FileLock::try_take(file)
        .map_err(|e| JournalError::io("lock", &path, e))?
        .ok_or_else(|| JournalError::Locked { root: root.to_owned() })
}

fn state_id(path: &Path) -> Result<String, JournalError> {
    if let Some(id) = record_file::read(path)? {
        return Ok(id);
    }
    let id = uuid::Uuid::new_v4().to_string();
    record_file::replace(path, &id)?;
    Ok(id)
}

/// Removes directories whose creation or removal a crash interrupted.
fn sweep(attempts: &Path) -> Result<(), JournalError> {
    for name in names(attempts)? {
        if [NEW, GONE, READY].iter().any(|prefix| name.starts_with(prefix)) {
            let path = attempts.join(name);
            match fs::remove_dir_all(&path) {
                // The supervisor that prepared it removes it as well, when its agent has exited.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(JournalError::io("remove", &path, error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, JournalError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::io("list", dir, error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(|e| JournalError::io("list", dir, e))?.file_name()))
        .filter_map(|name| name.map(|name| name.into_string().ok()).transpose())
        .collect()
}

fn with_source(error: &JournalError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
