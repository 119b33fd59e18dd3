//! Storing records so that the one that knows most wins, also among concurrent writers.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind};

use super::connection::{Connection, write_concern_document};
use super::document::StoredRecord;
use crate::history::error::HistoryError;
use crate::history::head::AuditHeadRecord;
use crate::history::record::HistoryRecord;

const ACTION: &str = "record";
/// Documents per round trip.
const CHUNK: usize = 250;
/// Bytes per round trip, far below the 48 MB of a message.
const CHUNK_BYTES: usize = 8 << 20;
/// How often a chunk is retried because another writer changed the same records.
const MAX_ROUNDS: usize = 8;
/// The server's code for a duplicate `_id`.
const DUPLICATE_KEY: i32 = 11000;

/// Attempts, then Executions, then Runs: a reader that finds a finished Run finds its Executions too.
pub(super) async fn record(connection: &Connection, records: &[HistoryRecord]) -> Result<(), HistoryError> {
    let expire_at = connection.expiry();
    let (mut attempts, mut executions, mut runs) = (Latest::default(), Latest::default(), Latest::default());
    for record in records {
        match record {
            HistoryRecord::Attempt(attempt) => {
                attempts.put(StoredRecord::attempt(attempt, expire_at)?);
                executions.put(StoredRecord::execution(&attempt.execution(), expire_at)?);
            }
            HistoryRecord::Run(run) => runs.put(StoredRecord::run(run, expire_at)?),
        }
    }
    put_all(connection, &connection.attempts, attempts).await?;
    put_all(connection, &connection.executions, executions).await?;
    put_all(connection, &connection.runs, runs).await
}

/// Heads of audit chains.
pub(super) async fn audit_heads(
    connection: &Connection,
    heads: &[AuditHeadRecord],
) -> Result<(), HistoryError> {
    let mut rows = Latest::default();
    for head in heads {
        for row in head.rows() {
            let expire_at = connection.expiry_after(row.kept);
            rows.put(StoredRecord::audit_head(head, row, expire_at)?);
        }
    }
    put_all(connection, &connection.audit_heads, rows).await
}

/// The document with the highest rank for each id.
#[derive(Default)]
struct Latest(HashMap<String, StoredRecord>);

impl Latest {
    fn put(&mut self, stored: StoredRecord) {
        match self.0.get_mut(&stored.id) {
            Some(other) if other.rank >= stored.rank => {}
            Some(other) => *other = stored,
            None => {
                self.0.insert(stored.id.clone(), stored);
            }
        }
    }
}

async fn put_all(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: Latest,
) -> Result<(), HistoryError> {
    let mut documents: Vec<StoredRecord> = documents.0.into_values().collect();
    // Sorted by id, so that two writers of the same documents cannot deadlock.
    documents.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    while !documents.is_empty() {
        let rest = documents.split_off(chunk_len(documents.iter().map(|stored| stored.size)));
        put_chunk(connection, collection, std::mem::replace(&mut documents, rest)).await?;
    }
    Ok(())
}

/// How many documents of these sizes go into one round trip: at least one.
fn chunk_len(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= CHUNK_BYTES
    };
    sizes.take(CHUNK).take_while(fits).count().max(1)
}

async fn put_chunk(
    connection: &Connection,
    collection: &Collection<Document>,
    mut pending: Vec<StoredRecord>,
) -> Result<(), HistoryError> {
    for _ in 0..MAX_ROUNDS {
        let stored = stored_ranks(connection, collection, &pending).await?;
        pending.retain(|document| stored.get(&document.id).is_none_or(|rank| *rank < document.rank));
        if pending.is_empty() {
            return Ok(());
        }
        let (replaced, inserted): (Vec<_>, Vec<_>) =
            pending.iter().partition::<Vec<&StoredRecord>, _>(|document| stored.contains_key(&document.id));
        // Without a concurrent writer, there is nothing left to check.
        let uncontended = insert(connection, collection, &inserted).await?
            & replace(connection, collection, &replaced).await?;
        if uncontended {
            return Ok(());
        }
    }
    Err(HistoryError::Contended { action: ACTION })
}

async fn stored_ranks(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: &[StoredRecord],
) -> Result<HashMap<String, String>, HistoryError> {
    let ids: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    let cursor = collection
        .find(doc! { "_id": { "$in": ids } })
        .projection(doc! { "rank": 1 })
        .batch_size(CHUNK as u32)
        .max_time(connection.max_time())
        .await
        .map_err(connection.failed(ACTION))?;
    let found: Vec<Document> = cursor.try_collect().await.map_err(connection.failed(ACTION))?;
    let text = |document: &Document, name: &str| document.get_str(name).unwrap_or_default().to_owned();
    Ok(found.iter().map(|document| (text(document, "_id"), text(document, "rank"))).collect())
}

/// Returns whether all were new.
async fn insert(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: &[&StoredRecord],
) -> Result<bool, HistoryError> {
    if documents.is_empty() {
        return Ok(true);
    }
    match collection.insert_many(documents.iter().map(|stored| &stored.document)).ordered(false).await {
        Ok(_) => Ok(true),
        Err(error) if is_only_duplicates(&error) => Ok(false),
        Err(error) => Err(connection.failed(ACTION)(error)),
    }
}

/// Whether an unordered insert failed only because documents exist already.
pub(super) fn is_only_duplicates(error: &Error) -> bool {
    let ErrorKind::InsertMany(failure) = &*error.kind else { return false };
    failure.write_concern_error.is_none()
        && failure
            .write_errors
            .as_ref()
            .is_some_and(|errors| errors.iter().all(|error| error.code == DUPLICATE_KEY))
}

/// Returns whether all existed and knew less. One command for all; the driver's own bulk write needs MongoDB 8.
async fn replace(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: &[&StoredRecord],
) -> Result<bool, HistoryError> {
    if documents.is_empty() {
        return Ok(true);
    }
    let updates: Vec<Document> = documents
        .iter()
        .map(|stored| {
            doc! {
                "q": { "_id": &stored.id, "rank": { "$lt": &stored.rank } },
                "u": &stored.document,
                "upsert": false,
            }
        })
        .collect();
    let command = doc! {
        "update": collection.name(),
        "updates": updates,
        "ordered": false,
        "writeConcern": write_concern_document(),
    };
    let reply = connection.database.run_command(command).await.map_err(connection.failed(ACTION))?;
    for field in ["writeErrors", "writeConcernError"] {
        let error = match reply.get(field) {
            Some(Bson::Array(errors)) => errors.first().and_then(Bson::as_document),
            Some(Bson::Document(error)) => Some(error),
            _ => None,
        };
        if let Some(error) = error {
            return Err(connection.server_error(ACTION, error.get_str("errmsg").unwrap_or(field)));
        }
    }
    let matched = reply.get("n").and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from)));
    Ok(matched == Some(documents.len() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_bounded_in_documents_and_bytes() {
        assert_eq!(chunk_len([1000; 1000].into_iter()), CHUNK);
        assert_eq!(chunk_len([1 << 20; 60].into_iter()), 8);
        assert_eq!(chunk_len([15 << 20; 2].into_iter()), 1);
        assert_eq!(chunk_len([10].into_iter()), 1);
    }
}
