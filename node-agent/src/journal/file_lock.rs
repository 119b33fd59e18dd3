//! The kernel lock of a file or directory.

use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind};

/// Held for as long as this value lives; the kernel releases it when its process dies.
///
/// It is released by unlocking, not only by closing: a process that another thread is forking has a copy of every open
/// file until it runs its program, and a lock lasts as long as its last copy.
#[derive(Debug)]
pub(super) struct FileLock(File);

impl FileLock {
    /// Takes the lock if it is free.
    pub(super) fn try_take(file: File) -> Result<Option<Self>, Error> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock, waiting until it is free.
    pub(super) fn take(file: File) -> Result<Self, Error> {
        loop {
            match file.lock() {
                Ok(()) => return Ok(Self(file)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // What cannot be unlocked is closed next.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_once_dropped_though_a_fork_has_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::open(dir.path()).unwrap();
        let lock = FileLock::try_take(open()).unwrap().unwrap();
        let copy = lock.0.try_clone().unwrap();
        assert!(FileLock::try_take(open()).unwrap().is_none());
        drop(lock);
        assert!(FileLock::try_take(open()).unwrap().is_some());
        drop(copy);
    }
}
