//! The client and its collections, and how an operation is run and its error mapped.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ServerAddress, Tls, TlsOptions,
    WriteConcern,
};
use mongodb::{Client, Collection, Database};
use sentinel_protocol::text::Text;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::clock::Clock;
use crate::credentials::{CredentialFiles, Credentials};
use crate::history::error::HistoryError;
use crate::history::store::DEFAULT_RETENTION;

/// The database when neither the URI nor the options name one.
const DEFAULT_DATABASE: &str = "sentinel";
/// Concurrent operations, including those whose caller has given up. Twice the connections.
const MAX_OPERATIONS: usize = 64;
const MAX_CONNECTIONS: u32 = 32;
/// Longest message taken from a server or from the driver, bytes.
const MAX_MESSAGE: usize = 300;

/// How a [`MongoHistory`](super::MongoHistory) behaves.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// Records and output are kept this long after they were last written.
    pub retention: Duration,
    /// Name of the database; by default that of the URI, or `sentinel`.
    pub database: Option<String>,
    /// How long server selection may take before an operation fails.
    pub server_selection_timeout: Duration,
    /// How long opening one connection may take.
    pub connect_timeout: Duration,
    /// How long a caller waits for an operation.
    pub operation_timeout: Duration,
    /// The time that expiry is measured by.
    pub clock: Clock,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            retention: DEFAULT_RETENTION,
            database: None,
            server_selection_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(10),
            clock: Clock::system(),
        }
    }
}

/// The client and what every operation needs.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) database: Database,
    pub(super) attempts: Collection<Document>,
    pub(super) executions: Collection<Document>,
    pub(super) runs: Collection<Document>,
    pub(super) output: Collection<Document>,
    pub(super) audit_heads: Collection<Document>,
    /// `host:port`, for errors.
    host: String,
    hosts: Vec<String>,
    /// Where the credentials come from, for errors.
    files: Option<CredentialFiles>,
    options: MongoOptions,
    permits: Arc<Semaphore>,
    /// Owns the operations, including those whose caller has given up, and those that have not begun.
    operations: TaskTracker,
    is_closed: AtomicBool,
}

impl Drop for Connection {
    /// A client of the driver that is dropped without having been closed calls the server once more, on a runtime that may
    /// be shutting down, and panics. That happens at the end of the process: the kernel closes its connections.
    fn drop(&mut self) {
        if !self.is_closed.load(Ordering::Relaxed) {
            std::mem::forget(self.database.client().clone());
        }
    }
}

impl Connection {
    /// Parses the URI. Does not connect yet, but resolves a `mongodb+srv` name. The driver reads the files of TLS once, here.
    pub(super) async fn new(credentials: &Credentials, options: MongoOptions) -> Result<Self, HistoryError> {
        let uri = credentials.url();
        let mut client = parse_uri(uri, options.operation_timeout).await?;
        if let Some(tls) = tls_options(credentials) {
            client.tls = Some(Tls::Enabled(tls));
        }
        client.app_name.get_or_insert_with(|| "sentinel-node".to_owned());
        client.server_selection_timeout = Some(options.server_selection_timeout);
        client.connect_timeout = Some(options.connect_timeout);
        client.max_pool_size.get_or_insert(MAX_CONNECTIONS);
        let host = client.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let hosts = client.hosts.iter().map(host_name).collect();
        let name = options
            .database
            .clone()
            .or_else(|| client.default_database.clone())
            .unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        let client = Client::with_options(client).map_err(|error| invalid_uri(uri, &error))?;
        let database = client.database(&name);
        let collection = |name: &str| database.collection_with_options(name, durable());
        Ok(Self {
            attempts: collection("attempts"),
            executions: collection("executions"),
            runs: collection("runs"),
            output: collection("output"),
            audit_heads: collection("auditHeads"),
            database,
            host,
            hosts,
            files: credentials.files().cloned(),
            options,
            permits: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            operations: TaskTracker::new(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Names or addresses of the servers, without their ports.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    pub(super) fn options(&self) -> &MongoOptions {
        &self.options
    }

    /// Keeps the client open until it is dropped.
    pub(super) fn in_use(&self) -> TaskTrackerToken {
        self.operations.token()
    }

    /// Waits until nothing uses the client, then closes its connections.
    pub(super) async fn close(&self) {
        self.operations.close();
        self.operations.wait().await;
        self.database.client().clone().shutdown().immediate(true).await;
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Runs an operation of the driver to completion even if its caller gives up: a future of the driver that is dropped
    /// can leave its connection in an undefined state. A caller that does not poll, for example because its client does not
    /// read, holds no permit.
    pub(super) async fn run<T, F>(
        self: &Arc<Self>,
        action: &'static str,
        operation: F,
    ) -> Result<T, HistoryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HistoryError>> + Send + 'static,
    {
        let timed_out = |_| HistoryError::TimedOut {
            action,
            store: format!("MongoDB at {}", self.host),
            after: self.options.operation_timeout,
        };
        let deadline = tokio::time::Instant::now() + self.options.operation_timeout;
        let permits = Arc::clone(&self.permits);
        let (_waiting, given_up) = oneshot::channel::<()>();
        let task = self.operations.spawn(async move {
            let permit = tokio::select! {
                permit = permits.acquire_owned() => permit.map_err(|_| HistoryError::Closed { action })?,
                _ = given_up => return Err(HistoryError::Closed { action }),
            };
            let outcome = operation.await;
            drop(permit);
            outcome
        });
        tokio::time::timeout_at(deadline, task)
            .await
            .map_err(timed_out)?
            .map_err(|_| HistoryError::Panicked { action })?
    }

    /// Maps an error of the driver.
    pub(super) fn failed(&self, action: &'static str) -> impl Fn(Error) -> HistoryError {
        let (host, files) = (self.host.clone(), self.files.clone());
        let advised = move |message: String| match files.as_ref().and_then(|files| files.advice(&message)) {
            Some(advice) => format!("{}; {advice}", message.trim_end_matches('.')),
            None => message,
        };
        move |error| match &*error.kind {
            ErrorKind::ServerSelection { message, .. } | ErrorKind::ConnectionPoolCleared { message, .. } => {
                HistoryError::Unreachable {
                    action,
                    host: host.clone(),
                    message: advised(root_cause(message)),
                }
            }
            ErrorKind::Io(source) => {
                HistoryError::Unreachable { action, host: host.clone(), message: advised(source.to_string()) }
            }
            _ => HistoryError::Mongo {
                action,
                host: host.clone(),
                message: advised(one_line(&error)),
                source: Box::new(error),
            },
        }
    }

    /// Maps an error that a server returned inside of a successful reply.
    pub(super) fn server_error(&self, action: &'static str, message: &str) -> HistoryError {
        let message = truncate(message);
        let source = Box::new(Error::custom(message.clone()));
        HistoryError::Mongo { action, host: self.host.clone(), message, source }
    }

    /// How long the server may spend on one read.
    pub(super) fn max_time(&self) -> Duration {
        self.options.operation_timeout
    }

    pub(super) fn now(&self) -> DateTime {
        DateTime::from_millis(self.options.clock.now().0)
    }

    /// When a document that is written now expires.
    pub(super) fn expiry(&self) -> DateTime {
        self.expiry_after(self.options.retention)
    }

    /// The same for one that is kept this long.
    pub(super) fn expiry_after(&self, kept: Duration) -> DateTime {
        let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        DateTime::from_millis(self.options.clock.now().plus(kept).0)
    }
}

/// What the driver reads from files.
fn tls_options(credentials: &Credentials) -> Option<TlsOptions> {
    let files = credentials.files()?;
    if files.ca.is_none() && files.client.is_none() {
        return None;
    }
    let client = files.client.as_ref().map(|client| client.certificate.clone());
    Some(TlsOptions::builder().ca_file_path(files.ca.clone()).cert_key_file_path(client).build())
}

fn host_name(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Tcp { host, .. } => host.clone(),
        other => other.to_string(),
    }
}

/// Acknowledged once on the disks of a majority.
fn write_concern() -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .w_timeout(Duration::from_secs(5))
        .build()
}

fn durable() -> CollectionOptions {
    CollectionOptions::builder().write_concern(write_concern()).read_concern(ReadConcern::majority()).build()
}

/// [`write_concern`] for a raw command.
pub(super) fn write_concern_document() -> Document {
    doc! { "w": "majority", "j": true, "wtimeout": 5000 }
}

async fn parse_uri(uri: &str, within: Duration) -> Result<ClientOptions, HistoryError> {
    const ACTION: &str = "resolve the MongoDB URI";
    let text = uri.to_owned();
    // A task of its own, so that a panic of the driver's parser becomes an error.
    let parsing = AbortOnDropHandle::new(tokio::spawn(async move { ClientOptions::parse(&text).await }));
    let timed_out = |_| HistoryError::TimedOut { action: ACTION, store: "DNS".to_owned(), after: within };
    tokio::time::timeout(within, parsing)
        .await
        .map_err(timed_out)?
        .map_err(|_| HistoryError::Panicked { action: ACTION })?
        .map_err(|error| invalid_uri(uri, &error))
}

fn invalid_uri(uri: &str, error: &Error) -> HistoryError {
    HistoryError::InvalidUri { message: without_credentials(uri, one_line(error)) }
}

/// The message, unless it repeats a part of the credentials.
fn without_credentials(uri: &str, message: String) -> String {
    let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let credentials = after_scheme.rsplit_once('@').map_or("", |(credentials, _)| credentials);
    let parts = credentials.split(|c: char| !c.is_alphanumeric()).filter(|part| part.len() > 2);
    if parts.into_iter().any(|part| message.contains(part)) {
        "expected mongodb://user:password@host:port/database with '@', ':', '/' and '%' in a password percent-encoded"
            .to_owned()
    } else {
        message
    }
}

/// An error of the driver in one short line.
fn one_line(error: &Error) -> String {
    truncate(&error.kind.to_string())
}

fn truncate(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Text::<MAX_MESSAGE>::from(line).to_string()
}

/// The root cause of a selection error: "Connection refused (os error 111)" out of "Server selection timeout: …
/// Servers: [ { Address: …, Error: Kind: I/O error: Connection refused (os error 111), labels: {} } ]".
fn root_cause(text: &str) -> String {
    let Some((_, error)) = text.rsplit_once("Error: ") else { return truncate(text) };
    let end = error.find(", labels").or_else(|| error.find(" }")).unwrap_or(error.len());
    let error = error[..end].trim_start_matches("Kind: ").trim_start_matches("I/O error: ");
    truncate(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_cause_of_a_selection_error_is_extracted() {
        let text = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: \
                    127.0.0.1:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} } ] }";
        assert_eq!(root_cause(text), "Connection refused (os error 111)");
        assert_eq!(
            root_cause("Server selection timeout: no servers"),
            "Server selection timeout: no servers"
        );
    }

    #[test]
    fn messages_are_one_line_of_bounded_length() {
        let line = truncate(&"text\n".repeat(200));
        assert!(line.len() <= MAX_MESSAGE && !line.contains('\n'));
    }
}
