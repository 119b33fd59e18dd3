//! What the brain remembers of one Attempt.

use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::to_operator::{Ended, Report, ReportedState, Running, Stage};

use super::event::{AttemptSnapshot, Tombstone};
use super::recovery::InferredEnd;
use crate::time::Monotonic;

/// How far an Attempt has come. See the drawing in [`super`].
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Its request is being made durable; nobody was told of it.
    Recording,
    /// Its request is durable.
    Accepted,
    /// Accepted before a reboot, surely not started, and waiting for another `Start`.
    Unconfirmed,
    /// Its command runs.
    Running(Running),
    /// It is over.
    Ended(Box<Ended>),
}

/// Whether the Attempt is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CancelState {
    /// No.
    Unwanted,
    /// Yes, and its supervisor, if it has one, was not told.
    Wanted,
    /// Yes, and its supervisor was told.
    Requested,
}

/// A tree that is being ended since its supervisor is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) end: InferredEnd,
    pub(super) since: Monotonic,
}

/// Ending a tree is given up, or asked for again, when no answer came for this long, milliseconds.
const END_TREE_WITHIN_MS: u64 = 30_000;

impl Ending {
    pub(super) fn is_overdue(&self, now: Monotonic) -> bool {
        now.since(self.since) >= END_TREE_WITHIN_MS
    }
}

/// One Attempt.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) id: AttemptId,
    pub(super) spec_hash: SpecHash,
    pub(super) start_by: Monotonic,
    pub(super) phase: Phase,
    pub(super) cancel: CancelState,
    /// When it was handed to a supervisor in this life of the agent.
    pub(super) launched: Option<Monotonic>,
    pub(super) ending: Option<Ending>,
    pub(super) acked: Option<Stage>,
    pub(super) forget_requested: bool,
    /// When its present state was last said.
    pub(super) reported_at: Option<Monotonic>,
}

impl Attempt {
    pub(super) fn new(id: AttemptId, spec_hash: SpecHash, start_by: Monotonic) -> Self {
        Self {
            id,
            spec_hash,
            start_by,
            phase: Phase::Recording,
            cancel: CancelState::Unwanted,
            launched: None,
            ending: None,
            acked: None,
            forget_requested: false,
            reported_at: None,
        }
    }

    pub(super) fn replayed(seen: &AttemptSnapshot) -> Self {
        Self {
            phase: Phase::Accepted,
            acked: seen.acked,
            ..Self::new(seen.attempt.clone(), seen.spec_hash.clone(), seen.start_by)
        }
    }

    /// What it is, for the operator; `None` while nothing durable can be said.
    pub(super) fn report(&self) -> Option<Report> {
        let state = match &self.phase {
            Phase::Recording => return None,
            Phase::Accepted | Phase::Unconfirmed => ReportedState::Accepted,
            Phase::Running(running) => ReportedState::Running(running.clone()),
            Phase::Ended(ended) => ReportedState::Ended(ended.clone()),
        };
        Some(Report { attempt: self.id.clone(), spec_hash: self.spec_hash.clone(), state })
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        match &self.phase {
            Phase::Recording => None,
            Phase::Accepted | Phase::Unconfirmed => Some(Stage::Accepted),
            Phase::Running(_) => Some(Stage::Running),
            Phase::Ended(_) => Some(Stage::Ended),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether its present state still waits for an Ack.
    pub(super) fn is_unacknowledged(&self) -> bool {
        self.stage().is_some_and(|stage| self.acked < Some(stage))
    }

    /// Moves on to another phase, whose Report is then to be said anew.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.reported_at = None;
    }

    pub(super) fn started_at(&self) -> Option<sentinel_protocol::time::UnixMillis> {
        match &self.phase {
            Phase::Running(running) => Some(running.started_at),
            _ => None,
        }
    }
}

impl Tombstone {
    /// The Report that it stands for.
    pub fn report(&self) -> Report {
        Report {
            attempt: self.attempt.clone(),
            spec_hash: self.spec_hash.clone(),
            state: ReportedState::Ended(Box::new(self.ended.clone())),
        }
    }
}
