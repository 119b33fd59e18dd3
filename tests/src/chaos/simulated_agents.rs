//! Simulated agents that reconnect: they only speak the protocol, and dial as real ones do.
//!
//! They know the gateways of all operators, also of those that are down, as behind a Service with stale endpoints. A
//! command ends as soon as it is started, and is kept until Forget.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use sentinel_node_agent::{ReconnectBackoff, Timing};
use sentinel_protocol::codec::{decode_text, encode_text};
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::limits::HEARTBEAT_MS;
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::{Heartbeat, Inventory, Report, ToOperator};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::rng::Rng;
use crate::bench::simulated_agents::{answers, hello};

/// Time for a dial, as a real agent has it.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<TcpStream>;

/// The agents. Stopped when dropped.
pub struct SimulatedAgents {
    sessions: Arc<Vec<SessionState>>,
    ends: Arc<Mutex<BTreeMap<String, u64>>>,
    begun: Instant,
    _agents: JoinSet<()>,
}

/// The Session of one agent.
#[derive(Default)]
struct SessionState {
    /// Epoch of its leader; 0 without a Session.
    epoch: AtomicU64,
    /// When the latest Session began, milliseconds since the agents were started.
    since: AtomicU64,
}

impl SimulatedAgents {
    /// An agent for each token. The ports are those of all gateways.
    pub fn spawn(tokens: Vec<String>, ports: &[u16], rng: &mut Rng) -> Self {
        let sessions: Arc<Vec<SessionState>> =
            Arc::new(tokens.iter().map(|_| SessionState::default()).collect());
        let (ends, begun) = (Arc::default(), Instant::now());
        let mut agents = JoinSet::new();
        for (at, token) in tokens.into_iter().enumerate() {
            let agent = Agent {
                token,
                ports: ports.to_owned(),
                state_id: uuid::Uuid::new_v4().to_string(),
                highest_epoch: Epoch::ZERO,
                owned: BTreeMap::new(),
                rng: Rng::new(rng.next_u64()),
                sessions: Arc::clone(&sessions),
                ends: Arc::clone(&ends),
                at,
                begun,
            };
            agents.spawn(agent.run());
        }
        Self { sessions, ends, begun, _agents: agents }
    }

    /// How many have a Session with a leader of a higher epoch than this.
    pub fn led_above(&self, epoch: u64) -> usize {
        self.sessions.iter().filter(|one| one.epoch.load(Ordering::Relaxed) > epoch).count()
    }

    /// Why Sessions and dials have ended since this was last asked, and how many did so.
    pub fn ends(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.ends.lock().expect("not poisoned"))
    }

    /// How long ago the youngest Session began.
    pub fn youngest(&self) -> Duration {
        let latest = self.sessions.iter().map(|one| one.since.load(Ordering::Relaxed)).max();
        self.begun.elapsed().saturating_sub(Duration::from_millis(latest.unwrap_or_default()))
    }
}

struct Agent {
    token: String,
    ports: Vec<u16>,
    state_id: String,
    highest_epoch: Epoch,
    /// Its last Report of every Attempt that it has not been asked to forget.
    owned: BTreeMap<AttemptId, Report>,
    rng: Rng,
    sessions: Arc<Vec<SessionState>>,
    ends: Arc<Mutex<BTreeMap<String, u64>>>,
    at: usize,
    begun: Instant,
}

impl Agent {
    /// Keeps a Session, as `node-agent/src/link/reconnect.rs` does.
    async fn run(mut self) {
        let mut backoff = ReconnectBackoff::new(Timing::default());
        let mut hint: Option<String> = None;
        loop {
            let begun = Instant::now();
            let advised = hint.take();
            let is_advised = advised.is_some();
            let port = self.rng.pick(&self.ports).copied().unwrap_or_default();
            let ended = self.session(&advised.unwrap_or_else(|| format!("127.0.0.1:{port}"))).await;
            self.sessions[self.at].epoch.store(0, Ordering::Relaxed);
            backoff.settle(begun.elapsed());
            let why = match &ended {
                Ok(refusal) => refusal.to_string(),
                Err(error) => format!("{error:#}"),
            };
            *self.ends.lock().expect("not poisoned").entry(why).or_default() += 1;
            if let Ok(SessionRefusal::NotLeader { leader }) = ended {
                backoff.leaderless();
                hint = leader.filter(|_| !is_advised || Timing::default().is_settled(begun.elapsed()));
            }
            let random = self.rng.below(1 << 20) as f64 / f64::from(1 << 20);
            let wait = if hint.is_some() { backoff.advised(random) } else { backoff.next(random) };
            tokio::time::sleep(wait).await;
        }
    }

    /// One Session, until it is refused or breaks.
    async fn session(&mut self, address: &str) -> Result<SessionRefusal> {
        let mut socket = timeout(DIAL_WITHIN, dial(address, &self.token)).await??;
        let mut hello = hello();
        hello.state_id = self.state_id.as_str().into();
        hello.highest_epoch = self.highest_epoch;
        send(&mut socket, ToOperator::Hello(hello)).await?;
        let mut beats = interval(Duration::from_millis(HEARTBEAT_MS));
        beats.tick().await;
        let mut led_by = Epoch::ZERO;
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame.context("the end")??,
                _ = beats.tick() => {
                    let at = UnixMillis(jiff::Timestamp::now().as_millisecond());
                    send(&mut socket, ToOperator::Heartbeat(Heartbeat { at, metrics: NodeMetrics::default(), audit: None })).await?;
                    continue;
                }
            };
            match frame {
                Message::Text(text) => match decode_text(&text)? {
                    ToAgent::Welcome(welcome) => {
                        led_by = welcome.epoch;
                        self.highest_epoch = self.highest_epoch.max(led_by);
                        let attempts = self.owned.values().cloned().collect();
                        send(
                            &mut socket,
                            ToOperator::Inventory(Inventory { attempts, more: false, sealing_key: None }),
                        )
                        .await?;
                        // Answered once the gateway has read the previous messages.
                        socket.send(Message::Ping(Bytes::new())).await?;
                    }
                    ToAgent::Start(start) => self.start(&mut socket, &start).await?,
                    ToAgent::Forget(forget) => drop(self.owned.remove(&forget.attempt)),
                    ToAgent::Refuse(refusal) => return Ok(refusal),
                    _ => {}
                },
                Message::Pong(_) => self.note_session(led_by),
                Message::Close(_) => bail!("closed"),
                _ => {}
            }
        }
    }

    fn note_session(&self, led_by: Epoch) {
        let sessions = &self.sessions[self.at];
        sessions.since.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        sessions.epoch.store(led_by.get(), Ordering::Relaxed);
    }

    async fn start(&mut self, socket: &mut Socket, start: &Start) -> Result<()> {
        for answer in answers(start) {
            if let ToOperator::Report(report) = &answer {
                self.owned.insert(report.attempt.clone(), (**report).clone());
            }
            send(socket, answer).await?;
        }
        Ok(())
    }
}

async fn dial(address: &str, token: &str) -> Result<Socket> {
    let mut request = format!("ws://{address}/agent/v1/control").into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    Ok(client_async_with_config(request, tcp, Some(config)).await?.0)
}

async fn send(socket: &mut Socket, message: ToOperator) -> Result<()> {
    Ok(socket.send(Message::text(encode_text(&message)?)).await?)
}
