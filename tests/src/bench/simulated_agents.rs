//! Simulated agents: they speak the protocol and run nothing; a command ends as soon as it is started.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{decode_text, encode_text};
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash, TaskRef};
use sentinel_protocol::limits::HEARTBEAT_MS;
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::{Deadlines, Environment, OutputRules, Program, RunRequest};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{
    Ended, Heartbeat, Hello, Inventory, OutputSummary, Report, ReportedState, Running, ToOperator, Usage,
};
use sentinel_protocol::version::SPOKEN;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::figures::clock;
use super::setup::Addresses;
use super::worker::{self, Worker};

/// The role of the agents.
pub(super) const SIMULATED_AGENTS: &str = "simulated-agents";

type Socket = WebSocketStream<TcpStream>;

/// A agents in a child process, connected.
pub(super) async fn connect(addresses: &Addresses) -> Worker {
    let mut agents = Worker::start(SIMULATED_AGENTS, &[&addresses.gateway.to_string()]);
    agents.send(&addresses.tokens.values().collect::<Vec<_>>()).await;
    let connected: usize = agents.receive().await;
    assert_eq!(connected, addresses.tokens.len(), "not every simulated agent is connected");
    agents
}

/// In a worker: an agent for each token.
pub(super) fn run(arguments: &[String]) {
    let gateway: SocketAddr = arguments[0].parse().expect("an address");
    let tokens: Vec<String> = worker::read_line();
    worker::runtime().block_on(async {
        let count = tokens.len();
        let (connected_in, mut connected) = mpsc::channel(64);
        let mut agents = tokio::task::JoinSet::new();
        for (at, token) in tokens.into_iter().enumerate() {
            let first_beat = Duration::from_millis(HEARTBEAT_MS * at as u64 / count as u64);
            agents.spawn(agent(gateway, token, first_beat, connected_in.clone()));
        }
        for _ in 0..count {
            connected.recv().await.expect("an agent");
        }
        worker::write_line(&count);
        agents.join_next().await.expect("an agent").expect("an agent that lives");
        panic!("an agent has lost its connection");
    });
}

async fn agent(gateway: SocketAddr, token: String, first_beat: Duration, connected: mpsc::Sender<()>) {
    let mut socket = dial(gateway, &token).await;
    send(&mut socket, &[ToOperator::Hello(hello())]).await;
    let mut beats = tokio::time::interval_at(
        tokio::time::Instant::now() + first_beat,
        Duration::from_millis(HEARTBEAT_MS),
    );
    loop {
        let frame = tokio::select! {
            frame = socket.next() => frame,
            _ = beats.tick() => {
                let beat = Heartbeat { at: now(), metrics: NodeMetrics::default() };
                send(&mut socket, &[ToOperator::Heartbeat(beat)]).await;
                continue;
            }
        };
        match frame {
            Some(Ok(Message::Text(text))) => match decode_text(&text).expect("a message") {
                ToAgent::Welcome(_) => {
                    send(&mut socket, &[ToOperator::Inventory(Inventory { attempts: vec![], more: false })])
                        .await;
                    // Answered once the gateway has read the previous messages.
                    socket.send(Message::Ping(Bytes::new())).await.expect("sent");
                }
                ToAgent::Start(start) => send(&mut socket, &answers(&start)).await,
                ToAgent::Refuse(refusal) => panic!("refused: {refusal}"),
                _ => {}
            },
            Some(Ok(Message::Pong(_))) => connected.send(()).await.expect("the counter runs"),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

async fn dial(gateway: SocketAddr, token: &str) -> Socket {
    let mut request = format!("ws://{gateway}/agent/v1/control").into_client_request().expect("a request");
    let bearer = format!("Bearer {token}").parse().expect("a header");
    request.headers_mut().insert("authorization", bearer);
    let tcp = TcpStream::connect(gateway).await.expect("a connection");
    tcp.set_nodelay(true).expect("no delay");
    let config = WebSocketConfig::default().read_buffer_size(4096);
    client_async_with_config(request, tcp, Some(config)).await.expect("an upgrade").0
}

async fn send(socket: &mut Socket, messages: &[ToOperator]) {
    for message in messages {
        let text = encode_text(message).expect("a message");
        socket.feed(Message::text(text)).await.expect("sent");
    }
    socket.flush().await.expect("sent");
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
    Start {
        attempt,
        spec_hash: SpecHash::new("0".repeat(64)).expect("a hash"),
        epoch: Epoch::from(1),
        task: TaskRef::new("default", "bench").unwrap(),
        request: RunRequest {
            program: Program::Command(["sh", "-c", command].map(str::to_owned).to_vec()),
            env: vec![],
            working_dir: "/".into(),
            user: None,
            group: None,
            umask: 0o022,
            stdin: String::new(),
            environment: Environment::Container,
            success_exit_codes: vec![0],
            output: OutputRules { limit: 1 << 30, spool: 64 << 20, max_block_ms: 30_000, merge: false },
            limits: sentinel_protocol::request::ResourceLimits::default(),
            leftovers: sentinel_protocol::request::Leftovers::End,
        },
        deadlines: Deadlines {
            start_ms: 300_000,
            run_ms: None,
            idle_ms: None,
            total_ms: None,
            grace_ms: 10_000,
        },
        credit: 64 << 10,
        offer: 0,
        trace: None,
    }
}

/// Bytes of a `Start`, and of the answers to it, as WebSocket frames have them: what the plain fan-out sends.
pub(super) fn sizes() -> (usize, usize) {
    let start = start("node-1000", 1, "true");
    let answers = answers(&start);
    let there = encode_text(&ToAgent::Start(Box::new(start))).expect("a message").len() + 4;
    let back = answers.iter().map(|answer| encode_text(answer).expect("a message").len() + 8).sum();
    (there, back)
}
