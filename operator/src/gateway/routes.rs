//! From HTTP to a WebSocket. The only file of the gateway that names warp.
//!
//! The upgrade is done here: warp's gives each connection a read buffer of 128 KiB, too much for 15,000 idle agents.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::limits::{MAX_CONTROL_FRAME, MAX_LOG_FRAME};
use serde::Serialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use warp::filters::BoxedFilter;
use warp::{Filter, Reply};

use super::auth::AgentIdentity;
use super::gate::Gateway;
use super::meter::Metered;
use super::socket::Caller;
use super::socket_slots::SocketKind;
use super::{log_socket, session};
use crate::identity::AuthError;
use crate::identity::credentials::bearer;
use crate::server::Peer;

/// Path of the control socket.
pub const CONTROL_PATH: &str = "/agent/v1/control";

/// Path of the log socket.
pub const LOGS_PATH: &str = "/agent/v1/logs";

/// Bounds on what is read and written before it is decoded. Buffers grow to the largest message and never shrink, so
/// they begin small where little is sent.
fn config(kind: SocketKind) -> WebSocketConfig {
    let (read, largest) = match kind {
        SocketKind::Control => (1 << 10, MAX_CONTROL_FRAME),
        SocketKind::Logs => (64 << 10, MAX_LOG_FRAME),
    };
    // The write buffer is not allocated before it is used; several messages at once are then one write.
    WebSocketConfig::default()
        .read_buffer_size(read)
        .write_buffer_size(4 << 10)
        .max_write_buffer_size(8 << 20)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
}

/// The gateway, as an HTTP service for a listener.
pub fn service(
    gateway: Gateway,
) -> impl tower_service::Service<
    http::Request<hyper::body::Incoming>,
    Response = warp::reply::Response,
    Error = std::convert::Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    warp::service(agent(gateway))
}

/// The routes of agents.
pub fn agent(gateway: Gateway) -> BoxedFilter<(impl Reply,)> {
    let control = warp::path!("agent" / "v1" / "control").map(|| SocketKind::Control);
    let logs = warp::path!("agent" / "v1" / "logs").map(|| SocketKind::Logs);
    let kind = control.or(logs).unify();
    kind.and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<Peer>())
        .then(move |kind, method, headers, upgrade, peer| {
            let gateway = gateway.clone();
            async move { connect(gateway, kind, &method, &headers, upgrade, peer).await }
        })
        .boxed()
}

async fn connect(
    gateway: Gateway,
    kind: SocketKind,
    method: &http::Method,
    headers: &http::HeaderMap,
    upgrade: Option<OnUpgrade>,
    peer: Option<Peer>,
) -> Response<Bytes> {
    // Authentication comes first: the response tells strangers nothing else.
    let (identity, token) = match authenticate(&gateway, headers, peer.as_ref()).await {
        Ok(authenticated) => authenticated,
        Err(error) => return refuse(&gateway, error.status(), error.category(), &error.to_string()),
    };
    let (key, upgrade) = match handshake(method, headers, upgrade) {
        Ok(agreed) => agreed,
        Err((status, message)) => return refuse(&gateway, status, "NotAWebSocket", message),
    };
    if let Some(peer) = &peer {
        peer.authenticated();
    }
    serve(gateway, kind, (identity.node, token.into()), upgrade, peer);
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header(http::header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    response.body(Bytes::new()).unwrap_or_default()
}

/// The agent of a request, and its token.
async fn authenticate<'a>(
    gateway: &Gateway,
    headers: &'a http::HeaderMap,
    peer: Option<&Peer>,
) -> Result<(AgentIdentity, &'a str), AuthError> {
    let token = bearer(headers)?;
    let from = peer.map(|peer| peer.addr.ip());
    let identity = gateway.authenticate(token, from).await.inspect_err(|error| {
        let peer = peer.map(|peer| peer.addr);
        let (category, count) = (error.category(), gateway.metrics().refused(error.category()).get() + 1);
        // A flood of strangers must not become a flood of lines.
        if count.is_power_of_two() {
            tracing::warn!(?peer, %error, category, count, "an agent's token was not accepted");
        } else {
            tracing::debug!(?peer, %error, category, count, "an agent's token was not accepted");
        }
    })?;
    Ok((identity, token))
}

/// Runs the socket in a task of its own, once the connection is upgraded.
fn serve(
    gateway: Gateway,
    kind: SocketKind,
    (node, bearer): (NodeName, Box<str>),
    upgrade: OnUpgrade,
    peer: Option<Peer>,
) {
    let slot = gateway.socket_slot(&node, kind);
    let owner = gateway.clone();
    // Boxed where a future would otherwise be stored twice, in the outer one as well, and apart from the upgrade, which is
    // over soon: it counts with 15,000 agents.
    let socket = |slot| async move {
        // Kept until the socket closes: it counts as one of the listener's connections, and of its agent's sockets.
        let _kept = (peer, slot);
        if let Some(running) = Box::pin(upgraded(gateway, kind, (node, bearer), upgrade)).await {
            running.await;
        }
    };
    owner.spawn(slot, |slot| Box::pin(socket(slot)));
}

/// The socket of an upgraded connection, which is to be run; `None` when its agent has left.
async fn upgraded(
    gateway: Gateway,
    kind: SocketKind,
    (node, bearer): (NodeName, Box<str>),
    upgrade: OnUpgrade,
) -> Option<BoxFuture<'static, ()>> {
    let (io, meter) = Metered::new(TokioIo::new(upgrade.await.ok()?));
    let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config(kind))).await;
    let caller = Caller { node, bearer, meter };
    Some(match kind {
        SocketKind::Control => Box::pin(session::run(gateway, stream, caller)),
        SocketKind::Logs => Box::pin(log_socket::run(gateway, stream, caller)),
    })
}

/// The key of a WebSocket handshake, or the status and message that refuse it.
fn handshake(
    method: &http::Method,
    headers: &http::HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<(String, OnUpgrade), (StatusCode, &'static str)> {
    let has = |name: http::HeaderName, token: &str| {
        let values = headers.get_all(name);
        values
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    };
    if !has(http::header::UPGRADE, "websocket") || !has(http::header::CONNECTION, "upgrade") {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "agents connect here by WebSocket: send Upgrade: websocket",
        ));
    }
    if *method != http::Method::GET {
        return Err((StatusCode::BAD_REQUEST, "a WebSocket handshake is a GET"));
    }
    if !has(http::header::SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(http::header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    // 16 bytes in base64.
    let Some(key) = key.filter(|key| key.len() == 24) else {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64"));
    };
    let upgrade = upgrade.ok_or((StatusCode::BAD_REQUEST, "this connection cannot be upgraded"))?;
    Ok((key.to_owned(), upgrade))
}

/// The body of a response that refuses a request.
#[derive(Serialize)]
struct RefusalBody<'a> {
    reason: &'a str,
    message: &'a str,
}

fn refuse(gateway: &Gateway, status: StatusCode, reason: &str, message: &str) -> Response<Bytes> {
    gateway.metrics().refused(reason).add(1);
    let body = serde_json::to_vec(&RefusalBody { reason, message }).unwrap_or_default();
    let mut response =
        Response::builder().status(status).header(http::header::CONTENT_TYPE, "application/json");
    if status == StatusCode::UNAUTHORIZED {
        response = response.header(http::header::WWW_AUTHENTICATE, "Bearer");
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        response = response.header(http::header::RETRY_AFTER, "5");
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        response = response
            .header(http::header::UPGRADE, "websocket")
            .header(http::header::CONNECTION, "Upgrade")
            .header(http::header::SEC_WEBSOCKET_VERSION, "13");
    }
    response.body(Bytes::from(body)).unwrap_or_default()
}
