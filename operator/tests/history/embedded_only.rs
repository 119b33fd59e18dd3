//! What only the embedded History promises: durability, its file, its schema.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::history::{ExecutionQuery, History, HistoryRecord, outcome_of};
use sentinel_protocol::outcome::Outcome;

use crate::output::RETENTION;
use crate::stores::ManualClock;
use crate::stores::fixtures::{
    accepted, attempt_id, ended, history_record, log, run_record, running, segments,
};

const CHILD: &str = "SENTINEL_TEST_HISTORY_CHILD";

fn options() -> EmbeddedOptions {
    EmbeddedOptions::default()
}

/// The child process of the next test: writes until it is killed, and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of acknowledged_writes_survive_sigkill"]
async fn writes_until_killed() {
    let path = std::env::var_os(CHILD).unwrap();
    let history = EmbeddedHistory::open(path, options()).unwrap();
    for number in 1..u32::MAX {
        let id = attempt_id("killed", number, "n");
        let records: Vec<_> =
            (0..20).map(|on| running(&attempt_id("killed", number, &format!("n{on}")))).collect();
        let (stored, appended) = tokio::join!(
            history.record(records.iter().map(history_record).collect()),
            history.append_output(segments(&id, &log([1000; 14]), 7)),
        );
        stored.and(appended).unwrap();
        writeln!(std::io::stdout(), "\nacknowledged {number}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    for kill in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded_only::writes_until_killed", "--ignored", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged = 0;
        for line in lines {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                acknowledged = number.parse().unwrap();
                if acknowledged == 40 * kill {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= 40 * kill, "the child exited after {acknowledged} writes");
        let history = EmbeddedHistory::open(&path, options()).unwrap();
        for number in 1..=acknowledged {
            let id = attempt_id("killed", number, "n7");
            assert_eq!(history.attempt(id.clone()).await.unwrap(), Some(running(&id)), "kill {kill}");
            let end = history.output_end(attempt_id("killed", number, "n"), 0).await.unwrap();
            assert_eq!(end, 14_000, "kill {kill}, run {number}");
        }
    }
}

#[tokio::test]
async fn the_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let history = EmbeddedHistory::open(folder.path().join("history.db"), options()).unwrap();
    history.record(vec![history_record(&accepted(&attempt_id("t", 1, "n")))]).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn a_dropped_history_can_be_reopened_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let id = attempt_id("dropped", 1, "n");
    for stage in [accepted(&id), running(&id), ended(&id, Outcome::Cancelled)] {
        let history = EmbeddedHistory::open(&path, options()).unwrap();
        history.record(vec![history_record(&stage)]).await.unwrap();
        drop(history);
        let history = EmbeddedHistory::open(&path, options()).unwrap();
        assert_eq!(history.attempt(id.clone()).await.unwrap(), Some(stage));
    }
}

#[tokio::test]
async fn rejects_a_foreign_file_and_leaves_it_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "not a database, only some notes\n".repeat(100)).unwrap();
    let error = EmbeddedHistory::open(&path, options()).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("not a database"));
    let missing = EmbeddedHistory::open(folder.path().join("no/such/folder.db"), options()).unwrap_err();
    assert!(missing.to_string().contains("no/such/folder.db"), "{missing}");
}

#[tokio::test]
async fn rejects_a_file_of_a_newer_release() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    drop(EmbeddedHistory::open(&path, options()).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = EmbeddedHistory::open(&path, options()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("schema version 99 of a newer release"), "{error}: {source}");
}

#[tokio::test]
async fn sweep_removes_only_expired_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let clock = ManualClock::new();
    let options = EmbeddedOptions { retention: RETENTION, clock: clock.clock() };
    let history = EmbeddedHistory::open(&path, options).unwrap();
    for run in 1..=1000 {
        let id = attempt_id("old", run, "n");
        history
            .record(vec![history_record(&running(&id)), HistoryRecord::Run(Box::new(run_record("old", run)))])
            .await
            .unwrap();
        history.append_output(segments(&id, &log([100; 3]), 1)).await.unwrap();
    }
    let kept = attempt_id("old", 7, "n");
    clock.advance(RETENTION / 2);
    history.append_output(segments(&kept, &log([100; 4]), 1)).await.unwrap();
    clock.advance(RETENTION / 2);
    history.sweep().await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| {
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(["attempts", "executions", "runs"].map(count), [0, 0, 0]);
    assert_eq!(count("segments"), 4, "output that still grew is kept whole");
    assert_eq!(history.output_end(kept, 0).await.unwrap(), 400);
}

#[tokio::test]
async fn rows_of_earlier_releases_are_read_with_their_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let history = EmbeddedHistory::open(&path, options()).unwrap();
    let record = ended(&attempt_id("earlier", 1, "n"), Outcome::Signaled { signal: 9 });
    history.record(vec![history_record(&record)]).await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    let changed = file.execute("UPDATE executions SET body = json_remove(body, '$.outcomeDetails')", []);
    assert_eq!(changed.unwrap(), 1);
    let row = history.executions(ExecutionQuery::default()).await.unwrap().items.remove(0);
    assert_eq!(row.outcome_details, None);
    assert_eq!(outcome_of(&history, &row).await.unwrap(), Outcome::Signaled { signal: 9 });
}
