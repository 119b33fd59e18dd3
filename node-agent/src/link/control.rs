//! One Session on the control socket.
//!
//! select → step → perform, where the step is the agent's: what comes in goes to its mailbox, what it says goes out.
//! Heartbeats go out by the clock, whatever the agent's thread is waiting for.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{CodecError, decode_text, encode_text, is_unknown_kind};
use sentinel_protocol::limits::MAX_CONTROL_FRAME;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::{Heartbeat, Hello, ToOperator};
use sentinel_protocol::version;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::dial::{DialError, Socket};
use super::reconnect::{Link, Session};
use crate::agent::Input;
use crate::host;

/// The gateway's path.
const PATH: &str = "/agent/v1/control";

/// Messages to the operator that may wait; beyond, Reports wait for their repetition.
const OUTBOX: usize = 2048;

/// The kinds that [`ToAgent`] knows; another one is ignored, so that a newer operator can say more.
const KNOWN_KINDS: &[&str] = &["Welcome", "Refuse", "Start", "Cancel", "Ack", "Forget"];

/// The heartbeat that the gateway may ask for, at the least and at the most, milliseconds.
const HEARTBEAT_BOUNDS: (u64, u64) = (50, 60_000);

/// The silence that the gateway may ask for, at the least and at the most, milliseconds.
const DEAD_AFTER_BOUNDS: (u64, u64) = (100, 300_000);

/// Why a Session ended, or never began.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// We were asked to end.
    #[error("the agent is stopping")]
    Stopped,
    /// The agent's thread is gone.
    #[error("the agent's thread has ended")]
    AgentGone,
    /// No connection.
    #[error("no connection")]
    Dial(#[source] DialError),
    /// The gateway declined or ended it, in its own words.
    #[error("the operator refused: {0}")]
    Refused(SessionRefusal),
    /// The gateway said something else than it should have.
    #[error("unable to understand the operator: {0}")]
    Malformed(String),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] Box<tungstenite::Error>),
    /// The gateway closed the connection.
    #[error("the operator closed the connection")]
    Closed,
    /// Nothing was heard, or nothing could be said, for too long.
    #[error("nothing was heard of the operator for {} ms", .0.as_millis())]
    Silent(Duration),
    /// A message of ours does not fit a frame.
    #[error("unable to write a message")]
    Encode(#[source] CodecError),
}

/// What was waited for.
enum Happened<'a> {
    Room(crate::agent::Slot<'a>),
    Heard(Option<Result<Message, tungstenite::Error>>),
    ToSay(ToOperator),
    HeartbeatDue,
    Silence,
    AgentGone,
    Stop,
}

/// Dials, shakes hands and talks until something ends it.
pub(super) async fn session(link: &mut Link, at: Option<&str>, stop: &CancellationToken) -> SessionError {
    let greeted = tokio::select! {
        greeted = greet(link, at) => greeted,
        () = stop.cancelled() => return SessionError::Stopped,
    };
    let (mut socket, welcome) = match greeted {
        Ok(greeted) => greeted,
        Err(error) => return error,
    };
    tracing::info!(session = %welcome.session, epoch = %welcome.epoch, operator = %link.dialer.endpoint, "session stands");
    let (outbox, from_agent) = mpsc::channel(OUTBOX);
    if link.mailbox.post(Input::Connected { epoch: welcome.epoch, outbox }).await.is_err() {
        return SessionError::AgentGone;
    }
    let (least, most) = DEAD_AFTER_BOUNDS;
    let dead_after = Duration::from_millis(welcome.dead_after_ms.clamp(least, most));
    let session = Session { id: welcome.session.clone(), at: at.map(str::to_owned), dead_after };
    link.session.send_replace(Some(session));
    let mut talk = Talk { socket: &mut socket, dead_after, heard_at: Instant::now() };
    let ended = talk.go_on(link, &welcome, from_agent, stop).await;
    // Best effort: the gateway finds out by itself otherwise.
    let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
    match link.mailbox.post(Input::Disconnected).await {
        Ok(()) => ended,
        Err(_) => SessionError::AgentGone,
    }
}

async fn greet(link: &Link, at: Option<&str>) -> Result<(Socket, Welcome), SessionError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_CONTROL_FRAME)
        .max_message_size(Some(MAX_CONTROL_FRAME))
        .max_frame_size(Some(MAX_CONTROL_FRAME));
    let mut socket = link.dialer.dial(PATH, at, config).await.map_err(SessionError::Dial)?;
    let hello = ToOperator::Hello(Hello {
        versions: version::SPOKEN.to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: link.boot_id.clone().into(),
        state_id: link.state_id.clone().into(),
        highest_epoch: link.vitals.highest_epoch(),
        environments: link.environments.clone(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: link.kernel.clone().into(),
    });
    let within = link.timing.welcome_within;
    let handshake = async {
        let text = encode_text(&hello).map_err(SessionError::Encode)?;
        socket.send(Message::text(text)).await.map_err(broken)?;
        loop {
            match socket.next().await {
                None | Some(Ok(Message::Close(_))) => return Err(SessionError::Closed),
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok(Message::Text(text))) => match decode_text(&text) {
                    Ok(ToAgent::Welcome(welcome)) if version::SPOKEN.contains(&welcome.version) => {
                        return Ok(welcome);
                    }
                    Ok(ToAgent::Welcome(welcome)) => {
                        let version = welcome.version.0;
                        return Err(SessionError::Malformed(format!("it chose protocol version {version}")));
                    }
                    Ok(ToAgent::Refuse(refusal)) => return Err(SessionError::Refused(refusal)),
                    Ok(_) => {
                        return Err(SessionError::Malformed("its first message is no Welcome".to_owned()));
                    }
                    Err(error) => return Err(SessionError::Malformed(error.to_string())),
                },
                Some(Ok(Message::Binary(_))) => {
                    return Err(SessionError::Malformed("a binary frame on the control socket".to_owned()));
                }
                Some(Ok(_)) => {}
            }
        }
    };
    let welcome = timeout(within, handshake).await.map_err(|_| SessionError::Silent(within))??;
    Ok((socket, welcome))
}

struct Talk<'a> {
    socket: &'a mut Socket,
    dead_after: Duration,
    heard_at: Instant,
}

impl Talk<'_> {
    async fn go_on(
        &mut self,
        link: &Link,
        welcome: &Welcome,
        mut from_agent: mpsc::Receiver<ToOperator>,
        stop: &CancellationToken,
    ) -> SessionError {
        let (least, most) = HEARTBEAT_BOUNDS;
        let period = Duration::from_millis(welcome.heartbeat_ms.clamp(least, most));
        let mut heartbeat = interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first_heartbeat = true;
        let mut slot = None;
        loop {
            let waited_for_room = slot.is_none() && link.mailbox.is_full();
            // Nothing is lost when one branch is dropped for another: reserving, receiving and reading a frame all
            // keep what they have. While the mailbox is full nothing is read, and so silence says nothing either.
            let happened = tokio::select! {
                biased;
                () = stop.cancelled() => Happened::Stop,
                _ = heartbeat.tick() => Happened::HeartbeatDue,
                room = link.mailbox.slot(), if slot.is_none() => match room {
                    Ok(room) => Happened::Room(room),
                    Err(_) => Happened::AgentGone,
                },
                message = from_agent.recv() => message.map_or(Happened::AgentGone, Happened::ToSay),
                frame = self.socket.next(), if slot.is_some() => Happened::Heard(frame),
                () = sleep_until(self.heard_at + self.dead_after), if slot.is_some() => Happened::Silence,
            };
            let done = match happened {
                Happened::Stop => return SessionError::Stopped,
                Happened::AgentGone => return SessionError::AgentGone,
                Happened::Silence => return SessionError::Silent(self.dead_after),
                Happened::Room(room) => {
                    slot = Some(room);
                    // What came while nothing was read still has to be read.
                    if waited_for_room {
                        self.heard_at = Instant::now();
                    }
                    Ok(())
                }
                Happened::HeartbeatDue => {
                    first_heartbeat = false;
                    self.heartbeat(link).await
                }
                Happened::ToSay(message) => {
                    let last = matches!(&message, ToOperator::Inventory(part) if !part.more);
                    let mut said = self.say(message, &mut from_agent).await;
                    // The node is shown as soon as the operator knows what is on it.
                    if said.is_ok() && last && first_heartbeat {
                        first_heartbeat = false;
                        said = self.heartbeat(link).await;
                    }
                    said
                }
                Happened::Heard(frame) => {
                    self.heard_at = Instant::now();
                    match heard(frame) {
                        Ok(Some(message)) => {
                            if let Some(slot) = slot.take() {
                                slot.post(Input::Message(message));
                            }
                            Ok(())
                        }
                        Ok(None) => Ok(()),
                        Err(error) => Err(error),
                    }
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Says this and whatever else waits, in one write as far as possible.
    async fn say(
        &mut self,
        message: ToOperator,
        more: &mut mpsc::Receiver<ToOperator>,
    ) -> Result<(), SessionError> {
        let mut next = Some(message);
        let writing = async {
            while let Some(message) = next.take() {
                let text = encode_text(&message).map_err(SessionError::Encode)?;
                self.socket.feed(Message::text(text)).await.map_err(broken)?;
                next = more.try_recv().ok();
            }
            self.socket.flush().await.map_err(broken)
        };
        timeout(self.dead_after, writing).await.map_err(|_| SessionError::Silent(self.dead_after))?
    }

    async fn heartbeat(&mut self, link: &Link) -> Result<(), SessionError> {
        let metrics = link.vitals.complete(link.sampler.latest());
        let heartbeat = ToOperator::Heartbeat(Heartbeat { at: host::wall_clock(), metrics });
        link.status.note_connected(self.dead_after);
        let writing = async {
            let text = encode_text(&heartbeat).map_err(SessionError::Encode)?;
            self.socket.feed(Message::text(text)).await.map_err(broken)?;
            // Its pong counts as a word of the gateway, which may have nothing else to say.
            self.socket.send(Message::Ping(Vec::new().into())).await.map_err(broken)
        };
        timeout(self.dead_after, writing).await.map_err(|_| SessionError::Silent(self.dead_after))?
    }
}

/// What a frame says to the agent; `None` when it says nothing to it.
fn heard(frame: Option<Result<Message, tungstenite::Error>>) -> Result<Option<ToAgent>, SessionError> {
    let text = match frame {
        None | Some(Ok(Message::Close(_))) => return Err(SessionError::Closed),
        Some(Err(error)) => return Err(broken(error)),
        Some(Ok(Message::Binary(_))) => {
            return Err(SessionError::Malformed("a binary frame on the control socket".to_owned()));
        }
        Some(Ok(Message::Text(text))) => text,
        Some(Ok(_)) => return Ok(None),
    };
    match decode_text(&text) {
        Ok(ToAgent::Refuse(refusal)) => Err(SessionError::Refused(refusal)),
        Ok(message) => Ok(Some(message)),
        Err(_) if is_unknown_kind(&text, KNOWN_KINDS) => {
            tracing::debug!("a message of an unknown kind was ignored");
            Ok(None)
        }
        Err(error) => Err(SessionError::Malformed(error.to_string())),
    }
}

fn broken(error: tungstenite::Error) -> SessionError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => SessionError::Closed,
        error => SessionError::Broken(Box::new(error)),
    }
}
