//! The accept loop and its connections.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{Counter, Gauge, Registry as MetricsRegistry};

use super::tls::{TlsError, TlsSource};

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once, upgraded ones included; more wait to be accepted.
    pub connections: usize,
    /// Time for the TLS handshake, and for the headers of a request.
    pub header_timeout: Duration,
    /// Bytes of all headers of a request.
    pub header_bytes: usize,
    /// Number of headers of a request.
    pub headers: usize,
    /// Time that open requests get to finish when the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            header_timeout: Duration::from_secs(5),
            header_bytes: 16 << 10,
            headers: 64,
            drain: Duration::from_secs(5),
        }
    }
}

/// Where a listener may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// On any address: whoever dials must prove who they are.
    Anywhere,
    /// On loopback only.
    Loopback {
        /// Why, as the end of a sentence that begins with "only loopback addresses are allowed while".
        while_: &'static str,
    },
}

impl Exposure {
    /// The rule while nothing authenticates people.
    pub const NO_PEOPLE: Self = Self::Loopback { while_: "no authentication of people is configured" };
    /// The rule for agents when nothing reviews their tokens.
    pub const NO_TOKEN_REVIEW: Self =
        Self::Loopback { while_: "agents are not authenticated by TokenReview" };
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is open to others and may not be.
    #[error(
        "failed to listen on {addr} for {what}: only loopback addresses (127.0.0.1, [::1]) are allowed while {while_}"
    )]
    Exposed {
        /// What was to be served.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// The reason for the rule.
        while_: &'static str,
    },
    /// The kernel refused the address.
    #[error("failed to listen on {addr} for {what}")]
    Bind {
        /// What was to be served.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("failed to serve {what} over TLS")]
    Tls {
        /// What was to be served.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: TlsError,
    },
}

/// Who dials: an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address at the other end.
    pub addr: SocketAddr,
    /// The place among the listener's connections; whoever takes the connection over (an upgrade) keeps it as long
    /// as the connection lives.
    pub place: Arc<OwnedSemaphorePermit>,
}

/// A port that is open and not yet served.
#[derive(Debug)]
pub struct Server {
    what: &'static str,
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
    tls: Option<TlsSource>,
    connections: Gauge,
    accept_errors: Counter,
}

impl Server {
    /// Opens the port. `what` names it for people and as a metric label: `api`, `gateway`, `metrics`.
    ///
    /// # Errors
    /// [`ServerError`] when the address is not allowed or cannot be had.
    pub async fn bind(
        what: &'static str,
        addr: SocketAddr,
        exposure: Exposure,
        limits: Limits,
        metrics: &MetricsRegistry,
    ) -> Result<Self, ServerError> {
        if let Exposure::Loopback { while_ } = exposure
            && !addr.ip().to_canonical().is_loopback()
        {
            return Err(ServerError::Exposed { what, addr, while_ });
        }
        let bind = |source| ServerError::Bind { what, addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;
        Ok(Self {
            what,
            listener,
            local_addr,
            limits,
            tls: None,
            connections: metrics.gauge_with(
                "sentinel_server_connections",
                "Open connections.",
                &[("listener", what)],
            ),
            accept_errors: metrics.counter_with(
                "sentinel_server_accept_errors_total",
                "Connections that could not be accepted or whose TLS handshake failed.",
                &[("listener", what)],
            ),
        })
    }

    /// Speaks TLS.
    #[must_use]
    pub fn with_tls(mut self, source: TlsSource) -> Self {
        self.tls = Some(source);
        self
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop`, then lets open requests finish for at most `limits.drain`. Upgraded connections are not
    /// waited for: they belong to whoever upgraded them.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: tower_service::Service<http::Request<Incoming>, Response = http::Response<B>>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let open = TaskTracker::new();
        // Ends connections that are still open after the drain.
        let cut = CancellationToken::new();
        loop {
            // Neither branch loses anything when dropped: a permit is given back, an unaccepted connection stays in
            // the kernel's queue.
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&places) => accepted,
            };
            let connection = Connection {
                limits: self.limits,
                tls: self.tls.clone(),
                stop: stop.clone(),
                cut: cut.clone(),
                errors: self.accept_errors.clone(),
                _open: self.connections.hold(),
            };
            open.spawn(connection.run(stream, WithPeer { service: service.clone(), peer }));
        }
        drop(self.listener);
        open.close();
        if tokio::time::timeout(self.limits.drain, open.wait()).await.is_err() {
            tracing::warn!(
                listener = self.what,
                open = open.len(),
                "requests did not finish in time and are cut"
            );
            cut.cancel();
            open.wait().await;
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> (TcpStream, Peer) {
        loop {
            let Ok(place) = Arc::clone(places).acquire_owned().await else {
                // Nobody closes this semaphore.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, addr)) => {
                    // Without it a small answer can wait 40 ms for the acknowledgement of the one before.
                    if stream.set_nodelay(true).is_ok() {
                        return (stream, Peer { addr, place: Arc::new(place) });
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: the next try would fail at once as well.
                    self.accept_errors.add(1);
                    tracing::warn!(listener = self.what, %error, "unable to accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One connection, from the handshake to its end or its upgrade.
struct Connection {
    limits: Limits,
    tls: Option<TlsSource>,
    stop: CancellationToken,
    cut: CancellationToken,
    errors: Counter,
    _open: crate::metrics::Held,
}

impl Connection {
    async fn run<S, B>(self, stream: TcpStream, service: WithPeer<S>)
    where
        S: tower_service::Service<http::Request<Incoming>, Response = http::Response<B>>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(tls) = &self.tls else { return self.serve(stream, service).await };
        match tokio::time::timeout(self.limits.header_timeout, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, service).await,
            Ok(Err(error)) => {
                self.errors.add(1);
                tracing::debug!(peer = %service.peer.addr, %error, "TLS handshake failed");
            }
            Err(_) => self.errors.add(1),
        }
    }

    async fn serve<T, S, B>(&self, stream: T, service: WithPeer<S>)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: tower_service::Service<http::Request<Incoming>, Response = http::Response<B>>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
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
        // A connection is only ever dropped where it is to be cut.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.cut.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended early");
        }
    }
}

/// A service that is told who dials.
#[derive(Debug, Clone)]
struct WithPeer<S> {
    service: S,
    peer: Peer,
}

impl<S, B> tower_service::Service<http::Request<B>> for WithPeer<S>
where
    S: tower_service::Service<http::Request<B>>,
    S::Future: Future<Output = Result<S::Response, S::Error>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.service.call(request)
    }
}
