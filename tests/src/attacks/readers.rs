//! Readers that do not read: streams, lists and single answers of large Tasks, opened and left. What waits for them is
//! shared or counted, and one client cannot take every place.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Attack;
use super::kit::{MIB, Memory, Row, Size, Victim, status_of};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "readers",
    group: "http",
    about: "readers of 40 Tasks of 128 KiB who ask and never read: events, lists, one Task",
    run,
};

const TASKS: usize = 40;

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let dev = Victim::dev(&[]).await?;
        for number in 0..TASKS {
            let script = format!("#{}\n", "x".repeat((127 << 10) + number));
            let task = json!({
                "apiVersion": "sentinelnode.dev/v1alpha1",
                "kind": "Task",
                "metadata": {"name": format!("large-{number}")},
                "spec": {"suspend": true, "targets": {"all": true}, "run": {"script": {"text": script}}},
            });
            let (status, text) = dev.ask("POST", "/api/v1/tasks", Some(&task)).await?;
            ensure!(status == 201, "the Task was not made: {status} {text}");
        }
        let readers = size.pick(100, 300);
        let mut rows = Vec::new();
        for path in ["/api/v1/events", "/api/v1/tasks?limit=500", "/api/v1/tasks/default/large-1"] {
            rows.push(unread(&dev, path, readers).await?);
        }
        rows.push(places(&dev, size).await?);
        dev.close().await;
        Ok(rows)
    }
    .boxed()
}

/// So many readers of a path that stop reading after the status line.
async fn unread(dev: &Victim, path: &str, readers: usize) -> Result<Row> {
    let sampler = dev.watch();
    let credentials = dev.credentials();
    let open = (0..readers).map(|_| open(dev.api, path, &credentials));
    let held: Vec<(TcpStream, u16)> = join_all(open).await.into_iter().flatten().collect();
    let faults = alive(dev).await;
    let accepted = held.iter().filter(|(_, status)| *status == 200).count();
    drop(held);
    Ok(row(
        format!("{readers} unread readers of {path}"),
        (accepted, readers - accepted, readers),
        sampler.finish(),
        faults,
    ))
}

/// Streams until one is refused; the socket of the same dev mode still gets one.
async fn places(dev: &Victim, size: Size) -> Result<Row> {
    let sampler = dev.watch();
    let credentials = dev.credentials();
    let tries = size.pick(520, 1_100);
    let open = (0..tries).map(|_| open(dev.api, "/api/v1/events?namespace=none", &credentials));
    let mut held: Vec<(TcpStream, u16)> = join_all(open).await.into_iter().flatten().collect();
    held.retain(|(_, status)| *status == 200);
    let mut faults = alive(dev).await;
    let accepted = held.len();
    if let Some(socket) = &dev.socket {
        let mut stream = tokio::net::UnixStream::connect(socket).await?;
        stream.write_all(b"GET /api/v1/events?namespace=none HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await?;
        if status_of(&String::from_utf8_lossy(&begin)) != Some(200) {
            faults.push("another client gets no stream".to_owned());
        }
    }
    drop(held);
    Ok(row(
        format!("{tries} streams of one client"),
        (accepted, tries - accepted, 500),
        sampler.finish(),
        faults,
    ))
}

async fn alive(dev: &Victim) -> Vec<String> {
    if dev.is_alive().await { Vec::new() } else { vec!["/healthz does not answer".to_owned()] }
}

fn row(tried: String, counts: (usize, usize, usize), memory: Memory, faults: Vec<String>) -> Row {
    let (accepted, refused, may_accept) = counts;
    Row { attack: ATTACK.name, tried, accepted, refused, may_accept, memory, bound: 48 * MIB, faults }
}

/// Sends a request, reads the status of the answer and nothing more, and returns the open connection.
pub(super) async fn open(at: SocketAddr, path: &str, credentials: &str) -> Option<(TcpStream, u16)> {
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    // So that what is not read waits at the victim, and not in our own kernel buffers.
    socket.set_recv_buffer_size(4 << 10).ok()?;
    let mut stream = socket.connect(at).await.ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\n{credentials}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.ok()?;
    let status = status_of(&String::from_utf8_lossy(&begin))?;
    Some((stream, status))
}
