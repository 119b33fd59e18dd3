//! What the machine can do: the same work by the plainest programs that there can be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::figures::{clock, until_printed};
use super::setup::PRINT_TIME;
use super::simulated_agents;
use super::worker::{self, Worker};
use crate::memory::cpu_seconds;

/// Roles of the plainest programs.
pub(super) const SPAWNER: &str = "spawner";
pub(super) const ECHOES: &str = "echoes";
pub(super) const SOURCE: &str = "source";
pub(super) const MIDDLE: &str = "middle";

/// Bytes that a copying program moves at once.
const BLOCK: usize = 256 << 10;

/// A child at the other end of a bare WebSocket.
pub(super) struct Spawner {
    worker: Worker,
    socket: WebSocketStream<tokio::net::TcpStream>,
}

impl Spawner {
    pub(super) async fn connect() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let worker = Worker::start(SPAWNER, &[&address]);
        let (tcp, _) = listener.accept().await.expect("the spawner");
        tcp.set_nodelay(true).expect("no delay");
        let socket = accept_async(tcp).await.expect("an upgrade");
        Self { worker, socket }
    }

    /// Messages there and back.
    pub(super) async fn round_trips(&mut self, count: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            self.ask("echo").await;
            times.push(begun.elapsed());
        }
        times
    }

    /// The floor of a dispatch: from the message to the start of the process that it asks for. With a pause before each.
    pub(super) async fn starts(&mut self, count: usize, pause: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..count {
            tokio::time::sleep(pause).await;
            let begun = clock();
            let printed = self.ask("spawn").await;
            times.push(until_printed(begun, &printed));
        }
        times
    }

    async fn ask(&mut self, what: &str) -> String {
        self.socket.send(Message::text(what)).await.expect("sent");
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(super) async fn end(self) {
        self.worker.end().await;
    }
}

/// In a child: answers a WebSocket, with what a command prints if asked to start one.
pub(super) fn spawner(arguments: &[String]) {
    worker::runtime().block_on(async {
        let tcp = tokio::net::TcpStream::connect(&arguments[0]).await.expect("a connection");
        tcp.set_nodelay(true).expect("no delay");
        let (mut socket, _) = client_async("ws://limit/", tcp).await.expect("an upgrade");
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            let answer = if text == "spawn" { spawn_and_read() } else { text.to_string() };
            socket.send(Message::text(answer)).await.expect("sent");
        }
    });
}

/// Starts the command of the dispatch figures by `posix_spawn`, and returns what it printed.
pub(super) fn spawn_and_read() -> String {
    let output = Command::new("sh").args(["-c", PRINT_TIME]).output().expect("a shell");
    String::from_utf8(output.stdout).expect("a time")
}

/// Many plain TCP connections to a child that answers.
pub(super) struct Echoes {
    worker: Worker,
    sockets: Vec<tokio::net::TcpStream>,
    message: Vec<u8>,
    answer: Vec<u8>,
}

impl Echoes {
    pub(super) async fn connect(count: usize) -> Self {
        let (there, back) = simulated_agents::sizes();
        // All of them dial at once, and one that finds the queue full waits for an answer that never comes.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(4 * count as u32).expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let [count_text, there_text, back_text] = [count, there, back].map(|number| number.to_string());
        let worker = Worker::start(ECHOES, &[&address, &count_text, &there_text, &back_text]);
        let mut sockets = Vec::new();
        for _ in 0..count {
            let (tcp, _) = listener.accept().await.expect("an echo");
            tcp.set_nodelay(true).expect("no delay");
            sockets.push(tcp);
        }
        Self { worker, sockets, message: vec![b'x'; there], answer: vec![0; back] }
    }

    /// The floor of a fan-out: a message of the size of a `Start` to each, and back of the size of the reports.
    pub(super) async fn times(&mut self, rounds: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            for socket in &mut self.sockets {
                socket.write_all(&self.message).await.expect("sent");
            }
            for socket in &mut self.sockets {
                socket.read_exact(&mut self.answer).await.expect("answered");
            }
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        times
    }

    pub(super) async fn end(self) {
        self.worker.end().await;
    }
}

/// In a child: many plain TCP connections that answer.
pub(super) fn echoes(arguments: &[String]) {
    let [count, there, back] = [1, 2, 3].map(|at| arguments[at].parse::<usize>().expect("a number"));
    worker::runtime().block_on(async {
        let mut echoes = tokio::task::JoinSet::new();
        for _ in 0..count {
            let address = arguments[0].clone();
            echoes.spawn(async move {
                let mut tcp = tokio::net::TcpStream::connect(address).await.expect("a connection");
                tcp.set_nodelay(true).expect("no delay");
                let (mut message, answer) = (vec![0; there], vec![b'y'; back]);
                while tcp.read_exact(&mut message).await.is_ok() {
                    tcp.write_all(&answer).await.expect("sent");
                }
            });
        }
        while echoes.join_next().await.is_some() {}
    });
}

/// What moving output costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) megabytes_per_second: f64,
    /// Of everything between the command and the reader.
    pub(super) cpu_seconds_per_gigabyte: f64,
}

impl Flow {
    pub(super) fn of(bytes: u64, time: Duration, cpu_seconds: f64) -> Self {
        Self {
            megabytes_per_second: bytes as f64 / 1e6 / time.as_secs_f64(),
            cpu_seconds_per_gigabyte: cpu_seconds / (bytes as f64 / 1e9),
        }
    }
}

/// A command's output through a pipe and two TCP connections, copied by two processes.
pub(super) async fn copy(command: &str, bytes: u64) -> Flow {
    let sink = TcpListener::bind("127.0.0.1:0").expect("a port");
    let sink_address = sink.local_addr().expect("an address").to_string();
    let mut middle = Worker::start(MIDDLE, &[&sink_address]);
    let middle_address: SocketAddr = middle.receive().await;
    let mut source = Worker::start(SOURCE, &[&middle_address.to_string(), command]);
    source.send(&"begin").await;
    let begun = Instant::now();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut from, _) = sink.accept().expect("the middle");
        let (mut block, mut read) = (vec![0; BLOCK], 0);
        while read < bytes {
            let more = from.read(&mut block).expect("bytes");
            assert!(more > 0, "only {read} bytes came");
            read += more as u64;
        }
    });
    reading.await.expect("read");
    let time = begun.elapsed();
    let cpu = cpu_seconds(source.pid()) + cpu_seconds(middle.pid());
    source.end().await;
    middle.end().await;
    Flow::of(bytes, time, cpu)
}

/// The lines of a command through the same processes, each as it comes.
pub(super) async fn lines(command: &str, mut on_line: impl FnMut(&str)) {
    let sink = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let sink_address = sink.local_addr().expect("an address").to_string();
    let mut middle = Worker::start(MIDDLE, &[&sink_address]);
    let middle_address: SocketAddr = middle.receive().await;
    let mut source = Worker::start(SOURCE, &[&middle_address.to_string(), command]);
    source.send(&"begin").await;
    let (from, _) = sink.accept().await.expect("the middle");
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await.expect("a line") {
        on_line(&line);
    }
    source.end().await;
    middle.end().await;
}

/// From the request to the first byte of a command's output, through the same processes.
pub(super) async fn first_byte(command: &str) -> Duration {
    let sink = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let sink_address = sink.local_addr().expect("an address").to_string();
    let mut middle = Worker::start(MIDDLE, &[&sink_address]);
    let middle_address: SocketAddr = middle.receive().await;
    let mut source = Worker::start(SOURCE, &[&middle_address.to_string(), command]);
    let (mut from, _) = sink.accept().await.expect("the middle");
    let begun = Instant::now();
    source.send(&"begin").await;
    from.read_u8().await.expect("a byte");
    let time = begun.elapsed();
    source.end().await;
    middle.end().await;
    time
}

/// In a child: from a command's pipe to TCP.
#[allow(clippy::zombie_processes, reason = "this process ends right after, and init waits")]
pub(super) fn source(arguments: &[String]) {
    let to = TcpStream::connect(&arguments[0]).expect("a connection");
    let _: String = worker::read_line();
    let command =
        Command::new("sh").args(["-c", &arguments[1]]).stdout(Stdio::piped()).spawn().expect("a shell");
    let from = command.stdout.expect("its output");
    fcntl(&from, FcntlArg::F_SETPIPE_SZ(1 << 20)).expect("a larger pipe");
    pour(from, to);
    wait_for_the_end();
}

/// In a child: from TCP to TCP.
pub(super) fn middle(arguments: &[String]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    worker::write_line(&listener.local_addr().expect("an address"));
    let (from, _) = listener.accept().expect("the source");
    pour(from, TcpStream::connect(&arguments[0]).expect("a connection"));
    wait_for_the_end();
}

fn pour(mut from: impl Read, mut to: impl Write) {
    let mut block = vec![0; BLOCK];
    loop {
        let read = from.read(&mut block).expect("bytes");
        if read == 0 {
            return;
        }
        to.write_all(&block[..read]).expect("taken");
    }
}

/// The parent still wants to read what we used.
fn wait_for_the_end() {
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
}
