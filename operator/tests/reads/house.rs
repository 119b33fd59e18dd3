//! A whole operator in this process: a cluster in memory, a History in a file behind a gate, and its HTTP API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::gateway::{Settings, StaticTokens, routes};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::{
    Answer, AttemptRecord, Entry, ExecutionQuery, ExecutionRecord, History, HistoryError, OutputSegment,
    Page, RunQuery, RunRecord,
};
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{Election, Operator, Options, Seams};
use sentinel_operator::server::Exposure;
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::log::{LogControl, LogRecord};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{Inventory, ToOperator};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::gateway::{Agent, hello, node_name, within};

/// A History in a file, to which writes can be held back and which can go away.
pub(crate) struct GatedHistory {
    store: EmbeddedHistory,
    open: watch::Sender<bool>,
    away: AtomicBool,
}

impl GatedHistory {
    /// Nothing more is stored; what is handed over waits.
    pub(crate) fn hold_writes(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn let_writes_through(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    fn there(&self) -> Result<(), HistoryError> {
        if self.away.load(Ordering::SeqCst) {
            let after = Duration::from_secs(1);
            return Err(HistoryError::TimedOut { action: "answer", store: "the gate".to_owned(), after });
        }
        Ok(())
    }

    async fn opened(&self) -> Result<(), HistoryError> {
        self.there()?;
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        Ok(())
    }
}

impl History for GatedHistory {
    fn prepare(&self) -> Answer<'_, ()> {
        self.store.prepare()
    }

    fn check(&self) -> Answer<'_, ()> {
        self.store.check()
    }

    fn record(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.opened().await?;
            self.store.record(entries).await
        })
    }

    fn append_output(&self, segments: Vec<OutputSegment>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.opened().await?;
            self.store.append_output(segments).await
        })
    }

    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> Answer<'_, Vec<LogRecord>> {
        Box::pin(async move {
            self.there()?;
            self.store.output(attempt, from, max_bytes).await
        })
    }

    fn output_end(&self, attempt: AttemptId, from: u64) -> Answer<'_, u64> {
        Box::pin(async move {
            self.there()?;
            self.store.output_end(attempt, from).await
        })
    }

    fn attempt(&self, id: AttemptId) -> Answer<'_, Option<AttemptRecord>> {
        Box::pin(async move {
            self.there()?;
            self.store.attempt(id).await
        })
    }

    fn executions(&self, query: ExecutionQuery) -> Answer<'_, Page<ExecutionRecord>> {
        Box::pin(async move {
            self.there()?;
            self.store.executions(query).await
        })
    }

    fn runs(&self, query: RunQuery) -> Answer<'_, Page<RunRecord>> {
        Box::pin(async move {
            self.there()?;
            self.store.runs(query).await
        })
    }
}

/// An operator at work.
pub(crate) struct House {
    pub(crate) history: Arc<GatedHistory>,
    api: SocketAddr,
    gateway: SocketAddr,
    tokens: StaticTokens,
    clock: Clock,
    _operator: Operator,
    _directory: tempfile::TempDir,
}

impl House {
    /// An operator of a cluster with these Nodes.
    pub(crate) async fn new(nodes: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let store =
            EmbeddedHistory::open(directory.path().join("history.db"), EmbeddedOptions::default()).unwrap();
        store.prepare().await.unwrap();
        let history =
            Arc::new(GatedHistory { store, open: watch::Sender::new(true), away: AtomicBool::new(false) });
        let cluster = EmbeddedCluster::in_memory(clock.clone());
        let facts: BTreeMap<_, _> =
            nodes.iter().map(|name| (node_name(name), NodeFacts::default())).collect();
        cluster.set_nodes(facts);
        let tokens = StaticTokens::new();
        let any = "127.0.0.1:0".parse().unwrap();
        let seams = Seams {
            cluster: Arc::new(cluster),
            history: history.clone(),
            presence: Arc::new(MemoryPresence::new(clock.clone())),
            auth: Arc::new(tokens.clone()),
            exposure: Exposure::NO_TOKEN_REVIEW,
            clock: clock.clone(),
            metrics: Metrics::new(),
        };
        let options = Options {
            gateway: any,
            gateway_tls: None,
            api: any.into(),
            metrics: None,
            drain: Duration::ZERO,
            settings: Settings::default(),
            election: Election::Alone(Epoch::from(1)),
        };
        let operator = Operator::start(seams, options).await.unwrap();
        Self {
            history,
            api: operator.api_addr(),
            gateway: operator.gateway_addr(),
            tokens,
            clock,
            _operator: operator,
            _directory: directory,
        }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// An agent that owns nothing and whose Session counts.
    pub(crate) async fn agent(&self, node: &str) -> Agent {
        let token = self.tokens.issue(&node_name(node));
        let mut agent = Agent::dial(self.gateway, routes::CONTROL_PATH, &token).await.unwrap();
        agent.say(&ToOperator::Hello(hello())).await;
        agent.welcome = Some(agent.expect_welcome().await);
        agent.say(&ToOperator::Inventory(Inventory { attempts: vec![], more: false })).await;
        self.until(&format!("/nodes/{node}"), |node| node["reachable"] == true).await;
        agent
    }

    /// The next thing that this agent is told to start.
    pub(crate) async fn start(&self, agent: &mut Agent) -> Start {
        loop {
            match agent.hear().await {
                ToAgent::Start(start) => return *start,
                ToAgent::Ack(_) | ToAgent::Forget(_) => {}
                other => panic!("not a Start but {other:?}"),
            }
        }
    }

    /// A log socket tied to the Session of an agent.
    pub(crate) async fn log_socket(&self, agent: &Agent, node: &str) -> Agent {
        let token = self.tokens.issue(&node_name(node));
        let mut socket = Agent::dial(self.gateway, routes::LOGS_PATH, &token).await.unwrap();
        socket.say(&LogControl::Hello { session: agent.session() }).await;
        socket
    }

    pub(crate) async fn apply(&self, task: &Value) {
        let (status, _, body) = self.call("POST", "/tasks", &task.to_string()).await;
        assert_eq!(status, 201, "{body}");
    }

    pub(crate) async fn delete(&self, path: &str) {
        assert_eq!(self.call("DELETE", path, "").await.0, 202);
    }

    /// The answer to a GET that must be one.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Status and body of a GET.
    pub(crate) async fn ask(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.call("GET", path, "").await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    /// The text of a log.
    pub(crate) async fn log(&self, path: &str) -> String {
        let (status, _, body) = self.call("GET", path, "").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Waits until an answer is so.
    pub(crate) async fn until(&self, path: &str, so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..6000 {
            let (status, body) = self.ask(path).await;
            if status == 200 && so(&body) {
                return body;
            }
            last = body;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{path} never was so; last: {last}");
    }

    pub(crate) async fn until_gone(&self, path: &str) {
        for _ in 0..3000 {
            if self.ask(path).await.0 == 404 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path} stays");
    }

    /// Waits until History itself holds this Execution of Run 1 with this Outcome.
    pub(crate) async fn until_archived(&self, uid: &str, node: &str, outcome: &str) {
        for _ in 0..3000 {
            let query = ExecutionQuery {
                task_uid: Some(uid.parse().unwrap()),
                node: Some(node_name(node)),
                outcome: Some(outcome.to_owned()),
                ..ExecutionQuery::default()
            };
            if !self.history.store.executions(query).await.unwrap().items.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{uid} on {node} is never archived as {outcome}");
    }

    /// The data of the first event of a stream.
    pub(crate) async fn first_event(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        // HTTP/1.0, so that no chunk's length stands between the parts of an event.
        let head = format!("GET /api/v1{path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.api);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = within("an event comes", stream.read(&mut bytes)).await.unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
            if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: "))
                && let Ok(value) = serde_json::from_str(data)
            {
                return value;
            }
        }
    }

    /// A log that has begun to be answered, and is read to its end by [`Following::rest`].
    pub(crate) async fn follow(&self, path: &str) -> Following {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let head = format!("GET /api/v1{path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.api);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = within("the head of the answer comes", stream.read_buf(&mut answer)).await.unwrap();
            assert!(read > 0, "the answer ended: {answer:?}");
        }
        Following { stream, answer }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.0\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within("the answer is whole", stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }
}

/// See [`House::follow`].
pub(crate) struct Following {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Following {
    /// All of the log, once it has ended.
    pub(crate) async fn rest(mut self) -> String {
        within("the log ends", self.stream.read_to_end(&mut self.answer)).await.unwrap();
        let answer = String::from_utf8(self.answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.split(' ').nth(1), Some("200"), "{answer}");
        body.to_owned()
    }
}
