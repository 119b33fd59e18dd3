//! An operator with simulated agents: an API server that answers `TokenReviews` and nothing else, and agents that send
//! whatever an attack wants.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use sentinel_protocol::ids::{AttemptId, SessionId, SpecHash};
use sentinel_protocol::log::LogControl;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Inventory, Report, ReportedState, ToOperator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::kit::{ANSWERED_WITHIN, Victim, request};

/// A WebSocket of an agent.
pub type Socket = WebSocketStream<TcpStream>;

/// An operator, and the API server that its agents' tokens are known to.
pub struct Fleet {
    /// The operator.
    pub victim: Victim,
    asked: Arc<AtomicUsize>,
}

impl Fleet {
    /// Starts both.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked: Arc<AtomicUsize> = Arc::default();
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, count.clone()));
            }
        });
        let account = ["--agent-service-account", "sentinel/agent"];
        Ok(Self { victim: Victim::operator_of(&url, &account).await?, asked })
    }

    /// `TokenReviews` that the operator asked for.
    pub fn reviews(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A metric of the operator; 0 where it is missing.
    ///
    /// # Errors
    /// When the operator does not answer.
    pub async fn metric(&self, line_begins: &str) -> Result<usize> {
        let at = self.victim.metrics.context("the operator has a metrics listener")?;
        let head = format!("GET /metrics HTTP/1.1\r\nhost: {at}\r\n\r\n");
        let (_, text) = request(at, &head, b"").await?;
        let line = text.lines().find(|line| line.starts_with(line_begins));
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as usize)
    }

    /// Events of this kind that only a hostile agent causes.
    ///
    /// # Errors
    /// When the operator does not answer.
    pub async fn security(&self, kind: &str) -> Result<usize> {
        self.metric(&format!("sentinel_gateway_security_events_total{{kind=\"{kind}\"}}")).await
    }

    /// A socket at this path, from this address.
    ///
    /// # Errors
    /// When it is refused, with the status.
    pub async fn dial(&self, path: &str, token: &str, from: IpAddr) -> Result<Socket> {
        dial(self.victim.gateway.context("the operator has a gateway")?, path, token, from).await
    }

    /// An agent with an established Session.
    ///
    /// # Errors
    /// When the operator does not welcome it.
    pub async fn agent(&self, node: &str) -> Result<Agent> {
        Agent::welcomed(self.victim.gateway.context("the operator has a gateway")?, &token(node)).await
    }
}

/// A socket at this path of a gateway, from this address.
///
/// # Errors
/// When it is refused, with the status.
pub async fn dial(gateway: SocketAddr, path: &str, token: &str, from: IpAddr) -> Result<Socket> {
    let dialling = async {
        let tcp = connect(gateway, from).await?;
        let mut request = format!("ws://{gateway}/agent/v1/{path}").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        Ok(client_async(request, tcp).await?.0)
    };
    tokio::time::timeout(ANSWERED_WITHIN, dialling).await?
}

/// Address that honest agents dial from.
pub const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));

/// Address that unauthenticated clients dial from.
pub const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 66));

/// A connection from an address of ours.
///
/// # Errors
/// The kernel's error.
pub async fn connect(to: SocketAddr, from: IpAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket.connect(to).await?)
}

/// An agent with an established Session.
pub struct Agent {
    /// Its control socket.
    pub control: Socket,
    /// Its Session.
    pub session: SessionId,
    gateway: SocketAddr,
    token: String,
}

impl Agent {
    /// The agent of the node that this token is of, with no Attempts.
    ///
    /// # Errors
    /// When the operator does not welcome it.
    pub async fn welcomed(gateway: SocketAddr, token: &str) -> Result<Self> {
        let mut control = dial(gateway, "control", token, LOCAL).await?;
        send(&mut control, &hello()).await?;
        let session = match receive(&mut control).await? {
            ToAgent::Welcome(welcome) => welcome.session,
            other => bail!("no welcome but {other:?}"),
        };
        let none = Inventory { attempts: vec![], more: false, sealing_key: None };
        send(&mut control, &ToOperator::Inventory(none)).await?;
        Ok(Self { control, session, gateway, token: token.to_owned() })
    }

    /// A log socket of it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn logs(&self) -> Result<Socket> {
        let mut socket = dial(self.gateway, "logs", &self.token, LOCAL).await?;
        send(&mut socket, &LogControl::Hello { session: self.session.clone() }).await?;
        Ok(socket)
    }

    /// Returns once the operator has read everything that was sent: it answers a ping in order.
    ///
    /// # Errors
    /// When the Session has ended.
    pub async fn flush(&mut self) -> Result<()> {
        flush(&mut self.control).await
    }
}

/// Returns once the operator has read everything that was sent: it answers a ping in order.
///
/// # Errors
/// When the socket is closed.
pub async fn flush(socket: &mut Socket) -> Result<()> {
    socket.send(Message::Ping(b"flush"[..].into())).await?;
    let waiting = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Pong(_))) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the socket is closed"),
            }
        }
    };
    tokio::time::timeout(ANSWERED_WITHIN, waiting).await?
}

/// The first message of an agent.
pub fn hello() -> ToOperator {
    ToOperator::Hello(crate::bench::simulated_agents::hello())
}

/// A Report of an Attempt of this node, of some spec.
///
/// # Errors
/// When the text is not the id of an Attempt.
pub fn report(id: &str, state: ReportedState) -> Result<ToOperator> {
    let attempt: AttemptId = id.parse()?;
    let spec_hash = SpecHash::new("a".repeat(64))?;
    Ok(ToOperator::Report(Box::new(Report { attempt, spec_hash, state })))
}

/// Sends a message.
///
/// # Errors
/// When the socket is closed, or does not take it in time.
pub async fn send<T: serde::Serialize>(socket: &mut Socket, message: &T) -> Result<()> {
    let text = serde_json::to_string(message)?;
    Ok(tokio::time::timeout(ANSWERED_WITHIN, socket.send(Message::text(text))).await??)
}

/// The next message of the operator.
///
/// # Errors
/// When the socket is closed, or nothing comes in time.
pub async fn receive(socket: &mut Socket) -> Result<ToAgent> {
    let receiving = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(_))) | None => return Err(anyhow!("the socket is closed")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    };
    tokio::time::timeout(ANSWERED_WITHIN, receiving).await?
}

/// The token of an agent on this node.
pub fn token(node: &str) -> String {
    claims("good", node)
}

/// A token with all the right claims that was never issued.
pub fn forged(number: usize) -> String {
    claims("forged", &number.to_string())
}

fn claims(kind: &str, id: &str) -> String {
    let claims = json!({
        "sub": "system:serviceaccount:sentinel:agent", "aud": ["sentinel-operator"],
        "exp": 99_999_999_999_u64, "kind": kind, "id": id,
    });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Answers `TokenReviews`, and 503 to everything else.
async fn serve(mut stream: TcpStream, asked: Arc<AtomicUsize>) {
    let mut buffer = Vec::new();
    while let Some((path, body)) = next_request(&mut stream, &mut buffer).await {
        let (status, answer) = if path.contains("tokenreviews") {
            asked.fetch_add(1, Ordering::Relaxed);
            ("201 Created", review(&body))
        } else {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503});
            ("503 Service Unavailable", status)
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn review(body: &[u8]) -> Value {
    let review: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Value = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
    let status = if claims["kind"] == "good" {
        json!({
            "authenticated": true, "audiences": review["spec"]["audiences"],
            "user": {"username": claims["sub"],
                     "extra": {"authentication.kubernetes.io/node-name": [claims["id"]]}},
        })
    } else {
        json!({"authenticated": false, "error": "invalid bearer token"})
    };
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": status,
    })
}

/// The path and body of the next request.
async fn next_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let length = head.to_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some((path, body));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
