//! The webhook over HTTP, for the API server.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use sentinel_telemetry::causes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::review::{self, Done};
use crate::clock::Clock;
use crate::metrics::{Counter, HttpResponses, Registry};
use crate::resource::stamp::Stamps;
use crate::server::{Client, Shares};

/// The path of the webhook, before the text that only the API server knows.
pub const PATH: &str = "/admission/v1/tasks/";

/// For what the end of the path is derived from a key.
const PURPOSE: &str = "path";

/// Largest review, bytes: two versions of a Task as large as the API server takes requests.
const MAX_REVIEW: usize = 7 << 20;

/// Bytes of reviews that are received or answered at once.
const AT_ONCE: usize = 32 << 20;

/// How long a body may take: the API server waits no longer than 30 s for an answer.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// The path of the webhook under these keys; `None` without a key.
pub fn path(stamps: &Stamps) -> Option<String> {
    stamps.keys().signing.map(|key| format!("{PATH}{}", key.derived(PURPOSE)))
}

/// The webhook as a service for a listener. Clones share it.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    stamps: Stamps,
    clock: Clock,
    bodies: Shares,
    answers: HttpResponses,
    /// Notified when the API server calls another path.
    strayed: Arc<Notify>,
    stamped: Counter,
    unchanged: Counter,
    failed: Counter,
}

/// Why a request has no review for an answer.
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl Admission {
    /// Registers what is counted, so that it is 0 and not missing without a webhook.
    pub fn register(metrics: &Registry) {
        let _ = Self::new(Stamps::default(), Arc::default(), Clock::system(), metrics);
    }

    /// Stamps Tasks by these keys. Notifies `strayed` of each request at another path: its configuration may have another one.
    pub fn new(stamps: Stamps, strayed: Arc<Notify>, clock: Clock, metrics: &Registry) -> Self {
        let counter = |result| {
            let help =
                "Creations and changes of Tasks that the admission webhook has seen, by what became of them.";
            metrics.counter_with("sentinel_admission_reviews_total", help, &[("result", result)])
        };
        Self(Arc::new(Parts {
            stamps,
            clock,
            bodies: Shares::new(AT_ONCE, AT_ONCE),
            answers: HttpResponses::new(metrics, "admission"),
            strayed,
            stamped: counter("Stamped"),
            unchanged: counter("Unchanged"),
            failed: counter("Failed"),
        }))
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let parts = &self.0;
        let response = match self.review(request).await {
            Ok(body) => respond(StatusCode::OK, "application/json", body),
            Err(Refused { status, message }) => {
                parts.failed.add(1);
                // Every client of the port can cause it.
                tracing::debug!(status = status.as_u16(), message, "an admission review is not answered");
                respond(status, "text/plain; charset=utf-8", format!("{message}\n").into())
            }
        };
        parts.answers.count(response.status());
        response
    }

    async fn review(&self, request: Request<Incoming>) -> Result<Bytes, Refused> {
        let parts = &self.0;
        if !self.is_ours(request.uri().path()) {
            let message = "nothing is served at this path; the operator writes the webhook's into its MutatingWebhookConfiguration";
            parts.strayed.notify_one();
            return Err(Refused::new(StatusCode::NOT_FOUND, message));
        }
        if request.method() != Method::POST {
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered"));
        }
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length: usize = length
            .ok_or_else(|| Refused::new(StatusCode::LENGTH_REQUIRED, "the body has no content-length"))?;
        if length > MAX_REVIEW {
            let message = format!("the review has {length} bytes; at most {MAX_REVIEW} are read");
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        let busy = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many reviews are being answered");
        let _share = parts.bodies.take(Client::Local, length).ok_or_else(busy)?;
        let body = Limited::new(request.into_body(), length).collect();
        let body = tokio::time::timeout(BODY_WITHIN, body).await.map_err(|_| {
            let seconds = BODY_WITHIN.as_secs();
            Refused::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {seconds} s"))
        })?;
        let body = body.map_err(|error| {
            Refused::new(StatusCode::BAD_REQUEST, format!("failed to read the body: {}", causes(&*error)))
        })?;
        let answered = review::answer(&body.to_bytes(), &parts.stamps, parts.clock.now());
        let (answer, done) =
            answered.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        match done {
            Done::Stamped => parts.stamped.add(1),
            Done::Unchanged => parts.unchanged.add(1),
        }
        Ok(answer.to_string().into())
    }

    /// Whether a path ends in what follows from one of the keys. Compared as digests, which tells nothing about the text.
    fn is_ours(&self, path: &str) -> bool {
        let Some(end) = path.strip_prefix(PATH) else { return false };
        let (keys, end) = (self.0.stamps.keys(), Sha256::digest(end));
        keys.signing.iter().chain(&keys.others).any(|key| Sha256::digest(key.derived(PURPOSE)) == end)
    }
}

impl tower_service::Service<Request<Incoming>> for Admission {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let admission = self.clone();
        Box::pin(async move { Ok(admission.answer(request).await) })
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
