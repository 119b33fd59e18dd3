//! Files and locks to evidence. Nothing is decided here.

use sentinel_core::agent::AttemptSnapshot;
use sentinel_core::agent::recovery::{self, Boot, Evidence, ExitRecord, LastState, Lock, Tree};
use sentinel_core::time::Monotonic;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::Running;

use crate::host::Home;
use crate::journal::{Abandonment, Accepted, AttemptDir, AttemptState, JournalError, Loaded};
use crate::supervisor::{self, Liveness};

/// Looks at one Attempt. `None` when its request cannot be read, so that nothing can be said of it.
///
/// The lock is tried before the files are read: a free lock then means that they are final.
pub(super) fn look(dir: &AttemptDir, here: &Home) -> Result<Option<AttemptSnapshot>, JournalError> {
    let (lock, tree) = match supervisor::liveness(dir) {
        Ok(Liveness::Alive) => (Lock::Held, Tree::Populated),
        Ok(Liveness::Dead { populated: true }) => (Lock::Free, Tree::Populated),
        Ok(Liveness::Dead { populated: false }) => (Lock::Free, Tree::Empty),
        // Without a readable state its processes cannot be found, but its lock still tells of its supervisor.
        Err(JournalError::Corrupt { .. }) => {
            (if dir.try_lock()?.is_some() { Lock::Free } else { Lock::Held }, Tree::Empty)
        }
        Err(error) => return Err(error),
    };
    let entry = match dir.load()? {
        Loaded::Entry(entry) => entry,
        Loaded::Corrupt { .. } => {
            let accepted = match dir.accepted() {
                Ok(accepted) => accepted,
                Err(JournalError::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            let state = LastState::Unreadable;
            return Ok(accepted.map(|accepted| {
                let (exit, boot) = (ExitRecord::Missing, boot(&accepted, here));
                let evidence = Evidence {
                    state,
                    exit,
                    lock,
                    tree,
                    boot,
                    container: recovery::SupervisorContainer::Same,
                };
                AttemptSnapshot {
                    running: None,
                    ended: None,
                    abandoned: None,
                    acked: None,
                    ..seen(&accepted, evidence)
                }
            }));
        }
    };
    let (state, running, abandoned) = match &entry.state {
        AttemptState::Accepted => (LastState::Accepted, None, None),
        AttemptState::Abandoned { why } => (LastState::Abandoned, None, Some(outcome_of(*why))),
        AttemptState::Starting { .. } => (LastState::Starting, None, None),
        AttemptState::Running { command, started_at, .. } => {
            (LastState::Running, Some(Running { started_at: *started_at, pid: command.pid }), None)
        }
    };
    let exit = if entry.exit.is_some() { ExitRecord::Present } else { ExitRecord::Missing };
    let evidence = Evidence {
        state,
        exit,
        lock,
        tree,
        boot: boot(&entry.accepted, here),
        container: container(&entry.state, here),
    };
    let acked = entry.delivery.acked;
    let ended = entry.exit.map(Box::new);
    Ok(Some(AttemptSnapshot { running, ended, abandoned, acked, ..seen(&entry.accepted, evidence) }))
}

fn seen(accepted: &Accepted, evidence: Evidence) -> AttemptSnapshot {
    let start_ms = accepted.start.deadlines.start_ms;
    let start_by = match evidence.boot {
        Boot::Same => accepted.boot_ms.saturating_add(start_ms),
        Boot::Other => start_ms,
    };
    AttemptSnapshot {
        attempt: accepted.start.attempt.clone(),
        spec_hash: accepted.start.spec_hash.clone(),
        start_by: Monotonic(start_by),
        evidence,
        running: None,
        ended: None,
        abandoned: None,
        acked: None,
    }
}

fn boot(accepted: &Accepted, here: &Home) -> Boot {
    if accepted.boot_id == here.boot_id { Boot::Same } else { Boot::Other }
}

/// Whether the supervisor lived in the container that the agent lives in.
fn container(state: &AttemptState, here: &Home) -> recovery::SupervisorContainer {
    let supervisor = match state {
        AttemptState::Starting { supervisor, .. } | AttemptState::Running { supervisor, .. } => supervisor,
        AttemptState::Accepted | AttemptState::Abandoned { .. } => {
            return recovery::SupervisorContainer::Same;
        }
    };
    match (&supervisor.namespace, &here.namespace) {
        (Some(theirs), Some(ours)) if theirs != ours => recovery::SupervisorContainer::Gone,
        _ => recovery::SupervisorContainer::Same,
    }
}

fn outcome_of(why: Abandonment) -> Outcome {
    match why {
        Abandonment::Cancelled => Outcome::Cancelled,
        Abandonment::StartTimedOut => Outcome::StartTimedOut { why: None },
        Abandonment::HandedBack => Outcome::NotStarted,
    }
}

/// The word that the Journal has for giving up with this outcome.
pub(super) fn abandonment_for(outcome: &Outcome) -> Abandonment {
    match outcome {
        Outcome::Cancelled => Abandonment::Cancelled,
        Outcome::StartTimedOut { .. } => Abandonment::StartTimedOut,
        _ => Abandonment::HandedBack,
    }
}
