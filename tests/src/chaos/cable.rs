//! The network between one agent and the operator: a small TCP proxy that can be cut, made deaf in one direction, slow.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the agent to the operator.
    Up,
    /// From the operator to the agent.
    Down,
}

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// As it should be.
    Clear,
    /// Connections are closed, and new ones too.
    Cut,
    /// Nothing arrives, in neither direction, and nobody is told.
    Silent,
    /// Nothing arrives in this direction.
    Deaf(Way),
    /// Whatever arrives, arrives so much later.
    Late(Duration),
    /// So many bytes a second arrive.
    Trickle(u64),
}

/// A cable. Unplugged when it is dropped.
pub struct Cable {
    /// The loopback port that agents dial.
    pub port: u16,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.accepting.abort();
        self.weather.send_replace(Weather::Cut);
    }
}

impl Cable {
    /// A cable to a loopback port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (weather, seen) = watch::channel(Weather::Clear);
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((near, _)) => drop(tokio::spawn(carry(near, port, seen.clone()))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Self { port: own, weather, accepting }
    }

    /// Changes how the network is.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How the network is.
    pub fn weather(&self) -> Weather {
        *self.weather.borrow()
    }
}

async fn carry(near: TcpStream, port: u16, weather: watch::Receiver<Weather>) {
    let mut cut = weather.clone();
    let carried = async {
        let far = TcpStream::connect(("127.0.0.1", port)).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::try_join!(
            pump(near_in, far_out, Way::Up, weather.clone()),
            pump(far_in, near_out, Way::Down, weather),
        )
    };
    tokio::select! {
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
        _ = carried => {}
    }
}

/// Carries bytes one way until their end, then ends that way.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        let mut left = &buffer[..read];
        while read == 0 || !left.is_empty() {
            let now = *weather.borrow_and_update();
            let part = match now {
                Weather::Silent => None,
                Weather::Deaf(deaf) if deaf == way => None,
                Weather::Late(by) => {
                    tokio::time::sleep(by).await;
                    Some(left.len())
                }
                Weather::Trickle(bytes) => {
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
                // What does not arrive is sent again by TCP until it does, or until somebody gives up.
                None => drop(weather.changed().await),
            }
        }
    }
}
