//! The state directory of dev mode: one given with `--state`, or a temporary one that is removed at exit. It is locked
//! before anything else is opened, so that a second dev mode on it changes nothing.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sentinel_node_agent::private_dir;
use sentinel_node_agent::shortage::describe;
use sentinel_operator::lock::{Lock, LockError};

use crate::exit::Failure;
use crate::output::format::note;

/// Prefix of the names of temporary directories.
pub(super) const TEMPORARY: &str = "sentinel-dev-";

/// The file that marks a directory that dev mode created itself and may remove. The name alone does not: `--state` may
/// name a directory with the same prefix.
const MARKER: &str = "temporary";

/// Maximum number of names that are tried for a temporary directory.
const MAX_NAMES: u32 = 100;

/// Whether dev mode created the directory itself.
pub(super) fn is_temporary(directory: &Path) -> bool {
    directory.join(MARKER).symlink_metadata().is_ok()
}

/// The state directory.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    at_exit: AtExit,
    /// Released last.
    _lock: Lock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtExit {
    Keep,
    Remove,
}

impl State {
    /// Opens the given directory, created if missing; or creates a temporary one that only this user can read.
    pub(super) fn open(given: Option<&Path>) -> Result<Self, Failure> {
        match given {
            Some(path) => Self::open_given(path),
            None => Self::create_temporary(),
        }
    }

    fn open_given(path: &Path) -> Result<Self, Failure> {
        let path = private_dir::open(path)
            .map_err(|error| Failure::usage(format!("--state {}: {}", path.display(), describe(&error))))?;
        let lock = Lock::take(&path).map_err(|error| lock_failure(&path, &error))?;
        // A directory that a killed dev mode left is kept from now on.
        remove_marker(&path)?;
        Ok(Self { path, at_exit: AtExit::Keep, _lock: lock })
    }

    fn create_temporary() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        for attempt in 0..MAX_NAMES {
            let path = base.join(format!("{TEMPORARY}{}-{attempt}", std::process::id()));
            // The marker comes before the lock: the cleanup of another dev mode ignores directories without a lock.
            match private().create(&path).and_then(|()| std::fs::write(path.join(MARKER), "")) {
                Ok(()) => match Lock::take(&path) {
                    Ok(lock) => return Ok(Self { path, at_exit: AtExit::Remove, _lock: lock }),
                    // The cleanup of another dev mode is removing it.
                    Err(LockError::Taken { .. }) => {}
                    Err(error) => return Err(lock_failure(&path, &error)),
                },
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(Failure::new(format!(
                        "failed to create a temporary directory in {}: {error}",
                        base.display()
                    ))
                    .hint("Name a directory with --state DIR"));
                }
            }
        }
        Err(Failure::new(format!("failed to create a temporary directory in {}", base.display())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, and whether it is removed, for the banner.
    pub(super) fn summary(&self) -> String {
        let removed = match self.at_exit {
            AtExit::Keep => "",
            AtExit::Remove => " (removed at exit; keep it with --state DIR)",
        };
        format!("{}{removed}", self.path.display())
    }

    /// Removes the directory if it is temporary.
    pub(super) fn remove(self) {
        drop(self);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.at_exit == AtExit::Remove
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            note(&format!("sentinel: failed to remove {}: {error}", self.path.display()));
        }
    }
}

fn lock_failure(path: &Path, error: &LockError) -> Failure {
    match error {
        LockError::Taken { .. } => Failure::new(format!("{} is in use by another dev mode", path.display()))
            .hint("Use that one (sentinel get tasks), or another directory: --state DIR"),
        LockError::Io { source, .. } => Failure::usage(format!("{error}: {source}")),
    }
}

/// Removes the marker of a temporary directory.
fn remove_marker(directory: &Path) -> Result<(), Failure> {
    let marker = directory.join(MARKER);
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::usage(format!(
            "--state {}: failed to remove {}, which marks it as temporary: {error}",
            directory.display(),
            marker.display()
        ))),
        _ => Ok(()),
    }
}

fn private() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_is_private_and_removed() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = State::open(None).unwrap();
        let path = state.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(is_temporary(&path));
        state.remove();
        assert!(!path.exists());
    }

    #[test]
    fn rejects_a_directory_that_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let first = State::open(Some(directory.path())).unwrap();
        let failure = State::open(Some(directory.path())).unwrap_err();
        assert!(failure.message.contains("in use by another dev mode"), "{failure}");
        drop(first);
        State::open(Some(directory.path())).unwrap();
    }

    #[test]
    fn a_given_directory_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let given = directory.path().join("a/b");
        State::open(Some(&given)).unwrap().remove();
        assert!(given.is_dir() && !is_temporary(&given));
        std::fs::write(directory.path().join("file"), "").unwrap();
        let failure = State::open(Some(&directory.path().join("file"))).unwrap_err();
        assert_eq!(failure.code, crate::exit::USAGE);
    }

    #[test]
    fn a_given_directory_loses_the_temporary_marker() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(MARKER), "").unwrap();
        State::open(Some(directory.path())).unwrap().remove();
        assert!(directory.path().is_dir() && !is_temporary(directory.path()));
    }
}
