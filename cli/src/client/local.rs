//! Where a dev mode of this user is found, and how a server of this machine is known to be this user's or root's.
//!
//! A dev mode keeps a Unix socket and a token in a directory that only its user can enter. The first of these that can
//! be had: `$XDG_RUNTIME_DIR/sentinel`, `/run/user/UID/sentinel`, for root `/run/sentinel`, `/tmp/sentinel-UID`. A
//! directory that is a symbolic link, belongs to another user or is open to others is not used.
//!
//! Over TCP anyone can have taken the port. The kernel names the owner of the listener: it must be this user or root,
//! or nothing is sent.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest path that a Unix socket can have, bytes.
const MAX_SOCKET_PATH: usize = 107;

/// How often a lock is tried for, and the pause between.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// This process's user.
pub(crate) fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The directories that a dev mode may use, best first.
fn directories() -> Vec<PathBuf> {
    let uid = me();
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
    if metadata.uid() != me() {
        return wrong(format!("it belongs to user {}, not to {}", metadata.uid(), me()));
    }
    if metadata.mode() & 0o077 != 0 {
        return wrong(format!("its mode is {:o}, not 700", metadata.mode() & 0o7777));
    }
    Ok(())
}

/// Whether only this user and root can put another directory in the place of one in `parent`.
fn is_stable(parent: &Path) -> Result<()> {
    let metadata = parent.symlink_metadata()?;
    let is_owned = metadata.uid() == me() || metadata.uid() == 0;
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

fn token(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!("dev-{port}.token"))
}

/// The socket of this user's dev mode with that port, if there is one.
pub(super) fn socket_of(port: u16) -> Option<PathBuf> {
    directories()
        .into_iter()
        .filter(|directory| is_private(directory).is_ok())
        .map(|directory| socket(&directory, port))
        .find(|socket| socket.symlink_metadata().is_ok())
}

/// The place of a dev mode that runs: socket and token. Both are removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    port: u16,
    token: String,
    /// Locked as long as the dev mode lives, however it ends.
    _lock: File,
}

impl Place {
    /// Takes the place of the dev mode with that port, and writes a new token.
    ///
    /// # Errors
    /// When no directory can be used (the text says why for each), or another dev mode has that place.
    pub(crate) fn take(port: u16) -> Result<Self> {
        let mut reasons = Vec::new();
        for directory in directories() {
            match make(&directory).and_then(|()| Self::take_in(&directory, port)) {
                Ok(place) => return Ok(place),
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
                Err(error) => reasons.push(format!("{}: {error}", directory.display())),
            }
        }
        Err(Error::other(reasons.join("; ")))
    }

    fn take_in(directory: &Path, port: u16) -> Result<Self> {
        let path = token(directory, port);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
        let mut tries = 0;
        loop {
            let mut file = options.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                // One that tidies up holds it for an instant only.
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    let message = format!("{} is another dev mode's", path.display());
                    return Err(Error::new(ErrorKind::AddrInUse, message));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // One that tidied up may have removed it between the two.
            let is_there = path.symlink_metadata().is_ok_and(|there| {
                file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
            });
            if !is_there {
                continue;
            }
            let token = random_token()?;
            file.set_len(0)?;
            writeln!(file, "{token}")?;
            return Ok(Self { directory: directory.to_owned(), port, token, _lock: file });
        }
    }

    /// Where its socket is to be.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.directory, self.port)
    }

    /// The file with its token.
    pub(crate) fn token_file(&self) -> PathBuf {
        token(&self.directory, self.port)
    }

    /// Its token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The socket is removed by its listener; the directory stays while another dev mode is in it.
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_file(self.token_file());
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Removes sockets and tokens of dev modes that were killed; says which.
pub(crate) fn tidy() -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for directory in directories().iter().filter(|directory| is_private(directory).is_ok()) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let is_token = name
                .to_str()
                .and_then(|name| name.strip_suffix(".token"))
                .is_some_and(|name| name.starts_with("dev-"));
            let is_left = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if is_token && is_left() {
                let socket = path.with_extension("sock");
                let _ = std::fs::remove_file(&socket);
                let _ = std::fs::remove_file(&path);
                removed.push(socket);
            }
        }
    }
    removed
}

/// 256 random bits, from the kernel.
fn random_token() -> Result<String> {
    use base64::Engine as _;
    use std::io::Read as _;
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether a server is one to talk to: this user's, or root's.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == me()
}

/// Refuses a server of another user at the other end of a Unix socket.
///
/// # Errors
/// When it is another user's, or the kernel does not say.
pub(super) fn check_socket(stream: &tokio::net::UnixStream) -> Result<()> {
    match stream.peer_cred()?.uid() {
        uid if is_trusted(uid) => Ok(()),
        uid => Err(foreign(uid)),
    }
}

/// Refuses a server of another user at the other end of a TCP connection of this machine.
///
/// # Errors
/// When it is another user's, or the kernel does not say whose it is.
pub(super) fn check_tcp(ours: SocketAddr, theirs: SocketAddr) -> Result<()> {
    let mut known = false;
    for row in rows()? {
        // A connection that is not accepted yet has no owner, and its listener is still there.
        let is_theirs = row.local_is(theirs) && row.remote == ours && row.inode != 0;
        if is_theirs || (row.listens && row.local_is(theirs)) {
            if !is_trusted(row.uid) {
                return Err(foreign(row.uid));
            }
            known = true;
        }
    }
    if known {
        Ok(())
    } else {
        Err(refused("the kernel does not name the owner of the server, so nothing was sent to it"))
    }
}

/// The users that listen at an address of this machine.
pub(crate) fn listeners(at: SocketAddr) -> Vec<u32> {
    let rows = rows().unwrap_or_default();
    rows.iter().filter(|row| row.listens && row.local_is(at)).map(|row| row.uid).collect()
}

fn foreign(uid: u32) -> Error {
    refused(format!("the server belongs to user {uid}, not to you or root, so nothing was sent to it"))
}

/// A server that is there and that we do not talk to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

pub(super) fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::PermissionDenied, Refused(why.into()))
}

/// A row of the kernel's tables of TCP sockets. Source: <https://docs.kernel.org/networking/proc_net_tcp.html>.
#[derive(Debug, PartialEq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
    uid: u32,
    inode: u64,
}

impl Row {
    /// Whether its own end is at this address, itself or as one of all.
    fn local_is(&self, at: SocketAddr) -> bool {
        let ip = self.local.ip();
        self.local.port() == at.port() && (ip == at.ip().to_canonical() || ip.is_unspecified())
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = address(fields.next()?)?;
        let remote = address(fields.next()?)?;
        let listens = fields.next()? == "0A";
        let mut rest = fields.skip(3);
        let uid = rest.next()?.parse().ok()?;
        let inode = rest.nth(1)?.parse().ok()?;
        Some(Self { local, remote, listens, uid, inode })
    }
}

fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (table, is_needed) in [("/proc/net/tcp", true), ("/proc/net/tcp6", false)] {
        match std::fs::read_to_string(table) {
            Ok(text) => rows.extend(text.lines().skip(1).filter_map(Row::read)),
            Err(error) if is_needed => return Err(Error::new(error.kind(), format!("{table}: {error}"))),
            // There is none without IPv6.
            Err(_) => {}
        }
    }
    Ok(rows)
}

/// An address as the tables have it: words of 32 bits in the machine's order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_kernels_table_says_who_listens_where() {
        let row = Row::read(
            "   1: 0100007F:1F2C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 61216 1 0000000000000000 100 0 0 10 0",
        )
        .unwrap();
        assert_eq!((row.listens, row.uid, row.inode), (true, 1000, 61216));
        assert!(row.local_is("127.0.0.1:7980".parse().unwrap()));
        assert!(!row.local_is("127.0.0.2:7980".parse().unwrap()));
        assert!(!row.local_is("127.0.0.1:7981".parse().unwrap()));
        let any = address("00000000000000000000000000000000:1F2C").unwrap();
        assert_eq!(any, "[::]:7980".parse().unwrap());
        let mapped = address("0000000000000000FFFF00000100007F:0050").unwrap();
        assert_eq!(mapped, "127.0.0.1:80".parse().unwrap());
        assert_eq!(Row::read("  sl  local_address rem_address"), None);
    }

    #[test]
    fn a_server_of_ours_is_known_and_a_port_without_one_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(at).unwrap();
        let ours = stream.local_addr().unwrap();
        check_tcp(ours, at).unwrap();
        assert_eq!(listeners(at), [me()]);
        // A server that took the connection and stopped listening is still known by it.
        let accepted = listener.accept().unwrap();
        drop(listener);
        check_tcp(ours, at).unwrap();
        drop((accepted, stream));
        assert!(check_tcp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap()).is_err());
    }

    #[test]
    fn a_directory_that_others_can_enter_or_replace_is_not_used() {
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
    fn a_place_is_one_dev_modes_and_what_a_killed_one_left_is_taken_over() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("sentinel");
        make(&directory).unwrap();
        let place = Place::take_in(&directory, 1).unwrap();
        assert_eq!(std::fs::read_to_string(place.token_file()).unwrap().trim(), place.token());
        assert_eq!(place.token_file().metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(Place::take_in(&directory, 1).unwrap_err().kind(), ErrorKind::AddrInUse);
        let other = Place::take_in(&directory, 2).unwrap();
        assert_ne!(place.token(), other.token());
        drop(place);
        assert!(!token(&directory, 1).exists() && directory.exists());
        std::fs::write(token(&directory, 3), "old").unwrap();
        let taken = Place::take_in(&directory, 3).unwrap();
        assert_ne!(std::fs::read_to_string(taken.token_file()).unwrap(), "old");
        drop((other, taken));
        assert!(!directory.exists());
    }
}
