//! What the agent's thread wants the log socket to know.
//!
//! A board and no queue: what is posted about one Attempt is merged with what is there, so it is bounded by the
//! number of Attempts, and posting never waits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sentinel_protocol::ids::AttemptId;
use tokio::sync::Notify;

use crate::journal::AttemptDir;

/// Where the output of an Attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is new; this much may be sent at once.
    New { credit: u64 },
    /// It was here before; from this position on it still is.
    Earlier { oldest: u64 },
}

/// What is to be known of one Attempt.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) known: Option<(AttemptDir, Origin)>,
    pub(super) wrote: bool,
    pub(super) end: Option<u64>,
    pub(super) forgotten: bool,
}

/// The board.
#[derive(Debug, Default)]
pub(crate) struct Board {
    notes: Mutex<BTreeMap<AttemptId, Note>>,
    posted: Notify,
}

impl Board {
    /// A new Attempt, whose output may be sent up to `credit` at once.
    pub(crate) fn begin(&self, attempt: &AttemptId, dir: &AttemptDir, credit: u64) {
        self.post(attempt, |note| note.known = Some((dir.clone(), Origin::New { credit })));
    }

    /// An Attempt of an earlier life.
    pub(crate) fn resume(&self, attempt: &AttemptId, dir: &AttemptDir, oldest: u64) {
        self.post(attempt, |note| note.known = Some((dir.clone(), Origin::Earlier { oldest })));
    }

    /// An Attempt may have written something.
    pub(crate) fn wrote(&self, attempt: &AttemptId) {
        self.post(attempt, |note| note.wrote = true);
    }

    /// An Attempt is over, and its output ends here.
    pub(crate) fn ended(&self, attempt: &AttemptId, end: u64) {
        self.post(attempt, |note| note.end = Some(end));
    }

    /// An Attempt is forgotten.
    pub(crate) fn forget(&self, attempt: &AttemptId) {
        self.post(attempt, |note| *note = Note { forgotten: true, ..Note::default() });
    }

    /// Everything posted since the last time.
    pub(super) fn take(&self) -> BTreeMap<AttemptId, Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is posted. Dropping the wait loses nothing.
    pub(super) async fn posted(&self) {
        self.posted.notified().await;
    }

    fn post(&self, attempt: &AttemptId, change: impl FnOnce(&mut Note)) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        change(notes.entry(attempt.clone()).or_default());
        drop(notes);
        self.posted.notify_one();
    }
}
