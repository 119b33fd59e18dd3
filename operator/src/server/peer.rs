//! The other end of a connection, attached to every request as an extension.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;

use super::shares::{Client, Share};
use super::tls::ClientCertificate;
use super::unauthenticated::UnauthenticatedSlot;

/// The other end of a connection: an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; 127.0.0.1 without a port for a Unix socket.
    pub addr: SocketAddr,
    /// The client that the connection counts for.
    pub client: Client,
    /// Its certificate, where the listener asks for one and its chain was verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The connection's slot among those of the listener. An upgraded connection keeps it until it closes.
    pub slot: Arc<ConnectionSlot>,
    /// The connection's slot among the unauthenticated ones.
    pub unauthenticated: Arc<UnauthenticatedSlot>,
}

impl Peer {
    /// The client has authenticated; its slot among the unauthenticated connections is released.
    pub fn authenticated(&self) {
        self.unauthenticated.release();
    }
}

/// A slot among the connections of a listener, and among those of one client.
#[derive(Debug)]
pub struct ConnectionSlot {
    pub(super) _of_listener: OwnedSemaphorePermit,
    pub(super) _of_client: Share,
}

/// Adds the [`Peer`] to the extensions of each request.
#[derive(Debug, Clone)]
pub(super) struct WithPeer<S> {
    pub(super) service: S,
    pub(super) peer: Peer,
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
        // A request target in absolute form carries its own authority, which may differ from the Host header.
        if let Some(authority) = request.uri().authority().cloned() {
            request.extensions_mut().insert(authority);
        }
        self.service.call(request)
    }
}
