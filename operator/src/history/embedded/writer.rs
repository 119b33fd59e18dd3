//! The writer's thread: all queued jobs go into one transaction and are answered after its commit.

use std::time::Duration;

use rusqlite::{Connection, params};
use sentinel_protocol::stage::Stage;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::schema::{self, BODY_VERSION};
use crate::clock::Clock;
use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadRecord, Row};
use crate::history::outcome::OutcomeName;
use crate::history::query;
use crate::history::rank;
use crate::history::record::{AttemptRecord, ExecutionRecord, HistoryRecord, Identified, RunRecord};
use crate::history::segment::OutputSegment;

/// Jobs that may be queued; callers wait while it is full.
pub(super) const QUEUE: usize = 64;
/// Most jobs in one transaction.
const GROUP: usize = 64;
/// Time between searches for expired rows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Rows removed at a time.
const SWEEP_ROWS: usize = 200;

/// A request to the thread, and where its result goes.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) done: oneshot::Sender<Result<(), HistoryError>>,
}

/// What the thread does.
pub(super) enum Work {
    Prepare,
    Record(Vec<HistoryRecord>),
    Append(Vec<OutputSegment>),
    Heads(Vec<AuditHeadRecord>),
    /// Remove all expired rows now.
    Sweep,
}

/// Runs until every sender is dropped. `retention` in milliseconds.
pub(super) fn run(mut connection: Connection, mut jobs: mpsc::Receiver<Job>, clock: &Clock, retention: u64) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the history writer");
            return;
        }
    };
    connection.set_prepared_statement_cache_capacity(32);
    let mut next_sweep = Instant::now();
    let mut group = Vec::with_capacity(GROUP);
    loop {
        let arrived = runtime.block_on(async {
            tokio::select! {
                biased;
                arrived = jobs.recv_many(&mut group, GROUP) => Some(arrived),
                () = tokio::time::sleep_until(next_sweep) => None,
            }
        });
        match arrived {
            Some(0) => return,
            Some(_) => {
                let transaction = Transaction { connection: &connection, now: clock.now().0, retention };
                transaction.commit(std::mem::take(&mut group));
            }
            None => {
                let more = match sweep_step(&mut connection, clock.now().0) {
                    Ok(removed) => removed > 0,
                    Err(error) => {
                        tracing::warn!(%error, "unable to remove expired history");
                        false
                    }
                };
                // While there is more, continue at once, but only when no job is queued.
                next_sweep = Instant::now() + if more { Duration::ZERO } else { SWEEP_INTERVAL };
            }
        }
    }
}

struct Transaction<'a> {
    connection: &'a Connection,
    now: i64,
    retention: u64,
}

impl Transaction<'_> {
    /// One transaction for all jobs; one that fails is rolled back alone.
    fn commit(&self, jobs: Vec<Job>) {
        let is_alone = jobs.len() == 1;
        let mut succeeded = Vec::with_capacity(jobs.len());
        if let Err(source) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            let error = CommitFailure::of(&source);
            for job in jobs {
                answer(job.done, Err(error.to_history()));
            }
            return;
        }
        for Job { work, done } in jobs {
            // For a savepoint, SQLite copies every page that is changed.
            let outcome = if is_alone { self.work(work) } else { self.within_savepoint(work) };
            match outcome {
                Ok(()) => succeeded.push(done),
                Err(error) => answer(done, Err(error)),
            }
        }
        if succeeded.is_empty() {
            // If it fails, the next BEGIN reports it.
            let _ = self.connection.execute_batch("ROLLBACK");
            return;
        }
        let outcome = self.connection.execute_batch("COMMIT");
        if outcome.is_err() && !self.connection.is_autocommit() {
            // If this fails too, the next BEGIN reports it.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        let failure = outcome.err().map(|source| CommitFailure::of(&source));
        for done in succeeded {
            answer(done, failure.as_ref().map_or(Ok(()), |f| Err(f.to_history())));
        }
    }

    fn within_savepoint(&self, work: Work) -> Result<(), HistoryError> {
        let action = work.action();
        let sqlite = |source| HistoryError::Sqlite { action, source };
        self.connection.execute_batch("SAVEPOINT job").map_err(sqlite)?;
        let outcome = self.work(work);
        let end = if outcome.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
        self.connection.execute_batch(end).map_err(sqlite)?;
        outcome
    }

    fn work(&self, work: Work) -> Result<(), HistoryError> {
        let action = work.action();
        let sqlite = |source| HistoryError::Sqlite { action, source };
        match work {
            Work::Prepare => schema::create_tables(self.connection).map_err(sqlite),
            Work::Sweep => {
                while sweep_rows(self.connection, self.now).map_err(sqlite)? > 0 {}
                Ok(())
            }
            Work::Append(segments) => segments.iter().try_for_each(|s| self.segment(s)).map_err(sqlite),
            Work::Heads(heads) => heads.iter().try_for_each(|head| self.head(head)),
            Work::Record(records) => records.iter().try_for_each(|record| match record {
                HistoryRecord::Attempt(attempt) => {
                    self.attempt(attempt)?;
                    self.execution(&attempt.execution())
                }
                HistoryRecord::Run(run) => self.run(run),
            }),
        }
    }

    fn expiry(&self) -> i64 {
        self.now.saturating_add(i64::try_from(self.retention).unwrap_or(i64::MAX))
    }

    fn head(&self, record: &AuditHeadRecord) -> Result<(), HistoryError> {
        let body = body(record)?;
        for Row { id, rank, kept } in record.rows() {
            let expire_at = self.now.saturating_add(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
            self.put(
                "INSERT INTO audit_heads (id, rank, expire_at, version, body) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET rank = excluded.rank, expire_at = excluded.expire_at,
                   version = excluded.version, body = excluded.body
                 WHERE excluded.rank > audit_heads.rank",
                params![id, i64::try_from(rank).unwrap_or(i64::MAX), expire_at, BODY_VERSION, body],
            )?;
        }
        Ok(())
    }

    fn attempt(&self, record: &AttemptRecord) -> Result<(), HistoryError> {
        let (id, body) = (record.attempt.sort_key(), body(record)?);
        let changed = self.put(
            "INSERT INTO attempts (id, rank, expire_at, version, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET rank = excluded.rank, expire_at = excluded.expire_at,
               version = excluded.version, body = excluded.body
             WHERE excluded.rank > attempts.rank",
            params![id, rank::of_attempt(record, &body), self.expiry(), BODY_VERSION, body],
        )?;
        if changed > 0 && record.stage == Stage::Ended {
            self.put(
                "UPDATE outputs SET expire_at = max(expire_at, ?2) WHERE attempt = ?1",
                params![id, self.expiry()],
            )?;
        }
        Ok(())
    }

    fn execution(&self, record: &ExecutionRecord) -> Result<(), HistoryError> {
        let body = body(record)?;
        self.put(
            "INSERT INTO executions
               (id, rank, expire_at, ord, namespace, name, task_uid, run, node, outcome, version, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (id) DO UPDATE SET rank = excluded.rank, expire_at = excluded.expire_at, ord = excluded.ord,
               namespace = excluded.namespace, name = excluded.name, outcome = excluded.outcome,
               version = excluded.version, body = excluded.body
             WHERE excluded.rank > executions.rank",
            params![
                record.id(),
                rank::of_execution(record, &body),
                self.expiry(),
                query::execution_order(record.run_started_at, &record.task_uid, record.run, &record.node),
                record.namespace,
                record.name,
                record.task_uid.as_str(),
                record.run.0,
                record.node.as_str(),
                record.outcome.map(OutcomeName::as_str),
                BODY_VERSION,
                body,
            ],
        )?;
        Ok(())
    }

    fn run(&self, record: &RunRecord) -> Result<(), HistoryError> {
        let body = body(record)?;
        self.put(
            "INSERT INTO runs (id, rank, expire_at, ord, namespace, name, task_uid, run, version, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET rank = excluded.rank, expire_at = excluded.expire_at, ord = excluded.ord,
               namespace = excluded.namespace, name = excluded.name, version = excluded.version, body = excluded.body
             WHERE excluded.rank > runs.rank",
            params![
                record.id(),
                rank::of_run(record, &body),
                self.expiry(),
                query::run_order(record.started_at, &record.task_uid, record.run),
                record.namespace,
                record.name,
                record.task_uid.as_str(),
                record.run.0,
                BODY_VERSION,
                body,
            ],
        )?;
        Ok(())
    }

    fn put(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, HistoryError> {
        let failed = |source| HistoryError::Sqlite { action: "record", source };
        self.connection.prepare_cached(sql).map_err(failed)?.execute(values).map_err(failed)
    }

    fn segment(&self, segment: &OutputSegment) -> rusqlite::Result<()> {
        let id = segment.attempt.sort_key();
        self.connection
            .prepare_cached(
                "INSERT INTO segments (attempt, end_, first, records, raw_bytes, packed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                id,
                segment.end as i64,
                segment.first as i64,
                segment.records,
                segment.raw_bytes as i64,
                &segment.packed[..],
            ])?;
        if let Some(lines) = segment.lines {
            self.connection
                .prepare_cached(
                    "INSERT INTO segment_lines (attempt, end_, first, lines) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![id, segment.end as i64, segment.first as i64, to_json(&lines)?])?;
        }
        self.connection
            .prepare_cached(
                "INSERT INTO outputs (attempt, expire_at) VALUES (?1, ?2)
                 ON CONFLICT (attempt) DO UPDATE SET expire_at = max(expire_at, excluded.expire_at)",
            )?
            .execute(params![id, self.expiry()])?;
        Ok(())
    }
}

impl Work {
    fn action(&self) -> &'static str {
        match self {
            Self::Prepare => "create tables",
            Self::Record(_) => "record",
            Self::Append(_) => "append output",
            Self::Heads(_) => "record audit heads",
            Self::Sweep => "remove expired rows",
        }
    }
}

/// A failed commit, reported to each of its jobs; rusqlite's error is not `Clone`.
struct CommitFailure {
    code: rusqlite::ffi::Error,
    message: String,
}

impl CommitFailure {
    fn of(source: &rusqlite::Error) -> Self {
        let code = source.sqlite_error().copied().unwrap_or_else(|| rusqlite::ffi::Error::new(1));
        Self { code, message: source.to_string() }
    }

    fn to_history(&self) -> HistoryError {
        let source = rusqlite::Error::SqliteFailure(self.code, Some(self.message.clone()));
        HistoryError::Sqlite { action: "commit", source }
    }
}

fn answer(done: oneshot::Sender<Result<(), HistoryError>>, outcome: Result<(), HistoryError>) {
    // The caller may be gone; what is stored stays stored.
    let _ = done.send(outcome);
}

fn body(record: &impl Identified) -> Result<String, HistoryError> {
    serde_json::to_string(record)
        .map_err(|e| HistoryError::Unstorable { what: record.what(), message: e.to_string() })
}

fn to_json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn sweep_step(connection: &mut Connection, now: i64) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let removed = sweep_rows(&transaction, now)?;
    transaction.commit()?;
    if removed == 0 {
        connection.execute_batch("PRAGMA incremental_vacuum(256)")?;
    }
    Ok(removed)
}

/// Removes some rows of each table; 0 when nothing has expired.
fn sweep_rows(connection: &Connection, now: i64) -> rusqlite::Result<usize> {
    let mut removed = 0;
    for table in ["attempts", "executions", "runs", "audit_heads"] {
        let sql = format!(
            "DELETE FROM {table} WHERE rowid IN
               (SELECT rowid FROM {table} WHERE expire_at <= ?1 LIMIT {SWEEP_ROWS})"
        );
        removed += connection.prepare_cached(&sql)?.execute([now])?;
    }
    let sql = format!(
        "DELETE FROM segments WHERE rowid IN
           (SELECT s.rowid FROM outputs o JOIN segments s ON s.attempt = o.attempt
            WHERE o.expire_at <= ?1 LIMIT {SWEEP_ROWS})"
    );
    let segments = connection.prepare_cached(&sql)?.execute([now])?;
    if segments == 0 {
        let lines =
            "DELETE FROM segment_lines WHERE attempt IN (SELECT attempt FROM outputs WHERE expire_at <= ?1)";
        connection.prepare_cached(lines)?.execute([now])?;
        removed += connection.prepare_cached("DELETE FROM outputs WHERE expire_at <= ?1")?.execute([now])?;
    }
    Ok(removed + segments)
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::ids::{Epoch, SpecHash, TaskRef};
    use sentinel_protocol::request::Environment;
    use sentinel_protocol::time::UnixMillis;

    use super::*;
    use crate::history::record::{RecordSource, RunContext};

    fn record() -> Work {
        let run = RunContext {
            task: TaskRef::new("ops", "t").unwrap(),
            started_at: UnixMillis(1),
            trigger: None,
            spec_hash: SpecHash::new("a".repeat(64)).unwrap(),
            command: "true".to_owned(),
            environment: Environment::Container,
        };
        let id = "u/1/n/1".parse().unwrap();
        let attempt = AttemptRecord::accepted(id, run, RecordSource::Agent, Epoch::from(1));
        Work::Record(vec![HistoryRecord::Attempt(Box::new(attempt))])
    }

    /// A job that is alone in its transaction has no savepoint.
    #[test]
    fn nothing_of_a_job_that_failed_is_stored() {
        let connection = Connection::open_in_memory().unwrap();
        schema::create_tables(&connection).unwrap();
        connection.execute_batch("ALTER TABLE executions RENAME TO moved").unwrap();
        let transaction = Transaction { connection: &connection, now: 1, retention: 1 };
        for others in 0..=1 {
            let works = std::iter::once(record()).chain((0..others).map(|_| Work::Sweep));
            let (jobs, mut answers): (Vec<Job>, Vec<_>) = works
                .map(|work| {
                    let (done, answer) = oneshot::channel();
                    (Job { work, done }, answer)
                })
                .unzip();
            transaction.commit(jobs);
            assert!(answers[0].try_recv().unwrap().is_err(), "{others} others");
            let stored: i64 =
                connection.query_row("SELECT count(*) FROM attempts", [], |row| row.get(0)).unwrap();
            assert_eq!((stored, connection.is_autocommit()), (0, true), "{others} others");
        }
        connection.execute_batch("ALTER TABLE moved RENAME TO executions").unwrap();
        let (done, mut answer) = oneshot::channel();
        transaction.commit(vec![Job { work: record(), done }]);
        answer.try_recv().unwrap().expect("it is stored once the file is whole");
    }
}
