//! [`History`] over MongoDB.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;

use super::connection::{Connection, MongoOptions};
use super::{output, query, record};
use crate::history::error::HistoryError;
use crate::history::query::{ExecutionQuery, Page, RunQuery};
use crate::history::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RunRecord};
use crate::history::segment::{OutputSegment, SegmentLines};
use crate::history::store::{History, HistoryFuture};

/// History in MongoDB.
#[derive(Debug)]
pub struct MongoHistory {
    connection: Arc<Connection>,
}

impl MongoHistory {
    /// Parses the URI. The driver connects at the first operation and reconnects when needed.
    ///
    /// # Errors
    /// [`HistoryError::InvalidUri`], which names what is wrong without repeating a password.
    pub async fn new(uri: &str, options: MongoOptions) -> Result<Self, HistoryError> {
        Ok(Self { connection: Arc::new(Connection::new(uri, options).await?) })
    }

    /// Drops the whole database; for tests that created it.
    ///
    /// # Errors
    /// When the server is unreachable.
    pub async fn drop_database(&self) -> Result<(), HistoryError> {
        let action = "drop the database";
        let connection = Arc::clone(&self.connection);
        self.connection
            .run(action, async move { connection.database.drop().await.map_err(connection.failed(action)) })
            .await
    }
}

const PREPARE: &str = "create indexes";

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
    let runs = [by_order(&[]), by_order(&["namespace", "name"]), by_order(&["taskUid"])];
    connection.executions.create_indexes(executions).await.map_err(connection.failed(PREPARE))?;
    connection.runs.create_indexes(runs).await.map_err(connection.failed(PREPARE))?;
    for collection in [&connection.attempts, &connection.executions, &connection.runs, &connection.output] {
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
        let connection = Arc::clone(&self.connection);
        self.connection.run(PREPARE, async move { prepare(&connection).await }).boxed()
    }

    fn check(&self) -> HistoryFuture<'_, ()> {
        let connection = Arc::clone(&self.connection);
        let ping = async move {
            let ping = connection.database.run_command(doc! { "ping": 1 }).await;
            ping.map(|_| ()).map_err(connection.failed("check"))
        };
        self.connection.run("check", ping).boxed()
    }

    fn record(&self, records: Vec<HistoryRecord>) -> HistoryFuture<'_, ()> {
        let connection = Arc::clone(&self.connection);
        self.connection.run("record", async move { record::record(&connection, &records).await }).boxed()
    }

    fn append_output(&self, segments: Vec<OutputSegment>) -> HistoryFuture<'_, ()> {
        let connection = Arc::clone(&self.connection);
        self.connection
            .run("append output", async move { output::append(&connection, &segments).await })
            .boxed()
    }

    fn output(&self, attempt: AttemptId, from: u64, max_bytes: usize) -> HistoryFuture<'_, Vec<LogRecord>> {
        let connection = Arc::clone(&self.connection);
        let read = async move { output::read(&connection, &attempt, from, max_bytes).await };
        self.connection.run("read output", read).boxed()
    }

    fn output_end(&self, attempt: AttemptId, from: u64) -> HistoryFuture<'_, u64> {
        let connection = Arc::clone(&self.connection);
        let end = async move { output::end(&connection, &attempt, from).await };
        self.connection.run("find the end of archived output", end).boxed()
    }

    fn output_lines(
        &self,
        attempt: AttemptId,
        from: u64,
        limit: usize,
    ) -> HistoryFuture<'_, Vec<SegmentLines>> {
        let connection = Arc::clone(&self.connection);
        let lines = async move { output::lines(&connection, &attempt, from, limit).await };
        self.connection.run("read the lines of output", lines).boxed()
    }

    fn attempt(&self, id: AttemptId) -> HistoryFuture<'_, Option<AttemptRecord>> {
        let connection = Arc::clone(&self.connection);
        self.connection.run("read an attempt", async move { query::attempt(&connection, &id).await }).boxed()
    }

    fn executions(&self, query: ExecutionQuery) -> HistoryFuture<'_, Page<ExecutionRecord>> {
        let connection = Arc::clone(&self.connection);
        let list = async move { query::executions(&connection, &query).await };
        self.connection.run("list executions", list).boxed()
    }

    fn runs(&self, query: RunQuery) -> HistoryFuture<'_, Page<RunRecord>> {
        let connection = Arc::clone(&self.connection);
        self.connection.run("list runs", async move { query::runs(&connection, &query).await }).boxed()
    }
}
