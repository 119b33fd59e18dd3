//! How long a WebSocket message has been incomplete.
//!
//! A deadline for frames does not bound messages: one in fragments stays incomplete for as long as pings arrive in between.
//! So the bytes read are counted, and those that belong to no complete frame are part of an incomplete message.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// Bytes of a client's control frame without its payload (RFC 6455, section 5.2): two of header, four of mask.
const CONTROL_HEAD: u64 = 6;

/// Counts the bytes read from a stream.
#[derive(Debug)]
pub(super) struct Metered<S> {
    inner: S,
    read: Arc<AtomicU64>,
}

/// Measures how long a message has been incomplete.
#[derive(Debug)]
pub(super) struct Meter {
    read: Arc<AtomicU64>,
    /// Bytes that belong to complete frames.
    seen: u64,
    /// Since when `read` exceeds `seen`; without meaning while it does not.
    since: Instant,
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S) -> (Self, Meter) {
        let read = Arc::new(AtomicU64::new(0));
        (Self { inner, read: read.clone() }, Meter { read, seen: 0, since: Instant::now() })
    }
}

impl Meter {
    /// A control frame or a whole message was received.
    pub(super) fn saw(&mut self, message: &Message) {
        let read = self.read.load(Ordering::Relaxed);
        self.seen = match message {
            Message::Ping(payload) | Message::Pong(payload) => {
                self.seen.saturating_add(CONTROL_HEAD + payload.len() as u64).min(read)
            }
            // Bytes of the next message that were read along count with this one: less than one read buffer.
            _ => read,
        };
        if self.seen == read || !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            self.since = Instant::now();
        }
    }

    /// Whether a message has been incomplete for `within`. To be called periodically: it resets the timer when no message
    /// is incomplete.
    pub(super) fn is_overdue(&mut self, within: Duration) -> bool {
        if self.read.load(Ordering::Relaxed) <= self.seen {
            self.since = Instant::now();
        }
        self.since.elapsed() >= within
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let more = buf.filled().len().saturating_sub(before);
        self.read.fetch_add(more as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
