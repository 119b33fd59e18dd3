//! A crowd of HTTP readers in a process of its own: they read all that comes, or nothing behind the status line.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::worker::{self, Worker};

/// The role of the crowd.
pub(super) const CROWD: &str = "crowd";

/// What readers do with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Manner {
    /// They read nothing behind the status line, and keep the connection.
    Stall,
    /// They read all of it.
    Read,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    address: String,
    paths: Vec<String>,
    manner: Manner,
}

/// What the readers of a crowd have read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Bytes of all answers, with heads and framing.
    pub(super) bytes: u64,
    /// From the first connection to the end of the last answer.
    pub(super) time: Duration,
}

/// Readers, connected.
pub(super) struct Crowd(Worker);

impl Crowd {
    /// A reader for each path; returns when the operator has answered all of them.
    pub(super) async fn gather(address: &str, paths: Vec<String>, manner: Manner) -> Self {
        let mut worker = Worker::start(CROWD, &[]);
        let count = paths.len();
        worker.send(&Request { address: address.to_owned(), paths, manner }).await;
        let accepted: usize = worker.receive().await;
        assert_eq!(accepted, count, "the operator refused some of the readers");
        Self(worker)
    }

    /// Waits until those that read have read everything.
    pub(super) async fn taken(&mut self) -> Taken {
        self.0.receive().await
    }

    /// Disconnects all.
    pub(super) async fn disperse(self) {
        self.0.end().await;
    }
}

/// In a child: the readers.
pub(super) fn run() {
    let Request { address, paths, manner } = worker::read_line();
    worker::runtime().block_on(async {
        let begun = Instant::now();
        let mut connecting = tokio::task::JoinSet::new();
        for path in paths {
            connecting.spawn(open(address.clone(), path, manner));
        }
        let mut held: Vec<TcpStream> = connecting.join_all().await.into_iter().flatten().collect();
        worker::write_line(&held.len());
        if manner == Manner::Read {
            let mut reading = tokio::task::JoinSet::new();
            for stream in held.drain(..) {
                reading.spawn(read(stream));
            }
            let bytes = reading.join_all().await.into_iter().sum();
            worker::write_line(&Taken { bytes, time: begun.elapsed() });
        }
        std::future::pending::<()>().await;
    });
}

/// A connection whose answer has begun; `None` when the operator refused it.
async fn open(address: String, path: String, manner: Manner) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    if manner == Manner::Stall {
        // What is not read waits at the operator, and not in the kernel's buffers of the reader.
        socket.set_recv_buffer_size(4 << 10).ok()?;
    }
    let mut stream = socket.connect(address.parse().ok()?).await.ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.ok()?;
    (&status == b"HTTP/1.1 200").then_some(stream)
}

async fn read(mut stream: TcpStream) -> u64 {
    let (mut block, mut all) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut block).await {
            Ok(0) | Err(_) => return all,
            Ok(more) => all += more as u64,
        }
    }
}
