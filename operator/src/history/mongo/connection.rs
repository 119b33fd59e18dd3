//! The client and its collections, and how an operation is run and its failure told.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection, Database};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::history::DEFAULT_RETENTION;
use crate::history::error::HistoryError;

/// The database when neither the URI nor the options name one.
const DEFAULT_DATABASE: &str = "sentinel";
/// Operations at a time, also such as nobody waits for any more. Twice the connections.
const OPERATIONS: usize = 64;
const CONNECTIONS: u32 = 32;
/// Longest message that is passed on from a server or from the driver, characters.
const MESSAGE: usize = 300;

/// How a [`MongoHistory`](super::MongoHistory) behaves.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// Records and output are kept this long after they were last written.
    pub retention: Duration,
    /// Name of the database; by default that of the URI, or `sentinel`.
    pub database: Option<String>,
    /// How long a server is looked for before an operation fails.
    pub server_selection_timeout: Duration,
    /// How long opening one connection may take.
    pub connect_timeout: Duration,
    /// How long anybody waits for an operation.
    pub operation_timeout: Duration,
    /// Tells what has expired, and when what is written will.
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

/// Everything that an operation needs.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) database: Database,
    pub(super) attempts: Collection<Document>,
    pub(super) executions: Collection<Document>,
    pub(super) runs: Collection<Document>,
    pub(super) output: Collection<Document>,
    /// `host:port`, for errors.
    host: String,
    options: MongoOptions,
    permits: Arc<Semaphore>,
}

impl Connection {
    /// Understands the URI; connects to nobody yet, but looks a `mongodb+srv` name up.
    pub(super) async fn new(uri: &str, options: MongoOptions) -> Result<Self, HistoryError> {
        let text = uri.to_owned();
        let parsing = tokio::spawn(async move { ClientOptions::parse(&text).await });
        let timed_out = || HistoryError::TimedOut {
            action: "look the MongoDB URI up",
            store: "DNS".to_owned(),
            after: options.operation_timeout,
        };
        let parsed =
            tokio::time::timeout(options.operation_timeout, parsing).await.map_err(|_| timed_out())?;
        let mut client =
            parsed.map_err(|_| HistoryError::Closed { action: "understand the MongoDB URI" })?.map_err(
                |error| HistoryError::InvalidUri { message: without_credentials(uri, one_line(&error)) },
            )?;
        client.app_name.get_or_insert_with(|| "sentinel-node".to_owned());
        client.server_selection_timeout = Some(options.server_selection_timeout);
        client.connect_timeout = Some(options.connect_timeout);
        client.max_pool_size.get_or_insert(CONNECTIONS);
        let host = client.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let name = options
            .database
            .clone()
            .or_else(|| client.default_database.clone())
            .unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        let client = Client::with_options(client).map_err(|error| HistoryError::InvalidUri {
            message: without_credentials(uri, one_line(&error)),
        })?;
        let database = client.database(&name);
        let collection = |name: &str| database.collection_with_options(name, durable());
        Ok(Self {
            attempts: collection("attempts"),
            executions: collection("executions"),
            runs: collection("runs"),
            output: collection("output"),
            database,
            host,
            options,
            permits: Arc::new(Semaphore::new(OPERATIONS)),
        })
    }

    /// Runs an operation of the driver to its end, however long anybody waits for it: a dropped future of the driver can
    /// leave its connection in disorder.
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
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(timed_out)?
            .map_err(|_| HistoryError::Closed { action })?;
        let task = tokio::spawn(async move {
            let outcome = operation.await;
            drop(permit);
            outcome
        });
        tokio::time::timeout_at(deadline, task)
            .await
            .map_err(timed_out)?
            .map_err(|_| HistoryError::Closed { action })?
    }

    /// The driver's error in our words.
    pub(super) fn failed(&self, action: &'static str) -> impl Fn(Error) -> HistoryError {
        let host = self.host.clone();
        move |error| match &*error.kind {
            ErrorKind::ServerSelection { message, .. } | ErrorKind::ConnectionPoolCleared { message, .. } => {
                HistoryError::Unreachable { action, host: host.clone(), message: innermost(message) }
            }
            ErrorKind::Io(source) => {
                HistoryError::Unreachable { action, host: host.clone(), message: source.to_string() }
            }
            _ => HistoryError::Mongo {
                action,
                host: host.clone(),
                message: one_line(&error),
                source: Box::new(error),
            },
        }
    }

    /// A server's error that the driver did not look at.
    pub(super) fn said(&self, action: &'static str, message: &str) -> HistoryError {
        let message = cut(message);
        let source = Box::new(Error::custom(message.clone()));
        HistoryError::Mongo { action, host: self.host.clone(), message, source }
    }

    /// How long the server may work on one read.
    pub(super) fn max_time(&self) -> Duration {
        self.options.operation_timeout
    }

    pub(super) fn now(&self) -> DateTime {
        DateTime::from_millis(self.options.clock.now().0)
    }

    /// When what is written now expires.
    pub(super) fn expiry(&self) -> DateTime {
        let retention = u64::try_from(self.options.retention.as_millis()).unwrap_or(u64::MAX);
        DateTime::from_millis(self.options.clock.now().plus(retention).0)
    }
}

/// Acknowledged means: on the disks of a majority.
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

/// The same as [`write_concern`] for a command of our own.
pub(super) fn write_concern_document() -> Document {
    doc! { "w": "majority", "j": true, "wtimeout": 5000 }
}

/// The message, unless it repeats something of what stands before the host.
fn without_credentials(uri: &str, message: String) -> String {
    let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let credentials = after_scheme.rsplit_once('@').map_or("", |(credentials, _)| credentials);
    let parts = credentials.split(|c: char| !c.is_alphanumeric()).filter(|part| part.len() > 2);
    if parts.into_iter().any(|part| message.contains(part)) {
        "it is not of the form mongodb://user:password@host:port/database; '@', ':', '/' and '%' in a password must \
         be percent-encoded"
            .to_owned()
    } else {
        message
    }
}

/// The driver's long texts in one short line.
fn one_line(error: &Error) -> String {
    cut(&error.kind.to_string())
}

fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > MESSAGE {
        line.chars().take(MESSAGE - 1).chain(['…']).collect()
    } else {
        line
    }
}

/// Of "Server selection timeout: … Servers: [ { Address: …, Error: Kind: I/O error: Connection refused (os error 111),
/// labels: {} } ]" what is of use: "Connection refused (os error 111)".
fn innermost(text: &str) -> String {
    let Some((_, error)) = text.rsplit_once("Error: ") else { return cut(text) };
    let end = error.find(", labels").or_else(|| error.find(" }")).unwrap_or(error.len());
    let error = error[..end].trim_start_matches("Kind: ").trim_start_matches("I/O error: ");
    cut(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_selection_error_the_cause_is_left() {
        let text = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: \
                    127.0.0.1:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} } ] }";
        assert_eq!(innermost(text), "Connection refused (os error 111)");
        assert_eq!(
            innermost("Server selection timeout: nobody there"),
            "Server selection timeout: nobody there"
        );
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let line = cut(&"word\n".repeat(200));
        assert!(line.chars().count() <= MESSAGE && !line.contains('\n'));
    }
}
