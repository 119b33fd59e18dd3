//! Files and locks to evidence. Nothing is decided here.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use sentinel_core::agent::AttemptSnapshot;
use sentinel_core::agent::recovery::{
    Boot, Evidence, ExitRecord, LastState, Lock, SupervisorContainer, Tree,
};
use sentinel_core::time::Monotonic;
use sentinel_protocol::to_operator::Running;

use super::conversion::outcome_of;
use crate::journal::{
    Accepted, AttemptDir, AttemptRecord, AttemptState, JournalError, Loaded, SUPERVISOR_LOG,
};
use crate::process::ContainerScope;
use crate::supervisor::{self, Liveness};

/// Bytes of a supervisor's log that are read for its last line.
const MAX_LAST_LINE: u64 = 512;

/// Inspects one Attempt. `None` when its request cannot be read, so that nothing is known about it.
///
/// The lock is tried before the files are read: a free lock then means that they are final. Where an exit record is found first,
/// neither lock nor tree is examined, as they decide nothing.
///
/// # Errors
/// When the disk cannot be read.
pub(super) fn inspect(
    dir: &AttemptDir,
    scope: &ContainerScope,
) -> Result<Option<AttemptSnapshot>, JournalError> {
    let (lock, tree) = lock_and_tree(dir)?;
    match dir.load()? {
        Loaded::Readable(record) => Ok(Some(of_record(*record, lock, tree, scope))),
        Loaded::Corrupt { .. } => {
            let accepted = match dir.accepted() {
                Ok(accepted) => accepted,
                Err(JournalError::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            Ok(accepted.map(|accepted| {
                let evidence = Evidence {
                    state: LastState::Unreadable,
                    exit: ExitRecord::Missing,
                    lock,
                    tree,
                    boot: boot(&accepted, scope),
                    container: SupervisorContainer::Same,
                };
                snapshot(&accepted, evidence)
            }))
        }
    }
}

fn lock_and_tree(dir: &AttemptDir) -> Result<(Lock, Tree), JournalError> {
    // The exit record names what is left. To search for it takes as long as there are processes on the node.
    if matches!(dir.exit(), Ok(Some(_))) {
        return Ok((Lock::Free, Tree::Empty));
    }
    match supervisor::liveness(dir) {
        Ok(Liveness::Alive) => Ok((Lock::Held, Tree::Populated)),
        Ok(Liveness::Dead { populated: true }) => Ok((Lock::Free, Tree::Populated)),
        Ok(Liveness::Dead { populated: false }) => Ok((Lock::Free, Tree::Empty)),
        // Without a readable state its processes cannot be found, but the lock still shows whether a supervisor lives.
        Err(JournalError::Corrupt { .. }) => {
            let lock = if dir.try_lock()?.is_some() { Lock::Free } else { Lock::Held };
            Ok((lock, Tree::Empty))
        }
        Err(error) => Err(error),
    }
}

fn of_record(record: AttemptRecord, lock: Lock, tree: Tree, scope: &ContainerScope) -> AttemptSnapshot {
    let (state, running, abandoned) = match &record.state {
        AttemptState::Accepted => (LastState::Accepted, None, None),
        AttemptState::Abandoned { why } => (LastState::Abandoned, None, Some(outcome_of(*why))),
        AttemptState::Starting { .. } => (LastState::Starting, None, None),
        AttemptState::Running { command, started_at, .. } => {
            (LastState::Running, Some(Running { started_at: *started_at, pid: command.pid }), None)
        }
    };
    let evidence = Evidence {
        state,
        exit: if record.exit.is_some() { ExitRecord::Present } else { ExitRecord::Missing },
        lock,
        tree,
        boot: boot(&record.accepted, scope),
        container: container(&record.state, scope),
    };
    AttemptSnapshot {
        running,
        ended: record.exit.map(Box::new),
        abandoned,
        acked: record.delivery.acked,
        ..snapshot(&record.accepted, evidence)
    }
}

fn snapshot(accepted: &Accepted, evidence: Evidence) -> AttemptSnapshot {
    let start_ms = accepted.start.deadlines.start_ms;
    let start_by = match evidence.boot {
        Boot::Same => accepted.boot_ms.saturating_add(start_ms),
        Boot::Other => start_ms,
    };
    AttemptSnapshot {
        attempt: accepted.start.attempt.clone(),
        spec_hash: accepted.start.spec_hash.clone(),
        start_by: Monotonic(start_by),
        rule: accepted.permit.as_ref().map(|permit| permit.rule.clone()),
        needs_secrets: accepted.start.request.needs_secrets(),
        evidence,
        running: None,
        ended: None,
        abandoned: None,
        acked: None,
    }
}

fn boot(accepted: &Accepted, scope: &ContainerScope) -> Boot {
    if accepted.boot_id == scope.boot_id { Boot::Same } else { Boot::Other }
}

/// Whether the supervisor ran in the container that the agent runs in.
fn container(state: &AttemptState, scope: &ContainerScope) -> SupervisorContainer {
    let supervisor = match state {
        AttemptState::Starting { supervisor, .. } | AttemptState::Running { supervisor, .. } => supervisor,
        AttemptState::Accepted | AttemptState::Abandoned { .. } => return SupervisorContainer::Same,
    };
    match (&supervisor.namespace, &scope.namespace) {
        (Some(theirs), Some(ours)) if theirs != ours => SupervisorContainer::Gone,
        _ => SupervisorContainer::Same,
    }
}

/// What kept a supervisor from starting the command: the last line of its log.
pub(super) fn last_log_line(dir: &AttemptDir) -> Option<String> {
    let mut end = Vec::new();
    let mut file = fs::File::open(dir.file(SUPERVISOR_LOG)).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(MAX_LAST_LINE))).ok()?;
    file.take(MAX_LAST_LINE).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    // A line begins with its timestamp.
    let line = text.lines().next_back()?;
    let message = line.split_once(' ').map_or(line, |(_, message)| message);
    (!message.is_empty()).then(|| format!("its supervisor ended: {message}"))
}
