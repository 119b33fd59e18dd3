//! The web page of a cluster, or of a server over TLS, on a loopback port of this machine: its files are a part of this program,
//! and what it asks for is asked with the credentials of the command line.
//!
//! A page that can ask can do all that those credentials can, so only this user's page may:
//!
//! * it listens on 127.0.0.1 only, and answers only requests that name that address (DNS rebinding);
//! * a request for data needs a random token, which the page has from the fragment of its link. Other users of the machine can
//!   connect and do not have it;
//! * `Origin` must be its own, with the port; a page of another site is refused even with a token;
//! * those credentials are in no answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sentinel_api::client::dev_socket;
use sentinel_api::client::transport::{Body, Transport, boxed};
use sentinel_api::reason::Reason;
use sentinel_operator::http::guard::Secret;
use sentinel_viewer::{ASSETS_FOLDER, BasePath, POLICY};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::cluster::exchange::kept;
use crate::cluster::status::{error, refusal};
use crate::exit::Failure;

/// Connections at once; a browser opens six.
const MOST_CONNECTIONS: usize = 64;

/// Largest body of a request, bytes; a Task fits.
const MOST_BODY: usize = 1 << 20;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A port that serves the page.
pub(super) struct Proxy {
    listener: TcpListener,
    door: Arc<Door>,
    token: String,
}

/// Who may use it, and where requests go.
struct Door {
    address: SocketAddr,
    secret: Secret,
    server: Arc<dyn Transport>,
}

impl Proxy {
    /// Listens on a loopback port; 0 is any free one.
    ///
    /// # Errors
    /// When the port is in use.
    pub(super) async fn bind(port: u16, server: Arc<dyn Transport>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("failed to listen on 127.0.0.1:{port}: {error}"))
                .hint("Choose another port with --port, or any free one with --port 0")
        };
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let token = dev_socket::random_token()
            .map_err(|error| Failure::new(format!("failed to make a token: {error}")))?;
        let door = Arc::new(Door { address, secret: Secret::of(&token), server });
        Ok(Self { listener, door, token })
    }

    /// The address of the page.
    pub(super) fn page(&self) -> String {
        format!("http://{}/", self.door.address)
    }

    /// What the page needs to ask for data.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(&self) -> std::convert::Infallible {
        let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { continue };
            let Ok((stream, _)) = self.listener.accept().await else {
                // No descriptor is free; one is once a connection ends.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let door = Arc::clone(&self.door);
            tokio::spawn(async move {
                let answer = service_fn(move |request| {
                    let door = Arc::clone(&door);
                    async move { Ok::<_, std::convert::Infallible>(door.answer(request).await) }
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                // A browser that closes its connection is not an error.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                drop(slot);
            });
        }
    }
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let is_data = request.uri().path().starts_with("/api/");
        if let Err(refused) = self.check(request.uri().path(), request.headers(), is_data) {
            return *refused;
        }
        if is_data {
            return self.forward(request).await;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                &error(Reason::MethodNotAllowed, "only GET is allowed here"),
            );
        }
        page(request.uri().path())
    }

    /// Refuses what is not from the page of this user.
    fn check(&self, path: &str, headers: &HeaderMap, is_data: bool) -> Result<(), Refused> {
        let only = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            let first = values.next().map(|value| value.to_str().unwrap_or_default());
            (first, values.next().is_some())
        };
        let ours = [format!("{}", self.address), format!("localhost:{}", self.address.port())];
        let (host, again) = only(HOST);
        let Some(host) = host.filter(|host| !again && ours.iter().any(|ours| ours == host)) else {
            let message = format!("unknown host; this page is at http://{}", self.address);
            return refused(StatusCode::MISDIRECTED_REQUEST, Reason::ForeignHost, &message);
        };
        let foreign = || {
            let message = "requests from pages of other sites, and of other ports, are refused";
            refused(StatusCode::FORBIDDEN, Reason::ForeignOrigin, message)
        };
        let (origin, again) = only(ORIGIN);
        if again || origin.is_some_and(|origin| origin != format!("http://{host}")) {
            return foreign();
        }
        let is = |name: &str, expected: &str| headers.get(name).is_some_and(|value| value == expected);
        let is_same = ["same-origin", "none"].iter().any(|site| is("sec-fetch-site", site));
        let is_link = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
        let is_page = !is_data && !path.starts_with(&format!("/{ASSETS_FOLDER}/"));
        if headers.contains_key("sec-fetch-site") && !is_same && !(is_link && is_page) {
            return foreign();
        }
        if !is_data {
            return Ok(());
        }
        let (given, again) = only(AUTHORIZATION);
        let given = given.and_then(|given| given.strip_prefix("Bearer ")).filter(|_| !again);
        // Comparing digests takes a time that reveals nothing about the token.
        if given.is_some_and(|given| Secret::of(given) == self.secret) {
            Ok(())
        } else {
            let message =
                "the token of this page is missing or wrong; open the link that sentinel ui printed";
            refused(StatusCode::UNAUTHORIZED, Reason::Unauthorized, message)
        }
    }

    /// Sends a request of the page to the operator.
    async fn forward(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MOST_BODY).collect().await.map(http_body_util::Collected::to_bytes)
        else {
            let message = format!("the body is larger than {MOST_BODY} bytes, or did not arrive");
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, &error(Reason::BodyTooLarge, message));
        };
        let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        // Neither the token of this page nor its host, origin and cookies are for the server.
        let Ok(request) = kept(&parts.method, &path, &parts.headers, body) else {
            return refusal(
                StatusCode::BAD_REQUEST,
                &error(Reason::InvalidPath, "the request cannot be passed on"),
            );
        };
        match self.server.send(request).await {
            Ok(mut answer) => {
                for hop in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
                    answer.headers_mut().remove(hop);
                }
                answer.headers_mut().remove(http::header::SET_COOKIE);
                guarded(answer)
            }
            Err(failed) => {
                let failure = Failure::from(failed);
                let hint = failure.hint.map(|hint| format!(". {hint}")).unwrap_or_default();
                let message = format!("{}{hint}", failure.message);
                refusal(StatusCode::BAD_GATEWAY, &error(Reason::Unavailable, message))
            }
        }
    }
}

type Refused = Box<Response<Body>>;

fn refused(status: StatusCode, reason: Reason, message: &str) -> Result<(), Refused> {
    Err(Box::new(refusal(status, &error(reason, message))))
}

/// A file of the page.
fn page(path: &str) -> Response<Body> {
    let asset = path.strip_prefix('/').and_then(|path| path.strip_prefix(ASSETS_FOLDER)?.strip_prefix('/'));
    let found = asset.map(sentinel_viewer::find);
    let (media_type, content) = match found {
        None => ("text/html; charset=utf-8", Bytes::from(sentinel_viewer::page(&BasePath::default()).html)),
        Some(Some(asset)) => (asset.media_type, Bytes::from_static(asset.bytes)),
        Some(None) => {
            let missing = error(Reason::NotFound, "no file of this page has that name; reload the page");
            return refusal(StatusCode::NOT_FOUND, &missing);
        }
    };
    let mut answer = Response::new(boxed(Full::new(content)));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    guarded(answer)
}

/// The headers of every answer.
fn guarded(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use sentinel_api::client::ClientError;

    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    impl Transport for Nowhere {
        fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, ClientError>> {
            let path = request.uri().to_string();
            Box::pin(async {
                Err(ClientError::InvalidRequest { path, message: "nothing is sent".to_owned() })
            })
        }
    }

    fn door() -> Door {
        let address = SocketAddr::from(([127, 0, 0, 1], 7000));
        Door { address, secret: Secret::of("s3cret"), server: Arc::new(Nowhere) }
    }

    fn status(path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let checked = door().check(path, &map, path.starts_with("/api/"));
        checked.map_or_else(|refused| refused.status().as_u16(), |()| 200)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:7000");
    const TOKEN: (&str, &str) = ("authorization", "Bearer s3cret");

    #[test]
    fn data_needs_the_token() {
        assert_eq!(status("/api/v1/tasks", &[HOST, TOKEN]), 200);
        assert_eq!(status("/api/v1/tasks", &[HOST]), 401);
        for value in ["Bearer s3cre", "Bearer s3cret2", "s3cret", "Basic s3cret", "Bearer"] {
            assert_eq!(status("/api/v1/tasks", &[HOST, ("authorization", value)]), 401, "{value}");
        }
        assert_eq!(status("/api/v1/tasks", &[HOST, TOKEN, TOKEN]), 401);
        assert_eq!(status("/tasks", &[HOST]), 200, "the page has no data");
    }

    #[test]
    fn only_its_own_host_and_origin_are_answered() {
        for host in ["evil.test", "127.0.0.1", "127.0.0.1:7001", "localhost", "[::1]:7000", ""] {
            assert_eq!(status("/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status("/", &[]), 421);
        assert_eq!(status("/", &[HOST, HOST]), 421);
        for origin in [
            "null",
            "http://evil.test",
            "http://localhost:7000",
            "https://127.0.0.1:7000",
            "http://127.0.0.1",
        ] {
            assert_eq!(status("/api/v1/tasks", &[HOST, TOKEN, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(status("/api/v1/tasks", &[HOST, TOKEN, ("origin", "http://127.0.0.1:7000")]), 200);
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(status("/api/v1/tasks", &[HOST, TOKEN, cross]), 403);
        let link = [HOST, cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!(status("/tasks", &link), 200, "a link leads to the page");
        assert_eq!(status("/assets/main.js", &link), 403);
    }
}
