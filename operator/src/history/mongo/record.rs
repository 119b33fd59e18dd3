//! Storing records so that whoever knows most wins, whoever else writes at the same time.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error, ErrorKind};

use super::connection::{Connection, write_concern_document};
use super::document::Stored;
use crate::history::error::HistoryError;
use crate::history::record::Entry;

const ACTION: &str = "record";
/// Documents in one round trip.
const CHUNK: usize = 250;
/// And no more than this of them, far below the 48 MB of a message.
const CHUNK_BYTES: usize = 8 << 20;
/// How often a chunk is looked at again because somebody else wrote in between.
const ROUNDS: usize = 8;
/// The server's word for "this `_id` is taken".
const DUPLICATE_KEY: i32 = 11000;

/// Attempts, then Executions, then Runs: whoever sees a Run that is over finds all that it speaks of.
pub(super) async fn record(connection: &Connection, entries: &[Entry]) -> Result<(), HistoryError> {
    let expire_at = connection.expiry();
    let (mut attempts, mut executions, mut runs) = (Latest::default(), Latest::default(), Latest::default());
    for entry in entries {
        match entry {
            Entry::Attempt(attempt) => {
                attempts.put(Stored::attempt(attempt, expire_at)?);
                executions.put(Stored::execution(&attempt.execution(), expire_at)?);
            }
            Entry::Execution(execution) => executions.put(Stored::execution(execution, expire_at)?),
            Entry::Run(run) => runs.put(Stored::run(run, expire_at)?),
        }
    }
    put_all(connection, &connection.attempts, attempts).await?;
    put_all(connection, &connection.executions, executions).await?;
    put_all(connection, &connection.runs, runs).await
}

/// The document with the highest rank for each id.
#[derive(Default)]
struct Latest(HashMap<String, Stored>);

impl Latest {
    fn put(&mut self, stored: Stored) {
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
    let mut documents: Vec<Stored> = documents.0.into_values().collect();
    // In the order of their ids, so that two writers of the same ones do not wait for each other crosswise.
    documents.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    while !documents.is_empty() {
        let rest = documents.split_off(chunk_of(documents.iter().map(|stored| stored.size)));
        put_chunk(connection, collection, std::mem::replace(&mut documents, rest)).await?;
    }
    Ok(())
}

/// How many documents of these sizes go into one round trip: one at least.
fn chunk_of(sizes: impl Iterator<Item = usize>) -> usize {
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
    mut pending: Vec<Stored>,
) -> Result<(), HistoryError> {
    for _ in 0..ROUNDS {
        let stored = stored_ranks(connection, collection, &pending).await?;
        pending.retain(|document| stored.get(&document.id).is_none_or(|rank| *rank < document.rank));
        if pending.is_empty() {
            return Ok(());
        }
        let (replaced, inserted): (Vec<_>, Vec<_>) =
            pending.iter().partition::<Vec<&Stored>, _>(|document| stored.contains_key(&document.id));
        // Where both have met nobody else, there is no need to look again.
        let was_alone = insert(connection, collection, &inserted).await?
            & replace(connection, collection, &replaced).await?;
        if was_alone {
            return Ok(());
        }
    }
    Err(HistoryError::Contended { action: ACTION })
}

async fn stored_ranks(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: &[Stored],
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

/// Whether all were new.
async fn insert(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: &[&Stored],
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

/// Whether an unordered insert failed for nothing but documents that are there already.
pub(super) fn is_only_duplicates(error: &Error) -> bool {
    let ErrorKind::InsertMany(failure) = &*error.kind else { return false };
    failure.write_concern_error.is_none()
        && failure
            .write_errors
            .as_ref()
            .is_some_and(|errors| errors.iter().all(|error| error.code == DUPLICATE_KEY))
}

/// Whether all were there and knew less. One command for all; the driver's own bulk write needs MongoDB 8.
async fn replace(
    connection: &Connection,
    collection: &Collection<Document>,
    documents: &[&Stored],
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
        let complaint = match reply.get(field) {
            Some(Bson::Array(errors)) => errors.first().and_then(Bson::as_document),
            Some(Bson::Document(error)) => Some(error),
            _ => None,
        };
        if let Some(complaint) = complaint {
            return Err(connection.said(ACTION, complaint.get_str("errmsg").unwrap_or(field)));
        }
    }
    let matched = reply.get("n").and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from)));
    Ok(matched == Some(documents.len() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_takes_few_large_documents_many_small_ones_and_always_one() {
        assert_eq!(chunk_of([1000; 1000].into_iter()), CHUNK);
        assert_eq!(chunk_of([1 << 20; 60].into_iter()), 8);
        assert_eq!(chunk_of([15 << 20; 2].into_iter()), 1);
        assert_eq!(chunk_of([10].into_iter()), 1);
    }
}
