//! Records as documents: the record's own fields in an envelope of `_id`, `v`, `rank`, `order` and `expireAt`.

use mongodb::bson::{Bson, DateTime, Document, deserialize_from_document, serialize_to_document};
use serde::de::DeserializeOwned;

use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadRecord, Row};
use crate::history::query::{execution_order, run_order};
use crate::history::rank;
use crate::history::record::{AttemptRecord, ExecutionRecord, Identified, RunRecord};

/// Version of the documents, in their field `v`.
const VERSION: i32 = 1;
/// Less than MongoDB's limit of 16 MiB.
const MAX_DOCUMENT: usize = 15 << 20;
/// Kept as dates, so that people can query them; numbers in our records.
const DATE_FIELDS: [&str; 5] = ["runStartedAt", "startedAt", "endedAt", "finishedAt", "recordedAt"];

/// A document to store.
#[derive(Debug, Clone)]
pub(super) struct StoredRecord {
    pub(super) id: String,
    pub(super) rank: String,
    pub(super) document: Document,
    /// Encoded size, bytes.
    pub(super) size: usize,
}

impl StoredRecord {
    pub(super) fn attempt(record: &AttemptRecord, expire_at: DateTime) -> Result<Self, HistoryError> {
        let id = record.attempt.sort_key();
        Self::new(record, id, rank::of_attempt(record, &rank::content(record)), None, expire_at)
    }

    pub(super) fn execution(record: &ExecutionRecord, expire_at: DateTime) -> Result<Self, HistoryError> {
        let order = execution_order(record.run_started_at, &record.task_uid, record.run, &record.node);
        Self::new(
            record,
            record.id(),
            rank::of_execution(record, &rank::content(record)),
            Some(order),
            expire_at,
        )
    }

    pub(super) fn run(record: &RunRecord, expire_at: DateTime) -> Result<Self, HistoryError> {
        let order = run_order(record.started_at, &record.task_uid, record.run);
        Self::new(record, record.id(), rank::of_run(record, &rank::content(record)), Some(order), expire_at)
    }

    pub(super) fn audit_head(
        record: &AuditHeadRecord,
        row: Row,
        expire_at: DateTime,
    ) -> Result<Self, HistoryError> {
        Self::new(record, row.id, format!("{:016x}", row.rank), None, expire_at)
    }

    fn new(
        record: &impl Identified,
        id: String,
        rank: String,
        order: Option<String>,
        expire_at: DateTime,
    ) -> Result<Self, HistoryError> {
        let mut document = Document::new();
        document.insert("_id", id.as_str());
        document.insert("v", VERSION);
        document.insert("rank", rank.as_str());
        if let Some(order) = order {
            document.insert("order", order);
        }
        document.insert("expireAt", expire_at);
        let unstorable = |error: mongodb::bson::error::Error| HistoryError::Unstorable {
            what: record.what(),
            message: error.to_string(),
        };
        let fields = serialize_to_document(record).map_err(unstorable)?;
        document.extend(fields);
        for name in DATE_FIELDS {
            if let Some(value) = document.get_mut(name)
                && let Bson::Int64(millis) = *value
            {
                *value = Bson::DateTime(DateTime::from_millis(millis));
            }
        }
        let size = document.to_vec().map_err(unstorable)?.len();
        if size > MAX_DOCUMENT {
            let message = format!("it takes {size} bytes, more than the {MAX_DOCUMENT} of a document");
            return Err(HistoryError::Unstorable { what: record.what(), message });
        }
        Ok(Self { id, rank, document, size })
    }
}

/// Reads the record of a document.
pub(super) fn parse<T: DeserializeOwned>(mut document: Document) -> Result<T, HistoryError> {
    let what = document.get_str("_id").unwrap_or("a document without an id").to_owned();
    let version = document.get_i32("v").unwrap_or_default();
    if version > VERSION {
        let message = format!("it was written by a newer release (version {version})");
        return Err(HistoryError::Unreadable { what, message });
    }
    for name in DATE_FIELDS {
        if let Some(value) = document.get_mut(name)
            && let Bson::DateTime(date) = *value
        {
            *value = Bson::Int64(date.timestamp_millis());
        }
    }
    deserialize_from_document(document).map_err(|e| HistoryError::Unreadable { what, message: e.to_string() })
}
