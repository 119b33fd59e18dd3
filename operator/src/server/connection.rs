//! One connection, from the TLS handshake to its end or its upgrade.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::forward::{self, Place};
use super::limits::Limits;
use super::peer::WithPeer;
use super::stream::WriteTimeoutStream;
use super::tls::{ClientCertificate, Tls};
use crate::metrics::{Counter, Held};

/// A body that a listener can send.
pub trait ResponseBody: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

impl<B> ResponseBody for B where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static
{
}

/// An HTTP service that a listener can serve; `B` is the body of its responses.
pub trait HttpService<B>:
    tower_service::Service<
        http::Request<Incoming>,
        Response = http::Response<B>,
        Future: Send + 'static,
        Error: Into<Box<dyn Error + Send + Sync>> + Send,
    > + Clone
    + Send
    + 'static
{
}

impl<S, B> HttpService<B> for S where
    S: tower_service::Service<
            http::Request<Incoming>,
            Response = http::Response<B>,
            Future: Send + 'static,
            Error: Into<Box<dyn Error + Send + Sync>> + Send,
        > + Clone
        + Send
        + 'static
{
}

/// One connection of a listener.
pub(super) struct Connection {
    pub(super) limits: Limits,
    pub(super) tls: Option<Tls>,
    /// Where it is served.
    pub(super) place: Place,
    /// The listener's port.
    pub(super) port: u16,
    /// The listener stops: the current request is finished, then the connection closes.
    pub(super) stop: CancellationToken,
    /// The drain timed out: the connection is dropped.
    pub(super) abort: CancellationToken,
    pub(super) errors: Counter,
    pub(super) _open: Held,
}

impl Connection {
    /// Serves requests until either end closes, the listener stops, or a request upgrades the connection.
    pub(super) async fn run<S: HttpService<B>, B: ResponseBody>(
        self,
        stream: WriteTimeoutStream,
        mut service: WithPeer<S>,
    ) {
        match &self.place {
            Place::Here => {}
            Place::Unknown => return,
            Place::Elsewhere(host) if forward::is_at(host, service.peer.addr.ip()) => {
                self.errors.add(1);
                tracing::debug!(leader = host, "a connection of the leader itself is not passed back to it");
                return;
            }
            Place::Elsewhere(host) => return Box::pin(self.pass_on(stream, host)).await,
        }
        // Boxed, so that a connection takes the memory of what it does now, not of the largest of these.
        let Some(tls) = &self.tls else { return Box::pin(self.serve(stream, service)).await };
        let handshake = Box::pin(tls.acceptor().accept(stream));
        match tokio::time::timeout(self.limits.header_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain.and_then(<[_]>::first).map(ClientCertificate::of);
                service.peer.certificate = certificate.map(Arc::new);
                Box::pin(self.serve(stream, service)).await;
            }
            Ok(Err(error)) => {
                self.errors.add(1);
                tracing::debug!(peer = %service.peer.addr, %error, "TLS handshake failed");
            }
            Err(_) => self.errors.add(1),
        }
    }

    async fn pass_on(&self, stream: WriteTimeoutStream, host: &str) {
        let passed = tokio::select! {
            passed = forward::pass_on(stream, host, self.port) => passed,
            () = self.abort.cancelled() => Ok(()),
        };
        if let Err(error) = passed {
            self.errors.add(1);
            tracing::debug!(leader = host, %error, "a connection was not passed on to the leader");
        }
    }

    async fn serve<T, S: HttpService<B>, B: ResponseBody>(&self, stream: T, service: WithPeer<S>)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = service.peer.addr;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(self.limits.header_bytes.max(8192))
            .max_headers(self.limits.headers)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .with_upgrades();
        let mut connection = pin!(connection);
        // hyper_util's GracefulShutdown has no implementation for an HTTP/1 connection with upgrades.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.abort.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection closed early");
        }
    }
}
