//! Who owns the server at the other end of a connection to this machine.
//!
//! A Unix socket carries the credentials of its peer. Over TCP any user can have taken the port, but the kernel's
//! socket table names the owner of the listener: it must be this user or root, or nothing is sent.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The effective user id of this process.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A server that exists and that this client refuses to send anything to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Untrusted(String);

pub(super) fn untrusted(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::PermissionDenied, Untrusted(why.into()))
}

fn foreign(uid: u32) -> Error {
    untrusted(format!("the server belongs to user {uid}, not to you or root, so nothing was sent to it"))
}

/// Whether a server of this user may be trusted: it is this process's user, or root.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == effective_uid()
}

/// Refuses a server of another user at the other end of a Unix socket.
///
/// # Errors
/// When it is another user's, or the kernel does not report its owner.
pub(super) fn check_socket(stream: &tokio::net::UnixStream) -> Result<()> {
    match stream.peer_cred()?.uid() {
        uid if is_trusted(uid) => Ok(()),
        uid => Err(foreign(uid)),
    }
}

/// Refuses a server of another user at the other end of a TCP connection within this machine.
///
/// # Errors
/// When it is another user's, or the kernel does not report its owner.
pub(super) fn check_tcp(ours: SocketAddr, theirs: SocketAddr) -> Result<()> {
    let mut is_known = false;
    for socket in tcp_sockets()? {
        // A connection that is not accepted yet has no owner, while its listener still exists.
        let is_theirs = socket.is_bound_to(theirs) && socket.remote == ours && socket.inode != 0;
        if is_theirs || (socket.listens && socket.is_bound_to(theirs)) {
            if !is_trusted(socket.uid) {
                return Err(foreign(socket.uid));
            }
            is_known = true;
        }
    }
    if is_known {
        Ok(())
    } else {
        Err(untrusted("the kernel does not name the owner of the server, so nothing was sent to it"))
    }
}

/// The users that listen at an address of this machine.
pub fn listeners(at: SocketAddr) -> Vec<u32> {
    let sockets = tcp_sockets().unwrap_or_default();
    sockets
        .iter()
        .filter(|socket| socket.listens && socket.is_bound_to(at))
        .map(|socket| socket.uid)
        .collect()
}

/// A line of the kernel's socket tables. Source: <https://docs.kernel.org/networking/proc_net_tcp.html>.
#[derive(Debug, PartialEq)]
struct TcpSocket {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
    uid: u32,
    inode: u64,
}

impl TcpSocket {
    /// Whether its local end is at this address, or at the wildcard address.
    fn is_bound_to(&self, at: SocketAddr) -> bool {
        let ip = self.local.ip();
        self.local.port() == at.port() && (ip == at.ip().to_canonical() || ip.is_unspecified())
    }

    fn parse(line: &str) -> Option<Self> {
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

fn tcp_sockets() -> Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for (table, is_needed) in [("/proc/net/tcp", true), ("/proc/net/tcp6", false)] {
        match std::fs::read_to_string(table) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(TcpSocket::parse)),
            Err(error) if is_needed => return Err(Error::new(error.kind(), format!("{table}: {error}"))),
            // A kernel without IPv6 has none.
            Err(_) => {}
        }
    }
    Ok(sockets)
}

/// An address as the tables have it: groups of 32 bits in the byte order of the machine, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let group = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(group(0)?)),
        32 => {
            let groups = [group(0)?, group(8)?, group(16)?, group(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(groups).ok()?)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_table_names_owner_and_address_of_a_listener() {
        let socket = TcpSocket::parse(
            "   1: 0100007F:1F2C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 61216 1 0000000000000000 100 0 0 10 0",
        )
        .unwrap();
        assert_eq!((socket.listens, socket.uid, socket.inode), (true, 1000, 61216));
        assert!(socket.is_bound_to("127.0.0.1:7980".parse().unwrap()));
        assert!(!socket.is_bound_to("127.0.0.2:7980".parse().unwrap()));
        assert!(!socket.is_bound_to("127.0.0.1:7981".parse().unwrap()));
        let any = address("00000000000000000000000000000000:1F2C").unwrap();
        assert_eq!(any, "[::]:7980".parse().unwrap());
        let mapped = address("0000000000000000FFFF00000100007F:0050").unwrap();
        assert_eq!(mapped, "127.0.0.1:80".parse().unwrap());
        assert_eq!(TcpSocket::parse("  sl  local_address rem_address"), None);
    }

    #[test]
    fn own_server_is_trusted_and_a_closed_port_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(at).unwrap();
        let ours = stream.local_addr().unwrap();
        check_tcp(ours, at).unwrap();
        assert_eq!(listeners(at), [effective_uid()]);
        // A server that accepted the connection and stopped listening is still known by it.
        let accepted = listener.accept().unwrap();
        drop(listener);
        check_tcp(ours, at).unwrap();
        drop((accepted, stream));
        assert!(check_tcp("127.0.0.1:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap()).is_err());
    }
}
