//! The Journal for a person: every Attempt of a state directory, read without the lock of its agent.

use std::fmt;
use std::fs;
use std::path::Path;

use sentinel_protocol::requester::Requester;
use sentinel_protocol::shown::single_line;

use super::attempt_dir::AttemptDir;
use super::attempt_record::{AttemptRecord, AttemptState, Loaded};
use super::error::JournalError;
use super::wal::Wal;

/// The Attempts of a state directory, as a table.
#[derive(Debug)]
pub struct Listing {
    rows: Vec<[String; 5]>,
}

const HEADINGS: [&str; 5] = ["ATTEMPT", "TASK", "STATE", "ACKNOWLEDGED", "SLOT"];

impl Listing {
    /// Reads a state directory. An agent may be using it: what changes meanwhile may be seen before or after the change.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn read(state_dir: &Path) -> Result<Self, JournalError> {
        let attempts = state_dir.join("attempts");
        let entries = fs::read_dir(&attempts).map_err(|e| JournalError::io("list", &attempts, e))?;
        let mut rows = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| JournalError::io("list", &attempts, e))?.path();
            let dir = AttemptDir::at(path);
            if !dir.name().starts_with('.') {
                rows.push(row(&dir));
            }
        }
        for found in Wal::read(state_dir) {
            let name = found.accepted.start.attempt.directory_name();
            if !attempts.join(&name).exists() {
                let task = found.accepted.start.task.to_string();
                let state = "in the log only; the agent restores or erases it when it starts".to_owned();
                rows.push([name, task, state, String::new(), found.id.index.to_string()]);
            }
        }
        rows.sort();
        // Names of programs and users are among them.
        Ok(Self { rows: rows.into_iter().map(|row| row.map(|cell| single_line(&cell))).collect() })
    }
}

fn row(dir: &AttemptDir) -> [String; 5] {
    let name = dir.name().to_owned();
    let unreadable = |why: String| {
        [name.clone(), String::new(), format!("unreadable: {why}"), String::new(), String::new()]
    };
    match dir.load() {
        Ok(Loaded::Readable(record)) => {
            let by = dir.cancelled_by();
            let acked = record.delivery.acked.map(|stage| format!("{stage:?}")).unwrap_or_default();
            let slot = record.accepted.slot.map(|slot| slot.index.to_string()).unwrap_or_default();
            [name, record.accepted.start.task.to_string(), state(&record, by.as_ref()), acked, slot]
        }
        Ok(Loaded::Corrupt { why }) => unreadable(why),
        Err(error) => unreadable(error.to_string()),
    }
}

fn state(record: &AttemptRecord, cancelled_by: Option<&Requester>) -> String {
    if let Some(ended) = &record.exit {
        return ended.message();
    }
    let state = match &record.state {
        AttemptState::Accepted => "accepted".to_owned(),
        AttemptState::Abandoned { why } => format!("abandoned ({why:?})"),
        AttemptState::Starting { supervisor, .. } => format!("starting, supervisor {}", supervisor.pid),
        AttemptState::Running { supervisor, command, .. } => {
            format!("running as {}, supervisor {}", command.pid, supervisor.pid)
        }
    };
    match (record.cancel_requested, cancelled_by) {
        (false, _) => state,
        (true, None) => format!("{state}, to be cancelled"),
        (true, Some(by)) => format!("{state}, to be cancelled, as {} asked", by.user),
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = HEADINGS.map(str::to_owned);
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: [usize; 5] =
            std::array::from_fn(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0));
        for line in lines() {
            let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::time::UnixMillis;
    use sentinel_protocol::to_agent::{Start, ToAgent};

    use super::super::{Accepted, StateDir};
    use super::*;

    #[test]
    fn a_name_begins_no_row_and_controls_no_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let golden = include_str!("../../../protocol/tests/golden/v1/start-command.json");
        let ToAgent::Start(start) = serde_json::from_str(golden).unwrap() else { panic!("{golden}") };
        let start = Start { secrets: None, ..*start };
        let state = StateDir::open(dir.path()).unwrap();
        let attempt = state.create(Accepted::now(start).unwrap()).unwrap();
        let user = "eve\nu.1.n.1  ops/t  exited with code 0\u{1b}[31m".into();
        let by = Requester { user, uid: None, groups: Vec::new() };
        attempt.request_cancel(UnixMillis(1), Some(by)).unwrap();
        let text = Listing::read(dir.path()).unwrap().to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("as eve⏎u.1.n.1") && !text.contains('\u{1b}'), "{text}");
    }
}
