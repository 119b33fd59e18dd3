//! A connection as the accept loop hands it on: TCP or a Unix socket, ended when its other end does not read.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use crate::metrics::Counter;

/// TCP or a Unix socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that fails once its other end has taken nothing of what is to be written for too long.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    patience: Option<Duration>,
    /// Runs while something waits to be written.
    stall: Option<Pin<Box<Sleep>>>,
    stalled: Counter,
}

impl Stream {
    pub(super) fn new(socket: Socket, patience: Option<Duration>, stalled: Counter) -> Self {
        Self { socket, patience, stall: None, stalled }
    }

    /// What a write came to; starts, resets or ends the wait.
    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let Some(patience) = self.patience else { return Poll::Pending };
        let stall =
            self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(stall.as_mut().poll(cx));
        self.stall = None;
        self.stalled.add(1);
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the other end does not read")))
    }
}

macro_rules! on_socket {
    ($self:ident, $socket:ident => $call:expr) => {
        match &mut $self.socket {
            Socket::Tcp($socket) => {
                let $socket = Pin::new($socket);
                $call
            }
            Socket::Unix($socket) => {
                let $socket = Pin::new($socket);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        on_socket!(self, socket => socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let written = on_socket!(self, socket => socket.poll_write(cx, buf));
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = on_socket!(self, socket => socket.poll_write_vectored(cx, bufs));
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.is_write_vectored(),
            Socket::Unix(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        on_socket!(self, socket => socket.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        on_socket!(self, socket => socket.poll_shutdown(cx))
    }
}
