//! One Attempt under its lock, from *accepted* to its exit record.

use std::io;

use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::{Ended, OutputSummary};
use sentinel_secrets::values::SecretValues;

use super::cgroup::Placement;
use super::exit_record;
use super::log;
use super::standby::{Locked, LockedSince, Standby};
use super::start::{follow, open_spool};
use super::start_error::NotStarted;
use super::supervision::Supervision;
use super::zygote::Zygote;
use crate::error_category::ErrorCategory;
use crate::journal::{AttemptDir, AttemptLock, AttemptState, Change, JournalError};
use crate::kill_point::KillPoint;

/// A failure that leaves the Attempt without an exit record; the agent concludes it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuperviseError {
    #[error("failed to use the journal of the attempt")]
    Journal(#[source] JournalError),
    #[error("failed to poll")]
    Poll(#[source] io::Error),
}

impl SuperviseError {
    pub(super) fn category(&self) -> ErrorCategory {
        match self {
            Self::Journal(error) => error.category(),
            Self::Poll(error) => ErrorCategory::of_io(error),
        }
    }
}

/// Runs an Attempt to its end, unless another supervisor has it or it must no longer be started.
pub(super) fn supervise(
    attempt: &AttemptDir,
    secrets: Option<&SecretValues>,
    standby: &mut Standby,
    child: Zygote,
    placement: Placement,
) -> Result<(), SuperviseError> {
    let Locked { lock, wakeups, since } = standby.lock(attempt).map_err(SuperviseError::Journal)?;
    if let Some(error) = &standby.no_cgroup {
        // The process tree is found by parent pids instead.
        log::write_line(&format!("unable to create a control group: {error}"));
    }
    let Some(accepted) = lock.accepted().map_err(SuperviseError::Journal)? else { return Ok(()) };
    if since == LockedSince::Now && !is_untouched(&lock).map_err(SuperviseError::Journal)? {
        return Ok(());
    }
    let spool = open_spool(&lock, &accepted, since);
    if since == LockedSince::Now && spool.is_ok() {
        child.follower().note_locked();
    }
    let nothing = ExitDetails::default();
    let started = spool.and_then(|spool| follow(&lock, &accepted, secrets, standby, child, spool, wakeups));
    let (outcome, exit) = match started {
        Ok(started) => {
            let mut supervision =
                Supervision::new(attempt, standby.cgroup.as_ref(), started, &accepted, placement);
            return run(&mut supervision, &lock);
        }
        Err(NotStarted::TooLate(clock)) => {
            (Outcome::StartTimedOut { why: None }, ExitDetails { clock: Some(clock), ..nothing })
        }
        Err(NotStarted::Cancelled) => (Outcome::Cancelled, nothing),
        Err(NotStarted::Refused(refusal)) => (Outcome::Refused { refusal }, nothing),
        Err(NotStarted::Failed(error)) => (exit_record::start_failed(error.reason, &error.message), nothing),
    };
    record(&lock, exit_record::ended(outcome, None, OutputSummary::default(), exit))
}

/// Supervises a running command to its exit record.
fn run(supervision: &mut Supervision<'_>, lock: &AttemptLock) -> Result<(), SuperviseError> {
    let survivors = supervision.run().map_err(SuperviseError::Poll)?;
    let ended = supervision.finish(survivors);
    KillPoint::SupervisorSawExit.pass(lock.attempt().state_dir());
    let recorded = record(lock, ended);
    KillPoint::SupervisorRecorded.pass(lock.attempt().state_dir());
    // After the record, as it may take long: a loss is detected as a hole. With a slot, the agent does it if it has to.
    if lock.slot().is_none() {
        supervision.sync_output();
    }
    recorded
}

/// Whether nothing was done about the Attempt yet.
fn is_untouched(lock: &AttemptLock) -> Result<bool, JournalError> {
    Ok(lock.exit()?.is_none() && lock.attempt().state()? == AttemptState::Accepted)
}

fn record(lock: &AttemptLock, ended: Ended) -> Result<(), SuperviseError> {
    let recorded = lock.record_exit(ended);
    lock.attempt().agent_waker().wake(Change::Record);
    recorded.map(drop).map_err(SuperviseError::Journal)
}
