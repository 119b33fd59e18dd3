//! The Unix socket and the token of a dev mode, in a directory that only its user can enter.
//!
//! The first of these that can be used: `$XDG_RUNTIME_DIR/sentinel`, `/run/user/UID/sentinel`, for root
//! `/run/sentinel`, `/tmp/sentinel-UID`. A directory that is a symbolic link, belongs to another user or is open to
//! others is not used.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;

use super::peer::effective_uid;

/// Longest path of a Unix socket, bytes.
const MAX_SOCKET_PATH: usize = 107;

/// How often the lock is tried, and the pause between.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The directories that a dev mode may use, in order of preference.
fn directories() -> Vec<PathBuf> {
    let uid = effective_uid();
    let mut all = Vec::new();
    if let Some(runtime) =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute())
    {
        all.push(runtime.join("sentinel"));
    }
    all.push(PathBuf::from(format!("/run/user/{uid}/sentinel")));
    if uid == 0 {
        all.push(PathBuf::from("/run/sentinel"));
    }
    all.push(PathBuf::from(format!("/tmp/sentinel-{uid}")));
    all.dedup();
    all
}

/// Whether only this user can enter the directory.
fn is_private(directory: &Path) -> Result<()> {
    let metadata = directory.symlink_metadata()?;
    let wrong = |why: String| Err(Error::new(ErrorKind::PermissionDenied, why));
    if !metadata.is_dir() {
        return wrong("it is not a directory".to_owned());
    }
    if metadata.uid() != effective_uid() {
        return wrong(format!("it belongs to user {}, not to {}", metadata.uid(), effective_uid()));
    }
    if metadata.mode() & 0o077 != 0 {
        return wrong(format!("its mode is {:o}, not 700", metadata.mode() & 0o7777));
    }
    Ok(())
}

/// Whether only this user and root can replace a directory in `parent`.
fn is_stable(parent: &Path) -> Result<()> {
    let metadata = parent.symlink_metadata()?;
    let is_owned = metadata.uid() == effective_uid() || metadata.uid() == 0;
    let is_sticky = metadata.mode() & 0o1000 != 0;
    let is_closed = metadata.mode() & 0o022 == 0;
    if metadata.is_dir() && is_owned && (is_closed || is_sticky) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::PermissionDenied, "others can replace what is in its parent directory"))
    }
}

fn make(directory: &Path) -> Result<()> {
    is_stable(directory.parent().unwrap_or(Path::new("/")))?;
    if socket(directory, u16::MAX).as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Error::new(ErrorKind::InvalidInput, "its path is too long for a socket"));
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => is_private(directory),
    }
}

fn socket(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!("dev-{port}.sock"))
}

/// A page that leads a browser to the dev mode, with its token; `sentinel ui` writes it.
fn page(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!("dev-{port}.html"))
}

fn token(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!("dev-{port}.token"))
}

/// The socket of this user's dev mode with that port, if one exists.
pub(super) fn socket_of(port: u16) -> Option<PathBuf> {
    directories()
        .into_iter()
        .filter(|directory| is_private(directory).is_ok())
        .map(|directory| socket(&directory, port))
        .find(|socket| socket.symlink_metadata().is_ok())
}

/// Whether this user's dev mode with that port runs.
pub fn is_running(port: u16) -> bool {
    socket_of(port).is_some_and(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok())
}

/// The file with the token of this user's dev mode with that port, if one exists.
pub fn token_file_of(port: u16) -> Option<PathBuf> {
    directories()
        .into_iter()
        .filter(|directory| is_private(directory).is_ok())
        .map(|directory| token(&directory, port))
        .find(|file| file.symlink_metadata().is_ok_and(|metadata| metadata.is_file()))
}

/// A directory that only this user can enter, created if it does not exist.
///
/// # Errors
/// When none can be used, with the reason for each.
pub fn private_directory() -> Result<PathBuf> {
    let mut reasons = Vec::new();
    for directory in directories() {
        match make(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) => reasons.push(format!("{}: {error}", directory.display())),
        }
    }
    Err(Error::other(reasons.join("; ")))
}

/// Socket and token of a running dev mode. Both are removed when it is dropped.
#[derive(Debug)]
pub struct DevSocket {
    directory: PathBuf,
    port: u16,
    token: String,
    /// Locked as long as the process lives, even when it is killed.
    _lock: File,
}

impl DevSocket {
    /// Claims the paths of the dev mode with that port, and writes a new token.
    ///
    /// # Errors
    /// When no directory can be used (with the reason for each), or another dev mode holds these paths.
    pub fn claim(port: u16) -> Result<Self> {
        let mut reasons = Vec::new();
        for directory in directories() {
            match make(&directory).and_then(|()| Self::claim_in(&directory, port)) {
                Ok(claimed) => return Ok(claimed),
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
                Err(error) => reasons.push(format!("{}: {error}", directory.display())),
            }
        }
        Err(Error::other(reasons.join("; ")))
    }

    fn claim_in(directory: &Path, port: u16) -> Result<Self> {
        let path = token(directory, port);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
        let mut tries = 0;
        loop {
            let mut file = options.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                // A process that removes stale files holds it for an instant only.
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    let message = format!("{} belongs to another dev mode", path.display());
                    return Err(Error::new(ErrorKind::AddrInUse, message));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // It may have been removed as stale between open and lock.
            let is_same = path.symlink_metadata().is_ok_and(|named| {
                file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
            });
            if !is_same {
                continue;
            }
            let token = random_token()?;
            file.set_len(0)?;
            writeln!(file, "{token}")?;
            return Ok(Self { directory: directory.to_owned(), port, token, _lock: file });
        }
    }

    /// Path of the socket, which its listener creates.
    pub fn socket(&self) -> PathBuf {
        socket(&self.directory, self.port)
    }

    /// Path of the file with the token.
    pub fn token_file(&self) -> PathBuf {
        token(&self.directory, self.port)
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for DevSocket {
    fn drop(&mut self) {
        // The directory stays while another dev mode uses it.
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_file(self.token_file());
        let _ = std::fs::remove_file(page(&self.directory, self.port));
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Removes sockets and tokens of dev modes that were killed; returns the sockets.
pub fn remove_stale() -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for directory in directories().iter().filter(|directory| is_private(directory).is_ok()) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let is_token = name
                .to_str()
                .and_then(|name| name.strip_suffix(".token"))
                .is_some_and(|name| name.starts_with("dev-"));
            let is_stale = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if is_token && is_stale() {
                let socket = path.with_extension("sock");
                let _ = std::fs::remove_file(&socket);
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::remove_file(path.with_extension("html"));
                removed.push(socket);
            }
        }
    }
    removed
}

/// A token that cannot be guessed: 256 random bits, from the kernel.
///
/// # Errors
/// When the kernel has none.
pub fn random_token() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_directories_are_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let base = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let own = base.path().join("own");
        make(&own).unwrap();
        make(&own).unwrap();
        mode(&own, 0o750);
        assert!(make(&own).unwrap_err().to_string().contains("its mode is 750"));
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(make(&link).unwrap_err().to_string().contains("not a directory"));
        mode(base.path(), 0o777);
        assert!(make(&base.path().join("new")).unwrap_err().to_string().contains("others can replace"));
        let long = base.path().join("x".repeat(120));
        mode(base.path(), 0o700);
        assert!(make(&long).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn paths_belong_to_one_dev_mode_and_stale_ones_are_reclaimed() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("sentinel");
        make(&directory).unwrap();
        let claimed = DevSocket::claim_in(&directory, 1).unwrap();
        assert_eq!(std::fs::read_to_string(claimed.token_file()).unwrap().trim(), claimed.token());
        assert_eq!(claimed.token_file().metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(DevSocket::claim_in(&directory, 1).unwrap_err().kind(), ErrorKind::AddrInUse);
        let other = DevSocket::claim_in(&directory, 2).unwrap();
        assert_ne!(claimed.token(), other.token());
        drop(claimed);
        assert!(!token(&directory, 1).exists() && directory.exists());
        std::fs::write(token(&directory, 3), "old").unwrap();
        let reclaimed = DevSocket::claim_in(&directory, 3).unwrap();
        assert_ne!(std::fs::read_to_string(reclaimed.token_file()).unwrap(), "old");
        drop((other, reclaimed));
        assert!(!directory.exists());
    }
}
