//! A bound TCP port or Unix socket.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::shares::Client;
use super::stream::Transport;

/// Length of the kernel's accept queue.
const BACKLOG: u32 = 1024;

/// The address of a connection over a Unix socket, which has none.
pub(super) const UNIX_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The local address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removed when it is dropped")] SocketFile),
}

/// The file of a Unix socket, removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already, with its directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds a TCP port. Accepted connections inherit the size of its send buffer.
    pub(super) fn tcp(addr: SocketAddr, send_buffer: Option<u32>) -> Result<(Self, Local), Error> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        if let Some(bytes) = send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let local = Local::Tcp(listener.local_addr()?);
        Ok((Self::Tcp(listener), local))
    }

    /// Creates a Unix socket for this process's user and root. A stale one, to which no process listens any more, is
    /// replaced.
    pub(super) async fn unix(path: &Path) -> Result<(Self, Local), Error> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)
            }
            bound => bound,
        }?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok((Self::Unix(listener, file), Local::Unix(path.to_owned())))
    }

    /// Accepts the next connection; `None` for one that another user opened, or that is closed already.
    pub(super) async fn accept(&self) -> Result<Option<(Transport, SocketAddr, Client)>, Error> {
        match self {
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                // Without it a short response can wait 40 ms for the acknowledgement of the previous one.
                let is_open = stream.set_nodelay(true).is_ok();
                Ok(is_open.then(|| (Transport::Tcp(stream), addr, Client::from(addr))))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                let ours = uid.filter(|uid| *uid == 0 || *uid == rustix::process::geteuid().as_raw());
                Ok(ours.map(|uid| (Transport::Unix(stream), UNIX_PEER, Client::User(uid))))
            }
        }
    }
}

/// Removes the file of a Unix socket to which no process listens.
async fn remove_stale(path: &Path) -> Result<(), Error> {
    // Connecting to a regular file is refused as well, so its type is checked first.
    if !path.symlink_metadata()?.file_type().is_socket() {
        return Err(Error::new(ErrorKind::AlreadyExists, "the path exists and is not a socket"));
    }
    match tokio::net::UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}
