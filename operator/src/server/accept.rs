//! The accept loop and its connections.

use std::fmt;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{Counter, Gauge, Registry as MetricsRegistry};

use super::shares::{Client, Share, Shares};
use super::stream::{Socket, Stream};
use super::tls::{TlsError, TlsSource};
use super::waiting::{Lobby, Waiting};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once, upgraded ones included; more wait to be accepted.
    pub connections: usize,
    /// Connections that one client may have; further ones are closed at once.
    pub per_client: usize,
    /// How long the other end may take nothing of what is to be written to it; `None` waits for ever.
    pub write_stall: Option<Duration>,
    /// Bytes that the kernel keeps for a TCP connection until they are acknowledged; `None` leaves it to the kernel.
    pub send_buffer: Option<u32>,
    /// Of these, connections whose other end has not proved who it is; more wait to be accepted.
    pub waiting: usize,
    /// Connections of one address among them (of IPv6, of one /64); more are closed at once.
    pub waiting_per_address: usize,
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
            per_client: usize::MAX,
            write_stall: None,
            send_buffer: None,
            waiting: 20_000,
            waiting_per_address: usize::MAX,
            header_timeout: Duration::from_secs(5),
            header_bytes: 16 << 10,
            headers: 64,
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Those of a listener for people and programs. One client leaves half of it to others.
    pub fn of_people() -> Self {
        Self {
            connections: 2_048,
            per_client: 1_024,
            write_stall: Some(Duration::from_mins(2)),
            send_buffer: Some(256 << 10),
            ..Self::default()
        }
    }

    /// Those of a listener for probes and scrapers, whose answers are short.
    pub fn of_probes() -> Self {
        Self {
            connections: 256,
            per_client: 64,
            write_stall: Some(Duration::from_secs(10)),
            send_buffer: Some(256 << 10),
            ..Self::default()
        }
    }

    /// Those of the listener for agents. An agent proves who it is with its first request, so few wait at a time, and a
    /// whole fleet behind one address is still let in.
    pub fn of_agents() -> Self {
        Self { waiting: 4_000, waiting_per_address: 1_000, ..Self::default() }
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
    /// The socket cannot be made.
    #[error("failed to listen on {} for {what}", path.display())]
    BindSocket {
        /// What was to be served.
        what: &'static str,
        /// Where.
        path: PathBuf,
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
    /// The address at the other end; 127.0.0.1 without a port for a Unix socket.
    pub addr: SocketAddr,
    /// Whose connection it is, for limits.
    pub client: Client,
    /// The place among the listener's connections; whoever takes the connection over (an upgrade) keeps it as long
    /// as the connection lives.
    pub place: Arc<Place>,
    /// Its place among those who have not proved who they are.
    pub waiting: Arc<Waiting>,
}

impl Peer {
    /// The other end has proved who it is.
    pub fn authenticated(&self) {
        self.waiting.leave();
    }
}

/// A place among the connections of a listener, and among those of one client.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_client: Share,
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// At an address.
    Tcp(SocketAddr),
    /// At a path.
    Unix(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removed when it is dropped")] SocketFile),
}

/// The file of a Unix socket, removed when nothing listens on it any more.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, with its directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A port or socket that is open and not yet served.
#[derive(Debug)]
pub struct Server {
    what: &'static str,
    listener: Listener,
    local: Local,
    limits: Limits,
    tls: Option<TlsSource>,
    connections: Gauge,
    accept_errors: Counter,
    refused: Counter,
    stalled: Counter,
    turned_away: Counter,
}

impl Server {
    /// Opens the port. `what` names it for people and as a metric label: `api`, `gateway`, `metrics`.
    ///
    /// # Errors
    /// [`ServerError`] when the address is not allowed or cannot be had.
    #[expect(clippy::unused_async, reason = "to be called as bind_socket is, which waits")]
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
        let listener = listen(addr, &limits).map_err(bind)?;
        let local = Local::Tcp(listener.local_addr().map_err(bind)?);
        Ok(Self::new(what, Listener::Tcp(listener), local, limits, metrics))
    }

    /// Makes the Unix socket, for this process's user and root alone. One that a process left behind, on which nothing
    /// listens any more, is replaced.
    ///
    /// # Errors
    /// [`ServerError::BindSocket`] when it cannot be made, or something listens on it.
    pub async fn bind_socket(
        what: &'static str,
        path: &Path,
        limits: Limits,
        metrics: &MetricsRegistry,
    ) -> Result<Self, ServerError> {
        let failed = |source| ServerError::BindSocket { what, path: path.to_owned(), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path).await.map_err(failed)?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = listener.map_err(failed)?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let local = Local::Unix(path.to_owned());
        Ok(Self::new(what, Listener::Unix(listener, file), local, limits, metrics))
    }

    fn new(
        what: &'static str,
        listener: Listener,
        local: Local,
        limits: Limits,
        metrics: &MetricsRegistry,
    ) -> Self {
        let label = [("listener", what)];
        Self {
            what,
            listener,
            local,
            limits,
            tls: None,
            connections: metrics.gauge_with("sentinel_server_connections", "Open connections.", &label),
            accept_errors: metrics.counter_with(
                "sentinel_server_accept_errors_total",
                "Connections that could not be accepted or whose TLS handshake failed.",
                &label,
            ),
            refused: metrics.counter_with(
                "sentinel_server_refused_total",
                "Connections closed at once: their client has as many as it may have, or is another user.",
                &label,
            ),
            stalled: metrics.counter_with(
                "sentinel_server_stalled_total",
                "Connections ended because their other end did not read.",
                &label,
            ),
            turned_away: metrics.counter_with(
                "sentinel_server_turned_away_total",
                "Connections closed at once: their address has as many that have not proved who they are as it may.",
                &label,
            ),
        }
    }

    /// Speaks TLS.
    #[must_use]
    pub fn with_tls(mut self, source: TlsSource) -> Self {
        self.tls = Some(source);
        self
    }

    /// Where it listens; the port is the real one when 0 was asked for, and none for a Unix socket.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.local {
            Local::Tcp(addr) => *addr,
            Local::Unix(_) => UNIX_PEER,
        }
    }

    /// Where it listens.
    pub fn local(&self) -> &Local {
        &self.local
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
        let clients = Shares::new(usize::MAX, self.limits.per_client);
        let lobby = Lobby::new(self.limits.waiting, self.limits.waiting_per_address);
        let open = TaskTracker::new();
        // Ends connections that are still open after the drain.
        let cut = CancellationToken::new();
        loop {
            // Neither branch loses anything when dropped: a permit is given back, an unaccepted connection stays in
            // the kernel's queue.
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&places, &clients, &lobby) => accepted,
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

    async fn accept(&self, places: &Arc<Semaphore>, clients: &Shares, lobby: &Lobby) -> (Stream, Peer) {
        loop {
            let (Ok(place), Some(waiting)) = (Arc::clone(places).acquire_owned().await, lobby.place().await)
            else {
                // These semaphores are never closed.
                return std::future::pending().await;
            };
            let (socket, addr, client) = match self.accept_any().await {
                Ok(Some(accepted)) => accepted,
                Ok(None) => {
                    self.refused.add(1);
                    continue;
                }
                Err(error) => {
                    // Out of descriptors, most likely: the next try would fail at once as well.
                    self.accept_errors.add(1);
                    tracing::warn!(listener = self.what, %error, "unable to accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(waiting) = lobby.seat(waiting, addr.ip()) else {
                self.turned_away.add(1);
                continue;
            };
            let Some(share) = clients.take(client, 1) else {
                self.refused.add(1);
                continue;
            };
            let place = Arc::new(Place { _of_all: place, _of_client: share });
            let stream = Stream::new(socket, self.limits.write_stall, self.stalled.clone());
            return (stream, Peer { addr, client, place, waiting: Arc::new(waiting) });
        }
    }

    /// The next connection; `None` for one of a user whom the socket is not for, or that is gone already.
    async fn accept_any(&self) -> Result<Option<(Socket, SocketAddr, Client)>, Error> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                // Without it a small answer can wait 40 ms for the acknowledgement of the one before.
                let is_there = stream.set_nodelay(true).is_ok();
                Ok(is_there.then(|| (Socket::Tcp(stream), addr, Client::from(addr))))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                let ours = uid.filter(|uid| *uid == 0 || *uid == rustix::process::geteuid().as_raw());
                Ok(ours.map(|uid| (Socket::Unix(stream), UNIX_PEER, Client::User(uid))))
            }
        }
    }
}

/// What stands for the address of a connection over a Unix socket.
const UNIX_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listening port. Accepted connections inherit the size of its send buffer.
fn listen(addr: SocketAddr, limits: &Limits) -> Result<TcpListener, Error> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if let Some(bytes) = limits.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Removes the file of a socket on which nothing listens.
async fn remove_stale(path: &Path) -> Result<(), Error> {
    // A connection to any other file is refused as well.
    if !path.symlink_metadata()?.file_type().is_socket() {
        return Err(Error::new(ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    match tokio::net::UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(ErrorKind::AddrInUse.into()),
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
    async fn run<S, B>(self, stream: Stream, service: WithPeer<S>)
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
        // A target with an authority names another host than the header might.
        if let Some(authority) = request.uri().authority().cloned() {
            request.extensions_mut().insert(authority);
        }
        self.service.call(request)
    }
}
