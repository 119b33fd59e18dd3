//! A WebSocket to the gateway with a deadline on every write: the common part of control and log socket.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{CodecError, encode_text};
use serde::Serialize;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::dial::{DialError, Dialer, WebSocket};
use crate::error_category::ErrorCategory;

/// How long closing may take. Best effort: the gateway notices the end of the connection without it.
const CLOSE_WITHIN: Duration = Duration::from_millis(200);

/// Why a socket cannot be used, or can no longer be.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// No connection.
    #[error("failed to connect")]
    Dial(#[source] DialError),
    /// The gateway sent something that the protocol does not allow.
    #[error("unexpected message from the operator: {0}")]
    Malformed(String),
    /// The connection broke.
    #[error("connection lost")]
    Broken(#[source] Box<tungstenite::Error>),
    /// The gateway closed the connection.
    #[error("the operator closed the connection")]
    Closed,
    /// Nothing could be received or sent for this long.
    #[error("timed out: nothing received from the operator for {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// An outgoing message does not fit a frame.
    #[error("failed to encode a message")]
    Encode(#[source] CodecError),
}

impl SocketError {
    pub(super) fn category(&self) -> ErrorCategory {
        match self {
            Self::Dial(error) => error.category(),
            Self::Malformed(_) => ErrorCategory::Protocol,
            Self::Broken(_) => ErrorCategory::Network,
            Self::Closed => ErrorCategory::Refused,
            Self::TimedOut(_) => ErrorCategory::Timeout,
            Self::Encode(_) => ErrorCategory::Internal,
        }
    }

    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_retryable(),
            Self::Encode(_) => false,
            Self::Malformed(_) | Self::Broken(_) | Self::Closed | Self::TimedOut(_) => true,
        }
    }
}

/// A connected WebSocket whose writes have to be done within a deadline.
pub(super) struct TimedSocket {
    socket: WebSocket,
    write_within: Duration,
}

impl TimedSocket {
    /// Dials the gateway at this path; `at` is an address other than the configured one.
    pub(super) async fn connect(
        dialer: &Dialer,
        path: &str,
        at: Option<&str>,
        config: WebSocketConfig,
        write_within: Duration,
    ) -> Result<Self, SocketError> {
        let socket = dialer.dial(path, at, config).await.map_err(SocketError::Dial)?;
        Ok(Self { socket, write_within })
    }

    /// Changes the deadline of writes.
    pub(super) fn set_write_deadline(&mut self, write_within: Duration) {
        self.write_within = write_within;
    }

    /// The next text frame; `None` for a frame without meaning for us, such as a pong. Cancel safe.
    pub(super) async fn recv(&mut self) -> Result<Option<Utf8Bytes>, SocketError> {
        match self.socket.next().await {
            None | Some(Ok(Message::Close(_))) => Err(SocketError::Closed),
            Some(Err(error)) => Err(lost(error)),
            Some(Ok(Message::Binary(_))) => Err(SocketError::Malformed("a binary frame".to_owned())),
            Some(Ok(Message::Text(text))) => Ok(Some(text)),
            Some(Ok(_)) => Ok(None),
        }
    }

    /// Sends messages until `next` has none left, in one write as far as possible.
    pub(super) async fn send_texts<T: Serialize>(
        &mut self,
        mut next: impl FnMut() -> Option<T>,
    ) -> Result<(), SocketError> {
        let socket = &mut self.socket;
        let writing = async {
            while let Some(message) = next() {
                let text = encode_text(&message).map_err(SocketError::Encode)?;
                socket.feed(Message::text(text)).await.map_err(lost)?;
            }
            socket.flush().await.map_err(lost)
        };
        within(self.write_within, writing).await
    }

    /// Sends one message and a ping, whose pong shows that the gateway is alive though it has nothing to send.
    pub(super) async fn send_with_ping<T: Serialize>(&mut self, message: &T) -> Result<(), SocketError> {
        let socket = &mut self.socket;
        let writing = async {
            let text = encode_text(message).map_err(SocketError::Encode)?;
            socket.feed(Message::text(text)).await.map_err(lost)?;
            socket.send(Message::Ping(Bytes::new())).await.map_err(lost)
        };
        within(self.write_within, writing).await
    }

    /// Sends a ping.
    pub(super) async fn send_ping(&mut self) -> Result<(), SocketError> {
        let socket = &mut self.socket;
        let writing = async { socket.send(Message::Ping(Bytes::new())).await.map_err(lost) };
        within(self.write_within, writing).await
    }

    /// Sends binary frames, in one write as far as possible.
    pub(super) async fn send_frames(&mut self, frames: Vec<Bytes>) -> Result<(), SocketError> {
        if frames.is_empty() {
            return Ok(());
        }
        let socket = &mut self.socket;
        let writing = async {
            for frame in frames {
                socket.feed(Message::Binary(frame)).await.map_err(lost)?;
            }
            socket.flush().await.map_err(lost)
        };
        within(self.write_within, writing).await
    }

    /// Closes it.
    pub(super) async fn close(mut self) {
        let _ = timeout(CLOSE_WITHIN, self.socket.close(None)).await;
    }
}

async fn within(
    limit: Duration,
    writing: impl Future<Output = Result<(), SocketError>>,
) -> Result<(), SocketError> {
    timeout(limit, writing).await.map_err(|_| SocketError::TimedOut(limit))?
}

fn lost(error: tungstenite::Error) -> SocketError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => SocketError::Closed,
        error => SocketError::Broken(Box::new(error)),
    }
}
