//! What the exit record says.

use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Usage};

use super::limits::OutOfMemory;
use super::reap::ExitStatus;
use crate::host;

/// Longest message in an exit record, bytes; the record must fit the room that is kept for it.
const MAX_MESSAGE: usize = 600;
/// Most pids that are named.
const MAX_PIDS: usize = 64;

/// Why the supervisor ended the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The command ran too long.
    TimedOut,
    /// It wrote nothing for too long.
    IdleTimedOut,
    /// It was asked to.
    Cancelled,
    /// The command had ended and left processes behind.
    Leftovers,
}

/// The outcome of a command that was started.
pub(super) fn outcome(
    status: Option<ExitStatus>,
    ended_for: Option<Why>,
    mut left: Vec<i32>,
    success: &[u8],
    oom: Option<OutOfMemory>,
) -> Outcome {
    if !left.is_empty() {
        left.truncate(MAX_PIDS);
        return Outcome::CancelFailed { pids: left };
    }
    match (ended_for, status) {
        (Some(Why::TimedOut), _) => Outcome::TimedOut,
        (Some(Why::IdleTimedOut), _) => Outcome::IdleTimedOut,
        (Some(Why::Cancelled), _) => Outcome::Cancelled,
        (_, Some(ExitStatus::Exited(exit_code))) if success.contains(&exit_code) => {
            Outcome::Succeeded { exit_code }
        }
        // One that got over the loss of a process and succeeded has succeeded, as above.
        (_, Some(_)) if let Some(OutOfMemory { peak }) = oom => Outcome::OomKilled { peak },
        (_, Some(ExitStatus::Exited(exit_code))) => Outcome::Failed { exit_code },
        (_, Some(ExitStatus::Signaled(signal))) => Outcome::Signaled { signal },
        // Not reached: the tree is empty only after the command was reaped.
        (_, None) => Outcome::Lost { reason: sentinel_protocol::outcome::LostReason::ExitStatusLost },
    }
}

/// A command that could not be started.
pub(super) fn start_failed(reason: StartFailure, message: &str) -> Outcome {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    Outcome::StartFailed { reason, message: message[..end].into() }
}

/// The record of an Attempt that ends now.
pub(super) fn ended(
    outcome: Outcome,
    started_at: Option<UnixMillis>,
    output: OutputSummary,
    exit: ExitDetails,
) -> Ended {
    let usage = if started_at.is_some() { usage() } else { Usage::default() };
    Ended { outcome, started_at, ended_at: host::wall_clock(), usage, output, exit }
}

/// What all reaped children used.
fn usage() -> Usage {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Usage::default() };
    let millis = |time: nix::sys::time::TimeVal| u64::try_from(time.num_milliseconds()).unwrap_or(0);
    Usage {
        user_ms: millis(usage.user_time()),
        system_ms: millis(usage.system_time()),
        max_rss: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_follows_from_status_cause_and_remains() {
        use ExitStatus::{Exited, Signaled};
        let check = |status, why, left: &[i32], expected| {
            assert_eq!(outcome(Some(status), why, left.to_vec(), &[0, 3], None), expected);
        };
        check(Exited(0), None, &[], Outcome::Succeeded { exit_code: 0 });
        check(Exited(3), None, &[], Outcome::Succeeded { exit_code: 3 });
        check(Exited(1), None, &[], Outcome::Failed { exit_code: 1 });
        check(Signaled(9), None, &[], Outcome::Signaled { signal: 9 });
        check(Exited(0), Some(Why::Leftovers), &[], Outcome::Succeeded { exit_code: 0 });
        check(Exited(0), Some(Why::TimedOut), &[], Outcome::TimedOut);
        check(Signaled(15), Some(Why::Cancelled), &[], Outcome::Cancelled);
        check(Signaled(9), Some(Why::Cancelled), &[7], Outcome::CancelFailed { pids: vec![7] });
    }

    #[test]
    fn a_process_killed_for_memory_explains_every_end_but_success_and_ours() {
        let oom = Some(OutOfMemory { peak: Some(7) });
        let check = |status, why, expected| {
            assert_eq!(outcome(Some(status), why, vec![], &[0], oom), expected);
        };
        let killed = Outcome::OomKilled { peak: Some(7) };
        check(ExitStatus::Signaled(9), None, killed.clone());
        check(ExitStatus::Exited(137), None, killed.clone());
        check(ExitStatus::Exited(1), Some(Why::Leftovers), killed);
        check(ExitStatus::Exited(0), None, Outcome::Succeeded { exit_code: 0 });
        check(ExitStatus::Signaled(9), Some(Why::TimedOut), Outcome::TimedOut);
        check(ExitStatus::Signaled(9), Some(Why::IdleTimedOut), Outcome::IdleTimedOut);
        check(ExitStatus::Signaled(9), Some(Why::Cancelled), Outcome::Cancelled);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let Outcome::StartFailed { message, .. } = start_failed(StartFailure::Other, &"ä".repeat(400))
        else {
            panic!("another outcome")
        };
        assert_eq!(message, "ä".repeat(300));
    }
}
