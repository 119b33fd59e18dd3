//! The accept loop: takes connections within the limits of the listener, and drains them when it stops.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, HttpService, ResponseBody};
use super::error::{Exposure, ServerError};
use super::forward::{Place, Places};
use super::limits::Limits;
use super::listener::{Listener, Local, UNIX_PEER};
use super::peer::{ConnectionSlot, Peer, WithPeer};
use super::shares::Shares;
use super::stream::WriteTimeoutStream;
use super::tls::Tls;
use super::unauthenticated::UnauthenticatedPool;
use crate::metrics::{Counter, Gauge, Registry as MetricsRegistry};

/// Pause after a failed accept: out of file descriptors, most likely, so an immediate retry would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port or socket that is not served yet.
#[derive(Debug)]
pub struct Server {
    what: &'static str,
    listener: Listener,
    local: Local,
    limits: Limits,
    tls: Option<Tls>,
    places: Option<Places>,
    metrics: ServerMetrics,
}

#[derive(Debug)]
struct ServerMetrics {
    connections: Gauge,
    accept_errors: Counter,
    refused: Counter,
    stalled: Counter,
    turned_away: Counter,
    panics: Counter,
}

impl ServerMetrics {
    fn new(listener: &'static str, registry: &MetricsRegistry) -> Self {
        let counter = |name, help| registry.counter_with(name, help, &[("listener", listener)]);
        Self {
            connections: registry.gauge_with(
                "sentinel_server_connections",
                "Open connections.",
                &[("listener", listener)],
            ),
            accept_errors: counter(
                "sentinel_server_accept_errors_total",
                "Connections that could not be accepted or whose TLS handshake failed.",
            ),
            refused: counter(
                "sentinel_server_refused_total",
                "Connections closed at once: over the limit of their client, or opened by another user.",
            ),
            stalled: counter(
                "sentinel_server_stalled_total",
                "Connections closed because the client did not read.",
            ),
            turned_away: counter(
                "sentinel_server_turned_away_total",
                "Connections closed at once: over the limit of unauthenticated connections of their address.",
            ),
            panics: counter(
                "sentinel_server_connection_panics_total",
                "Connections closed because their task panicked.",
            ),
        }
    }
}

/// What bounds the connections of one listener.
struct Admission {
    slots: Arc<Semaphore>,
    clients: Shares,
    unauthenticated: UnauthenticatedPool,
}

impl Server {
    /// Binds a TCP port. `what` is the name of the listener in errors and metrics: `api`, `gateway`, `metrics`.
    ///
    /// # Errors
    /// [`ServerError`] when `exposure` forbids the address or the kernel refuses it.
    #[expect(clippy::unused_async, reason = "the same signature as bind_socket, which waits")]
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
        let bound = Listener::tcp(addr, limits.send_buffer);
        let (listener, local) = bound.map_err(|source| ServerError::Bind { what, addr, source })?;
        Ok(Self::new(what, listener, local, limits, metrics))
    }

    /// Creates a Unix socket for this process's user and root. A stale one, to which no process listens any more, is
    /// replaced.
    ///
    /// # Errors
    /// [`ServerError::BindSocket`] when it cannot be created, or a process listens on it.
    pub async fn bind_socket(
        what: &'static str,
        path: &Path,
        limits: Limits,
        metrics: &MetricsRegistry,
    ) -> Result<Self, ServerError> {
        let bound = Listener::unix(path).await;
        let (listener, local) =
            bound.map_err(|source| ServerError::BindSocket { what, path: path.to_owned(), source })?;
        Ok(Self::new(what, listener, local, limits, metrics))
    }

    fn new(
        what: &'static str,
        listener: Listener,
        local: Local,
        limits: Limits,
        metrics: &MetricsRegistry,
    ) -> Self {
        Self {
            what,
            listener,
            local,
            limits,
            tls: None,
            places: None,
            metrics: ServerMetrics::new(what, metrics),
        }
    }

    /// Serves TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Passes connections on to where they are served.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.places = Some(places);
        self
    }

    /// The bound address; the assigned port when 0 was asked for, and port 0 for a Unix socket.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.local {
            Local::Tcp(addr) => *addr,
            Local::Unix(_) => UNIX_PEER,
        }
    }

    /// The bound address or path.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Serves until `stop`, then drains open requests for `limits.drain`. Upgraded connections are not waited for:
    /// they belong to the task that upgraded them.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: HttpService<B>,
        B: ResponseBody,
    {
        let admission = Admission {
            slots: Arc::new(Semaphore::new(self.limits.connections)),
            clients: Shares::new(usize::MAX, self.limits.per_client),
            unauthenticated: UnauthenticatedPool::new(
                self.limits.unauthenticated,
                self.limits.unauthenticated_per_address,
            ),
        };
        let open = TaskTracker::new();
        let abort = CancellationToken::new();
        loop {
            // Cancel-safe: a permit is given back, an unaccepted connection stays in the kernel's queue.
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&admission) => accepted,
            };
            let connection = Connection {
                limits: self.limits,
                tls: self.tls.clone(),
                place: self.places.as_ref().map_or(Place::Here, |places| places.borrow().clone()),
                port: self.local_addr().port(),
                stop: stop.clone(),
                abort: abort.clone(),
                errors: self.metrics.accept_errors.clone(),
                _open: self.metrics.connections.hold(),
            };
            let service = WithPeer { service: service.clone(), peer };
            open.spawn(counting_panics(
                self.what,
                self.metrics.panics.clone(),
                connection.run(stream, service),
            ));
        }
        drop(self.listener);
        open.close();
        if tokio::time::timeout(self.limits.drain, open.wait()).await.is_err() {
            tracing::warn!(
                listener = self.what,
                open = open.len(),
                "drain timed out; closing the remaining connections"
            );
            abort.cancel();
            open.wait().await;
        }
    }

    async fn accept(&self, admission: &Admission) -> (WriteTimeoutStream, Peer) {
        loop {
            let slot = Arc::clone(&admission.slots).acquire_owned().await;
            let (Ok(slot), Some(permit)) = (slot, admission.unauthenticated.acquire().await) else {
                // These semaphores are never closed.
                return std::future::pending().await;
            };
            let (transport, addr, client) = match self.listener.accept().await {
                Ok(Some(accepted)) => accepted,
                Ok(None) => {
                    self.metrics.refused.add(1);
                    continue;
                }
                Err(error) => {
                    self.metrics.accept_errors.add(1);
                    tracing::warn!(listener = self.what, %error, "unable to accept a connection; will retry");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(unauthenticated) = admission.unauthenticated.assign(permit, addr.ip()) else {
                self.metrics.turned_away.add(1);
                continue;
            };
            let Some(share) = admission.clients.take(client, 1) else {
                self.metrics.refused.add(1);
                continue;
            };
            let slot = Arc::new(ConnectionSlot { _of_listener: slot, _of_client: share });
            let stalled = self.metrics.stalled.clone();
            let stream = WriteTimeoutStream::new(transport, self.limits.write_stall, stalled);
            let unauthenticated = Arc::new(unauthenticated);
            return (stream, Peer { addr, client, certificate: None, slot, unauthenticated });
        }
    }
}

/// Runs the task of a connection. A panic closes that connection alone, and is counted.
async fn counting_panics(listener: &'static str, panics: Counter, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        panics.add(1);
        tracing::error!(listener, "the task of a connection panicked; the connection is closed");
    }
}
