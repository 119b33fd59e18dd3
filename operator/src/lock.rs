//! An exclusive lock on a data directory, taken before anything in it is opened, so that a second process changes nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Error;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The locked file. The kernel releases the lock when the process ends, however it ends.
const FILE: &str = "operator.lock";

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("{} is in use by another process", directory.display())]
    Taken {
        /// The directory.
        directory: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("failed to lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Error,
    },
}

impl LockError {
    /// A label for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "locked",
            Self::Io { .. } => "io",
        }
    }

    /// Whether a retry may succeed, once the other process has exited.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }
}

/// The lock, held as long as this value lives.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is forking has a copy of the file until it runs its program.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Whether the directory was ever locked.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(FILE).symlink_metadata().is_ok()
    }

    /// Locks the directory, which must exist.
    ///
    /// # Errors
    /// [`LockError`] when another process holds the lock, or the directory is not writable.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(FILE);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken { directory: directory.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_by_one_process_until_released() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path()).unwrap();
        assert!(matches!(Lock::take(directory.path()), Err(LockError::Taken { .. })));
        let copy_of_a_fork = first.0.try_clone().unwrap();
        drop(first);
        Lock::take(directory.path()).unwrap();
        drop(copy_of_a_fork);
    }
}
