//! A gateway that is driven by its test: real sockets, a real token check, no decisions of its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{decode_record, decode_text, encode_text};
use sentinel_protocol::ids::{AttemptId, Epoch, SessionId};
use sentinel_protocol::log::{LogControl, LogRecord, Stream};
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::{
    Ended, Heartbeat, Hello, Inventory, Refused, Report, ReportedState, Running, ToOperator,
};
use sentinel_protocol::version::Version;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Long enough for a busy machine; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub type Socket = WebSocketStream<TcpStream>;

pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Accepts agents with the right token.
pub struct Gateway {
    pub address: String,
    pub token: Arc<Mutex<String>>,
    pub declined: Arc<Mutex<u32>>,
    /// `User-Agent` of each handshake.
    pub user_agents: Arc<Mutex<Vec<String>>>,
    controls: mpsc::Receiver<Socket>,
    logs: mpsc::Receiver<Socket>,
    sessions: u32,
    pub heartbeat_ms: u64,
    pub dead_after_ms: u64,
}

impl Gateway {
    pub async fn start(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (control_in, controls) = mpsc::channel(16);
        let (log_in, logs) = mpsc::channel(16);
        let token = Arc::new(Mutex::new(token.to_owned()));
        let declined = Arc::new(Mutex::new(0));
        let (expected, count) = (token.clone(), declined.clone());
        let user_agents = Arc::new(Mutex::new(Vec::new()));
        let agents = user_agents.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let mut path = String::new();
                #[allow(clippy::result_large_err, reason = "the signature is the library's")]
                let check = |request: &Request, response: Response| {
                    request.uri().path().clone_into(&mut path);
                    let agent =
                        request.headers().get("user-agent").map(|agent| agent.to_str().unwrap().to_owned());
                    agents.lock().unwrap().push(agent.unwrap_or_default());
                    let bearer = format!("Bearer {}", expected.lock().unwrap());
                    if request.headers().get("authorization").is_some_and(|seen| seen == bearer.as_str()) {
                        return Ok(response);
                    }
                    *count.lock().unwrap() += 1;
                    let mut refused = http::Response::new(Some("unknown agent".to_owned()));
                    *refused.status_mut() = http::StatusCode::UNAUTHORIZED;
                    Err(refused)
                };
                let accepted = accept_hdr_async(tcp, check).await;
                let Ok(socket) = accepted else { continue };
                let queue = match path.as_str() {
                    "/agent/v1/control" => &control_in,
                    "/agent/v1/logs" => &log_in,
                    other => panic!("the agent asked for {other}"),
                };
                if queue.send(socket).await.is_err() {
                    return;
                }
            }
        });
        Self {
            address,
            token,
            declined,
            user_agents,
            controls,
            logs,
            sessions: 0,
            heartbeat_ms: 200,
            dead_after_ms: 10_000,
        }
    }

    /// The next control socket, before anything was received on it.
    pub async fn control_socket(&mut self) -> Socket {
        within("a control socket", self.controls.recv()).await.unwrap()
    }

    /// The next Session, up to the end of its Inventory.
    pub async fn control(&mut self) -> Control {
        let mut socket = self.control_socket().await;
        let ToOperator::Hello(hello) = next_message(&mut socket).await else { panic!("no Hello") };
        self.welcome(socket, hello).await
    }

    /// Continues with a socket on which Hello was received.
    pub async fn welcome(&mut self, mut socket: Socket, hello: Hello) -> Control {
        self.sessions += 1;
        let welcome = Welcome {
            version: Version(1),
            session: SessionId::new(format!("session-{}", self.sessions)).unwrap(),
            epoch: Epoch::from(1),
            heartbeat_ms: self.heartbeat_ms,
            dead_after_ms: self.dead_after_ms,
        };
        let session = welcome.session.clone();
        send_to(&mut socket, &ToAgent::Welcome(welcome)).await;
        let inventory = loop {
            match next_message(&mut socket).await {
                ToOperator::Inventory(inventory) => break inventory,
                // A slow disk delays the Inventory and no heartbeat.
                ToOperator::Heartbeat(_) => {}
                other => panic!("expected an Inventory, got {other:?}"),
            }
        };
        Control { socket, hello, inventory, session }
    }

    /// The next log socket, after its Hello.
    pub async fn log(&mut self, control: &Control) -> Logs {
        loop {
            let mut socket = within("a log socket", self.logs.recv()).await.unwrap();
            // It may be of an earlier Session, closed meanwhile.
            let Some(Ok(frame)) = within("a log Hello", socket.next()).await else { continue };
            let hello: LogControl = decode_text(frame.to_text().unwrap()).unwrap();
            if hello == (LogControl::Hello { session: control.session.clone() }) {
                return Logs { socket };
            }
        }
    }
}

/// One Session.
pub struct Control {
    pub socket: Socket,
    pub hello: Hello,
    pub inventory: Inventory,
    pub session: SessionId,
}

impl Control {
    pub async fn send_message(&mut self, message: ToAgent) {
        send_to(&mut self.socket, &message).await;
    }

    pub async fn report(&mut self) -> Report {
        loop {
            match next_message(&mut self.socket).await {
                ToOperator::Report(report) => return *report,
                ToOperator::Heartbeat(_) => {}
                other => panic!("expected a Report, got {other:?}"),
            }
        }
    }

    pub async fn refused(&mut self) -> Refused {
        loop {
            match next_message(&mut self.socket).await {
                ToOperator::Refused(refused) => return refused,
                ToOperator::Heartbeat(_) | ToOperator::Report(_) => {}
                other => panic!("expected a Refusal, got {other:?}"),
            }
        }
    }

    pub async fn heartbeat(&mut self) -> Heartbeat {
        loop {
            if let ToOperator::Heartbeat(heartbeat) = next_message(&mut self.socket).await {
                return heartbeat;
            }
        }
    }

    pub async fn running(&mut self, attempt: &AttemptId) -> Running {
        loop {
            let report = self.report().await;
            match report.state {
                ReportedState::Running(running) if report.attempt == *attempt => return running,
                ReportedState::Ended(ended) if report.attempt == *attempt => panic!("ended: {ended:?}"),
                _ => {}
            }
        }
    }

    pub async fn ended(&mut self, attempt: &AttemptId) -> Ended {
        for report in &self.inventory.attempts {
            if let (ReportedState::Ended(ended), true) = (&report.state, report.attempt == *attempt) {
                return (**ended).clone();
            }
        }
        loop {
            let report = self.report().await;
            if let (ReportedState::Ended(ended), true) = (report.state, report.attempt == *attempt) {
                return *ended;
            }
        }
    }
}

/// One log socket.
pub struct Logs {
    pub socket: Socket,
}

/// What a log socket receives.
pub enum LogFrame {
    Open(AttemptId, u64),
    Record(AttemptId, LogRecord),
    Closed,
}

impl Logs {
    pub async fn next(&mut self) -> LogFrame {
        loop {
            match within("output", self.socket.next()).await {
                None | Some(Err(_) | Ok(Message::Close(_))) => return LogFrame::Closed,
                Some(Ok(Message::Binary(frame))) => {
                    let (attempt, record) = decode_record(&frame).unwrap();
                    return LogFrame::Record(attempt, record);
                }
                Some(Ok(Message::Text(text))) => match decode_text(&text).unwrap() {
                    LogControl::Open { attempt, oldest } => return LogFrame::Open(attempt, oldest),
                    other => panic!("unexpected {other:?} from an agent"),
                },
                Some(Ok(_)) => {}
            }
        }
    }

    pub async fn credit(&mut self, attempt: &AttemptId, granted: u64, archived: u64) {
        let credit = LogControl::Credit { attempt: attempt.clone(), granted, archived };
        let text = encode_text(&credit).unwrap();
        // The agent may have closed it, having no output.
        let _ = self.socket.send(Message::text(text)).await;
    }
}

/// An archive of one Attempt's output.
#[derive(Default)]
pub struct Archive {
    pub upto: u64,
    digests: BTreeMap<&'static str, Sha256>,
    pub bytes: BTreeMap<&'static str, Vec<u8>>,
}

impl Archive {
    /// Archives a record; what it has is skipped, and an undeclared hole fails the test.
    pub fn take(&mut self, record: LogRecord) {
        let Some(record) = record.from_position(self.upto) else { return };
        assert_eq!(record.head.position, self.upto, "an undeclared hole");
        assert_eq!(record.head.dropped, None, "dropped output");
        self.upto = record.end();
        let stream = record.head.stream.as_str();
        self.digests.entry(stream).or_default().update(&record.data);
        let kept = self.bytes.entry(stream).or_default();
        if kept.len() < 4096 {
            kept.extend_from_slice(&record.data);
        }
    }

    pub fn sha256(&self, stream: Stream) -> String {
        let digest = self.digests.get(stream.as_str()).cloned().unwrap_or_default().finalize();
        format!("{digest:x}")
    }
}

pub async fn send_to(socket: &mut Socket, message: &ToAgent) {
    socket.send(Message::text(encode_text(message).unwrap())).await.unwrap();
}

pub async fn next_message(socket: &mut Socket) -> ToOperator {
    loop {
        match within("a message", socket.next())
            .await
            .expect("the agent closed")
            .expect("the connection broke")
        {
            Message::Text(text) => return decode_text(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}
