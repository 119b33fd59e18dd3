//! A directory that one process has: taken before anything else is opened, so that a second process does nothing with
//! what is another one's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Error;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file that is locked. The kernel gives the lock back when the process ends, however it ends.
const FILE: &str = "operator.lock";

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
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
        /// What the system said.
        #[source]
        source: Error,
    },
}

/// A directory, ours as long as this value lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holding it is its use")] File);

impl Lock {
    /// Whether the directory has ever been taken.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(FILE).symlink_metadata().is_ok()
    }

    /// Takes the directory, which is there.
    ///
    /// # Errors
    /// [`LockError`] when another process has it, or it cannot be written to.
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
    fn a_directory_is_one_process_s_until_it_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::take(directory.path()).unwrap();
        assert!(matches!(Lock::take(directory.path()), Err(LockError::Taken { .. })));
        drop(first);
        Lock::take(directory.path()).unwrap();
    }
}
