//! Which Attempts were allowed by which signed statement, so that none is used more often than its author allowed. A use is
//! durable before its Attempt is accepted.
//!
//! One file of checksummed lines, `<8 hexadecimal digits of crc32> <JSON>`, to which each use is appended. It is written anew,
//! without statements that were valid long ago, when it is opened and when it has doubled since.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::mem::size_of;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::JournalError;
use super::record_file;

/// Statements that are remembered; beyond, a new one is refused.
const MOST_STATEMENTS: usize = 10_000;

/// Uses of all statements that are remembered; beyond, each further one is refused. Some 20 MiB of the disk.
const MOST_USES: usize = 100_000;

/// How long a statement is remembered after it was valid, milliseconds: a clock that was set back must not make it new again.
const REMEMBERED_FOR: u64 = 30 * 24 * 3_600_000;

/// A file of up to this length is not written anew because it has grown, bytes.
const SMALL: u64 = 64 << 10;

/// A file that is longer than all that may be remembered is not read, bytes.
const LONGEST: u64 = 64 << 20;

/// One use, as a line has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    statement: String,
    not_after: UnixMillis,
    attempt: AttemptId,
}

impl Use {
    fn is_forgotten(&self, now: UnixMillis) -> bool {
        now.since(self.not_after) > REMEMBERED_FOR
    }

    fn line(&self, path: &Path) -> Result<String, JournalError> {
        let json = serde_json::to_string(self)
            .map_err(|source| JournalError::Encode { path: path.to_owned(), source })?;
        Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
    }

    fn read(line: &[u8]) -> Option<Self> {
        let (crc, json) = line.split_at_checked(8)?;
        let json = json.strip_prefix(b" ")?;
        let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
        if crc32fast::hash(json) != crc {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

/// An Attempt in little memory.
type Key = [u8; 16];

fn key(attempt: &AttemptId) -> Key {
    let digest = Sha256::digest(attempt.to_string().as_bytes());
    let mut key = [0; size_of::<Key>()];
    key.copy_from_slice(&digest[..size_of::<Key>()]);
    key
}

/// The uses of signed statements on this node.
#[derive(Debug)]
pub struct SignedUses {
    path: PathBuf,
    /// What the file has; `None` before the first use, and after a failure.
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    file: File,
    /// Its length, now and when it was written anew.
    len: u64,
    len_anew: u64,
    statements: HashMap<String, Vec<Key>>,
    uses: usize,
}

impl SignedUses {
    /// Those of a state directory, which are not read yet.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("signed_uses"), kept: Mutex::new(None) }
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
        let mut slot = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Put back only when all went well: what the file has after a failure is read again.
        let mut kept = self.with_room(&mut slot, (id, attempt, runs), now)?;
        let used = Use { statement: id.to_owned(), not_after, attempt: attempt.clone() };
        kept.append(&used, &self.path).map_err(|error| cannot_keep(id, &error))?;
        if kept.len > SMALL && kept.len > 2 * kept.len_anew {
            kept = match Kept::open(&self.path, now) {
                Ok(kept) => kept,
                Err(error) => {
                    // The use is durable. The next one tries again, and reports why it cannot.
                    tracing::warn!(
                        error = described(&error),
                        "unable to write the uses of signed statements anew; will retry"
                    );
                    return Ok(());
                }
            };
        }
        *slot = Some(kept);
        Ok(())
    }

    /// What [`claim`](Self::claim) would answer now.
    ///
    /// # Errors
    /// Why the statement may not be used.
    pub fn check(&self, id: &str, attempt: &AttemptId, runs: u32, now: UnixMillis) -> Result<(), String> {
        let mut slot = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.with_room(&mut slot, (id, attempt, runs), now)?;
        *slot = Some(kept);
        Ok(())
    }

    /// What the file has, if this use may be added to it.
    fn with_room(
        &self,
        slot: &mut Option<Kept>,
        (id, attempt, runs): (&str, &AttemptId, u32),
        now: UnixMillis,
    ) -> Result<Kept, String> {
        let open = || Kept::open(&self.path, now).map_err(|error| cannot_keep(id, &error));
        let mut kept = match slot.take() {
            Some(kept) => kept,
            None => open()?,
        };
        if let Err(why) = kept.check(id, attempt, runs) {
            *slot = Some(kept);
            return Err(why);
        }
        if kept.is_full(id) {
            kept = open()?;
        }
        if kept.is_full(id) {
            let (uses, statements) = (kept.uses, kept.statements.len());
            *slot = Some(kept);
            return Err(format!(
                "this node remembers {uses} uses of {statements} signed statements that are valid or were {} days ago; it takes no further one. \
                 Sign for shorter times (sentinel sign --for)",
                REMEMBERED_FOR / (24 * 3_600_000)
            ));
        }
        Ok(kept)
    }
}

fn cannot_keep(id: &str, error: &JournalError) -> String {
    format!("the uses of the signed statement {id} cannot be kept: {}", described(error))
}

fn described(error: &JournalError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Kept {
    /// Reads the file and writes it anew without what is forgotten. Only a last line may be torn: its use was not durable, so no Attempt
    /// was accepted by it.
    fn open(path: &Path, now: UnixMillis) -> Result<Self, JournalError> {
        let text = read(path)?;
        let (mut statements, mut uses, mut anew): (HashMap<String, Vec<Key>>, _, _) =
            (HashMap::new(), 0, Vec::new());
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for (index, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let used = line.strip_suffix(b"\n").and_then(Use::read).ok_or_else(|| JournalError::Corrupt {
                path: path.to_owned(),
                why: format!(
                    "line {} was changed, so it is not known which signed statements were used; without this file they could be used \
                     once more: remove it when those that were valid no longer are",
                    index + 1
                ),
            })?;
            if !used.is_forgotten(now) {
                statements.entry(used.statement).or_default().push(key(&used.attempt));
                uses += 1;
                anew.extend_from_slice(line);
            }
        }
        record_file::replace_bytes(path, &anew)?;
        let file =
            OpenOptions::new().append(true).open(path).map_err(|e| JournalError::io("open", path, e))?;
        let len = anew.len() as u64;
        Ok(Self { file, len, len_anew: len, statements, uses })
    }

    fn check(&self, id: &str, attempt: &AttemptId, runs: u32) -> Result<(), String> {
        let attempts = self.statements.get(id).map(Vec::as_slice).unwrap_or_default();
        if attempts.contains(&key(attempt)) {
            return Err(format!("the signed statement {id} was used for {attempt} before"));
        }
        if attempts.len() >= runs as usize {
            return Err(format!(
                "the signed statement {id} was used {runs} times on this node, which is all it is for"
            ));
        }
        Ok(())
    }

    fn is_full(&self, id: &str) -> bool {
        let is_new = !self.statements.contains_key(id);
        self.uses >= MOST_USES || is_new && self.statements.len() >= MOST_STATEMENTS
    }

    fn append(&mut self, used: &Use, path: &Path) -> Result<(), JournalError> {
        let line = used.line(path)?;
        self.file.write_all(line.as_bytes()).map_err(|e| JournalError::io("write", path, e))?;
        self.file.sync_data().map_err(|e| JournalError::io("sync", path, e))?;
        self.len += line.len() as u64;
        self.statements.entry(used.statement.clone()).or_default().push(key(&used.attempt));
        self.uses += 1;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JournalError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JournalError::io("examine", path, error)),
        Ok(metadata) if !metadata.is_file() || metadata.len() > LONGEST => {
            let why = format!("it is not a regular file of at most {LONGEST} bytes");
            return Err(JournalError::Corrupt { path: path.to_owned(), why });
        }
        Ok(_) => {}
    }
    fs::read(path).map_err(|e| JournalError::io("read", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(run: u32) -> AttemptId {
        format!("u/{run}/n/1").parse().unwrap()
    }

    fn lines(dir: &Path) -> usize {
        fs::read_to_string(dir.join("signed_uses")).unwrap().lines().count()
    }

    #[test]
    fn a_statement_is_used_as_often_as_it_is_for_and_once_for_an_attempt() {
        let dir = tempfile::tempdir().unwrap();
        // Each time read from the disk.
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
        let claim =
            |run| SignedUses::of(dir.path()).claim("a", &attempt(run), 9, UnixMillis(1_000), UnixMillis(500));
        assert_eq!((claim(1), claim(2)), (Ok(()), Ok(())));
        let path = dir.path().join("signed_uses");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replacen("u/1/n", "u/7/n", 1)).unwrap();
        let why = claim(3).unwrap_err();
        assert!(why.contains("line 1 was changed") && why.contains("remove it when"), "{why}");
        // What a power cut leaves of a use that was not durable yet.
        fs::write(&path, format!("{whole}{}\0\0\0", &whole[..40])).unwrap();
        assert_eq!(claim(3), Ok(()));
        assert!(claim(1).unwrap_err().contains("before") && claim(2).unwrap_err().contains("before"));
        assert_eq!(lines(dir.path()), 3);
    }

    #[test]
    fn statements_are_forgotten_long_after_they_were_valid() {
        let dir = tempfile::tempdir().unwrap();
        let claim = |id: &str, now: u64| {
            let uses = SignedUses::of(dir.path());
            uses.claim(id, &attempt(1), 1, UnixMillis(1_000), UnixMillis(0).plus(now))
        };
        claim("a", 500).unwrap();
        claim("b", REMEMBERED_FOR).unwrap();
        assert_eq!(lines(dir.path()), 2);
        claim("c", REMEMBERED_FOR + 2_000).unwrap();
        assert_eq!(lines(dir.path()), 1, "written anew when it is opened");
    }

    /// The file grew with each use for as long as the agent ran.
    #[test]
    fn the_file_is_written_anew_when_it_has_doubled() {
        let dir = tempfile::tempdir().unwrap();
        let uses = SignedUses::of(dir.path());
        let claim = |id: &str, run: u32, now: u64| {
            uses.claim(id, &attempt(run), u32::MAX, UnixMillis(0).plus(now), UnixMillis(0).plus(now))
                .unwrap();
        };
        let mut now = 1_000;
        let mut longest = 0;
        for run in 1..=1_200 {
            // Each is forgotten before the hundredth after it.
            now += REMEMBERED_FOR / 50;
            claim(&format!("statement-{run}"), run, now);
            longest = longest.max(lines(dir.path()));
        }
        assert!(longest < 1_000, "{longest} lines for some 50 that are remembered");
        assert!(
            uses.claim(
                "statement-1200",
                &attempt(1_200),
                9,
                UnixMillis(0).plus(now),
                UnixMillis(0).plus(now)
            )
            .is_err()
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signed_uses");
        let now = UnixMillis(500);
        let line = |number: usize| {
            let used =
                Use { statement: format!("s{number}"), not_after: UnixMillis(1_000), attempt: attempt(1) };
            used.line(&path).unwrap()
        };
        fs::write(&path, (0..MOST_STATEMENTS).map(line).collect::<String>()).unwrap();
        let uses = SignedUses::of(dir.path());
        let claim = |id: &str, run, now| uses.claim(id, &attempt(run), 9, UnixMillis(1_000), now);
        let why = claim("new", 1, now).unwrap_err();
        assert!(why.contains("10000 uses of 10000 signed statements") && why.contains("--for"), "{why}");
        assert_eq!(claim("s7", 2, now), Ok(()), "a known one may be used again");
        // Room is made as soon as there is some.
        assert_eq!(claim("new", 1, UnixMillis(2_000).plus(REMEMBERED_FOR)), Ok(()));
        assert_eq!(lines(dir.path()), 1);
    }
}
