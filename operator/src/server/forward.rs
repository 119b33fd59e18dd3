//! Passing connections on to the operator that leads.
//!
//! Agents report to the leader alone, so a follower knows neither what runs nor what a command writes now. It passes the bytes
//! of a connection through, TLS included: the client shakes hands with the leader, which has the same certificate, and a
//! follower learns neither tokens nor output.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long connecting to the leader may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Where connections are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By this process.
    Here,
    /// By the leader at this host.
    Elsewhere(String),
    /// Nowhere now: no leader is known.
    Unknown,
}

/// Where connections are served, as it changes.
pub type Places = watch::Receiver<Place>;

/// Whether a host is this address. Two operators that take each other for the leader must not pass a connection to and fro.
pub(super) fn is_at(host: &str, address: IpAddr) -> bool {
    host.parse::<IpAddr>().is_ok_and(|host| host.to_canonical() == address.to_canonical())
}

/// Passes a connection on to the same port of another host, until either end closes.
///
/// # Errors
/// The network's, or that the host did not answer in time.
pub(super) async fn pass_on(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    port: u16,
) -> std::io::Result<()> {
    let connecting = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port)));
    let mut leader = connecting.await.map_err(|_| std::io::ErrorKind::TimedOut)??;
    leader.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut leader).await.map(drop)
}
