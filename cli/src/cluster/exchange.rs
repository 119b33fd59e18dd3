//! One request to the API server, and its failure.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use sentinel_api::client::transport::{Body, boxed};
use sentinel_api::client::{ClientError, Server};
use sentinel_telemetry::causes;

use super::Cluster;

/// The headers of a request that the operator reads.
const KEPT: [&str; 5] =
    ["accept", "accept-encoding", "content-type", "last-event-id", sentinel_api::OWN_HEADER];

/// A request with those headers that the operator reads.
pub(crate) fn kept(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Request<Bytes>, ClientError> {
    let mut request = Request::builder().method(method).uri(path);
    for name in KEPT {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    request
        .body(body)
        .map_err(|error| ClientError::InvalidRequest { path: path.to_owned(), message: error.to_string() })
}

/// Sends a request to the API server.
pub(super) async fn send(cluster: &Cluster, request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
    let answer = cluster.client.send(request.map(kube::client::Body::from)).await;
    let answer = answer.map_err(|error| failure(cluster, &error))?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        return Err(unauthorized(&Server::Cluster(cluster.name.clone())));
    }
    Ok(answer.map(boxed))
}

/// The failure of a request whose credentials are those of a kubeconfig.
pub(super) fn unauthorized(server: &Server) -> ClientError {
    ClientError::Cluster {
        message: format!("{server} does not accept your credentials (401 Unauthorized)"),
        advice: "Sign in again, as for kubectl: the token may be wrong or have expired. Does this succeed? kubectl auth whoami".to_owned(),
        is_retryable: false,
    }
}

/// As kube reports that a request got no answer.
fn failure(cluster: &Cluster, error: &kube::Error) -> ClientError {
    let server = Server::Cluster(cluster.name.clone());
    match error {
        kube::Error::Auth(_) => ClientError::Cluster {
            message: format!("failed to get credentials for {server}: {}", causes(error)),
            advice: "Sign in again, as for kubectl. Does this succeed? kubectl auth whoami".to_owned(),
            is_retryable: false,
        },
        _ if is_connect(error) => ClientError::Unreachable { server, cause: root_cause(error) },
        _ => ClientError::Disconnected { server, cause: root_cause(error) },
    }
}

fn is_connect(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let pool = error.downcast_ref::<hyper_util::client::legacy::Error>();
        pool.is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}
