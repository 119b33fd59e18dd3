//! A connection to the server: over TLS, TCP or a Unix socket, and never to a server of another local user.
//!
//! This is why the client is built on hyper and not on reqwest: the owner of the server is checked on the open
//! connection before the first byte is sent, and reqwest does not expose its connections.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::server::Server;
use super::trust::Trust;
use super::{dev_socket, peer};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether requests carry a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A bearer token.
    Token,
    /// No secret.
    None,
}

/// Connects to one server.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) server: Server,
    pub(super) credentials: Credentials,
    /// For a server over TLS.
    pub(super) trust: Option<Trust>,
}

impl Connector {
    async fn connect(self) -> Result<Link> {
        let (host, port) = match &self.server {
            Server::Unix(path) => return unix(path).await,
            Server::Https { host, port, .. } => return self.secure(bare(host), *port).await,
            Server::Http { host, port, .. } => (bare(host), *port),
            Server::Cluster(_) => {
                let message = "a cluster is reached through its API server, not directly";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        // The socket of this user's dev mode identifies it better than a port that any user can take.
        if self.server.is_local()
            && let Some(socket) = dev_socket::socket_of(port)
        {
            match unix(&socket).await {
                Err(error) if is_absent(&error) => {}
                connected => return connected,
            }
        }
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let (ours, theirs) = (stream.local_addr()?, stream.peer_addr()?);
        if theirs.ip().to_canonical().is_loopback() {
            peer::check_tcp(ours, theirs)?;
        } else if self.credentials == Credentials::Token {
            return Err(peer::untrusted(
                "a token is not sent in plain text to another machine; use https://, or forward a port with ssh -L",
            ));
        }
        Ok(Link(TokioIo::new(Either::Left(Either::Left(stream)))))
    }

    /// Its certificate identifies the server, also on this machine.
    async fn secure(&self, host: &str, port: u16) -> Result<Link> {
        let trust =
            self.trust.as_ref().ok_or_else(|| peer::untrusted("no authority is known to verify it by"))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| peer::untrusted(format!("{host} cannot be the name of a server: {error}")))?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let connected = TlsConnector::from(trust.config()).connect(name, stream).await;
        let stream = connected.map_err(|error| match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(why)) => peer::untrusted(certificate(why, host)),
            Some(rustls::Error::InvalidMessage(_)) => {
                Error::new(ErrorKind::InvalidData, "it does not answer in TLS; is it http://?")
            }
            _ => error,
        })?;
        Ok(Link(TokioIo::new(Either::Right(Box::new(stream)))))
    }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Why a certificate does not identify this host.
fn certificate(why: &CertificateError, host: &str) -> String {
    match why {
        CertificateError::UnknownIssuer => {
            "its certificate is not of an authority that is trusted here".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for the name {host}")
        }
        other => format!("its certificate cannot be verified: {other}"),
    }
}

async fn unix(path: &Path) -> Result<Link> {
    let stream = UnixStream::connect(path).await?;
    peer::check_socket(&stream)?;
    Ok(Link(TokioIo::new(Either::Left(Either::Right(stream)))))
}

/// Nothing listens there anymore.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

impl tower_service::Service<Uri> for Connector {
    type Response = Link;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Link>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect()).await;
            connected.unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, "no connection within 5 s")))
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link(TokioIo<Either<Plain, Box<TlsStream<TcpStream>>>>);

/// One without TLS.
type Plain = Either<TcpStream, UnixStream>;

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
