//! A client of one server.
//!
//! [`Client`] has a method for each thing that the command line does, over the types of this crate; [`Client::get`],
//! [`Client::list`] and [`Client::call`] give the JSON as the server sent it, for programs that pass it on. Streams are
//! in [`events`], [`log`], [`line_log`] and [`search`]. A server of another local user gets nothing ([`peer`]); a dev mode of this user is reached
//! over its socket ([`dev_socket`]). Requests go by a [`transport`].

mod connector;
pub mod dev_socket;
mod error;
mod event_stream;
pub mod events;
mod frames;
pub mod line_log;
mod lines;
pub mod log;
mod log_item;
pub mod peer;
mod request;
pub mod search;
mod server;
pub mod transport;
mod trust;

pub use error::ClientError;
pub use events::{Event, Events};
pub use line_log::{LineAttempt, LineEvent, LineEvents, LineLog, LineLogItem, LineSource, LogEnd};
pub use log::{Log, LogQuery, Since};
pub use log_item::LogItem;
pub use request::{Listed, Reply};
pub use search::{Search, SearchQuery};
pub use server::{ClusterName, InvalidServer, Server};
pub use trust::{Trust, TrustError};

use std::sync::Arc;

use http::Method;
use http::header::HeaderValue;
use serde_json::Value;

use self::transport::{Direct, Transport};
use crate::decode;
use crate::path::{self, Query};
use crate::task::Task;
use crate::view::{ExecutionView, List, NodeView, RunView};

/// A client of one server. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    server: Server,
    bearer: Option<HeaderValue>,
    transport: Arc<dyn Transport>,
    warn: fn(&str),
}

/// A text that cannot be a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds characters that a token cannot have")]
pub struct InvalidToken;

fn bearer_of(token: &str) -> Result<HeaderValue, InvalidToken> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| InvalidToken)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

impl Client {
    /// A client of that server, without credentials.
    pub fn new(server: Server) -> Self {
        Self::with_bearer(server, None, None)
    }

    /// The same with a bearer token.
    ///
    /// # Errors
    /// [`InvalidToken`] when the text cannot stand in a header.
    pub fn with_token(server: Server, token: &str) -> Result<Self, InvalidToken> {
        Ok(Self::with_bearer(server, Some(bearer_of(token)?), None))
    }

    /// A client of a server over TLS, which it identifies by these authorities.
    ///
    /// # Errors
    /// [`InvalidToken`] when the token cannot stand in a header.
    pub fn over_tls(server: Server, token: Option<&str>, trust: Trust) -> Result<Self, InvalidToken> {
        let bearer = token.map(bearer_of).transpose()?;
        Ok(Self::with_bearer(server, bearer, Some(trust)))
    }

    fn with_bearer(server: Server, bearer: Option<HeaderValue>, trust: Option<Trust>) -> Self {
        let transport = Arc::new(Direct::new(server.clone(), bearer.clone(), trust));
        Self { server, bearer, transport, warn: |_| {} }
    }

    /// A client whose requests this transport carries; `server` names where they go, in messages.
    pub fn over(server: Server, transport: Arc<dyn Transport>) -> Self {
        Self { server, bearer: None, transport, warn: |_| {} }
    }

    /// The same with a handler for warnings: why the items of a list that is read whole may be incomplete.
    #[must_use]
    pub fn on_warning(self, warn: fn(&str)) -> Self {
        Self { warn, ..self }
    }

    /// The bearer token, if requests carry one.
    pub fn token(&self) -> Option<&str> {
        self.bearer.as_ref()?.to_str().ok()?.strip_prefix("Bearer ")
    }

    /// What carries its requests.
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Reads a JSON value that this server sent about `what`.
    ///
    /// # Errors
    /// [`ClientError::Shape`], which names the server and the field.
    pub fn read<T: serde::de::DeserializeOwned>(&self, what: &str, value: &Value) -> Result<T, ClientError> {
        decode::value(value).map_err(|shape| ClientError::Shape {
            server: self.server.clone(),
            what: what.to_owned(),
            shape: Box::new(shape),
        })
    }

    async fn get_as<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(path, &self.get(path).await?)
    }

    /// A Task.
    ///
    /// # Errors
    /// [`ClientError`], as every method of this client.
    pub async fn task(&self, namespace: &str, name: &str) -> Result<Task, ClientError> {
        self.get_as(&path::task(namespace, name)).await
    }

    /// Every Task of a namespace, or of all.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn tasks(&self, namespace: Option<&str>) -> Result<Vec<Task>, ClientError> {
        let mut query = Query::default();
        query.maybe("namespace", namespace);
        self.all("/api/v1/tasks", query).await
    }

    /// Creates a Task; returns it as the server has it.
    ///
    /// # Errors
    /// As [`Self::task`]; reason `AlreadyExists` when one of that name exists.
    pub async fn create_task(&self, task: &Value) -> Result<Task, ClientError> {
        let reply = self.call(Method::POST, "/api/v1/tasks", Some(task)).await?;
        self.read("the created Task", &reply.value)
    }

    /// Creates a Task, or changes it to this one. [`Reply::result`] tells which.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn apply_task(&self, namespace: &str, name: &str, task: &Value) -> Result<Reply, ClientError> {
        self.call(Method::PUT, &path::task(namespace, name), Some(task)).await
    }

    /// As [`Self::apply_task`], but the server only checks the change: it stores nothing, and answers with the Task as it
    /// would be.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn try_task(&self, namespace: &str, name: &str, task: &Value) -> Result<Reply, ClientError> {
        let mut query = Query::default();
        query.add("dryRun", "All");
        self.call(Method::PUT, &query.of(&path::task(namespace, name)), Some(task)).await
    }

    /// Requests the deletion of a Task.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn delete_task(&self, namespace: &str, name: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, &path::task(namespace, name), None).await.map(|_| ())
    }

    /// Requests the cancellation of the active Run, or of this one if it is the active one; returns its number.
    ///
    /// # Errors
    /// As [`Self::task`]; reason `Conflict` when no such Run is active.
    pub async fn cancel_task(
        &self,
        namespace: &str,
        name: &str,
        run: Option<u32>,
    ) -> Result<u32, ClientError> {
        #[derive(serde::Deserialize)]
        struct Accepted {
            run: u32,
        }
        let mut query = Query::default();
        query.maybe("run", run);
        let path = query.of(&format!("{}/cancel", path::task(namespace, name)));
        let reply = self.call(Method::POST, &path, None).await?;
        self.read::<Accepted>("the cancellation", &reply.value).map(|accepted| accepted.run)
    }

    /// Requests another Run of the same spec; returns the token of the request.
    ///
    /// # Errors
    /// As [`Self::task`]; reason `Conflict` when the token was used before.
    pub async fn rerun_task(
        &self,
        namespace: &str,
        name: &str,
        token: Option<&str>,
    ) -> Result<String, ClientError> {
        #[derive(serde::Deserialize)]
        struct Accepted {
            token: String,
        }
        let mut query = Query::default();
        query.maybe("token", token);
        let path = query.of(&format!("{}/rerun", path::task(namespace, name)));
        let reply = self.call(Method::POST, &path, None).await?;
        self.read::<Accepted>("the rerun", &reply.value).map(|accepted| accepted.token)
    }

    /// Approves the Run of a Task that is due, by the number and the digests that its status shows.
    ///
    /// # Errors
    /// As [`Self::task`]; reason `Conflict` when it waits for no approval, or for one of something else, `Forbidden` when the
    /// caller is behind the Run.
    pub async fn approve_task(
        &self,
        namespace: &str,
        name: &str,
        run: i64,
        (spec_hash, targets_digest): (&str, &str),
    ) -> Result<(), ClientError> {
        let mut query = Query::default();
        query.add("run", run);
        query.add("specHash", spec_hash);
        query.add("targetsDigest", targets_digest);
        let path = query.of(&format!("{}/approve", path::task(namespace, name)));
        self.call(Method::POST, &path, None).await.map(|_| ())
    }

    /// Every node.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn nodes(&self) -> Result<Vec<NodeView>, ClientError> {
        Ok(self.get_as::<List<NodeView>>("/api/v1/nodes").await?.items)
    }

    /// A node.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn node(&self, name: &str) -> Result<NodeView, ClientError> {
        self.get_as(&path::node(name)).await
    }

    /// Every Run that matches the query, newest first.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn runs(&self, query: Query) -> Result<Vec<RunView>, ClientError> {
        self.all("/api/v1/runs", query).await
    }

    /// Every Execution that matches the query, newest Run first.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn executions(&self, query: Query) -> Result<Vec<ExecutionView>, ClientError> {
        self.all("/api/v1/executions", query).await
    }

    /// An Execution with its details.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn execution(
        &self,
        task_uid: &str,
        run: u32,
        node: &str,
    ) -> Result<ExecutionView, ClientError> {
        self.get_as(&path::execution(task_uid, run, node)).await
    }

    async fn all<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: Query,
    ) -> Result<Vec<T>, ClientError> {
        let items = self.list_all(path, query).await?;
        let read = |(index, item): (usize, &Value)| self.read(&format!("{path}, item {index}"), item);
        items.iter().enumerate().map(read).collect()
    }
}
