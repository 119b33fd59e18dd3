//! Queries, each on a read-only connection.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use serde::de::DeserializeOwned;

use super::schema::BODY_VERSION;
use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadQuery, AuditHeadRecord};
use crate::history::query::{ExecutionQuery, Page, PageToken, RunQuery, Span, page_size};
use crate::history::record::{AttemptRecord, ExecutionRecord, RunRecord};
use crate::history::segment::{OutputSegment, SegmentLines};
use crate::history::stitch::{Coverage, Stitch};

pub(super) fn attempt(
    connection: &Connection,
    id: &AttemptId,
    now: i64,
) -> Result<Option<AttemptRecord>, HistoryError> {
    let row = connection
        .prepare_cached("SELECT id, version, body FROM attempts WHERE id = ?1 AND expire_at > ?2")
        .and_then(|mut statement| statement.query_row(params![id.sort_key(), now], stored_row).optional())
        .map_err(failed("read an attempt"))?;
    row.map(StoredRow::parse).transpose()
}

pub(super) fn executions(
    connection: &Connection,
    query: &ExecutionQuery,
    now: i64,
) -> Result<Page<ExecutionRecord>, HistoryError> {
    let limit = page_size(query.limit)?;
    let mut filter = SqlFilter::new(now, query.after.as_ref());
    filter.equals("namespace", query.namespace.clone());
    filter.equals("name", query.task.clone());
    filter.equals("task_uid", query.task_uid.as_ref().map(|uid| uid.as_str().to_owned()));
    filter.equals("run", query.run.map(|run| i64::from(run.0)));
    filter.equals("node", query.node.as_ref().map(|node| node.as_str().to_owned()));
    filter.span(query.began);
    filter.equals(TRIGGER, query.trigger.clone());
    filter.equals("outcome", query.outcome.map(|outcome| outcome.as_str().to_owned()));
    let rows = filter.rows(connection, "executions", limit).map_err(failed("list executions"))?;
    parse_page(rows, limit)
}

pub(super) fn runs(
    connection: &Connection,
    query: &RunQuery,
    now: i64,
) -> Result<Page<RunRecord>, HistoryError> {
    let limit = page_size(query.limit)?;
    let rows = runs_filter(query, now).rows(connection, "runs", limit).map_err(failed("list runs"))?;
    parse_page(rows, limit)
}

pub(super) fn audit_heads(
    connection: &Connection,
    query: &AuditHeadQuery,
    now: i64,
) -> Result<Page<AuditHeadRecord>, HistoryError> {
    let limit = page_size(query.limit)?;
    let mut filter = SqlFilter::new(now, None);
    let (after, before) = query.between();
    filter.condition("ord", ">", after);
    filter.condition("ord", "<", before);
    // Rows are in the order of their ids.
    let table = "(SELECT *, id AS ord FROM audit_heads)";
    let rows = filter.rows(connection, table, limit).map_err(failed("list audit heads"))?;
    parse_page(rows, limit)
}

fn runs_filter(query: &RunQuery, now: i64) -> SqlFilter {
    let mut filter = SqlFilter::new(now, query.after.as_ref());
    filter.equals("namespace", query.namespace.clone());
    filter.equals("name", query.task.clone());
    filter.equals("task_uid", query.task_uid.as_ref().map(|uid| uid.as_str().to_owned()));
    filter.equals("run", query.run.map(|run| i64::from(run.0)));
    filter.span(query.began);
    filter.equals(TRIGGER, query.trigger.clone());
    if let Some(ran) = &query.ran {
        filter.equals(SPEC_HASH, Some(ran.spec_hash.to_string()));
        filter.equals("coalesce(body ->> '$.rerunToken', '')", Some(ran.rerun_token.clone()));
        filter.condition("body ->> '$.counts.targets'", ">", Some(0));
        filter.condition("task_uid", "<>", Some(ran.not_by.to_string()));
    }
    filter
}

/// It has no column: it is read from the records that satisfy the other conditions.
const TRIGGER: &str = "body ->> '$.trigger'";

/// The same; it is a part of an index.
const SPEC_HASH: &str = "body ->> '$.specHash'";

/// The conditions of a list, in SQL. Column names are constants; values are bound.
struct SqlFilter {
    conditions: String,
    values: Vec<Value>,
}

impl SqlFilter {
    fn new(now: i64, after: Option<&PageToken>) -> Self {
        let mut filter = Self { conditions: "expire_at > ?1".to_owned(), values: vec![Value::Integer(now)] };
        filter.condition("ord", ">", after.map(|token| token.as_str().to_owned()));
        filter
    }

    fn span(&mut self, span: Span) {
        self.condition("ord", ">", span.start());
        self.condition("ord", "<", span.end());
    }

    fn equals(&mut self, column: &str, value: Option<impl Into<Value>>) {
        self.condition(column, "=", value);
    }

    fn condition(&mut self, column: &str, relation: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.values.push(value.into());
            // Writing to a String cannot fail.
            let _ = write!(self.conditions, " AND {column} {relation} ?{}", self.values.len());
        }
    }

    fn sql(&self, table: &str, limit: usize) -> String {
        format!(
            "SELECT id, version, body, ord FROM {table} WHERE {} ORDER BY ord LIMIT {}",
            self.conditions,
            limit + 1
        )
    }

    fn rows(
        self,
        connection: &Connection,
        table: &str,
        limit: usize,
    ) -> rusqlite::Result<Vec<(String, StoredRow)>> {
        let sql = self.sql(table, limit);
        let mut statement = connection.prepare_cached(&sql)?;
        let rows =
            statement.query_map(params_from_iter(self.values), |row| Ok((row.get(3)?, stored_row(row)?)))?;
        rows.collect()
    }
}

struct StoredRow {
    id: String,
    version: u32,
    body: String,
}

fn stored_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRow> {
    Ok(StoredRow { id: row.get(0)?, version: row.get(1)?, body: row.get(2)? })
}

impl StoredRow {
    fn parse<T: DeserializeOwned>(self) -> Result<T, HistoryError> {
        let unreadable = |message| HistoryError::Unreadable { what: self.id.clone(), message };
        if self.version > BODY_VERSION {
            return Err(unreadable(format!("it was written by a newer release (version {})", self.version)));
        }
        serde_json::from_str(&self.body).map_err(|e| unreadable(e.to_string()))
    }
}

fn parse_page<T: DeserializeOwned>(
    rows: Vec<(String, StoredRow)>,
    limit: usize,
) -> Result<Page<T>, HistoryError> {
    let rows: Result<Vec<_>, _> = rows.into_iter().map(|(key, stored)| Ok((key, stored.parse()?))).collect();
    Ok(Page::cut(rows?, limit))
}

/// Output of an Attempt that has not expired; `?1` is its key, `?2` is now.
const LIVE: &str = "attempt = ?1 AND EXISTS (SELECT 1 FROM outputs WHERE attempt = ?1 AND expire_at > ?2)";

pub(super) fn output_end(
    connection: &Connection,
    attempt: &AttemptId,
    from: u64,
    now: i64,
) -> Result<u64, HistoryError> {
    let mut coverage = Coverage::from(from);
    let mut read = || -> rusqlite::Result<()> {
        let sql = format!("SELECT first, end_ FROM segments WHERE {LIVE} AND end_ > ?3 ORDER BY end_");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![attempt.sort_key(), now, position(from)])?;
        while let Some(row) = rows.next()? {
            coverage.add(row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
        }
        Ok(())
    };
    read().map_err(failed("find the end of archived output"))?;
    Ok(coverage.end())
}

pub(super) fn output_lines(
    connection: &Connection,
    attempt: &AttemptId,
    from: u64,
    limit: usize,
    now: i64,
) -> Result<Vec<SegmentLines>, HistoryError> {
    let read = || -> rusqlite::Result<Vec<SegmentLines>> {
        let sql = format!(
            "SELECT s.first, s.end_, l.lines FROM
               (SELECT attempt, end_, first FROM segments WHERE {LIVE} AND end_ > ?3 ORDER BY end_ LIMIT ?4) s
             LEFT JOIN segment_lines l ON l.attempt = s.attempt AND l.end_ = s.end_ AND l.first = s.first
             ORDER BY s.end_"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![attempt.sort_key(), now, position(from), limit], |row| {
            let lines: Option<String> = row.get(2)?;
            Ok(SegmentLines {
                first: row.get::<_, i64>(0)? as u64,
                end: row.get::<_, i64>(1)? as u64,
                lines: lines.and_then(|text| serde_json::from_str(&text).ok()),
            })
        })?;
        rows.collect()
    };
    read().map_err(failed("read the lines of output"))
}

pub(super) fn output(
    connection: &Connection,
    attempt: &AttemptId,
    from: u64,
    max_bytes: usize,
    now: i64,
) -> Result<Vec<LogRecord>, HistoryError> {
    let read = failed("read output");
    let key = attempt.sort_key();
    let mut stitch = Stitch::new(from, max_bytes);
    while !stitch.is_full() {
        match next_segment(connection, attempt, &key, stitch.position(), now).map_err(&read)? {
            Some(segment) => {
                stitch.skip_to(segment.first);
                stitch.take(&segment)?;
            }
            None => break,
        }
    }
    Ok(stitch.finish())
}

/// The segment that covers the position, or else the first one after it.
fn next_segment(
    connection: &Connection,
    attempt: &AttemptId,
    key: &str,
    at: u64,
    now: i64,
) -> rusqlite::Result<Option<OutputSegment>> {
    let find = |condition_and_order: &str| {
        let sql = format!(
            "SELECT first, end_, records, raw_bytes, packed FROM segments
             WHERE {LIVE} AND end_ > ?3 {condition_and_order} LIMIT 1"
        );
        connection
            .prepare_cached(&sql)?
            .query_row(params![key, now, position(at)], |row| {
                Ok(OutputSegment {
                    attempt: attempt.clone(),
                    first: row.get::<_, i64>(0)? as u64,
                    end: row.get::<_, i64>(1)? as u64,
                    records: row.get(2)?,
                    raw_bytes: row.get::<_, i64>(3)? as u64,
                    lines: None,
                    packed: row.get::<_, Vec<u8>>(4)?.into(),
                })
            })
            .optional()
    };
    // The next one by its end nearly always covers the position; the other queries are for overlaps and holes.
    match find("ORDER BY end_")? {
        Some(next) if next.first > at => match find("AND first <= ?3 ORDER BY end_")? {
            Some(covering) => Ok(Some(covering)),
            None => find("ORDER BY first"),
        },
        next => Ok(next),
    }
}

/// SQLite's integers are signed; no log reaches beyond them.
fn position(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> HistoryError {
    move |source| HistoryError::Sqlite { action, source }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::SpecHash;

    use super::super::schema::create_tables;
    use super::*;
    use crate::history::query::Ran;

    #[test]
    fn what_another_task_ran_is_found_by_an_index_of_its_own() {
        let connection = Connection::open_in_memory().unwrap();
        create_tables(&connection).unwrap();
        let ran = Ran {
            spec_hash: SpecHash::new("a".repeat(64)).unwrap(),
            rerun_token: String::new(),
            not_by: "u".parse().unwrap(),
        };
        let (namespace, task) = (Some("ops".to_owned()), Some("t".to_owned()));
        let filter = runs_filter(&RunQuery { namespace, task, ran: Some(ran), ..RunQuery::default() }, 0);
        let sql = format!("EXPLAIN QUERY PLAN {}", filter.sql("runs", 1));
        let mut statement = connection.prepare(&sql).unwrap();
        let steps = statement.query_map(params_from_iter(filter.values), |row| row.get::<_, String>(3));
        let plan: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
        assert_eq!(plan, ["SEARCH runs USING INDEX runs_spec (namespace=? AND name=? AND <expr>=?)"]);
    }
}
