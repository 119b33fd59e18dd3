//! How requests reach a server, as a seam: this crate has the direct way ([`Direct`]); the command line has another through
//! the API server of a cluster, which needs a Kubernetes client.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::{Connector, Credentials};
use super::error::ClientError;
use super::server::Server;
use super::trust::Trust;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(Box<dyn std::error::Error + Send + Sync>);

/// A body of any kind as one of these.
pub fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    body.map_err(|error| BodyError(Box::new(error))).boxed_unsync()
}

/// Carries requests to a server.
pub trait Transport: std::fmt::Debug + Send + Sync {
    /// Sends a request of the native API, whose URI is a path and a query; returns the answer once it has begun, whatever
    /// its status.
    ///
    /// # Errors
    /// [`ClientError`] when there is no answer.
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, ClientError>>;

    /// Notes the namespace and the name of the Task with this uid, as an answer had them.
    fn learn(&self, _uid: &str, _namespace: &str, _name: &str) {}
}

/// Requests as they are, over TLS, TCP or a Unix socket.
#[derive(Debug)]
pub(super) struct Direct {
    server: Server,
    bearer: Option<HeaderValue>,
    pool: Pool<Connector, Full<Bytes>>,
}

impl Direct {
    pub(super) fn new(server: Server, bearer: Option<HeaderValue>, trust: Option<Trust>) -> Self {
        let credentials = if bearer.is_some() { Credentials::Token } else { Credentials::None };
        let connector = Connector { server: server.clone(), credentials, trust };
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { server, bearer, pool }
    }
}

impl Transport for Direct {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, ClientError>> {
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let path = parts.uri.to_string();
            let uri: Result<Uri, _> = format!("{}{path}", self.server.base()).parse();
            parts.uri =
                uri.map_err(|error| ClientError::InvalidRequest { path, message: error.to_string() })?;
            if let Some(bearer) = &self.bearer {
                parts.headers.insert(AUTHORIZATION, bearer.clone());
            }
            let answer = self.pool.request(Request::from_parts(parts, Full::new(body))).await;
            let answer = answer.map_err(|error| ClientError::of_pool(&self.server, &error))?;
            Ok(answer.map(boxed))
        })
    }
}
