//! The agent's state of one Attempt.

use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::text::Name;
use sentinel_protocol::to_operator::{Ended, Report, ReportedState, Running};

use super::event::{AttemptSnapshot, Tombstone};
use super::recovery::InferredEnd;
use crate::time::Monotonic;

/// Where an Attempt is in its life. See the diagram in [`super`].
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Its request is being made durable; not reported yet.
    Recording,
    /// Its request is durable.
    Accepted,
    /// Accepted before a reboot, certainly not started, and waiting for another `Start`.
    Unconfirmed,
    /// Its command runs.
    Running(Running),
    /// It is over.
    Ended(Box<Ended>),
}

/// Whether the Attempt is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CancelState {
    /// No.
    Unwanted,
    /// Yes; its supervisor, if any, has not been asked.
    Wanted,
    /// Yes, and its supervisor has been asked.
    Requested,
}

/// The values of Secrets that an Attempt needs to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// All that it needs, or it needs none.
    Here,
    /// They were in the memory of an earlier process of the agent: the Attempt waits for another `Start`.
    Missing,
}

/// A process tree that is being killed because its supervisor died.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) end: InferredEnd,
    pub(super) since: Monotonic,
}

/// Without an answer for this long, milliseconds, killing a tree is requested again.
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
    /// The rule of the node's policy that allowed it.
    pub(super) rule: Option<Name>,
    pub(super) secrets: Secrets,
    pub(super) phase: Phase,
    pub(super) cancel: CancelState,
    /// Who asked to cancel it, if that was a person who is known.
    pub(super) cancelled_by: Option<Requester>,
    /// When this agent process handed it to a supervisor.
    pub(super) launched: Option<Monotonic>,
    pub(super) ending: Option<Ending>,
    pub(super) acked: Option<Stage>,
    pub(super) forget_requested: bool,
    /// When its current phase was last reported.
    pub(super) reported_at: Option<Monotonic>,
}

impl Attempt {
    pub(super) fn new(id: AttemptId, spec_hash: SpecHash, start_by: Monotonic) -> Self {
        Self {
            id,
            spec_hash,
            start_by,
            rule: None,
            secrets: Secrets::Here,
            phase: Phase::Recording,
            cancel: CancelState::Unwanted,
            cancelled_by: None,
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
            rule: seen.rule.clone(),
            secrets: if seen.needs_secrets { Secrets::Missing } else { Secrets::Here },
            ..Self::new(seen.attempt.clone(), seen.spec_hash.clone(), seen.start_by)
        }
    }

    /// Its Report; `None` until its request is durable.
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

    /// Whether its current phase still waits for an Ack.
    pub(super) fn is_unacknowledged(&self) -> bool {
        self.stage().is_some_and(|stage| self.acked < Some(stage))
    }

    /// Enters another phase, which is then to be reported.
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
    /// The Report it replaces.
    pub fn report(&self) -> Report {
        Report {
            attempt: self.attempt.clone(),
            spec_hash: self.spec_hash.clone(),
            state: ReportedState::Ended(Box::new(self.ended.clone())),
        }
    }
}
