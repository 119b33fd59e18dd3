//! Simulated agents: they speak the protocol and run nothing; a command ends as soon as it is started.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sentinel_node_agent::{ReconnectBackoff, Timing};
use sentinel_protocol::codec::{decode_text, encode_text};
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash, TaskRef};
use sentinel_protocol::limits::HEARTBEAT_MS;
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::{Deadlines, Environment, Program, RunRequest};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{
    Ended, Heartbeat, Hello, Inventory, OutputSummary, Report, ReportedState, Running, ToOperator, Usage,
};
use sentinel_protocol::version::SPOKEN;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::figures::clock;
use super::setup::Setup;
use super::worker::{self, Worker};

/// The role of the agents.
pub(super) const SIMULATED_AGENTS: &str = "simulated-agents";

/// Loopback addresses that agents dial from.
const SOURCES: usize = 64;

type Socket = WebSocketStream<TcpStream>;

/// What an agent does when its connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WhenLost {
    /// All of them end: nothing was to be lost.
    End,
    /// It dials again, as a real one does.
    Dial,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    gateway: SocketAddr,
    tokens: Vec<String>,
    when_lost: WhenLost,
}

/// An agent for each node of an operator, in a child process, connected.
pub(super) async fn connect(setup: &Setup) -> Worker {
    begin(setup, WhenLost::End).await
}

/// The same, in a process that writes a line whenever all of them are connected again.
pub(super) async fn keep_connected(setup: &Setup) -> Worker {
    begin(setup, WhenLost::Dial).await
}

async fn begin(setup: &Setup, when_lost: WhenLost) -> Worker {
    let tokens = setup.tokens();
    let count = tokens.len();
    let mut agents = Worker::start(SIMULATED_AGENTS, &[]);
    agents.send(&Request { gateway: setup.addresses.gateway, tokens, when_lost }).await;
    let connected: usize = agents.receive().await;
    assert_eq!(connected, count, "not every simulated agent is connected");
    agents
}

/// In a worker: an agent for each token.
pub(super) fn run() {
    let Request { gateway, tokens, when_lost } = worker::read_line();
    worker::runtime().block_on(async {
        let count = tokens.len();
        let (changes_in, mut changes) = mpsc::channel(64);
        for (at, token) in tokens.into_iter().enumerate() {
            let first_beat = Duration::from_millis(HEARTBEAT_MS * at as u64 / count as u64);
            let agent = Agent { gateway, token, at, first_beat, hello: hello(), changes: changes_in.clone() };
            tokio::spawn(agent.run(when_lost));
        }
        let mut connected = 0;
        loop {
            match changes.recv().await.expect("agents") {
                Change::Connected => connected += 1,
                Change::Lost if when_lost == WhenLost::Dial => connected -= 1,
                Change::Lost => panic!("an agent has lost its connection"),
            }
            if connected == count {
                worker::write_line(&count);
            }
        }
    });
}

/// Of the connection of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Connected,
    Lost,
}

struct Agent {
    gateway: SocketAddr,
    token: String,
    at: usize,
    first_beat: Duration,
    hello: Hello,
    changes: mpsc::Sender<Change>,
}

impl Agent {
    /// Keeps a Session, as `node-agent/src/link/reconnect.rs` does.
    async fn run(self, when_lost: WhenLost) {
        let mut backoff = ReconnectBackoff::new(Timing::default());
        loop {
            let begun = std::time::Instant::now();
            if let Ok(socket) = self.dial().await
                && self.session(socket).await == Change::Connected
            {
                self.change(Change::Lost).await;
                if when_lost == WhenLost::End {
                    return;
                }
            }
            backoff.settle(begun.elapsed());
            tokio::time::sleep(backoff.next(fastrand::f64())).await;
        }
    }

    async fn change(&self, change: Change) {
        self.changes.send(change).await.expect("the counter runs");
    }

    /// A Session until its end; whether it was established.
    async fn session(&self, mut socket: Socket) -> Change {
        let mut reached = Change::Lost;
        let mut beats = tokio::time::interval_at(
            tokio::time::Instant::now() + self.first_beat,
            Duration::from_millis(HEARTBEAT_MS),
        );
        let mut sent = send(&mut socket, &[ToOperator::Hello(self.hello.clone())]).await;
        while sent.is_ok() {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                _ = beats.tick() => {
                    let beat = Heartbeat { at: now(), metrics: NodeMetrics::default(), audit: None };
                    sent = send(&mut socket, &[ToOperator::Heartbeat(beat)]).await;
                    continue;
                }
            };
            match frame {
                Some(Ok(Message::Text(text))) => sent = answer(&mut socket, &text).await,
                Some(Ok(Message::Pong(_))) if reached == Change::Lost => {
                    reached = Change::Connected;
                    self.change(reached).await;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
        reached
    }

    /// From one of several addresses, as a fleet does: each may have so many connections that are not authenticated, and so
    /// many ports.
    async fn dial(&self) -> Result<Socket, tungstenite::Error> {
        let url = format!("ws://{}/agent/v1/control", self.gateway);
        let mut request = url.into_client_request().expect("a request");
        let bearer = format!("Bearer {}", self.token).parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        let socket = TcpSocket::new_v4()?;
        let source = 2 + (self.at % SOURCES) as u8;
        socket.bind(SocketAddr::from(([127, 0, 0, source], 0)))?;
        let tcp = socket.connect(self.gateway).await?;
        tcp.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(4096);
        Ok(client_async_with_config(request, tcp, Some(config)).await?.0)
    }
}

async fn answer(socket: &mut Socket, text: &str) -> Result<(), tungstenite::Error> {
    match decode_text(text).expect("a message") {
        ToAgent::Welcome(_) => {
            let inventory = Inventory { attempts: vec![], more: false, sealing_key: None };
            send(socket, &[ToOperator::Inventory(inventory)]).await?;
            // Answered once the gateway has read the previous messages.
            socket.send(Message::Ping(Bytes::new())).await
        }
        ToAgent::Start(start) => send(socket, &answers(&start)).await,
        ToAgent::Refuse(refusal) => panic!("refused: {refusal}"),
        _ => Ok(()),
    }
}

async fn send(socket: &mut Socket, messages: &[ToOperator]) -> Result<(), tungstenite::Error> {
    for message in messages {
        socket.feed(Message::text(encode_text(message).expect("a message"))).await?;
    }
    socket.flush().await
}

fn now() -> UnixMillis {
    UnixMillis((clock() / 1_000_000) as i64)
}

/// The Hello of a simulated agent.
pub(crate) fn hello() -> Hello {
    Hello {
        versions: SPOKEN.to_vec(),
        agent_version: "bench".into(),
        boot_id: "boot".into(),
        state_id: uuid::Uuid::new_v4().to_string().into(),
        highest_epoch: Epoch::ZERO,
        environments: vec![Environment::Container],
        os: "linux".into(),
        arch: "amd64".into(),
        kernel: "none".into(),
    }
}

/// An agent's reports of a command that ends at once.
pub(crate) fn answers(start: &Start) -> [ToOperator; 2] {
    let report = |state| {
        let (attempt, spec_hash) = (start.attempt.clone(), start.spec_hash.clone());
        ToOperator::Report(Box::new(Report { attempt, spec_hash, state }))
    };
    let ended = Ended {
        outcome: Outcome::Succeeded { exit_code: 0 },
        started_at: Some(now()),
        ended_at: now(),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: sentinel_protocol::exit::ExitDetails::default(),
    };
    let running = Running { started_at: now(), pid: 1 };
    [report(ReportedState::Running(running)), report(ReportedState::Ended(Box::new(ended)))]
}

/// A `Start` like those of a Task that runs `sh -c <command>`.
pub(super) fn start(node: &str, run: u32, command: &str) -> Start {
    let attempt: AttemptId =
        format!("{}/{run}/{node}/1", uuid::Uuid::new_v4()).parse().expect("an Attempt's id");
    let start = Start::new(
        attempt,
        SpecHash::new("0".repeat(64)).expect("a hash"),
        Epoch::from(1),
        TaskRef::new("default", "bench").unwrap(),
        RunRequest::new(Program::Command(["sh", "-c", command].map(str::to_owned).to_vec())),
        Deadlines { start_ms: 300_000, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 10_000 },
    );
    Start { credit: 64 << 10, ..start }
}

/// Bytes of a `Start`, and of the answers to it, as WebSocket frames have them: what the plain fan-out sends.
pub(super) fn sizes() -> (usize, usize) {
    let start = start("node-1000", 1, "true");
    let answers = answers(&start);
    let there = encode_text(&ToAgent::Start(Box::new(start))).expect("a message").len() + 4;
    let back = answers.iter().map(|answer| encode_text(answer).expect("a message").len() + 8).sum();
    (there, back)
}
