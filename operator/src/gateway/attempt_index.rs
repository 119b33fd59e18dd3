//! The Attempts that one agent owns, by id. Bounded in number and in bytes, since an agent chooses what it reports.

use std::collections::BTreeMap;

use sentinel_core::reconcile::rollout::ActiveAttempt;
use sentinel_protocol::ids::{AttemptId, SpecHash, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::text::MAX_MESSAGE;
use sentinel_protocol::to_operator::{Ended, Report, ReportedState};

/// Attempts that one agent may own; an agent that reports more is refused.
pub const MAX_OWNED: usize = 10_000;

/// Bytes that the Attempts of one agent may take in memory; an agent that reports more is refused.
pub const MAX_OWNED_BYTES: usize = 16 << 20;

/// Ended Attempts of deleted Tasks that are kept per agent; it reports the others again once these are settled.
pub const MAX_ORPHANS: usize = 256;

/// An Attempt that a connected agent owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedAttempt {
    /// Its id.
    pub attempt: AttemptId,
    /// Digest of the spec it was started for.
    pub spec_hash: SpecHash,
    /// Its latest reported stage.
    pub stage: Stage,
    /// The stage up to which History is known to hold it, since its agent connected.
    pub archived: Option<Stage>,
}

/// The agent reports more than [`MAX_OWNED`] Attempts, or more than [`MAX_OWNED_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent reports more than {MAX_OWNED} attempts, or more than {MAX_OWNED_BYTES} bytes of them")]
pub(super) struct TooMany;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct AttemptIndex {
    attempts: BTreeMap<AttemptId, IndexedAttempt>,
    /// Approximate memory in use by `attempts`, bytes.
    bytes: usize,
}

#[derive(Debug)]
struct IndexedAttempt {
    report: Report,
    archived: Option<Stage>,
}

impl AttemptIndex {
    /// Takes in the latest Report of an Attempt.
    pub(super) fn apply(&mut self, report: Report) -> Result<(), TooMany> {
        if self.attempts.len() >= MAX_OWNED && !self.attempts.contains_key(&report.attempt) {
            return Err(TooMany);
        }
        let previous = self.attempts.get(&report.attempt).map_or(0, |known| weight(&known.report));
        let bytes = self.bytes.saturating_sub(previous).saturating_add(weight(&report));
        if bytes > MAX_OWNED_BYTES {
            return Err(TooMany);
        }
        self.bytes = bytes;
        match self.attempts.get_mut(&report.attempt) {
            Some(known) => known.report = report,
            None => {
                self.attempts.insert(report.attempt.clone(), IndexedAttempt { report, archived: None });
            }
        }
        Ok(())
    }

    /// The agent was sent a Forget for this Attempt.
    pub(super) fn forget(&mut self, attempt: &AttemptId) {
        if let Some(known) = self.attempts.remove(attempt) {
            self.bytes = self.bytes.saturating_sub(weight(&known.report));
        }
    }

    /// History holds this Attempt up to this stage.
    pub(super) fn note_archived(&mut self, attempt: &AttemptId, stage: Stage) {
        if let Some(known) = self.attempts.get_mut(attempt) {
            known.archived = known.archived.max(Some(stage));
        }
    }

    /// Drops the ended Attempts of deleted Tasks beyond [`MAX_ORPHANS`]; returns how many. Others are kept, since their
    /// commands are still to be cancelled.
    pub(super) fn drop_orphans(&mut self, is_gone: impl Fn(&TaskUid) -> bool) -> usize {
        if self.attempts.len() <= MAX_ORPHANS {
            return 0;
        }
        let (mut orphans, mut dropped, mut freed) = (0, 0, 0);
        self.attempts.retain(|attempt, known| {
            let is_orphan = known.report.state.stage() == Stage::Ended && is_gone(&attempt.task);
            orphans += usize::from(is_orphan);
            let keep = !is_orphan || orphans <= MAX_ORPHANS;
            if !keep {
                dropped += 1;
                freed += weight(&known.report);
            }
            keep
        });
        self.bytes = self.bytes.saturating_sub(freed);
        dropped
    }

    /// The latest Report of an Attempt.
    pub(super) fn report(&self, attempt: &AttemptId) -> Option<&Report> {
        self.attempts.get(attempt).map(|known| &known.report)
    }

    /// The latest Report of each Attempt, by id.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.attempts.values().map(|known| &known.report)
    }

    /// The latest Attempt of this Task that has not ended.
    pub(super) fn active_of(&self, task: &TaskUid) -> Option<ActiveAttempt> {
        self.reports()
            .filter(|report| report.state.stage() < Stage::Ended && report.attempt.task == *task)
            .map(|report| ActiveAttempt { run: report.attempt.run, attempt: report.attempt.attempt })
            .max()
    }

    /// A summary of each Attempt, by id.
    pub(super) fn summaries(&self) -> impl Iterator<Item = OwnedAttempt> {
        self.attempts.iter().map(|(attempt, known)| OwnedAttempt {
            attempt: attempt.clone(),
            spec_hash: known.report.spec_hash.clone(),
            stage: known.report.state.stage(),
            archived: known.archived,
        })
    }

    /// Number of Attempts.
    pub(super) fn len(&self) -> usize {
        self.attempts.len()
    }
}

/// Approximate memory of an owned Attempt, bytes: its id twice, and its Report.
fn weight(report: &Report) -> usize {
    let id = report.attempt.task.as_str().len() + report.attempt.node.as_str().len();
    let state = match &report.state {
        ReportedState::Ended(ended) => {
            let digests = ended.output.stdout.sha256.len() + ended.output.stderr.sha256.len();
            size_of_val::<Ended>(ended) + digests + outcome_bytes(&ended.outcome)
        }
        ReportedState::Accepted | ReportedState::Running(_) => 0,
    };
    size_of::<IndexedAttempt>() + size_of::<AttemptId>() + 2 * id + report.spec_hash.as_str().len() + state
}

fn outcome_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::StartFailed { message, .. } | Outcome::Skipped { message } => message.len(),
        Outcome::CancelFailed { pids } => size_of_val(pids.as_slice()),
        // The longest text that a Refusal can carry.
        Outcome::Refused { .. } => MAX_MESSAGE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(id: &str) -> Report {
        let spec_hash = SpecHash::new("a".repeat(64)).unwrap();
        Report { attempt: id.parse().unwrap(), spec_hash, state: ReportedState::Accepted }
    }

    #[test]
    fn bounds_the_number_of_attempts() {
        let mut index = AttemptIndex::default();
        for number in 0..MAX_OWNED {
            index.apply(accepted(&format!("t-{number}/1/n/1"))).unwrap();
        }
        assert_eq!(index.apply(accepted("one-more/1/n/1")), Err(TooMany));
        index.apply(accepted("t-0/1/n/1")).expect("a known attempt is updated at the bound");
        index.forget(&"t-0/1/n/1".parse().unwrap());
        index.apply(accepted("one-more/1/n/1")).unwrap();
    }

    /// The bytes of a forgotten Attempt stayed in the count, so a long Session was refused in the end.
    #[test]
    fn frees_the_bytes_of_forgotten_attempts() {
        let mut index = AttemptIndex::default();
        for number in 0..100_000 {
            let report = accepted(&format!("t-{number}/1/n/1"));
            let attempt = report.attempt.clone();
            index.apply(report).unwrap();
            index.forget(&attempt);
        }
        assert_eq!((index.len(), index.bytes), (0, 0));
    }
}
