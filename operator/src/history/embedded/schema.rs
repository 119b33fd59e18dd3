//! Tables of the history file, and how a connection is set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Version of the tables, kept in `PRAGMA user_version`.
const SCHEMA_VERSION: i32 = 1;

/// Version of `body`.
pub(super) const BODY_VERSION: u32 = 1;

/// `ord` is the page order (text order is newest first), `rank` decides which record of one id knows more, `expire_at`
/// is in milliseconds since the Unix epoch, `body` is the record as JSON in format `version`. The expiry of output has a
/// table of its own, because SQLite rewrites a whole row for each change. So have the lines of output (JSON), because they
/// are read without it; segments of earlier releases have none.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS attempts (
  id TEXT NOT NULL PRIMARY KEY, rank TEXT NOT NULL, expire_at INTEGER NOT NULL,
  version INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS attempts_expire ON attempts (expire_at);
CREATE TABLE IF NOT EXISTS executions (
  id TEXT NOT NULL PRIMARY KEY, rank TEXT NOT NULL, expire_at INTEGER NOT NULL, ord TEXT NOT NULL,
  namespace TEXT NOT NULL, name TEXT NOT NULL, task_uid TEXT NOT NULL, run INTEGER NOT NULL, node TEXT NOT NULL,
  outcome TEXT, version INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS executions_order ON executions (ord);
CREATE INDEX IF NOT EXISTS executions_namespace ON executions (namespace, ord);
CREATE INDEX IF NOT EXISTS executions_name ON executions (namespace, name, ord);
CREATE INDEX IF NOT EXISTS executions_task ON executions (task_uid, ord);
CREATE INDEX IF NOT EXISTS executions_node ON executions (node, ord);
CREATE INDEX IF NOT EXISTS executions_expire ON executions (expire_at);
CREATE TABLE IF NOT EXISTS runs (
  id TEXT NOT NULL PRIMARY KEY, rank TEXT NOT NULL, expire_at INTEGER NOT NULL, ord TEXT NOT NULL,
  namespace TEXT NOT NULL, name TEXT NOT NULL, task_uid TEXT NOT NULL, run INTEGER NOT NULL,
  version INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_order ON runs (ord);
CREATE INDEX IF NOT EXISTS runs_namespace ON runs (namespace, name, ord);
CREATE INDEX IF NOT EXISTS runs_spec ON runs (namespace, name, body ->> '$.specHash', ord);
CREATE INDEX IF NOT EXISTS runs_task ON runs (task_uid, ord);
CREATE INDEX IF NOT EXISTS runs_expire ON runs (expire_at);
CREATE TABLE IF NOT EXISTS outputs (
  attempt TEXT NOT NULL PRIMARY KEY, expire_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outputs_expire ON outputs (expire_at);
CREATE TABLE IF NOT EXISTS segments (
  attempt TEXT NOT NULL, end_ INTEGER NOT NULL, first INTEGER NOT NULL,
  records INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, packed BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS segments_place ON segments (attempt, end_, first);
CREATE TABLE IF NOT EXISTS segment_lines (
  attempt TEXT NOT NULL, end_ INTEGER NOT NULL, first INTEGER NOT NULL, lines TEXT NOT NULL,
  PRIMARY KEY (attempt, end_, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_heads (
  id TEXT NOT NULL PRIMARY KEY, rank INTEGER NOT NULL, expire_at INTEGER NOT NULL,
  version INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS audit_heads_expire ON audit_heads (expire_at);
";

/// How long a connection waits for another process that locks the file.
const BUSY: Duration = Duration::from_secs(5);

/// Opens the one connection that writes.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit survives a power cut once it has returned.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // 16 MiB of log between checkpoints and an 8 MiB cache keep the operator small.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    Ok(connection)
}

/// Opens a read-only connection.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    Ok(connection)
}

/// Creates missing tables and indexes.
///
/// # Errors
/// Also when the file was created by a newer release.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > SCHEMA_VERSION {
        let message =
            format!("it has schema version {version} of a newer release; this one supports {SCHEMA_VERSION}");
        return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(1), Some(message)));
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}
