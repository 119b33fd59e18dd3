//! Reads of single records and of pages.

use futures_util::TryStreamExt as _;
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use sentinel_protocol::ids::AttemptId;
use serde::de::DeserializeOwned;

use super::connection::Connection;
use super::document::parse;
use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadQuery, AuditHeadRecord};
use crate::history::outcome::OutcomeName;
use crate::history::query::{ExecutionQuery, Page, PageToken, RunQuery, Span, page_size};
use crate::history::record::{AttemptRecord, ExecutionRecord, RunRecord};

pub(super) async fn attempt(
    connection: &Connection,
    id: &AttemptId,
) -> Result<Option<AttemptRecord>, HistoryError> {
    let filter = doc! { "_id": id.sort_key(), "expireAt": { "$gt": connection.now() } };
    let found = connection
        .attempts
        .find_one(filter)
        .max_time(connection.max_time())
        .await
        .map_err(connection.failed("read an attempt"))?;
    found.map(parse).transpose()
}

pub(super) async fn executions(
    connection: &Connection,
    query: &ExecutionQuery,
) -> Result<Page<ExecutionRecord>, HistoryError> {
    let limit = page_size(query.limit)?;
    let mut filter = doc! { "expireAt": { "$gt": connection.now() } };
    equals(&mut filter, "namespace", query.namespace.as_deref());
    equals(&mut filter, "name", query.task.as_deref());
    equals(&mut filter, "taskUid", query.task_uid.as_ref().map(AsRef::as_ref));
    equals(&mut filter, "run", query.run.map(|run| i64::from(run.0)));
    equals(&mut filter, "node", query.node.as_ref().map(AsRef::as_ref));
    equals(&mut filter, "outcome", query.outcome.map(OutcomeName::as_str));
    equals(&mut filter, "trigger", query.trigger.as_deref());
    between(&mut filter, query.began, query.after.as_ref());
    page(connection, &connection.executions, "list executions", filter, limit).await
}

pub(super) async fn runs(connection: &Connection, query: &RunQuery) -> Result<Page<RunRecord>, HistoryError> {
    let limit = page_size(query.limit)?;
    let mut filter = doc! { "expireAt": { "$gt": connection.now() } };
    equals(&mut filter, "namespace", query.namespace.as_deref());
    equals(&mut filter, "name", query.task.as_deref());
    equals(&mut filter, "taskUid", query.task_uid.as_ref().map(AsRef::as_ref));
    equals(&mut filter, "run", query.run.map(|run| i64::from(run.0)));
    equals(&mut filter, "trigger", query.trigger.as_deref());
    if let Some(ran) = &query.ran {
        filter.insert("specHash", ran.spec_hash.as_str());
        filter.insert("rerunToken", token(&ran.rerun_token));
        filter.insert("counts.targets", doc! { "$gt": 0 });
        filter.insert("$nor", [doc! { "taskUid": ran.not_by.as_str() }]);
    }
    between(&mut filter, query.began, query.after.as_ref());
    page(connection, &connection.runs, "list runs", filter, limit).await
}

pub(super) async fn audit_heads(
    connection: &Connection,
    query: &AuditHeadQuery,
) -> Result<Page<AuditHeadRecord>, HistoryError> {
    let limit = page_size(query.limit)?;
    let mut filter = doc! { "expireAt": { "$gt": connection.now() } };
    // Rows are in the order of their ids.
    let (after, before) = query.between();
    within(&mut filter, "_id", after, before);
    page_by(connection, &connection.audit_heads, "list audit heads", "_id", filter, limit).await
}

fn equals(filter: &mut Document, field: &str, value: Option<impl Into<Bson>>) {
    if let Some(value) = value {
        filter.insert(field, value);
    }
}

/// An empty token is not stored.
fn token(text: &str) -> Bson {
    if text.is_empty() { Bson::Null } else { text.into() }
}

/// Only rows of the span, and after the position.
fn between(filter: &mut Document, span: Span, after: Option<&PageToken>) {
    within(filter, "order", span.after(after).map(String::from), span.end());
}

fn within(filter: &mut Document, field: &str, after: Option<String>, before: Option<String>) {
    let mut range = Document::new();
    if let Some(after) = after {
        range.insert("$gt", after);
    }
    if let Some(before) = before {
        range.insert("$lt", before);
    }
    if !range.is_empty() {
        filter.insert(field, range);
    }
}

async fn page<T: DeserializeOwned>(
    connection: &Connection,
    collection: &Collection<Document>,
    action: &'static str,
    filter: Document,
    limit: usize,
) -> Result<Page<T>, HistoryError> {
    page_by(connection, collection, action, "order", filter, limit).await
}

/// A page in the order of a field.
async fn page_by<T: DeserializeOwned>(
    connection: &Connection,
    collection: &Collection<Document>,
    action: &'static str,
    order: &str,
    filter: Document,
    limit: usize,
) -> Result<Page<T>, HistoryError> {
    let cursor = collection
        .find(filter)
        .sort(doc! { order: 1 })
        .limit(limit as i64 + 1)
        .batch_size(limit as u32 + 1)
        .max_time(connection.max_time())
        .await
        .map_err(connection.failed(action))?;
    let found: Vec<Document> = cursor.try_collect().await.map_err(connection.failed(action))?;
    let rows: Result<Vec<(String, T)>, HistoryError> = found
        .into_iter()
        .map(|document| {
            let key = document.get_str(order).unwrap_or_default().to_owned();
            Ok((key, parse(document)?))
        })
        .collect();
    Ok(Page::cut(rows?, limit))
}
