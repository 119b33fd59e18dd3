//! How long a WebSocket message has been under way.
//!
//! A deadline for frames is none for messages: a message in fragments stays unfinished for as long as pings come between
//! them. So the bytes are counted where they come in, and those that belong to no frame seen so far are a message that
//! is not finished.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// Bytes of a client's control frame beside its payload (RFC 6455, section 5.2): two of head, four of mask.
const CONTROL_HEAD: u64 = 6;

/// Counts what is read from a stream.
#[derive(Debug)]
pub(super) struct Metered<S> {
    inner: S,
    read: Arc<AtomicU64>,
}

/// Judges by the count.
#[derive(Debug)]
pub(super) struct Meter {
    read: Arc<AtomicU64>,
    /// So many of the bytes read belong to frames that were seen.
    seen: u64,
    /// Since when there are more than these; of no meaning while there are none.
    since: Instant,
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S) -> (Self, Meter) {
        let read = Arc::new(AtomicU64::new(0));
        (Self { inner, read: read.clone() }, Meter { read, seen: 0, since: Instant::now() })
    }
}

impl Meter {
    /// A frame or a whole message was seen.
    pub(super) fn saw(&mut self, message: &Message) {
        let read = self.read.load(Ordering::Relaxed);
        self.seen = match message {
            Message::Ping(payload) | Message::Pong(payload) => {
                self.seen.saturating_add(CONTROL_HEAD + payload.len() as u64).min(read)
            }
            // What is read of the next message already is counted with this one; that is one read's worth at most.
            _ => read,
        };
        if self.seen == read || !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            self.since = Instant::now();
        }
    }

    /// Whether a message has been unfinished for so long. To be asked from time to time, since that is when it notes
    /// that none is.
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
