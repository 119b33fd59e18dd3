//! A whole operator in this process: a cluster in memory, a History in a file that fails on request, and its HTTP API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::audit::Audit;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::controller::CurrentCeilings;
use sentinel_operator::gateway::{Settings, StaticTokens, routes};
use sentinel_operator::history::{ExecutionQuery, History as _, OutcomeName};
use sentinel_operator::http::BasePath;
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{Election, Operator, Options, Seams};
use sentinel_operator::server::Exposure;
use sentinel_operator::traces::Traces;
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{Inventory, ToOperator};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gateway::{Agent, hello, node_name, within};
use crate::stores::faulty::FaultyHistory;

/// A running operator.
pub(crate) struct TestOperator {
    pub(crate) history: Arc<FaultyHistory>,
    api: SocketAddr,
    gateway: SocketAddr,
    tokens: StaticTokens,
    clock: Clock,
    pub(crate) metrics: Metrics,
    _operator: Operator,
}

impl TestOperator {
    /// An operator of a cluster with these Nodes.
    pub(crate) async fn new(nodes: &[&str]) -> Self {
        Self::traced(nodes, Metrics::new(), Traces::off()).await
    }

    /// The same, with spans sent there.
    pub(crate) async fn traced(nodes: &[&str], metrics: Metrics, traces: Traces) -> Self {
        let clock = Clock::system();
        let history = FaultyHistory::new();
        history.prepare().await.unwrap();
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
            by_caller: None,
            owner: None,
            exposure: Exposure::NO_TOKEN_REVIEW,
            clock: clock.clone(),
            metrics: metrics.clone(),
            traces,
            audit: Audit::default(),
            ceilings: CurrentCeilings::default(),
        };
        let options = Options {
            gateway: any,
            gateway_tls: None,
            api: any.into(),
            base_path: BasePath::default(),
            metrics: None,
            background: Vec::new(),
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
            metrics,
            _operator: operator,
        }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// An agent that owns nothing, with a complete Session.
    pub(crate) async fn agent(&self, node: &str) -> Agent {
        let token = self.tokens.issue(&node_name(node));
        let mut agent = Agent::dial(self.gateway, routes::CONTROL_PATH, &token).await.unwrap();
        agent.send_json(&ToOperator::Hello(hello())).await;
        agent.welcome = Some(agent.expect_welcome().await);
        agent
            .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
            .await;
        self.until(&format!("/nodes/{node}"), |node| node["reachable"] == true).await;
        agent
    }

    /// The next `Start` that this agent receives.
    pub(crate) async fn start(&self, agent: &mut Agent) -> Start {
        loop {
            match agent.receive().await {
                ToAgent::Start(start) => return *start,
                ToAgent::Ack(_) | ToAgent::Forget(_) => {}
                other => panic!("not a Start but {other:?}"),
            }
        }
    }

    /// A log socket of an agent's Session.
    pub(crate) async fn log_socket(&self, agent: &Agent, node: &str) -> Agent {
        let token = self.tokens.issue(&node_name(node));
        let mut socket = Agent::dial(self.gateway, routes::LOGS_PATH, &token).await.unwrap();
        socket.send_json(&LogControl::Hello { session: agent.session() }).await;
        socket
    }

    pub(crate) async fn apply(&self, task: &Value) {
        let (status, _, body) = self.call("POST", "/tasks", &task.to_string()).await;
        assert_eq!(status, 201, "{body}");
    }

    pub(crate) async fn delete(&self, path: &str) {
        assert_eq!(self.call("DELETE", path, "").await.0, 202);
    }

    /// The body of a GET that must succeed.
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

    /// Waits until the body of a GET satisfies a condition.
    pub(crate) async fn until(&self, path: &str, is_met: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..6000 {
            let (status, body) = self.ask(path).await;
            if status == 200 && is_met(&body) {
                return body;
            }
            last = body;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("timed out waiting for {path}; last: {last}");
    }

    pub(crate) async fn until_gone(&self, path: &str) {
        for _ in 0..3000 {
            if self.ask(path).await.0 == 404 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("timed out: {path} still exists");
    }

    /// Waits until History itself holds this Execution of Run 1 with this Outcome.
    pub(crate) async fn until_archived(&self, uid: &str, node: &str, outcome: OutcomeName) {
        for _ in 0..3000 {
            let query = ExecutionQuery {
                task_uid: Some(uid.parse().unwrap()),
                node: Some(node_name(node)),
                outcome: Some(outcome),
                ..ExecutionQuery::default()
            };
            if !self.history.inner().executions(query).await.unwrap().items.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("timed out: {uid} on {node} is not archived as {outcome}");
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
            let read = within("an event arrives", stream.read(&mut bytes)).await.unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
            if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: "))
                && let Ok(value) = serde_json::from_str(data)
            {
                return value;
            }
        }
    }

    /// Head and body of a GET that must succeed, with this `Accept-Encoding`.
    pub(crate) async fn download(&self, path: &str, accept: &str) -> (String, Vec<u8>) {
        let mut response = self.follow_as(path, accept).await;
        within("the response is whole", response.stream.read_to_end(&mut response.response)).await.unwrap();
        response.head_and_body()
    }

    /// The same with this header.
    pub(crate) async fn download_with(&self, path: &str, header: &str) -> (String, Vec<u8>) {
        let mut response = self.follow_with(path, header).await;
        within("the response is whole", response.stream.read_to_end(&mut response.response)).await.unwrap();
        response.head_and_body()
    }

    /// Opens a log; [`LogResponse::rest`] reads it to its end.
    pub(crate) async fn follow(&self, path: &str) -> LogResponse {
        self.follow_as(path, "").await
    }

    /// The same with this `Accept-Encoding`.
    pub(crate) async fn follow_as(&self, path: &str, accept: &str) -> LogResponse {
        self.follow_with(path, &format!("accept-encoding: {accept}")).await
    }

    /// The same with this header.
    pub(crate) async fn follow_with(&self, path: &str, header: &str) -> LogResponse {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let head = format!("GET /api/v1{path} HTTP/1.0\r\nhost: {}\r\n{header}\r\n\r\n", self.api);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.windows(4).any(|end| end == b"\r\n\r\n") {
            let read =
                within("the head of the response arrives", stream.read_buf(&mut response)).await.unwrap();
            assert!(read > 0, "the response ended: {response:?}");
        }
        LogResponse { stream, response }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.0\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        within("the response is whole", stream.read_to_end(&mut response)).await.unwrap();
        let response = String::from_utf8(response).unwrap();
        let (head, body) =
            response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }
}

/// See [`TestOperator::follow`].
pub(crate) struct LogResponse {
    stream: TcpStream,
    response: Vec<u8>,
}

impl LogResponse {
    /// Type, id and data of the next event of a stream; `None` at its end.
    pub(crate) async fn event(&mut self) -> Option<(String, String, Value)> {
        if let Some(body) = self.response.windows(4).position(|end| end == b"\r\n\r\n")
            && self.response.starts_with(b"HTTP/")
        {
            assert_eq!(self.response[9..12], *b"200", "{}", String::from_utf8_lossy(&self.response));
            self.response.drain(..body + 4);
        }
        loop {
            while let Some(end) = self.response.windows(2).position(|end| end == b"\n\n") {
                let event: Vec<u8> = self.response.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                };
                if event.starts_with(':') {
                    continue;
                }
                let data = serde_json::from_str(&field("data: ")).unwrap();
                return Some((field("event: "), field("id: "), data));
            }
            let read = within("an event arrives", self.stream.read_buf(&mut self.response)).await.unwrap();
            if read == 0 {
                return None;
            }
        }
    }

    /// Waits for further bytes; false at the end.
    pub(crate) async fn more(&mut self) -> bool {
        within("bytes arrive", self.stream.read_buf(&mut self.response)).await.unwrap() > 0
    }

    /// The head in lower case, and what has arrived of the body of an answer that must be a success.
    pub(crate) fn head_and_body(&self) -> (String, Vec<u8>) {
        let at = self.response.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&self.response[..at]).to_lowercase();
        assert_eq!(head.split(' ').nth(1), Some("200"), "{head}");
        (head, self.response[at + 4..].to_vec())
    }

    /// The whole log, once it has ended.
    pub(crate) async fn rest(mut self) -> String {
        within("the log ends", self.stream.read_to_end(&mut self.response)).await.unwrap();
        let response = String::from_utf8(self.response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.split(' ').nth(1), Some("200"), "{response}");
        body.to_owned()
    }
}
