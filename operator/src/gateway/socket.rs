//! What both sockets of an agent share: frames in and out, deadlines, and the close.

use std::fmt::Display;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error as SocketError, Message, Utf8Bytes};

use super::meter::Meter;
use super::settings::Settings;

/// Time for the refusal and the close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The authenticated agent behind a socket.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its node, by its token.
    pub(super) node: NodeName,
    /// Kept to be reviewed again during the Session.
    pub(super) bearer: Box<str>,
    /// Tells whether a message has been incomplete for too long.
    pub(super) meter: Meter,
}

/// Why a socket of an agent closes.
#[derive(Debug)]
pub(super) enum SocketEnd {
    /// The agent or the network closed it.
    Disconnected,
    /// Nothing was received for too long.
    Silent,
    /// A message was begun and not completed in time.
    SlowMessage,
    /// The agent does not read what is sent to it.
    NotReading,
    /// Memory for output was short for too long.
    NoRoom,
    /// Output arrived before the operator knew its Attempt, and was ignored; on its next socket the agent sends it again.
    OutputIgnored,
    /// The gateway refuses the agent, and sends it the reason.
    Refused(SessionRefusal),
}

impl SocketEnd {
    /// The agent sent something invalid.
    pub(super) fn malformed(message: impl Display) -> Self {
        Self::Refused(SessionRefusal::Malformed { message: message.to_string().into() })
    }

    /// The kind of end, one of a fixed set: metric label and log field.
    pub(super) fn category(&self) -> &'static str {
        match self {
            Self::Disconnected => "Disconnected",
            Self::Silent | Self::SlowMessage => "Silent",
            Self::NotReading => "NotReading",
            Self::NoRoom => "NoRoom",
            Self::OutputIgnored => "OutputIgnored",
            Self::Refused(refusal) => match refusal {
                SessionRefusal::Replaced => "Replaced",
                SessionRefusal::Version { .. } => "Version",
                SessionRefusal::Unauthenticated => "Unauthenticated",
                SessionRefusal::NotLeader { .. } => "NotLeader",
                SessionRefusal::Stopping => "Stopping",
                SessionRefusal::HelloExpected
                | SessionRefusal::Malformed { .. }
                | SessionRefusal::WrongState { .. } => "Malformed",
            },
        }
    }

    /// What a failed socket means. Only a violation of the WebSocket protocol gets an answer.
    fn failed(error: &SocketError) -> Self {
        match error {
            SocketError::Capacity(error) => Self::malformed(error),
            SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Disconnected,
            SocketError::Protocol(error) => Self::malformed(error),
            SocketError::Utf8(error) => Self::malformed(error),
            _ => Self::Disconnected,
        }
    }

    fn close_frame(&self) -> Option<CloseFrame> {
        match self {
            Self::NoRoom => {
                let reason = "memory for output is short; keep it and reconnect".into();
                Some(CloseFrame { code: CloseCode::Again, reason })
            }
            Self::OutputIgnored => {
                let reason = "output came before its attempt was known; send it again".into();
                Some(CloseFrame { code: CloseCode::Again, reason })
            }
            Self::Refused(refusal) => {
                let is_invalid =
                    matches!(refusal, SessionRefusal::Malformed { .. } | SessionRefusal::HelloExpected);
                let code = if is_invalid { CloseCode::Protocol } else { CloseCode::Policy };
                // The reason of a close frame has at most 123 bytes (RFC 6455, section 5.5).
                let text = refusal.to_string();
                let reason = text[..text.floor_char_boundary(123)].into();
                Some(CloseFrame { code, reason })
            }
            _ => None,
        }
    }
}

/// One WebSocket of an agent.
pub(super) struct AgentSocket<S> {
    stream: WebSocketStream<S>,
    meter: Meter,
    settings: Settings,
    received: Instant,
    sent: Instant,
}

impl<S> AgentSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) fn new(stream: WebSocketStream<S>, meter: Meter, settings: Settings) -> Self {
        let now = Instant::now();
        Self { stream, meter, settings, received: now, sent: now }
    }

    /// The first text frame, within the time for it. Anything else but pings is not a Hello.
    pub(super) async fn receive_hello(&mut self) -> Result<Utf8Bytes, SocketEnd> {
        let within = self.settings.hello_within;
        let first = async {
            loop {
                match self.receive().await? {
                    Message::Text(text) => return Ok(text),
                    Message::Ping(_) | Message::Pong(_) => {}
                    _ => return Err(SocketEnd::Refused(SessionRefusal::HelloExpected)),
                }
            }
        };
        timeout(within, first).await.unwrap_or(Err(SocketEnd::Silent))
    }

    /// The next frame. Cancel-safe: an incomplete frame stays in the buffer of the stream.
    pub(super) async fn receive(&mut self) -> Result<Message, SocketEnd> {
        match self.stream.next().await {
            None | Some(Ok(Message::Close(_))) => Err(SocketEnd::Disconnected),
            Some(Err(error)) => Err(SocketEnd::failed(&error)),
            Some(Ok(message)) => {
                self.received = Instant::now();
                self.meter.saw(&message);
                Ok(message)
            }
        }
    }

    /// When [`AgentSocket::check_deadlines`] and [`AgentSocket::ping_if_due`] are to be called next.
    pub(super) fn next_deadline(&self) -> Instant {
        (self.received + self.settings.dead_after).min(self.sent + self.settings.heartbeat)
    }

    /// Whether the agent was silent, or a message incomplete, for too long.
    pub(super) fn check_deadlines(&mut self) -> Result<(), SocketEnd> {
        if self.received.elapsed() >= self.settings.dead_after {
            return Err(SocketEnd::Silent);
        }
        if self.meter.is_overdue(self.settings.dead_after) {
            return Err(SocketEnd::SlowMessage);
        }
        Ok(())
    }

    /// Pings the agent when nothing was sent to it for a heartbeat.
    pub(super) async fn ping_if_due(&mut self) -> Result<(), SocketEnd> {
        if self.sent.elapsed() < self.settings.heartbeat {
            return Ok(());
        }
        self.send(vec![Message::Ping(Bytes::new())]).await
    }

    /// Writes all of these, unless the agent does not take them in time.
    pub(super) async fn send(&mut self, messages: Vec<Message>) -> Result<(), SocketEnd> {
        if messages.is_empty() {
            return Ok(());
        }
        let stream = &mut self.stream;
        let write = async {
            for message in messages {
                stream.feed(message).await?;
            }
            stream.flush().await
        };
        match timeout(self.settings.dead_after, write).await {
            Ok(Ok(())) => {
                self.sent = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(SocketEnd::failed(&error)),
            Err(_) => Err(SocketEnd::NotReading),
        }
    }

    /// Sends a refusal, encoded by `encode`, where the agent can still receive it, and closes.
    pub(super) async fn close(
        &mut self,
        end: SocketEnd,
        encode: impl FnOnce(SessionRefusal) -> Option<String>,
    ) {
        if matches!(end, SocketEnd::Silent | SocketEnd::SlowMessage | SocketEnd::NotReading) {
            return;
        }
        let frame = end.close_frame();
        let text = match end {
            SocketEnd::Refused(refusal) => encode(refusal),
            _ => None,
        };
        let close = async {
            if let Some(text) = text {
                let _ = self.stream.send(Message::Text(text.into())).await;
            }
            let _ = self.stream.close(frame).await;
        };
        let _ = timeout(CLOSE_WITHIN, close).await;
    }
}
