//! A TCP or Unix stream whose writes time out when the client does not read.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use crate::metrics::Counter;

/// A TCP or Unix stream.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Fails once a pending write has made no progress for `write_timeout`.
#[derive(Debug)]
pub(super) struct WriteTimeoutStream {
    transport: Transport,
    write_timeout: Option<Duration>,
    /// Runs while a write is pending.
    stall: Option<Pin<Box<Sleep>>>,
    stalled: Counter,
}

impl WriteTimeoutStream {
    pub(super) fn new(transport: Transport, write_timeout: Option<Duration>, stalled: Counter) -> Self {
        Self { transport, write_timeout, stall: None, stalled }
    }

    /// Starts, resets or stops the timer by the result of a write.
    fn check_progress(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let Some(write_timeout) = self.write_timeout else { return Poll::Pending };
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + write_timeout)));
        ready!(stall.as_mut().poll(cx));
        self.stall = None;
        self.stalled.add(1);
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not read")))
    }
}

macro_rules! with_transport {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.transport {
            Transport::Tcp($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Transport::Unix($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

impl AsyncRead for WriteTimeoutStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        with_transport!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for WriteTimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let written = with_transport!(self, stream => stream.poll_write(cx, buf));
        self.check_progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = with_transport!(self, stream => stream.poll_write_vectored(cx, bufs));
        self.check_progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(stream) => stream.is_write_vectored(),
            Transport::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        with_transport!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        with_transport!(self, stream => stream.poll_shutdown(cx))
    }
}
