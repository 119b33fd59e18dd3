//! Directories that nobody but us can change: what is read there is believed, and run.
//!
//! A directory is believed when it, and every directory above it, belongs to root or to the user of this process, and
//! when no one else may write to it. One above it may be open to all if it is sticky, as `/tmp` is: there, entries of
//! others cannot be renamed. A path that was found good stays good, since none but us and root could put something else
//! in its place; so the files in it can be used by their paths.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Write permission for the group, and for all others.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why a directory is not believed, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It is another user's.
    #[error(
        "{path} belongs to {owner} (mode {mode:04o}); what is kept there is run, so it must belong to {us} or root. \
         Take another directory, or chown it once what it holds has been checked"
    )]
    Owner {
        /// The directory, or one above the one that was asked for.
        path: PathBuf,
        /// Its owner.
        owner: String,
        /// Its mode.
        mode: u32,
        /// Who we are.
        us: String,
    },
    /// Others may write to it.
    #[error(
        "{path} (owner {owner}, mode {mode:04o}) can be written to by other users; what is kept there is run. Take \
         another directory, or check what it holds and chmod go-w it"
    )]
    Writable {
        /// The directory, or one above the one that was asked for.
        path: PathBuf,
        /// Its owner.
        owner: String,
        /// Its mode.
        mode: u32,
    },
    /// It is a symbolic link.
    #[error("{path} is a symbolic link to {target}; give the directory itself")]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// It cannot be used at all.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Untrusted {
    move |source| Untrusted::Io { doing, path: path.to_owned(), source }
}

/// Makes a directory that only we can enter, if it is not there, and makes sure that it can be believed. Returns its
/// path without symbolic links.
///
/// One that is there keeps its mode; what we keep in it is closed to others anyway. But one that is empty and open to
/// all, as some volumes of a cluster are at first, is closed.
///
/// # Errors
/// [`Untrusted`] when it cannot be made or is not to be believed.
pub fn open(path: &Path) -> Result<PathBuf, Untrusted> {
    let path = std::path::absolute(path).map_err(io_error("resolve", path))?;
    if let Ok(target) = fs::read_link(&path) {
        return Err(Untrusted::Link { path, target });
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(io_error("make the directory", &path))?;
    links_of_strangers(&path)?;
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

/// Makes a directory within one that is believed, and makes sure that only we can enter it: it may be there since a time
/// when the one above was open to others.
///
/// # Errors
/// [`Untrusted`] when it cannot be made or is not to be believed.
pub fn open_within(path: &Path) -> Result<(), Untrusted> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("make the directory", path)(error));
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

/// Opens a directory and makes sure that it can be believed; for one within a directory that is.
///
/// # Errors
/// [`Untrusted`] when it cannot be opened or is not to be believed.
pub fn open_existing(path: &Path) -> Result<File, Untrusted> {
    let directory = open_directory(path)?;
    let metadata = directory.metadata().map_err(io_error("examine", path))?;
    check(path, &metadata)?;
    Ok(directory)
}

/// Whether a file or directory belongs to us or to root.
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

/// A symbolic link on the way leads wherever its owner wants.
fn links_of_strangers(path: &Path) -> Result<(), Untrusted> {
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

/// A user for people: `nobody (uid 65534)`.
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
    fn a_directory_that_is_made_is_closed_and_one_that_was_there_keeps_its_mode() {
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
    fn one_to_which_others_can_write_is_refused_with_owner_and_mode_unless_it_is_empty() {
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
    fn a_symbolic_link_is_refused_with_where_it_leads() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        let error = open(&root.path().join("link")).unwrap_err().to_string();
        assert!(error.contains("symbolic link to real"), "{error}");
        assert!(matches!(open_within(&root.path().join("link")), Err(Untrusted::Link { .. })));
        open(&root.path().join("link/below")).unwrap();
    }

    #[test]
    fn another_users_directory_is_refused_wherever_it_is_on_the_way() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: only root can give a directory to another user");
            return;
        }
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
