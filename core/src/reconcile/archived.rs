//! Whether History has a Run: what it has now, and what it once had by the status.

use sentinel_protocol::stage::Stage;

use super::conditions::Archive;
use super::decision::Observed;
use super::ledger::{Origin, RunLedger};
use super::rollout::HistoryLookup;

/// What the status records of History and the finished Run. During a Run it has how History is in general.
fn recorded_archive(observed: &Observed<'_>) -> Option<Archive> {
    let run = observed.recorded.run.as_ref()?;
    observed.recorded.archived.filter(|_| run.finished_at.is_some())
}

/// Whether History once had all of the finished Run.
pub(super) fn history_had_all(observed: &Observed<'_>) -> bool {
    matches!(recorded_archive(observed), Some(Archive::Current | Archive::Lost))
}

/// Whether History has all that is known. Of a finished Run this is about the Run alone: an outage of History must not
/// rewrite the status of every finished Task.
pub(super) fn archive_after(observed: &Observed<'_>, ledger: &RunLedger, finished: bool) -> Archive {
    if !finished {
        return observed.archive;
    }
    if ledger.origin() == Origin::Inherited && observed.history == HistoryLookup::Pending {
        return recorded_archive(observed).unwrap_or(Archive::Behind);
    }
    let attempts = ledger.executions().flat_map(|(_, execution)| execution.attempts());
    let unarchived =
        attempts.filter(|attempt| attempt.ended().is_some() && attempt.archived != Some(Stage::Ended));
    // Conclusions of the previous leader that were not archived must be made again first.
    let over = ledger.executions().filter(|(_, execution)| execution.is_over()).count();
    let is_incomplete = ledger.origin() == Origin::Inherited && over < observed.targets.len();
    match () {
        () if unarchived.count() > 0 => Archive::Behind,
        () if is_incomplete && history_had_all(observed) => Archive::Lost,
        () if is_incomplete => Archive::Behind,
        () => Archive::Current,
    }
}

/// The same by the ledger as it is, before what is decided now.
pub(super) fn archive_of(observed: &Observed<'_>, finished: bool) -> Archive {
    archive_after(observed, observed.ledger, finished)
}
