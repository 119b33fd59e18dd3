//! A directory that a supervisor prepares before there is an Attempt: the agent only adds the request and renames it.
//!
//! Its name is `.ready.<pid of the supervisor>`, which cannot be an Attempt's. The supervisor holds its lock from the beginning, as a
//! lock belongs to the directory and not to its name; so an Attempt that gets this directory has its supervisor at once.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::attempt_dir::{
    AttemptDir, AttemptLock, EXIT_RESERVE, EXIT_ROOM, GONE, LOG, NEW, READY, REQUEST, STARTING,
    SUPERVISOR_LOG, make_dir,
};
use super::attempt_record::AttemptState;
use super::error::JournalError;
use super::file_lock::FileLock;
use super::record_file;
use super::wakeup::SupervisorWakeups;
use crate::private_dir;

/// The name of the directory that the supervisor with this pid prepares.
pub(crate) fn ready_name(supervisor: u32) -> String {
    format!("{READY}{supervisor}")
}

/// A prepared directory, locked by this process.
#[derive(Debug)]
pub(crate) struct ReadyDir {
    path: PathBuf,
    inode: (u64, u64),
    lock: FileLock,
    wakeups: Option<SupervisorWakeups>,
    log: fs::File,
}

impl ReadyDir {
    /// Prepares one in a state directory, for an Attempt of this process. Nothing is synced.
    pub(crate) fn create(state_dir: &Path) -> Result<Self, JournalError> {
        let name = ready_name(std::process::id());
        let attempts = state_dir.join("attempts");
        let (new, path) = (attempts.join(format!("{NEW}{name}")), attempts.join(name));
        for left in [&new, &path] {
            // Of another process with this pid.
            let _ = fs::remove_dir_all(left);
        }
        let made = Self::fill(&new, &path);
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    fn fill(new: &Path, path: &Path) -> Result<Self, JournalError> {
        make_dir(new)?;
        make_dir(&new.join(LOG))?;
        record_file::reserve(&new.join(EXIT_RESERVE), EXIT_ROOM)?;
        let request = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new.join(REQUEST));
        request.map_err(|e| JournalError::io("create", new, e))?;
        let directory = private_dir::open_existing(new)?;
        let metadata = directory.metadata().map_err(|e| JournalError::io("examine", new, e))?;
        let lock = FileLock::take(directory).map_err(|e| JournalError::io("lock", new, e))?;
        let mut options = OpenOptions::new();
        let log = options.create(true).append(true).mode(0o600).open(new.join(SUPERVISOR_LOG));
        let log = log.map_err(|e| JournalError::io("create", new, e))?;
        let wakeups = SupervisorWakeups::open(new).ok();
        fs::rename(new, path).map_err(|e| JournalError::io("rename", new, e))?;
        Ok(Self { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()), lock, wakeups, log })
    }

    /// Prepares the state that its Attempt has when it starts. As a whole, since the Attempt may start at this moment; what comes
    /// too late is not used.
    pub(crate) fn prepare_start(&self, starting: &AttemptState) {
        let _ = record_file::replace_unsynced(&self.path.join(STARTING), starting);
    }

    /// The folder of its Spool.
    pub(crate) fn log_folder(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The supervisor's log in it.
    pub(crate) fn log(&self) -> &fs::File {
        &self.log
    }

    /// Whether it has become this Attempt's.
    pub(crate) fn is_of(&self, attempt: &AttemptDir) -> bool {
        fs::symlink_metadata(attempt.path())
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }

    /// The lock of the Attempt and the pipe of its supervisor, if the Attempt got this directory; otherwise it is removed.
    pub(crate) fn take(mut self, attempt: &AttemptDir) -> Option<(AttemptLock, Option<SupervisorWakeups>)> {
        if !self.is_of(attempt) {
            self.remove();
            return None;
        }
        Some((AttemptLock::new(self.lock, attempt.clone()), self.wakeups.take()))
    }

    /// Removes it, unless it has become an Attempt's. Renamed first, as the agent may be about to use it.
    pub(crate) fn remove(&self) {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let doomed = self.path.with_file_name(format!("{GONE}{name}"));
        if fs::rename(&self.path, &doomed).is_ok() {
            let _ = fs::remove_dir_all(&doomed);
        }
    }
}
