//! The processes of a peer.

use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bench::figures::until_printed;
use crate::bench::limits::Flow;
use crate::bench::worker::Worker;
use crate::cluster::repository;
use crate::memory::cpu_seconds;
use crate::ports::free_port;
use crate::wait::until;

const FOLDER: &str = "tests/bench-peers";

/// What a peer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// A master, and workers that are connected to it.
    SocketIo,
    /// Workers of a broker.
    Nats,
}

impl Library {
    const fn file(self) -> &'static str {
        match self {
            Self::SocketIo => "socketio",
            Self::Nats => "nats",
        }
    }
}

/// The names of the peers with their versions, as a heading has them.
pub(super) fn versions() -> [String; 2] {
    let package = |name: &str| {
        let path = repository().join(FOLDER).join("node_modules").join(name).join("package.json");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let package: Value = serde_json::from_str(&text).expect("JSON");
        package["version"].as_str().expect("a version").to_owned()
    };
    let program = |name: &str| {
        let output = Command::new(name).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.rsplit([' ', 'v']).next().unwrap_or_default().to_owned()
    };
    let node = program("node");
    let broker = program("nats-server");
    [
        format!("socket.io {}, Node {node}", package("socket.io")),
        format!("NATS {broker}, client {}", package("@nats-io/transport-node")),
    ]
}

/// A peer: its master or broker, a client, and workers.
pub(super) struct Peer {
    library: Library,
    port: String,
    middle: Worker,
    client: Worker,
    workers: Option<Worker>,
    tasks: usize,
}

/// What a client answers: milliseconds since the Unix epoch, and the output of the task.
#[derive(Debug, Deserialize)]
struct Answer {
    begun: f64,
    ended: f64,
    bytes: u64,
    text: String,
}

impl Peer {
    /// Without workers.
    pub(super) async fn start(library: Library) -> Self {
        let port = free_port().to_string();
        let middle = match library {
            Library::SocketIo => role(library, &["master", &port]).await,
            Library::Nats => {
                Worker::start_other("nats-server", &["-a", "127.0.0.1", "-p", &port, "-l", "/dev/null"])
            }
        };
        let address = format!("127.0.0.1:{port}");
        until("the broker answers", Duration::from_secs(10), || tokio::net::TcpStream::connect(&address))
            .await;
        let client = role(library, &["client", &port]).await;
        Self { library, port, middle, client, workers: None, tasks: 0 }
    }

    /// Of the master or broker.
    pub(super) fn pid(&self) -> u32 {
        self.middle.pid()
    }

    /// Adds a worker that starts commands.
    pub(super) async fn worker(&mut self) {
        self.workers = Some(role(self.library, &["worker", &self.port]).await);
    }

    /// Adds workers whose commands end at once, in one process.
    pub(super) async fn fakes(&mut self, count: usize) {
        self.workers = Some(role(self.library, &["fakes", &self.port, &count.to_string()]).await);
    }

    /// From the request to the start of the process. With a pause before each.
    pub(super) async fn starts(&mut self, rounds: usize, pause: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            tokio::time::sleep(pause).await;
            let Answer { begun, text, .. } = self.run("date +%s%N", "worker-0", 1).await;
            times.push(until_printed((begun * 1e6) as u128, &text));
        }
        times
    }

    /// From the request to the end of it on all workers.
    pub(super) async fn fan_out(&mut self, rounds: usize, workers: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(time(&self.run("true", "all", workers).await));
            // As long as ours is left alone.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        times
    }

    /// The output of a command, to the client.
    pub(super) async fn output(&mut self, command: &str, bytes: u64) -> Flow {
        let pids = [self.middle.pid(), self.workers.as_ref().expect("a worker").pid()];
        let used = || pids.map(cpu_seconds).iter().sum::<f64>();
        let before = used();
        let answer = self.run(command, "worker-0", 1).await;
        assert_eq!(answer.bytes, bytes, "{:?} lost output", self.library);
        Flow::of(bytes, time(&answer), used() - before)
    }

    async fn run(&mut self, command: &str, target: &str, workers: usize) -> Answer {
        self.tasks += 1;
        let id = format!("task-{}", self.tasks);
        let task = json!({"id": id, "command": command, "target": target, "workers": workers});
        self.client.send(&task).await;
        self.client.receive().await
    }

    pub(super) async fn end(self) {
        for process in [Some(self.client), self.workers, Some(self.middle)].into_iter().flatten() {
            process.end().await;
        }
    }
}

fn time(answer: &Answer) -> Duration {
    Duration::from_secs_f64((answer.ended - answer.begun) / 1e3)
}

/// A process of `peer.js`, once it is ready.
async fn role(library: Library, arguments: &[&str]) -> Worker {
    let program = repository().join(FOLDER).join("peer.js").display().to_string();
    let mut worker = Worker::start_other("node", &[&[&*program, library.file()], arguments].concat());
    let ready: bool = worker.receive().await;
    assert!(ready, "{library:?} is not ready");
    worker
}
