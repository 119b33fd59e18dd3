//! Requests of the API, by way of the API server.
//!
//! A native request becomes one of the aggregated API by the table that the operator reads too. One that names a Task by its
//! uid needs the Task's name, which earlier answers had, or the History has. Where the API server does not serve the group,
//! the operator is reached by a forwarded port ([`super::forward`]), with the same requests as without a cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use sentinel_api::aggregated::{GROUP, PREFIX, Unmapped, of_native, to_aggregated};
use sentinel_api::client::transport::{Body, Transport};
use sentinel_api::client::{ClientError, Server};
use sentinel_api::path::{escape, unescape};
use sentinel_api::reason::Reason;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::Cluster;
use super::exchange::{kept, send};
use super::forward;
use super::status::{Whole, error, error_of, refusal, whole};
use super::tasks::Writing;

/// The operator of a cluster, by way of the API server.
#[derive(Debug)]
pub(crate) struct ApiServer {
    cluster: Arc<Cluster>,
    /// The namespace of the command line.
    namespace: String,
    /// Whether an apply takes over fields of other managers.
    force: bool,
    /// Namespace and name of Tasks by uid.
    names: Mutex<HashMap<String, (String, String)>>,
    /// The forwarded port, where the group is not served.
    forward: OnceCell<forward::Forward>,
}

impl ApiServer {
    pub(crate) fn new(cluster: Arc<Cluster>, namespace: &str, force: bool) -> Self {
        let (names, forward) = (Mutex::default(), OnceCell::new());
        Self { cluster, namespace: namespace.to_owned(), force, names, forward }
    }

    /// The operator as it is reached by a forwarded port, if it is.
    pub(crate) fn forwarded(&self) -> Option<Server> {
        self.forward.get().map(forward::Forward::server)
    }

    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Body>, ClientError> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.to_string();
        let found = of_native(parts.method.as_str(), &path);
        if let Some(found) = &found
            && found.row.aggregated.is_none()
        {
            let writing = Writing { cluster: &self.cluster, namespace: &self.namespace, force: self.force };
            return writing.answer(&parts.method, found, &body).await;
        }
        if let Some(forward) = self.forward.get() {
            return forward.send(&parts.method, &path, &parts.headers, &body).await;
        }
        let target = match (&found, path.as_str()) {
            // The group's own document is what the operator serves to everyone.
            (None, "/healthz") => PREFIX.to_owned(),
            _ => match self.target(&parts.method, &path).await? {
                Ok(target) => target,
                Err(refused) => return Ok(refused),
            },
        };
        let answer = send(&self.cluster, kept(&parts.method, &target, &parts.headers, body.clone())?).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let whole = whole(answer).await;
        if self.is_unserved(&whole).await {
            let forward = self.forward.get_or_try_init(|| forward::open(&self.cluster)).await?;
            return forward.send(&parts.method, &path, &parts.headers, &body).await;
        }
        Ok(refusal(whole.status, &error_of(whole.status, &whole.body)))
    }

    /// The aggregated path of a native one, or the answer where there is none.
    async fn target(
        &self,
        method: &Method,
        path: &str,
    ) -> Result<Result<String, Response<Body>>, ClientError> {
        let known = Self::uid_of(method, path).and_then(|uid| self.known(&uid));
        let task = known.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let unmapped = match to_aggregated(method.as_str(), path, task) {
            Ok(target) => return Ok(Ok(target)),
            Err(unmapped) => unmapped,
        };
        let Unmapped::NeedsTask { uid } = unmapped else {
            let refused = error(Reason::UnknownPath, unmapped.to_string());
            return Ok(Err(refusal(StatusCode::NOT_FOUND, &refused)));
        };
        let Some((namespace, name)) = self.find(&uid).await? else {
            let message = format!("no Task with uid {uid} has a Run that you may list");
            return Ok(Err(refusal(StatusCode::NOT_FOUND, &error(Reason::NotFound, message))));
        };
        let target = to_aggregated(method.as_str(), path, Some((&namespace, &name)));
        self.learn(&uid, &namespace, &name);
        target.map(Ok).map_err(|error| ClientError::InvalidRequest {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    /// The uid of the Task that a native request names, in its path or its query.
    fn uid_of(method: &Method, path: &str) -> Option<String> {
        let found = of_native(method.as_str(), path)?;
        let in_query = || {
            let value = found.query.split('&').find_map(|pair| pair.strip_prefix("taskUid="))?;
            unescape(value)
        };
        found.task_uid.clone().or_else(in_query)
    }

    fn known(&self, uid: &str) -> Option<(String, String)> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Asks for the name of the Task with this uid: first in the namespace of the command line, where a caller is most likely
    /// to have the right to.
    async fn find(&self, uid: &str) -> Result<Option<(String, String)>, ClientError> {
        let namespaces = [format!("/namespaces/{}", escape(&self.namespace)), String::new()];
        let mut refused = None;
        for namespace in namespaces {
            let path = format!("{PREFIX}{namespace}/runs?taskUid={}&limit=1", escape(uid));
            let headers = HeaderMap::new();
            let answer = send(&self.cluster, kept(&Method::GET, &path, &headers, Bytes::new())?).await?;
            let answer = whole(answer).await;
            if !answer.status.is_success() {
                refused.get_or_insert(answer);
                continue;
            }
            let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let run = &list["items"][0];
            if let (Some(namespace), Some(name)) = (run["namespace"].as_str(), run["task"].as_str()) {
                return Ok(Some((namespace.to_owned(), name.to_owned())));
            }
        }
        match refused {
            None => Ok(None),
            Some(answer) => {
                let error = Box::new(error_of(answer.status, &answer.body));
                Err(ClientError::Refused { status: answer.status.as_u16(), error })
            }
        }
    }

    /// Whether an answer is one of an API server that does not serve the group, or whose backend is unavailable. A 403 comes
    /// before either is noticed, and discovery is open to every user.
    async fn is_unserved(&self, answer: &Whole) -> bool {
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => !answer.is_json,
            StatusCode::FORBIDDEN => {
                let path = format!("/apis/{GROUP}");
                let Ok(request) = kept(&Method::GET, &path, &HeaderMap::new(), Bytes::new()) else {
                    return false;
                };
                match send(&self.cluster, request).await {
                    Ok(answer) => answer.status() == StatusCode::NOT_FOUND,
                    Err(_) => false,
                }
            }
            _ => false,
        }
    }
}

impl Transport for ApiServer {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, ClientError>> {
        Box::pin(self.carry(request))
    }

    fn learn(&self, uid: &str, namespace: &str, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(uid.to_owned(), (namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Requests = Arc<Mutex<Vec<String>>>;

    /// A way to an API server that answers by this function of method, path and query; and what was requested.
    fn api_server(
        answer: impl Fn(&str) -> (u16, Value) + Clone + Send + Sync + 'static,
    ) -> (ApiServer, Requests) {
        let requests = Requests::default();
        let seen = Arc::clone(&requests);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let path = request.uri().to_string();
            seen.lock().unwrap().push(path.clone());
            let (status, value) = answer(&path);
            async move {
                let mut response = Response::new(kube::client::Body::from(value.to_string().into_bytes()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response.headers_mut().insert("content-type", "application/json".parse().unwrap());
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let name = sentinel_api::client::ClusterName {
            address: "https://cluster".to_owned(),
            source: "context test".to_owned(),
            flags: String::new(),
        };
        let cluster = Cluster {
            name,
            client: kube::Client::new(service, "ops"),
            config: kube::Config::new("https://cluster".parse().unwrap()),
        };
        (ApiServer::new(Arc::new(cluster), "ops", false), requests)
    }

    async fn get(server: &ApiServer, path: &str) -> Result<Response<Body>, ClientError> {
        server.send(Request::get(path).body(Bytes::new()).unwrap()).await
    }

    fn seen(requests: &Requests) -> Vec<String> {
        requests.lock().unwrap().iter().map(|path| path.replace(PREFIX, "…")).collect()
    }

    #[tokio::test]
    async fn a_task_that_is_named_by_its_uid_is_looked_up_once() {
        let (server, requests) = api_server(|path| {
            if path.contains("/namespaces/ops/runs") {
                (403, json!({"kind": "Status", "reason": "Forbidden", "message": "no"}))
            } else {
                (200, json!({"items": [{"taskUid": "u-1", "namespace": "db", "task": "web"}]}))
            }
        });
        for _ in 0..2 {
            assert_eq!(get(&server, "/api/v1/runs/u-1/3/outputs").await.unwrap().status(), 200);
        }
        let outputs = "…/namespaces/db/tasks/web/log/runs/u-1/3/outputs";
        let expected =
            ["…/namespaces/ops/runs?taskUid=u-1&limit=1", "…/runs?taskUid=u-1&limit=1", outputs, outputs];
        assert_eq!(seen(&requests), expected);
    }

    #[tokio::test]
    async fn what_an_answer_had_is_not_asked_for() {
        let (server, requests) = api_server(|_| (200, json!({})));
        server.learn("u-1", "ops", "web");
        get(&server, "/api/v1/executions/u-1/3/n/log?follow=true").await.unwrap();
        get(&server, "/api/v1/executions?taskUid=u-1").await.unwrap();
        let log = "…/namespaces/ops/tasks/web/log/executions/u-1/3/n/log?follow=true";
        assert_eq!(seen(&requests), [log, "…/namespaces/ops/executions?taskUid=u-1"]);
    }

    #[tokio::test]
    async fn a_refusal_of_a_served_group_is_the_api_servers() {
        let (server, _) = api_server(|path| match path {
            "/apis/ops.sentinelnode.dev" => (200, json!({"kind": "APIGroup"})),
            _ => (
                403,
                json!({"kind": "Status", "reason": "Forbidden", "message": "User \"jane\" cannot list"}),
            ),
        });
        let answer = whole(get(&server, "/api/v1/nodes").await.unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let error = error_of(answer.status, &answer.body);
        assert_eq!((error.reason, error.message.as_str()), (Reason::Forbidden, "User \"jane\" cannot list"));
    }

    #[tokio::test]
    async fn a_group_that_is_not_served_is_named_with_what_to_do() {
        let (server, _) = api_server(|path| match path {
            path if path.contains("/services") => {
                (200, json!({"kind": "ServiceList", "metadata": {}, "items": []}))
            }
            "/apis/ops.sentinelnode.dev" => (404, json!("404 page not found")),
            _ => (403, json!({"kind": "Status", "reason": "Forbidden", "message": "no"})),
        });
        let error = get(&server, "/api/v1/nodes").await.unwrap_err();
        let ClientError::Cluster { message, advice, .. } = &error else { panic!("{error}") };
        assert!(message.contains("it is not installed"), "{message}");
        assert!(advice.contains("sentinel check --pre"), "{advice}");
    }
}
