//! Which Attempts were allowed by which signed statement, so that none is used more often than its author allowed. A use is durable
//! before its Attempt is accepted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::error::JournalError;
use super::record_file;
use crate::private_dir;

/// Statements that are remembered; beyond, a new one is refused.
const MOST_STATEMENTS: usize = 10_000;

/// How long a statement is remembered after it was valid, milliseconds: a clock that was set back must not make it new again.
const REMEMBERED_FOR: u64 = 30 * 24 * 3_600_000;

/// The uses of one statement.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Uses {
    not_after: UnixMillis,
    attempts: Vec<AttemptId>,
}

/// The uses of signed statements on this node.
#[derive(Debug, Clone)]
pub struct SignedUses {
    dir: PathBuf,
}

impl SignedUses {
    /// Those below a state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("signed") }
    }

    /// Uses a statement for an Attempt that is about to be recorded. An Attempt that was recorded before is known by the Journal or its
    /// tombstone; one that is listed here and known by neither was forgotten long ago, and may not start again. Durable on return.
    ///
    /// # Errors
    /// Why it may not be used.
    pub fn claim(
        &self,
        id: &str,
        attempt: &AttemptId,
        runs: u32,
        not_after: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), String> {
        let failed =
            |error: JournalError| format!("the uses of the signed statement {id} cannot be kept: {error}");
        let file = self.dir.join(id);
        let uses: Option<Uses> = record_file::read(&file).map_err(failed)?;
        let is_new = uses.is_none();
        let mut uses = uses.unwrap_or(Uses { not_after, attempts: Vec::new() });
        if uses.attempts.contains(attempt) {
            return Err(format!("the signed statement {id} was used for {attempt} before"));
        }
        if uses.attempts.len() >= runs as usize {
            return Err(format!(
                "the signed statement {id} was used {runs} times on this node, which is all it is for"
            ));
        }
        if is_new {
            private_dir::open_within(&self.dir).map_err(|error| failed(error.into()))?;
            self.make_room(now)?;
        }
        uses.attempts.push(attempt.clone());
        record_file::replace(&file, &uses).map_err(failed)
    }

    /// Forgets statements that were valid long ago.
    fn make_room(&self, now: UnixMillis) -> Result<(), String> {
        let unreadable = |error: io::Error| format!("{} cannot be read: {error}", self.dir.display());
        let mut kept = 0;
        for entry in fs::read_dir(&self.dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            match record_file::read::<Uses>(&path) {
                Ok(Some(uses)) if now.since(uses.not_after) > REMEMBERED_FOR => {
                    let _ = fs::remove_file(&path);
                }
                _ => kept += 1,
            }
        }
        if kept < MOST_STATEMENTS {
            return Ok(());
        }
        Err(format!(
            "this node has used {kept} signed statements that are still valid; it takes no further one"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(run: u32) -> AttemptId {
        format!("u/{run}/n/1").parse().unwrap()
    }

    #[test]
    fn a_statement_is_used_as_often_as_it_is_for_and_once_for_an_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let claim = |id: &str, run: u32| {
            let uses = SignedUses::of(dir.path());
            uses.claim(id, &attempt(run), 2, UnixMillis(1_000), UnixMillis(500))
        };
        assert_eq!((claim("a", 1), claim("a", 2)), (Ok(()), Ok(())));
        // Its tombstone is gone: an operator may have made room for others until it was.
        assert!(claim("a", 1).unwrap_err().contains("was used for u/1/n/1 before"));
        assert!(claim("a", 3).unwrap_err().contains("was used 2 times"));
        assert_eq!(claim("b", 3), Ok(()));
    }

    #[test]
    fn a_use_that_cannot_be_read_allows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let uses = SignedUses::of(dir.path());
        uses.claim("a", &attempt(1), 9, UnixMillis(1_000), UnixMillis(500)).unwrap();
        fs::write(dir.path().join("signed/a"), "damaged").unwrap();
        assert!(uses.claim("a", &attempt(2), 9, UnixMillis(1_000), UnixMillis(500)).is_err());
    }

    #[test]
    fn statements_are_forgotten_long_after_they_were_valid() {
        let dir = tempfile::tempdir().unwrap();
        let uses = SignedUses::of(dir.path());
        let claim =
            |id: &str, now: u64| uses.claim(id, &attempt(1), 1, UnixMillis(1_000), UnixMillis(0).plus(now));
        claim("a", 500).unwrap();
        claim("b", REMEMBERED_FOR).unwrap();
        assert!(dir.path().join("signed/a").exists());
        claim("c", REMEMBERED_FOR + 2_000).unwrap();
        assert!(!dir.path().join("signed/a").exists() && dir.path().join("signed/c").exists());
    }
}
