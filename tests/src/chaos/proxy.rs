//! The network between one agent and the operator: a small TCP proxy that can be cut, blocked in one direction, delayed or throttled.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which direction bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the operator.
    Up,
    /// From the operator to the agent.
    Down,
}

/// State of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Works.
    Normal,
    /// Existing and new connections are closed.
    Cut,
    /// Nothing arrives in either direction, and no connection is closed.
    Blackhole,
    /// Nothing arrives in this direction.
    OneWayBlackhole(Direction),
    /// Bytes arrive so much later.
    Delayed(Duration),
    /// So many bytes a second arrive.
    Throttled(u64),
}

/// A proxy. Its connections are cut when it is dropped.
pub struct Proxy {
    /// The loopback port that agents dial.
    pub port: u16,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.network.send_replace(Network::Cut);
    }
}

impl Proxy {
    /// A proxy to a loopback port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (network, seen) = watch::channel(Network::Normal);
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((near, _)) => drop(tokio::spawn(carry(near, port, seen.clone()))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Self { port: own, network, accepting }
    }

    /// Changes the state of the network.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// State of the network.
    pub fn network(&self) -> Network {
        *self.network.borrow()
    }
}

async fn carry(near: TcpStream, port: u16, network: watch::Receiver<Network>) {
    let mut cut = network.clone();
    let carried = async {
        let far = TcpStream::connect(("127.0.0.1", port)).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::try_join!(
            pump(near_in, far_out, Direction::Up, network.clone()),
            pump(far_in, near_out, Direction::Down, network),
        )
    };
    tokio::select! {
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
        _ = carried => {}
    }
}

/// Carries bytes one direction until their end, then ends that direction.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        let mut left = &buffer[..read];
        while read == 0 || !left.is_empty() {
            let now = *network.borrow_and_update();
            let part = match now {
                Network::Blackhole => None,
                Network::OneWayBlackhole(blocked) if blocked == direction => None,
                Network::Delayed(by) => {
                    tokio::time::sleep(by).await;
                    Some(left.len())
                }
                Network::Throttled(bytes) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Some(left.len().min((bytes / 10).max(1) as usize))
                }
                _ => Some(left.len()),
            };
            match part {
                Some(_) if read == 0 => return to.shutdown().await,
                Some(part) => {
                    to.write_all(&left[..part]).await?;
                    left = &left[part..];
                }
                // TCP would retransmit until it arrives or one side gives up.
                None => drop(network.changed().await),
            }
        }
    }
}
