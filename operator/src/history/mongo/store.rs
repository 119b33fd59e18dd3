//! [`History`] over MongoDB.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::{Connection, MongoOptions};
use super::{output, query, record};
use crate::credentials::{Credentials, Reconnect, ReconnectError, Store};
use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadQuery, AuditHeadRecord};
use crate::history::query::{ExecutionQuery, Page, RunQuery};
use crate::history::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RunRecord};
use crate::history::segment::{OutputSegment, SegmentLines};
use crate::history::store::{History, HistoryFuture};

/// History in MongoDB.
#[derive(Debug)]
pub struct MongoHistory {
    /// What operations begin on.
    current: RwLock<Arc<Connection>>,
}

impl MongoHistory {
    /// Parses the URI. The driver connects at the first operation and reconnects when needed.
    ///
    /// # Errors
    /// [`HistoryError::InvalidUri`], which names what is wrong without repeating a password.
    pub async fn new(uri: &str, options: MongoOptions) -> Result<Self, HistoryError> {
        Self::connect(&Credentials::of_url(Store::Mongodb, uri), options).await
    }

    /// The same with a CA and a client certificate. Logs a warning if the connection can be read on its way.
    ///
    /// # Errors
    /// As [`MongoHistory::new`], and when the driver cannot use a file.
    pub async fn connect(credentials: &Credentials, options: MongoOptions) -> Result<Self, HistoryError> {
        let connection = Connection::new(credentials, options).await?;
        credentials.warn_if_readable(connection.hosts());
        Ok(Self { current: RwLock::new(Arc::new(connection)) })
    }

    /// Drops the whole database; for tests that created it.
    ///
    /// # Errors
    /// When the server is unreachable.
    pub async fn drop_database(&self) -> Result<(), HistoryError> {
        let action = "drop the database";
        let drop = move |connection: Arc<Connection>| async move {
            connection.database.drop().await.map_err(connection.failed(action))
        };
        self.run(action, drop).await
    }

    /// The connection, and what keeps it open.
    fn current(&self) -> (Arc<Connection>, TaskTrackerToken) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (current.clone(), current.in_use())
    }

    /// Runs an operation on the connection that is current at its first poll.
    async fn run<T, F>(
        &self,
        action: &'static str,
        operation: impl FnOnce(Arc<Connection>) -> F,
    ) -> Result<T, HistoryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HistoryError>> + Send + 'static,
    {
        let (connection, in_use) = self.current();
        let operation = operation(connection.clone());
        let holding = async move {
            let _in_use = in_use;
            operation.await
        };
        connection.run(action, holding).await
    }

    /// Connects with other credentials, proves that they suffice for what this store does, and swaps the connection.
    async fn replace(&self, credentials: &Credentials) -> Result<(), HistoryError> {
        let options = self.current().0.options().clone();
        let next = Arc::new(Connection::new(credentials, options).await?);
        // Both on the new one alone: another server has no indexes yet, another user may lack a right.
        let proven = next.clone();
        let proof = async move {
            ping(&proven).await?;
            prepare(&proven).await
        };
        if let Err(error) = next.run(PROVE, proof).await {
            retire(next);
            return Err(error);
        }
        credentials.warn_if_readable(next.hosts());
        let previous = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, next)
        };
        retire(previous);
        Ok(())
    }
}

impl Reconnect for MongoHistory {
    fn reconnect(&self, credentials: Arc<Credentials>) -> BoxFuture<'_, Result<(), ReconnectError>> {
        async move { Ok(self.replace(&credentials).await?) }.boxed()
    }
}

/// Closes a connection once its operations have ended.
fn retire(connection: Arc<Connection>) {
    tokio::spawn(async move { connection.close().await });
}

const PREPARE: &str = "create indexes";
const CHECK: &str = "check";
const PROVE: &str = "use the changed credentials";

async fn ping(connection: &Connection) -> Result<(), HistoryError> {
    let ping = connection.database.run_command(doc! { "ping": 1 }).await;
    ping.map(|_| ()).map_err(connection.failed(CHECK))
}

async fn prepare(connection: &Connection) -> Result<(), HistoryError> {
    let by_order = |fields: &[&str]| {
        let mut keys: Document = fields.iter().map(|field| ((*field).to_owned(), 1.into())).collect();
        keys.insert("order", 1);
        IndexModel::builder().keys(keys).build()
    };
    let executions = [
        by_order(&[]),
        by_order(&["namespace"]),
        by_order(&["namespace", "name"]),
        by_order(&["taskUid"]),
        by_order(&["node"]),
    ];
    let runs = [
        by_order(&[]),
        by_order(&["namespace", "name"]),
        by_order(&["namespace", "name", "specHash"]),
        by_order(&["taskUid"]),
    ];
    connection.executions.create_indexes(executions).await.map_err(connection.failed(PREPARE))?;
    connection.runs.create_indexes(runs).await.map_err(connection.failed(PREPARE))?;
    let Connection { attempts, executions, runs, output, audit_heads, .. } = connection;
    for collection in [attempts, executions, runs, output, audit_heads] {
        expire(connection, collection).await?;
    }
    Ok(())
}

/// Documents expire at the date that each of them holds.
async fn expire(connection: &Connection, collection: &Collection<Document>) -> Result<(), HistoryError> {
    let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
    let index = IndexModel::builder().keys(doc! { "expireAt": 1 }).options(options).build();
    collection.create_index(index).await.map_err(connection.failed(PREPARE))?;
    Ok(())
}

impl History for MongoHistory {
    fn prepare(&self) -> HistoryFuture<'_, ()> {
        self.run(PREPARE, |connection| async move { prepare(&connection).await }).boxed()
    }

    fn check(&self) -> HistoryFuture<'_, ()> {
        self.run(CHECK, |connection| async move { ping(&connection).await }).boxed()
    }

    fn record(&self, records: Vec<HistoryRecord>) -> HistoryFuture<'_, ()> {
        self.run("record", |connection| async move { record::record(&connection, &records).await }).boxed()
    }

    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()> {
        let append =
            |connection: Arc<Connection>| async move { output::append(&connection, &segments).await };
        self.run("append output", append).boxed()
    }

    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>> {
        let read = move |connection: Arc<Connection>| async move {
            output::read(&connection, &attempt, from, max_bytes).await
        };
        self.run("read output", read).boxed()
    }

    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64> {
        let end =
            move |connection: Arc<Connection>| async move { output::end(&connection, &attempt, from).await };
        self.run("find the end of archived output", end).boxed()
    }

    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>> {
        let lines = move |connection: Arc<Connection>| async move {
            output::lines(&connection, &attempt, from, limit).await
        };
        self.run("read the lines of output", lines).boxed()
    }

    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>> {
        self.run("read an attempt", move |connection| async move { query::attempt(&connection, &id).await })
            .boxed()
    }

    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>> {
        let list =
            move |connection: Arc<Connection>| async move { query::executions(&connection, &query).await };
        self.run("list executions", list).boxed()
    }

    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>> {
        self.run("list runs", move |connection| async move { query::runs(&connection, &query).await }).boxed()
    }

    fn record_audit_heads(&self, heads: Vec<AuditHeadRecord>) -> HistoryFuture<'_, ()> {
        let record =
            |connection: Arc<Connection>| async move { record::audit_heads(&connection, &heads).await };
        self.run("record audit heads", record).boxed()
    }

    fn audit_heads(&self, query: AuditHeadQuery) -> HistoryFuture<'_, Page<AuditHeadRecord>> {
        let list =
            move |connection: Arc<Connection>| async move { query::audit_heads(&connection, &query).await };
        self.run("list audit heads", list).boxed()
    }
}
