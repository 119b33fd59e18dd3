//! Where dev mode keeps everything: a directory that is given, or a temporary one that is removed at the end. It is
//! locked before anything else is opened, so that a second dev mode on it does nothing.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sentinel_node_agent::private_dir;
use sentinel_node_agent::shortage::describe;
use sentinel_operator::lock::{Lock, LockError};

use crate::exit::Failure;
use crate::output::format::note;

/// What the name of a temporary directory begins with.
pub(super) const TEMPORARY: &str = "sentinel-dev-";

/// The file that marks a directory which dev mode made for itself and may remove. One that `--state` names has none: its
/// name may be that of a temporary directory all the same.
const MARK: &str = "temporary";

/// Whether dev mode made the directory for itself.
pub(super) fn is_temporary(directory: &Path) -> bool {
    directory.join(MARK).symlink_metadata().is_ok()
}

/// The directory.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    fate: Fate,
    /// Given back last.
    _lock: Lock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Removed,
}

impl State {
    /// The given directory, made if it is not there; or a temporary one that only this user can read.
    pub(super) fn open(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = given {
            let path = private_dir::open(path).map_err(|error| {
                Failure::usage(format!("--state {}: {}", path.display(), describe(&error)))
            })?;
            let lock = Lock::take(&path).map_err(|error| not_taken(&path, &error))?;
            // Perhaps one that a dev mode was killed on; from now on it is kept.
            unmark(&path)?;
            Ok(Self { path, fate: Fate::Kept, _lock: lock })
        } else {
            let base = std::env::temp_dir();
            for attempt in 0_u32..100 {
                let path = base.join(format!("{TEMPORARY}{}-{attempt}", std::process::id()));
                // The mark comes before the lock: a tidying dev mode leaves alone what has no lock yet.
                match private().create(&path).and_then(|()| std::fs::write(path.join(MARK), "")) {
                    Ok(()) => match Lock::take(&path) {
                        Ok(lock) => return Ok(Self { path, fate: Fate::Removed, _lock: lock }),
                        // One that tidies up took it for a leftover.
                        Err(LockError::Taken { .. }) => {}
                        Err(error) => return Err(not_taken(&path, &error)),
                    },
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => {
                        return Err(Failure::new(format!(
                            "failed to make a temporary directory in {}: {error}",
                            base.display()
                        ))
                        .hint("Say where with --state DIR"));
                    }
                }
            }
            Err(Failure::new(format!("failed to make a temporary directory in {}", base.display())))
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, and what becomes of it.
    pub(super) fn shown(&self) -> String {
        let fate = match self.fate {
            Fate::Kept => "",
            Fate::Removed => " (removed at the end; --state DIR keeps it)",
        };
        format!("{}{fate}", self.path.display())
    }

    /// Removes it if it is a temporary one.
    pub(super) fn remove(self) {
        // `Drop` does it; this says that it is meant.
        drop(self);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.fate == Fate::Removed
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            note(&format!("sentinel: {} could not be removed: {error}", self.path.display()));
        }
    }
}

fn not_taken(path: &Path, error: &LockError) -> Failure {
    match error {
        LockError::Taken { .. } => Failure::new(format!("{} is in use by another dev mode", path.display()))
            .hint("Use the one that runs (sentinel get tasks), or another directory: --state DIR"),
        LockError::Io { source, .. } => Failure::usage(format!("{error}: {source}")),
    }
}

/// Takes the mark from a directory that is to be kept.
fn unmark(directory: &Path) -> Result<(), Failure> {
    let mark = directory.join(MARK);
    match std::fs::remove_file(&mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::usage(format!(
            "--state {}: failed to remove {}, which marks it as temporary: {error}",
            directory.display(),
            mark.display()
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
    fn a_temporary_directory_is_private_and_gone_at_the_end() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = State::open(None).unwrap();
        let path = state.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(is_temporary(&path));
        state.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_is_in_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = State::open(Some(directory.path())).unwrap();
        let failure = State::open(Some(directory.path())).unwrap_err();
        assert!(failure.message.contains("in use by another dev mode"), "{failure}");
        drop(first);
        State::open(Some(directory.path())).unwrap();
    }

    #[test]
    fn a_given_directory_stays() {
        let directory = tempfile::tempdir().unwrap();
        let given = directory.path().join("a/b");
        State::open(Some(&given)).unwrap().remove();
        assert!(given.is_dir() && !is_temporary(&given));
        std::fs::write(directory.path().join("file"), "").unwrap();
        let failure = State::open(Some(&directory.path().join("file"))).unwrap_err();
        assert_eq!(failure.code, crate::exit::USAGE);
    }

    #[test]
    fn a_given_directory_loses_the_mark_of_a_temporary_one() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(MARK), "").unwrap();
        State::open(Some(directory.path())).unwrap().remove();
        assert!(directory.path().is_dir() && !is_temporary(directory.path()));
    }
}
