//! A gateway on a real port, and scripted agents.

#![allow(dead_code, reason = "each test binary uses its own part of the fixtures")]

mod ledgers;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sentinel_operator::audit::Audit;
use sentinel_operator::clock::Clock;
use sentinel_operator::gateway::{
    Authenticate, Gateway, GatewayParts, OUTPUT_WITHIN, Registry, Results, ResultsParts, Settings,
    StaticTokens, routes,
};
use sentinel_operator::history::History;
use sentinel_operator::history::archive::{Archiver, ArchiverOptions};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::logs::{Hub, HubRules, LogReader};
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::presence::PresenceRecord;
use sentinel_operator::server::{Exposure, Limits, Server};
use sentinel_protocol::codec::encode_record;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, SessionId, SpecHash};
use sentinel_protocol::log::{LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::Environment;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::{
    Ended, Hello, Inventory, OutputSummary, Report, ReportedState, StreamSummary, ToOperator, Usage,
};
use sentinel_protocol::version::Version;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

#[allow(unused_imports, reason = "each test binary uses its own part of the fixtures")]
pub(crate) use self::ledgers::{LedgerCall, RecordingLedgers};

/// Everything behind the port.
pub(crate) struct World {
    pub(crate) addr: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) registry: Registry,
    pub(crate) ledgers: Arc<RecordingLedgers>,
    pub(crate) hub: Hub,
    pub(crate) history: Arc<dyn History>,
    pub(crate) reader: LogReader,
    pub(crate) tokens: StaticTokens,
    pub(crate) metrics: Metrics,
    pub(crate) presence: Arc<Mutex<HashMap<NodeName, PresenceRecord>>>,
    pub(crate) stop: CancellationToken,
    _directory: tempfile::TempDir,
}

/// What differs from the defaults in a test.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) auth: Option<Arc<dyn Authenticate>>,
    pub(crate) history: Option<Arc<dyn History>>,
    pub(crate) rules: HubRules,
    pub(crate) archiver: ArchiverOptions,
    /// How long output may make no progress before it is given up.
    pub(crate) output_within: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) audit: Audit,
}

/// Timeouts short enough for tests.
pub(crate) fn short_timeouts() -> Settings {
    Settings {
        heartbeat: Duration::from_millis(100),
        dead_after: Duration::from_millis(600),
        hello_within: Duration::from_millis(400),
        review_every: Duration::from_millis(200),
        room_within: Duration::from_millis(300),
    }
}

pub(crate) async fn world(setup: Setup) -> World {
    let directory = tempfile::tempdir().unwrap();
    let history = setup.history.unwrap_or_else(|| {
        let path = directory.path().join("history.db");
        Arc::new(EmbeddedHistory::open(path, EmbeddedOptions::default()).unwrap())
    });
    history.prepare().await.unwrap();
    let (metrics, registry) = (Metrics::new(), Registry::new());
    let ledgers = Arc::new(RecordingLedgers::default());
    let (done, archived) = mpsc::channel(1024);
    let (archiver, archiving) = Archiver::new(history.clone(), setup.archiver, done);
    tokio::spawn(archiving.run());
    let hub = Hub::new(archiver.clone(), setup.rules, &metrics);
    let (results, work) = Results::new(ResultsParts {
        archiver,
        archived,
        history: history.clone(),
        ledgers: ledgers.clone(),
        registry: registry.clone(),
        hub: hub.clone(),
        output_within: setup.output_within.unwrap_or(OUTPUT_WITHIN),
        metrics: metrics.clone(),
    });
    tokio::spawn(work.run());
    let (tokens, presence) = (StaticTokens::new(), Arc::new(Mutex::new(HashMap::new())));
    let mirrored = presence.clone();
    let gateway = Gateway::new(GatewayParts {
        settings: setup.settings,
        auth: setup.auth.unwrap_or_else(|| Arc::new(tokens.clone())),
        registry: registry.clone(),
        ledgers: ledgers.clone(),
        results,
        hub: hub.clone(),
        presence: Box::new(move |record: PresenceRecord| {
            mirrored.lock().unwrap().insert(record.node.clone(), record);
        }),
        audit: setup.audit,
        clock: Clock::system(),
        metrics: metrics.clone(),
    });
    let (addr, stop) = listen(&gateway, setup.limits, &metrics).await;
    let reader = LogReader::new(hub.clone(), history.clone(), registry.clone());
    World {
        addr,
        gateway,
        registry,
        ledgers,
        hub,
        history,
        reader,
        tokens,
        metrics,
        presence,
        stop,
        _directory: directory,
    }
}

/// Serves the gateway on a free port.
async fn listen(gateway: &Gateway, limits: Limits, metrics: &Metrics) -> (SocketAddr, CancellationToken) {
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind("gateway", any, Exposure::NO_TOKEN_REVIEW, limits, metrics).await.unwrap();
    let (addr, stop) = (server.local_addr(), CancellationToken::new());
    tokio::spawn(server.serve(warp::service(routes::agent(gateway.clone())), stop.clone()));
    (addr, stop)
}

impl World {
    pub(crate) fn counter(&self, series: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// An agent with a Session and a complete, empty Inventory.
    pub(crate) async fn agent(&self, node: &str) -> Agent {
        let mut agent = self.dial(node).await;
        agent.send_json(&ToOperator::Hello(hello())).await;
        agent.welcome = Some(agent.expect_welcome().await);
        agent
            .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
            .await;
        let name = node_name(node);
        eventually("the session is active", || self.registry.active_session(&name).is_some()).await;
        agent
    }

    /// A control socket on which nothing was sent yet.
    pub(crate) async fn dial(&self, node: &str) -> Agent {
        let token = self.tokens.issue(&node_name(node));
        Agent::dial(self.addr, routes::CONTROL_PATH, &token).await.unwrap()
    }

    /// A log socket that belongs to the Session of an agent.
    pub(crate) async fn log_socket(&self, agent: &Agent, node: &str) -> Agent {
        self.log_socket_of(agent.session(), node).await
    }

    /// A log socket that belongs to this Session.
    pub(crate) async fn log_socket_of(&self, session: SessionId, node: &str) -> Agent {
        let token = self.tokens.issue(&node_name(node));
        let mut socket = Agent::dial(self.addr, routes::LOGS_PATH, &token).await.unwrap();
        socket.send_json(&LogControl::Hello { session }).await;
        socket
    }
}

/// A scripted agent: one socket.
pub(crate) struct Agent {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) welcome: Option<Welcome>,
}

impl Agent {
    pub(crate) async fn dial(addr: SocketAddr, path: &str, token: &str) -> Result<Self, SocketError> {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, addr, path, token).await
    }

    pub(crate) async fn over(
        stream: TcpStream,
        addr: SocketAddr,
        path: &str,
        token: &str,
    ) -> Result<Self, SocketError> {
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { socket, welcome: None })
    }

    pub(crate) fn session(&self) -> SessionId {
        self.welcome.as_ref().expect("welcomed").session.clone()
    }

    pub(crate) async fn send_json<T: serde::Serialize>(&mut self, message: &T) {
        self.send(Message::Text(serde_json::to_string(message).unwrap().into())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        within("a frame is sent", self.socket.send(message)).await.unwrap();
    }

    pub(crate) async fn record(&mut self, attempt: &AttemptId, record: &LogRecord) {
        self.send(Message::Binary(encode_record(attempt, record).unwrap())).await;
    }

    /// The next text frame; `None` when the socket is closed.
    pub(crate) async fn text(&mut self) -> Option<String> {
        loop {
            match within("a frame is received", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> ToAgent {
        let text = self.text().await.expect("the socket is open");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn receive_log(&mut self) -> LogControl {
        let text = self.text().await.expect("the socket is open");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn expect_welcome(&mut self) -> Welcome {
        match self.receive().await {
            ToAgent::Welcome(welcome) => welcome,
            other => panic!("expected Welcome, received {other:?}"),
        }
    }

    /// Asserts that the gateway refuses with this text and closes.
    pub(crate) async fn expect_refusal(&mut self, text: &str) {
        let refusal = match self.receive().await {
            ToAgent::Refuse(refusal) => refusal.to_string(),
            other => panic!("expected Refuse, received {other:?}"),
        };
        let (lower, text) = (refusal.to_lowercase(), text.to_lowercase());
        assert!(lower.contains(&text), "{refusal:?} does not contain {text:?}");
        assert_eq!(self.text().await, None, "the socket stays open after a refusal");
    }
}

/// An agent whose control socket is read in the background, as a real agent's is: pings are answered, and messages wait
/// until the test receives them.
pub(crate) struct ServicedAgent {
    session: SessionId,
    outgoing: mpsc::Sender<Message>,
    incoming: mpsc::Receiver<ToAgent>,
}

impl ServicedAgent {
    pub(crate) fn new(agent: Agent) -> Self {
        let session = agent.session();
        let (outgoing, mut to_send) = mpsc::channel::<Message>(16);
        let (received, incoming) = mpsc::channel(1024);
        let mut socket = agent.socket;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    frame = socket.next() => match frame {
                        Some(Ok(Message::Text(text))) => {
                            received.send(serde_json::from_str(&text).unwrap()).await.ok();
                        }
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                        Some(Ok(_)) => {}
                    },
                    message = to_send.recv() => match message {
                        Some(message) => socket.send(message).await.unwrap(),
                        None => return,
                    },
                }
            }
        });
        Self { session, outgoing, incoming }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session.clone()
    }

    pub(crate) async fn send_json<T: serde::Serialize>(&self, message: &T) {
        let message = Message::Text(serde_json::to_string(message).unwrap().into());
        self.outgoing.send(message).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> ToAgent {
        within("a message is received", self.incoming.recv()).await.expect("the session is open")
    }
}

pub(crate) fn node_name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn attempt(text: &str) -> AttemptId {
    text.parse().unwrap()
}

pub(crate) fn spec_hash() -> SpecHash {
    SpecHash::new("a".repeat(64)).unwrap()
}

pub(crate) fn hello() -> Hello {
    Hello {
        versions: vec![Version(1)],
        agent_version: "0.1.0".into(),
        boot_id: "boot".into(),
        state_id: "state".into(),
        highest_epoch: Epoch::default(),
        environments: vec![Environment::Container],
        os: "linux".into(),
        arch: "x86_64".into(),
        kernel: "6.1.0".into(),
    }
}

pub(crate) fn report(id: &str, state: ReportedState) -> Report {
    Report { attempt: attempt(id), spec_hash: spec_hash(), state }
}

/// An end after `bytes` of output.
pub(crate) fn ended(bytes: u64) -> ReportedState {
    let stdout = StreamSummary { bytes, ..StreamSummary::default() };
    ReportedState::Ended(Box::new(Ended {
        outcome: Outcome::Succeeded { exit_code: 0 },
        started_at: Some(UnixMillis(1)),
        ended_at: UnixMillis(2),
        usage: Usage { user_ms: 3, system_ms: 4, max_rss: 5 << 20 },
        output: OutputSummary { stdout, end: bytes, ..OutputSummary::default() },
        exit: sentinel_protocol::exit::ExitDetails::default(),
    }))
}

/// The byte at a position of every log of these tests.
pub(crate) fn byte(position: u64) -> u8 {
    (position.wrapping_mul(31) % 251) as u8
}

pub(crate) fn record(position: u64, len: u64) -> LogRecord {
    LogRecord {
        head: RecordHead {
            stream: Stream::Stdout,
            position,
            offset: position,
            len,
            at_micros: 7,
            dropped: None,
        },
        data: (position..position + len).map(byte).collect::<Vec<_>>().into(),
    }
}

/// Polls a condition, with a deadline.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

/// Awaits a future, with a deadline.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(Duration::from_secs(20), future).await else {
        panic!("not within 20 s: {what}");
    };
    value
}
