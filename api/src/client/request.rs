//! Requests and their answers as JSON.

use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use sentinel_protocol::product::user_agent;
use serde_json::Value;

use super::Client;
use super::error::ClientError;
use super::transport::Body;
use crate::OWN_HEADER;
use crate::path::Query;

/// Largest answer that is read whole, bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Largest body of an error, bytes.
const MAX_ERROR: usize = 1 << 20;

/// How long an answer may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The forms of most answers.
const ACCEPTED: &str = "application/json, text/event-stream, */*";

/// Largest page of a list.
const MAX_PAGE: usize = 500;

/// Items of a list, and whether they are all.
#[derive(Debug, Default)]
pub struct Listed {
    /// The items.
    pub items: Vec<Value>,
    /// Where the list continues; `None` at its end.
    pub next: Option<String>,
    /// Why items that exist may be missing.
    pub partial: Option<String>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// What the server did with an applied Task: `created`, `configured` or `unchanged`.
    pub result: Option<String>,
    /// Its body.
    pub value: Value,
}

impl Client {
    /// The JSON at a path.
    ///
    /// # Errors
    /// [`ClientError`], as every method of this client.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        Ok(self.call(Method::GET, path, None).await?.value)
    }

    /// The first `most` items of a list, page after page, beginning after an earlier `next`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list(
        &self,
        path: &str,
        query: Query,
        most: usize,
        after: Option<&str>,
    ) -> Result<Listed, ClientError> {
        let mut listed = Listed { next: after.map(str::to_owned), ..Listed::default() };
        loop {
            let mut query = query.clone();
            // No more than is still wanted, so that the last `next` continues after the last item.
            query.add("limit", most.saturating_sub(listed.items.len()).clamp(1, MAX_PAGE));
            query.maybe("page", listed.next.as_deref());
            let page = self.get(&query.of(path)).await?;
            let page: crate::view::List<Value> = self.read(path, &page)?;
            listed.items.extend(page.items);
            listed.next = page.next;
            listed.partial = listed.partial.or(page.partial.map(|partial| partial.message));
            if listed.next.is_none() || listed.items.len() >= most {
                return Ok(listed);
            }
        }
    }

    /// Every item of a list, page after page. Why some may be missing goes to the handler of warnings.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list_all(&self, path: &str, query: Query) -> Result<Vec<Value>, ClientError> {
        let listed = self.list(path, query, usize::MAX, None).await?;
        if let Some(why) = &listed.partial {
            (self.warn)(why);
        }
        Ok(listed.items)
    }

    /// Whether the server answers at all, be it with an error.
    ///
    /// # Errors
    /// [`ClientError`] when it does not.
    pub async fn ping(&self) -> Result<(), ClientError> {
        match self.send(Method::GET, "/healthz", None).await {
            Err(error) if error.status().is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// A request with or without a JSON body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply, ClientError> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let result = response.headers().get("sentinel-result").and_then(|value| value.to_str().ok());
        let result = result.map(str::to_owned);
        let bytes = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map(Collected::to_bytes)
            .map_err(|error| ClientError::of_body(self.server(), &*error))?;
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| ClientError::NotJson {
                server: self.server().clone(),
                cause: error.to_string(),
            })?
        };
        self.learn(&value);
        Ok(Reply { status, result, value })
    }

    /// Notes the names of the Tasks that an answer is about: a server behind an API server is asked by them.
    fn learn(&self, value: &Value) {
        let items = value["items"].as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for item in items {
            let of = |uid: &Value, namespace: &Value, name: &Value| {
                if let (Some(uid), Some(namespace), Some(name)) =
                    (uid.as_str(), namespace.as_str(), name.as_str())
                {
                    self.transport.learn(uid, namespace, name);
                }
            };
            let metadata = &item["metadata"];
            of(&metadata["uid"], &metadata["namespace"], &metadata["name"]);
            of(&item["taskUid"], &item["namespace"], &item["task"]);
        }
    }

    /// Sends a request; returns the answer once it has begun and is a success.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Body>, ClientError> {
        self.send_request(Request::builder().method(method), path, body).await
    }

    /// Requests a stream of events, from behind the event with this id.
    pub(super) async fn send_resuming(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder().method(Method::GET);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        self.send_request(request, path, None).await
    }

    /// Requests what is at a path, in one of several forms.
    pub(super) async fn send_accepting(
        &self,
        path: &str,
        accepted: &str,
    ) -> Result<Response<Body>, ClientError> {
        self.send_request(Request::builder().header(ACCEPT, accepted), path, None).await
    }

    async fn send_request(
        &self,
        request: http::request::Builder,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Body>, ClientError> {
        let is_chosen = request.headers_ref().is_some_and(|headers| headers.contains_key(ACCEPT));
        let request = if is_chosen { request } else { request.header(ACCEPT, ACCEPTED) };
        let mut request =
            request.uri(path).header("user-agent", user_agent("sentinel")).header(OWN_HEADER, "1");
        let bytes = match body {
            Some(value) => {
                request = request.header("content-type", "application/json");
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(bytes).map_err(|error| ClientError::InvalidRequest {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.transport.send(request)).await;
        let response = answer
            .map_err(|_| ClientError::TimedOut { server: self.server.clone(), within: ANSWER_TIMEOUT })??;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn refusal(&self, response: Response<Body>) -> ClientError {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ERROR).collect().await.map(Collected::to_bytes);
        match body.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(error) => ClientError::Refused { status: status.as_u16(), error: Box::new(error) },
            None => ClientError::Foreign { server: self.server.clone(), status },
        }
    }
}
