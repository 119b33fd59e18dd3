//! From HTTP to a WebSocket. The only file of the gateway that names warp.
//!
//! The upgrade is our own: warp's gives each connection a read buffer of 128 KiB, which 15,000 idle agents cannot have.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sentinel_protocol::limits::{MAX_CONTROL_FRAME, MAX_LOG_FRAME};
use serde::Serialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use warp::filters::BoxedFilter;
use warp::{Filter, Reply};

use super::auth::bearer;
use super::meter::Metered;
use super::seats::Socket;
use super::session::Caller;
use super::{Gateway, output, session};
use crate::server::Peer;

/// Path of the control socket.
pub const CONTROL_PATH: &str = "/agent/v1/control";

/// Path of the log socket.
pub const LOGS_PATH: &str = "/agent/v1/logs";

impl Socket {
    /// Bounds on what is read and written before anything is looked at. Buffers grow to the largest message and never
    /// shrink, so they begin small where mostly nothing happens.
    fn config(self) -> WebSocketConfig {
        let (read, largest) = match self {
            Self::Control => (1 << 10, MAX_CONTROL_FRAME),
            Self::Logs => (64 << 10, MAX_LOG_FRAME),
        };
        // The write buffer is not allocated before it is used; several messages at once are then one write.
        WebSocketConfig::default()
            .read_buffer_size(read)
            .write_buffer_size(4 << 10)
            .max_write_buffer_size(8 << 20)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest))
    }
}

/// The gateway as a listener serves it.
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
    let control = warp::path!("agent" / "v1" / "control").map(|| Socket::Control);
    let logs = warp::path!("agent" / "v1" / "logs").map(|| Socket::Logs);
    let socket = control.or(logs).unify();
    socket
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<Peer>())
        .then(move |socket, method, headers, upgrade, peer| {
            let gateway = gateway.clone();
            async move { connect(gateway, socket, &method, &headers, upgrade, peer).await }
        })
        .boxed()
}

async fn connect(
    gateway: Gateway,
    socket: Socket,
    method: &http::Method,
    headers: &http::HeaderMap,
    upgrade: Option<OnUpgrade>,
    peer: Option<Peer>,
) -> Response<Bytes> {
    // Who it is comes before what it wants: strangers learn nothing from the answer.
    let token = match bearer(headers) {
        Ok(token) => token,
        Err(error) => return refuse(&gateway, error.status(), error.reason(), &error.to_string()),
    };
    let from = peer.as_ref().map(|peer| peer.addr.ip());
    let identity = match gateway.authenticate(token, from).await {
        Ok(identity) => identity,
        Err(error) => {
            let peer = peer.map(|peer| peer.addr);
            // A flood of strangers must not become a flood of lines.
            let count = gateway.metrics().refused(error.reason()).get() + 1;
            if count.is_power_of_two() {
                tracing::warn!(?peer, %error, count, "an agent's token was not accepted");
            } else {
                tracing::debug!(?peer, %error, count, "an agent's token was not accepted");
            }
            return refuse(&gateway, error.status(), error.reason(), &error.to_string());
        }
    };
    let (key, upgrade) = match handshake(method, headers, upgrade) {
        Ok(agreed) => agreed,
        Err((status, message)) => return refuse(&gateway, status, "NotAWebSocket", message),
    };
    let accept = derive_accept_key(key.as_bytes());
    let seat = gateway.seat(&identity.node, socket);
    let bearer = token.into();
    if let Some(peer) = &peer {
        peer.authenticated();
    }
    let owner = gateway.clone();
    // Boxed where a future would otherwise be held twice, in the one around it as well: at 15,000 agents it counts.
    owner.spawn(Box::pin(async move {
        // Kept until the socket ends: it counts as one of the listener's connections.
        let _peer = peer;
        let Ok(io) = upgrade.await else { return };
        let config = Some(socket.config());
        let (io, meter) = Metered::new(TokioIo::new(io));
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, config).await;
        let caller = Caller { identity, bearer, meter };
        let run: BoxFuture<'static, ()> = match socket {
            Socket::Control => Box::pin(session::run(gateway, stream, caller)),
            Socket::Logs => Box::pin(output::run(gateway, stream, caller)),
        };
        tokio::select! {
            () = run => {}
            () = seat.cut.cancelled() => {}
        }
    }));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header(http::header::SEC_WEBSOCKET_ACCEPT, accept);
    response.body(Bytes::new()).unwrap_or_default()
}

/// The key of a WebSocket handshake, or what is wrong with it.
fn handshake(
    method: &http::Method,
    headers: &http::HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<(String, OnUpgrade), (StatusCode, &'static str)> {
    let has = |name: http::HeaderName, word: &str| {
        let values = headers.get_all(name);
        values
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|w| w.trim().eq_ignore_ascii_case(word)))
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

/// The answer to a request that becomes no socket.
#[derive(Serialize)]
struct Refused<'a> {
    reason: &'a str,
    message: &'a str,
}

fn refuse(gateway: &Gateway, status: StatusCode, reason: &str, message: &str) -> Response<Bytes> {
    gateway.metrics().refused(reason).add(1);
    let body = serde_json::to_vec(&Refused { reason, message }).unwrap_or_default();
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
