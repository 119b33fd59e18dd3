//! The agent's state directory.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::{AttemptId, Epoch};

use crate::private_dir;

use super::attempt_dir::{EXIT_RESERVE, EXIT_ROOM, GONE, LOG, NEW, REQUEST};
use super::tombstones::Tombstones;
use super::{Accepted, AttemptDir, JournalError, Loaded, Tombstone, record};

/// The state directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    state_id: String,
    tombstones: Mutex<Tombstones>,
    _lock: File,
}

impl StateDir {
    /// Opens the directory, making it where it is missing, and locks it.
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another agent has it, [`JournalError::Untrusted`] when others can change it;
    /// otherwise what stood in the way.
    pub fn open(root: &Path) -> Result<Self, JournalError> {
        let root = private_dir::open(root)?;
        let lock = lock(&root)?;
        private_dir::open_within(&root.join("attempts"))?;
        private_dir::open_within(&root.join("tombstones"))?;
        let state_id = state_id(&root.join("state_id"))?;
        let tombstones = Mutex::new(Tombstones::open(&root.join("tombstones"), crate::host::wall_clock())?);
        record::sync_dir(&root)?;
        sweep(&root.join("attempts"))?;
        Ok(Self { root, state_id, tombstones, _lock: lock })
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its random id, made once.
    pub fn state_id(&self) -> &str {
        &self.state_id
    }

    /// Every Attempt that is there, in the order of their names.
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
                // A file of one Attempt that cannot be read at all (it is a directory, its blocks are bad) is that
                // Attempt's harm and nobody else's.
                Err(error) => Loaded::Corrupt { dir: dir.clone(), why: with_source(&error) },
            };
            found.push((dir, loaded));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Takes an Attempt into the Journal, with room for its exit record; durable on return.
    ///
    /// # Errors
    /// [`JournalError::Exists`] when it is there already; otherwise what the disk said, and nothing of it is there.
    pub fn create(&self, accepted: &Accepted) -> Result<AttemptDir, JournalError> {
        let attempts = self.attempts();
        let name = accepted.start.attempt.directory_name();
        let new = attempts.join(format!("{NEW}{name}"));
        let dir = self.attempt(&accepted.start.attempt);
        if dir.path().exists() {
            return Err(JournalError::Exists { name });
        }
        let _ = fs::remove_dir_all(&new);
        let made = fill(&new, accepted)
            .and_then(|()| fs::rename(&new, dir.path()).map_err(|e| JournalError::io("rename", &new, e)));
        if let Err(error) = made {
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        record::sync_dir(&attempts)?;
        Ok(dir)
    }

    /// Takes an Attempt into the Journal once more, in place of what an earlier boot left of it; durable on return.
    /// Whenever the power is cut, the one or the other is there: the operator was told that we own it, and would
    /// conclude that it is lost.
    ///
    /// # Errors
    /// What the disk said, and nothing of it is there.
    pub fn create_again(&self, accepted: &Accepted) -> Result<AttemptDir, JournalError> {
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
        record::sync_dir(&attempts)?;
        // The old one now; what stays of it is swept at the next start.
        let _ = fs::remove_dir_all(&new);
        Ok(dir)
    }

    /// Where an Attempt is, or would be.
    pub fn attempt(&self, id: &AttemptId) -> AttemptDir {
        AttemptDir::at(self.attempts().join(id.directory_name()))
    }

    /// What is remembered of an Attempt that was forgotten.
    pub fn tombstone(&self, id: &AttemptId) -> Option<Tombstone> {
        self.tombstones().find(id)
    }

    /// Number of tombstones kept.
    pub fn tombstone_count(&self) -> usize {
        self.tombstones().len()
    }

    /// Remembers an Attempt that has no directory; durable on return.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn entomb(&self, tombstone: &Tombstone) -> Result<(), JournalError> {
        self.tombstones().add(tombstone)
    }

    /// Writes the tombstone (durable), then removes the Attempt's directory.
    ///
    /// # Errors
    /// When the disk does not take it, or something cannot be removed.
    pub fn bury(&self, dir: &AttemptDir, tombstone: &Tombstone) -> Result<(), JournalError> {
        self.entomb(tombstone)?;
        dir.remove()
    }

    /// The highest epoch seen; 0 when none was, and when what is recorded is an epoch that no leader can have had: no
    /// command could ever carry a higher one, so the agent would refuse all of them. Nothing else of the Journal is
    /// touched, and the next leader's epoch takes its place.
    ///
    /// # Errors
    /// When the record is unreadable.
    pub fn highest_epoch(&self) -> Result<Epoch, JournalError> {
        let path = self.root.join("highest_epoch");
        let number: u64 = record::read(&path)?.unwrap_or_default();
        Ok(Epoch::new(number).ok().filter(|epoch| *epoch < Epoch::MAX).unwrap_or_else(|| {
            tracing::error!(
                path = %path.display(), recorded = number, highest = %Epoch::MAX,
                "the recorded epoch is one that no leader can have had; it is treated as unknown, and the journal is kept"
            );
            Epoch::ZERO
        }))
    }

    /// Notes a higher epoch; durable on return. A lower one is not written.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn set_highest_epoch(&self, epoch: Epoch) -> Result<(), JournalError> {
        if epoch <= self.highest_epoch()? {
            return Ok(());
        }
        record::replace(&self.root.join("highest_epoch"), &epoch)
    }

    /// Bytes that the file system still has for us.
    ///
    /// # Errors
    /// When it does not say.
    pub fn free_bytes(&self) -> Result<u64, JournalError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|e| JournalError::io("measure", &self.root, e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn attempts(&self) -> PathBuf {
        self.root.join("attempts")
    }

    fn tombstones(&self) -> MutexGuard<'_, Tombstones> {
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that an Attempt needs before it is seen: the request, room for the exit record, the folder of its Spool.
fn fill(new: &Path, accepted: &Accepted) -> Result<(), JournalError> {
    make_dir(new)?;
    make_dir(&new.join(LOG))?;
    record::reserve(&new.join(EXIT_RESERVE), EXIT_ROOM)?;
    // Syncs the directory as well, and with it the two names above.
    record::write_unseen(&new.join(REQUEST), accepted)
}

/// Has the two directories change places in one step, where the file system can.
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

fn make_dir(path: &Path) -> Result<(), JournalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| JournalError::io("make the directory", path, e))
}

fn lock(root: &Path) -> Result<File, JournalError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(|e| JournalError::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { root: root.to_owned() }),
        Err(TryLockError::Error(error)) => Err(JournalError::io("lock", &path, error)),
    }
}

fn state_id(path: &Path) -> Result<String, JournalError> {
    if let Some(id) = record::read(path)? {
        return Ok(id);
    }
    let id = uuid::Uuid::new_v4().to_string();
    record::replace(path, &id)?;
    Ok(id)
}

/// Removes what a crash left of directories that were being made or removed.
fn sweep(attempts: &Path) -> Result<(), JournalError> {
    for name in names(attempts)? {
        if name.starts_with(NEW) || name.starts_with(GONE) {
            let path = attempts.join(name);
            fs::remove_dir_all(&path).map_err(|e| JournalError::io("remove", &path, e))?;
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
