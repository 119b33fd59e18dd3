//! A program as it is on the disk: which file it is, and who can write to it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::process::geteuid;
use sentinel_core::agent::FileIdentity;

use super::root::Root;

/// A program that was found by its name.
pub(super) struct Found {
    /// Its absolute path by the name in the request.
    pub(super) requested: PathBuf,
    /// Opened with `O_PATH`.
    file: OwnedFd,
    stat: Stat,
}

impl Found {
    /// Opens a program by its absolute path.
    pub(super) fn open(root: &Root, requested: PathBuf) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("{} cannot be examined: {error}", requested.display());
        let file = root.open(&requested, OFlags::PATH).map_err(unreadable)?;
        let stat = fstat(&file).map_err(|error| unreadable(error.into()))?;
        // On the descriptor that is used from here on: to open anything else could take forever.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(format!("{} is not a regular file", requested.display()));
        }
        Ok(Self { requested, file, stat })
    }

    /// The file as it is now.
    pub(super) fn identity(&self) -> Result<FileIdentity, String> {
        let resolved = fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let resolved = resolved.ok().and_then(|path| path.into_os_string().into_string().ok());
        let path = resolved
            .ok_or_else(|| format!("the path of {} cannot be written as text", self.requested.display()))?;
        Ok(identity_of(path, &self.stat))
    }

    /// Opens its content.
    pub(super) fn content(&self) -> io::Result<File> {
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(File::from(openat(CWD, link, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The opened file.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.file
    }
}

/// What shows that a file is another one, or was changed.
pub(super) fn identity_of(path: String, stat: &Stat) -> FileIdentity {
    FileIdentity {
        path,
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        changed_at: stat
            .st_ctime
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_ctime_nsec.cast_signed()),
    }
}

/// Which others can write to a file, or replace an entry of a directory, or a symbolic link.
pub(super) fn writable_by(stat: &Stat) -> Option<String> {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    // All bits of a link are set, and count for nothing.
    let mode = if is_link { 0 } else { stat.st_mode };
    let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
    // In a directory with this bit only the owner of an entry can replace it.
    let is_sticky = is_directory && mode & 0o1000 != 0;
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        Some(format!("belongs to user {}", stat.st_uid))
    } else if mode & 0o020 != 0 && !is_sticky {
        // Of any group: with an access control list these bits are its mask, and stand for other users.
        Some(format!("is writable by group {}", stat.st_gid))
    } else if mode & 0o002 != 0 && !is_sticky {
        Some("is writable by everyone".to_owned())
    } else {
        None
    }
}
