//! Directories that no other user can change: what is read from them is trusted, and executed.
//!
//! A directory is trusted when it and every directory above it belongs to root or to the user of this process, and no
//! other user can write to it. A parent may be writable for all if it is sticky, as `/tmp` is: entries of others cannot be
//! renamed in it. A trusted path stays trusted, since only this user and root could replace it; so the files in it can be
//! used by their paths.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error_category::ErrorCategory;

/// Write permission for the group, and for all others.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why a directory is not trusted, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It belongs to another user.
    #[error(
        "{path} belongs to {owner} (mode {mode:04o}); its content is executed, so it must belong to {us} or root. \
         Use another directory, or chown it after checking its content"
    )]
    Owner {
        /// The directory, or a parent of the requested one.
        path: PathBuf,
        /// Its owner.
        owner: String,
        /// Its mode.
        mode: u32,
        /// The user of this process.
        us: String,
    },
    /// Other users can write to it.
    #[error(
        "{path} (owner {owner}, mode {mode:04o}) can be written to by other users; its content is executed. Use \
         another directory, or check its content and chmod go-w it"
    )]
    Writable {
        /// The directory, or a parent of the requested one.
        path: PathBuf,
        /// Its owner.
        owner: String,
        /// Its mode.
        mode: u32,
    },
    /// It is a symbolic link.
    #[error("{path} is a symbolic link to {target}; use the directory itself")]
    Link {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// It cannot be used.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
}

impl Untrusted {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Owner { .. } | Self::Writable { .. } | Self::Link { .. } => ErrorCategory::Configuration,
            Self::Io { source, .. } => ErrorCategory::of_io(source),
        }
    }

    /// Whether the same operation may succeed though nothing on this node was changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Untrusted {
    move |source| Untrusted::Io { doing, path: path.to_owned(), source }
}

/// Creates a directory with mode 0700 if it is missing, and verifies that it is trusted. Returns its path without symbolic
/// links.
///
/// An existing one keeps its mode; the files in it are closed to others anyway. But one that is empty and writable for
/// all, as some volumes of a cluster are at first, is closed.
///
/// # Errors
/// [`Untrusted`] when it cannot be created or is not trusted.
pub fn open(path: &Path) -> Result<PathBuf, Untrusted> {
    let path = std::path::absolute(path).map_err(io_error("resolve", path))?;
    if let Ok(target) = fs::read_link(&path) {
        return Err(Untrusted::Link { path, target });
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(io_error("create the directory", &path))?;
    check_symlink_owners(&path)?;
    let real = fs::canonicalize(&path).map_err(io_error("resolve", &path))?;
    let directory = open_directory(&real)?;
    let metadata = directory.metadata().map_err(io_error("examine", &real))?;
    if let Err(error) = check(&real, &metadata) {
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        let is_empty = || fs::read_dir(&real).is_ok_and(|mut entries| entries.next().is_none());
        if !(is_ours && is_empty()) {
            return Err(error);
        }
        let closed = directory.set_permissions(PermissionsExt::from_mode(0o700));
        closed.map_err(io_error("close to others", &real))?;
    }
    for above in real.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(above).map_err(io_error("examine", above))?;
        if metadata.mode() & STICKY == 0 {
            check(above, &metadata)?;
        } else {
            check_owner(above, &metadata)?;
        }
    }
    Ok(real)
}

/// Creates a directory in a trusted one, and ensures that only this user can enter it: it may exist since a time when its
/// parent was open to others.
///
/// # Errors
/// [`Untrusted`] when it cannot be created or is not trusted.
pub fn open_within(path: &Path) -> Result<(), Untrusted> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("create the directory", path)(error));
        }
        _ => {}
    }
    let directory = open_directory(path)?;
    let metadata = directory.metadata().map_err(io_error("examine", path))?;
    check(path, &metadata)?;
    if metadata.mode() & 0o077 != 0 {
        let closed = directory.set_permissions(PermissionsExt::from_mode(0o700));
        closed.map_err(io_error("close to others", path))?;
    }
    Ok(())
}

/// Opens a directory in a trusted one, and verifies that it is trusted too.
///
/// # Errors
/// [`Untrusted`] when it cannot be opened or is not trusted.
pub fn open_existing(path: &Path) -> Result<File, Untrusted> {
    let directory = open_directory(path)?;
    let metadata = directory.metadata().map_err(io_error("examine", path))?;
    check(path, &metadata)?;
    Ok(directory)
}

/// Whether a file or directory belongs to this user or to root.
pub fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw()
}

fn open_directory(path: &Path) -> Result<File, Untrusted> {
    if let Ok(target) = fs::read_link(path) {
        return Err(Untrusted::Link { path: path.to_owned(), target });
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(io_error("open", path))
}

/// A symbolic link in the path can be redirected by its owner.
fn check_symlink_owners(path: &Path) -> Result<(), Untrusted> {
    for above in path.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(above).map_err(io_error("examine", above))?;
        if metadata.is_symlink() {
            check_owner(above, &metadata)?;
        }
    }
    Ok(())
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    check_owner(path, metadata)?;
    let mode = metadata.mode() & 0o7777;
    let group_is_ours = metadata.gid() == 0 || metadata.gid() == rustix::process::getegid().as_raw();
    if mode & OTHERS_WRITE != 0 || (mode & GROUP_WRITES != 0 && !group_is_ours) {
        return Err(Untrusted::Writable { path: path.to_owned(), owner: name(metadata.uid()), mode });
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    if is_ours(metadata) {
        return Ok(());
    }
    let us = name(rustix::process::geteuid().as_raw());
    let (owner, mode) = (name(metadata.uid()), metadata.mode() & 0o7777);
    Err(Untrusted::Owner { path: path.to_owned(), owner, mode, us })
}

/// A user's name and uid: `nobody (uid 65534)`.
fn name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    match line.and_then(|line| line.split(':').next()) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_directory_is_closed_and_an_existing_one_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let fresh = root.path().join("a/b");
        assert_eq!(open(&fresh).unwrap(), fresh.canonicalize().unwrap());
        assert_eq!((mode_of(&fresh), mode_of(fresh.parent().unwrap())), (0o700, 0o700));
        mode(&fresh, 0o755);
        open(&fresh).unwrap();
        assert_eq!(mode_of(&fresh), 0o755);
        let within = fresh.join("c");
        fs::create_dir(&within).unwrap();
        mode(&within, 0o755);
        open_within(&within).unwrap();
        assert_eq!(mode_of(&within), 0o700);
    }

    #[test]
    fn rejects_a_directory_writable_by_others_unless_it_is_empty() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        fs::create_dir(&dir).unwrap();
        mode(&dir, 0o777);
        open(&dir).unwrap();
        assert_eq!(mode_of(&dir), 0o700);
        fs::write(dir.join("planted"), "").unwrap();
        mode(&dir, 0o777);
        let error = open(&dir).unwrap_err().to_string();
        assert!(error.contains("mode 0777") && error.contains("owner"), "{error}");
        assert!(matches!(open_within(&dir), Err(Untrusted::Writable { .. })));
        assert!(matches!(open_existing(&dir), Err(Untrusted::Writable { .. })));
        let below = dir.join("below");
        assert!(matches!(open(&below), Err(Untrusted::Writable { path, .. }) if path.ends_with("d")));
        mode(&dir, 0o1777);
        open(&below).unwrap();
    }

    #[test]
    fn rejects_a_symbolic_link_and_names_its_target() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        let error = open(&root.path().join("link")).unwrap_err().to_string();
        assert!(error.contains("symbolic link to real"), "{error}");
        assert!(matches!(open_within(&root.path().join("link")), Err(Untrusted::Link { .. })));
        open(&root.path().join("link/below")).unwrap();
    }

    #[test]
    fn rejects_another_users_directory_anywhere_in_the_path() {
        let is_root = rustix::process::geteuid().is_root();
        assert!(is_root, "this test needs root; elsewhere: -- --skip another_users_directory");
        let root = tempfile::tempdir().unwrap();
        let theirs = root.path().join("theirs");
        let ours = theirs.join("ours");
        fs::create_dir_all(&ours).unwrap();
        chown(&theirs, Some(65534), None).unwrap();
        for path in [&theirs, &ours] {
            let error = open(path).unwrap_err().to_string();
            assert!(error.contains("(uid 65534)") && error.contains("mode 0755"), "{error}");
        }
        symlink("/", root.path().join("root")).unwrap();
        std::os::unix::fs::lchown(root.path().join("root"), Some(65534), None).unwrap();
        let error = open(&root.path().join("root").join(root.path().strip_prefix("/").unwrap())).unwrap_err();
        assert!(matches!(error, Untrusted::Owner { .. }), "{error}");
    }
}
