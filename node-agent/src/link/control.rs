//! One Session on the control socket: Hello, Welcome, messages, heartbeats, deadlines.
//!
//! Messages of the operator go to the agent's thread, and what that sends goes to the operator. Heartbeats are sent by
//! the clock, whatever the agent's thread is waiting for.

use std::sync::Arc;
use std::time::Duration;

use sentinel_audit::directory::SyncedHead;
use sentinel_protocol::codec::{decode_text, is_unknown_kind};
use sentinel_protocol::ids::SessionId;
use sentinel_protocol::limits::MAX_CONTROL_FRAME;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::request::Environment;
use sentinel_protocol::secret::SealingKey;
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::{Heartbeat, Hello, ToOperator};
use sentinel_protocol::version;
use sentinel_secrets::sealed::SessionKeys;
use sentinel_secrets::values::SecretValues;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

use super::dial::Dialer;
use super::socket::{SocketError, TimedSocket};
use super::timing::Timing;
use crate::agent_metrics::AgentMetrics;
use crate::channel::{Input, InputPermit, Mailbox};
use crate::error_category::ErrorCategory;
use crate::health::StatusFile;
use crate::heartbeat::Sampler;
use crate::host;

/// The gateway's path.
const PATH: &str = "/agent/v1/control";

/// Messages to the operator that may be queued; beyond, Reports are dropped and sent again later.
const OUTGOING: usize = 2048;

/// The kinds that [`ToAgent`] knows; another one is ignored, so that a newer operator can send more.
const KNOWN_KINDS: &[&str] = &["Welcome", "Refuse", "Start", "Cancel", "Ack", "Forget", "AuditHead"];

/// Smallest and largest heartbeat period that the gateway may ask for, milliseconds.
const HEARTBEAT_BOUNDS: (u64, u64) = (50, 60_000);

/// Smallest and largest read deadline that the gateway may ask for, milliseconds.
const DEAD_AFTER_BOUNDS: (u64, u64) = (100, 300_000);

/// Why a Session ended, or was not established.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The agent was asked to exit.
    #[error("the agent is stopping")]
    Stopped,
    /// The agent's thread has exited.
    #[error("the agent's thread has exited")]
    AgentGone,
    /// The gateway declined or ended it.
    #[error("refused by the operator: {0}")]
    Refused(SessionRefusal),
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl SessionError {
    pub(super) fn category(&self) -> ErrorCategory {
        match self {
            Self::Stopped => ErrorCategory::Shutdown,
            Self::AgentGone => ErrorCategory::Internal,
            Self::Refused(_) => ErrorCategory::Refused,
            Self::Socket(error) => error.category(),
        }
    }

    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Stopped | Self::AgentGone => false,
            Self::Refused(refusal) => !matches!(refusal, SessionRefusal::Version { .. }),
            Self::Socket(error) => error.is_retryable(),
        }
    }
}

/// An established Session, as the log socket needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionInfo {
    pub(crate) id: SessionId,
    /// The address that was dialled, when it is not the configured one.
    pub(crate) at: Option<String>,
    /// Without a frame for this long the connection counts as dead.
    pub(crate) dead_after: Duration,
}

/// All that the control link needs.
pub(crate) struct ControlLink {
    /// Name of the node, for the log only.
    pub(crate) node: String,
    pub(crate) dialer: Dialer,
    pub(crate) timing: Timing,
    pub(crate) mailbox: Mailbox,
    pub(crate) metrics: Arc<AgentMetrics>,
    pub(crate) sampler: Sampler,
    /// The head of the node's audit chain, for the Heartbeats.
    pub(crate) audit: SyncedHead,
    pub(crate) status: StatusFile,
    /// The established Session, for the log link.
    pub(crate) session: watch::Sender<Option<SessionInfo>>,
    pub(crate) boot_id: String,
    /// For the log of the operator only; see [`crate::journal::StateDir::state_id`].
    pub(crate) state_id: String,
    pub(crate) kernel: String,
    pub(crate) environments: Vec<Environment>,
}

/// Dials, shakes hands and serves the Session until something ends it.
pub(super) async fn run_session(
    link: &ControlLink,
    at: Option<&str>,
    stop: &CancellationToken,
) -> SessionError {
    let established = tokio::select! {
        established = establish(link, at) => established,
        () = stop.cancelled() => return SessionError::Stopped,
    };
    let (socket, welcome) = match established {
        Ok(established) => established,
        Err(error) => return error,
    };
    tracing::Span::current().record("session", welcome.session.as_str());
    tracing::info!(epoch = %welcome.epoch, operator = %link.dialer.endpoint, "session established");
    let (outbox, outgoing) = mpsc::channel(OUTGOING);
    if link.mailbox.send(Input::Connected { epoch: welcome.epoch, outbox }).await.is_err() {
        return SessionError::AgentGone;
    }
    let keys = SessionKeys::generate();
    let mut session = Session::new(link, socket, &welcome, outgoing, keys);
    link.session.send_replace(Some(SessionInfo {
        id: welcome.session,
        at: at.map(str::to_owned),
        dead_after: session.dead_after,
    }));
    let ended = session.run(stop).await;
    session.socket.close().await;
    match link.mailbox.send(Input::Disconnected).await {
        Ok(()) => ended,
        Err(_) => SessionError::AgentGone,
    }
}

async fn establish(link: &ControlLink, at: Option<&str>) -> Result<(TimedSocket, Welcome), SessionError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_CONTROL_FRAME)
        .max_message_size(Some(MAX_CONTROL_FRAME))
        .max_frame_size(Some(MAX_CONTROL_FRAME));
    let within = link.timing.welcome_within;
    let mut socket = TimedSocket::connect(&link.dialer, PATH, at, config, within).await?;
    let mut hello = Some(ToOperator::Hello(Hello {
        versions: version::SPOKEN.to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: link.boot_id.clone().into(),
        state_id: link.state_id.clone().into(),
        highest_epoch: link.metrics.highest_epoch(),
        environments: link.environments.clone(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: link.kernel.clone().into(),
    }));
    let handshake = async {
        socket.send_texts(|| hello.take()).await?;
        loop {
            if let Some(text) = socket.recv().await? {
                return welcome(&text);
            }
        }
    };
    let welcome = timeout(within, handshake).await.map_err(|_| SocketError::TimedOut(within))??;
    Ok((socket, welcome))
}

/// The gateway's answer to a Hello.
fn welcome(text: &str) -> Result<Welcome, SessionError> {
    let malformed = |why: String| Err(SocketError::Malformed(why).into());
    match decode_text(text) {
        Ok(ToAgent::Welcome(welcome)) if version::SPOKEN.contains(&welcome.version) => Ok(welcome),
        Ok(ToAgent::Welcome(welcome)) => {
            malformed(format!("protocol version {}, which was not offered", welcome.version.0))
        }
        Ok(ToAgent::Refuse(refusal)) => Err(SessionError::Refused(refusal)),
        Ok(_) => malformed("expected a Welcome".to_owned()),
        Err(error) => malformed(error.to_string()),
    }
}

/// What a Session waits for.
enum SessionEvent<'a> {
    /// The mailbox has room for the next message; it may have been full until now.
    Permit {
        permit: InputPermit<'a>,
        was_full: bool,
    },
    Received(Result<Option<Utf8Bytes>, SocketError>),
    Outgoing(ToOperator),
    HeartbeatDue,
    ReadTimeout,
    AgentGone,
    Stop,
}

/// An established Session.
struct Session<'a> {
    link: &'a ControlLink,
    socket: TimedSocket,
    outgoing: mpsc::Receiver<ToOperator>,
    heartbeat: Interval,
    heartbeat_sent: bool,
    /// Nothing is read without room in the mailbox for it.
    permit: Option<InputPermit<'a>>,
    dead_after: Duration,
    last_received: Instant,
    id: SessionId,
    /// For the values of Secrets. In the memory of this Session only.
    keys: SessionKeys,
    /// The public one, until it is sent with the Inventory.
    unsent_key: Option<SealingKey>,
}

impl<'a> Session<'a> {
    fn new(
        link: &'a ControlLink,
        mut socket: TimedSocket,
        welcome: &Welcome,
        outgoing: mpsc::Receiver<ToOperator>,
        keys: SessionKeys,
    ) -> Self {
        let (least, most) = DEAD_AFTER_BOUNDS;
        let dead_after = Duration::from_millis(welcome.dead_after_ms.clamp(least, most));
        socket.set_write_deadline(dead_after);
        let (least, most) = HEARTBEAT_BOUNDS;
        let period = Duration::from_millis(welcome.heartbeat_ms.clamp(least, most));
        let mut heartbeat = interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link,
            socket,
            outgoing,
            heartbeat,
            heartbeat_sent: false,
            permit: None,
            dead_after,
            last_received: Instant::now(),
            id: welcome.session.clone(),
            unsent_key: Some(keys.public()),
            keys,
        }
    }

    /// Serves the Session until something ends it.
    async fn run(&mut self, stop: &CancellationToken) -> SessionError {
        loop {
            let event = self.next_event(stop).await;
            if let Err(error) = self.on_event(event).await {
                return error;
            }
        }
    }

    /// Every branch is cancel safe. While the mailbox is full nothing is read, so the read deadline does not count.
    async fn next_event(&mut self, stop: &CancellationToken) -> SessionEvent<'a> {
        let link = self.link;
        let can_read = self.permit.is_some();
        let was_full = !can_read && link.mailbox.is_full();
        tokio::select! {
            biased;
            () = stop.cancelled() => SessionEvent::Stop,
            _ = self.heartbeat.tick() => SessionEvent::HeartbeatDue,
            permit = link.mailbox.reserve(), if !can_read => match permit {
                Ok(permit) => SessionEvent::Permit { permit, was_full },
                Err(_) => SessionEvent::AgentGone,
            },
            message = self.outgoing.recv() => message.map_or(SessionEvent::AgentGone, SessionEvent::Outgoing),
            received = self.socket.recv(), if can_read => SessionEvent::Received(received),
            () = sleep_until(self.last_received + self.dead_after), if can_read => SessionEvent::ReadTimeout,
        }
    }

    async fn on_event(&mut self, event: SessionEvent<'a>) -> Result<(), SessionError> {
        match event {
            SessionEvent::Stop => return Err(SessionError::Stopped),
            SessionEvent::AgentGone => return Err(SessionError::AgentGone),
            SessionEvent::ReadTimeout => return Err(SocketError::TimedOut(self.dead_after).into()),
            SessionEvent::Permit { permit, was_full } => {
                self.permit = Some(permit);
                // Frames that arrived while nothing was read are still to be read.
                if was_full {
                    self.last_received = Instant::now();
                }
            }
            SessionEvent::HeartbeatDue => self.send_heartbeat().await?,
            SessionEvent::Outgoing(message) => {
                let inventory_sent = matches!(&message, ToOperator::Inventory(part) if !part.more);
                let mut first = Some(message);
                let Self { socket, outgoing, unsent_key, .. } = self;
                let mut next = || {
                    let mut message = first.take().or_else(|| outgoing.try_recv().ok())?;
                    if let ToOperator::Inventory(part) = &mut message {
                        part.sealing_key = unsent_key.take();
                    }
                    Some(message)
                };
                socket.send_texts(&mut next).await?;
                // The node shows up as soon as the operator knows what it owns.
                if inventory_sent && !self.heartbeat_sent {
                    self.send_heartbeat().await?;
                }
            }
            SessionEvent::Received(received) => {
                self.last_received = Instant::now();
                if let Some(text) = received?
                    && let Some(mut message) = message(&text)?
                    && let Some(permit) = self.permit.take()
                {
                    let secrets = self.open_secrets(&mut message);
                    permit.send(Input::Message { message, secrets });
                }
            }
        }
        Ok(())
    }

    /// Takes the box out of a `Start` and opens it: nothing beyond this Session has it.
    fn open_secrets(&self, message: &mut ToAgent) -> Option<Result<SecretValues, String>> {
        let ToAgent::Start(start) = message else { return None };
        let sealed = start.secrets.take()?;
        Some(self.keys.open(&self.id, start, &sealed).map_err(|error| {
            tracing::warn!(attempt = %start.attempt, %error, "unable to open the sealed values of secrets");
            error.to_string()
        }))
    }

    async fn send_heartbeat(&mut self) -> Result<(), SessionError> {
        self.heartbeat_sent = true;
        let metrics = self.link.metrics.complete(self.link.sampler.latest());
        let audit = self.link.audit.get();
        let heartbeat = ToOperator::Heartbeat(Heartbeat { at: host::wall_clock(), metrics, audit });
        self.link.status.note_connected(self.dead_after);
        Ok(self.socket.send_with_ping(&heartbeat).await?)
    }
}

/// The message in a text frame; `None` when its kind is not known.
fn message(text: &str) -> Result<Option<ToAgent>, SessionError> {
    match decode_text(text) {
        Ok(ToAgent::Refuse(refusal)) => Err(SessionError::Refused(refusal)),
        Ok(message) => Ok(Some(message)),
        Err(_) if is_unknown_kind(text, KNOWN_KINDS) => {
            tracing::debug!("a message of an unknown kind was ignored");
            Ok(None)
        }
        Err(error) => Err(SocketError::Malformed(error.to_string()).into()),
    }
}
