//! The content of the exit record.

use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Usage};

use super::limits::OutOfMemory;
use super::reap::ExitStatus;
use crate::host;

/// Longest message in an exit record, bytes; the record has to fit its reserve.
const MAX_MESSAGE: usize = 600;
/// Most pids in an exit record.
const MAX_PIDS: usize = 64;

/// Why the supervisor ended the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The run or total clock ran out.
    TimedOut,
    /// The idle clock ran out.
    IdleTimedOut,
    /// The operator cancelled it.
    Cancelled,
    /// The command had ended and left processes behind.
    Leftovers,
}

/// The outcome of a command that was started.
pub(super) fn outcome(
    status: Option<ExitStatus>,
    reason: Option<EndReason>,
    mut survivors: Vec<i32>,
    success: &[u8],
    oom: Option<OutOfMemory>,
) -> Outcome {
    if !survivors.is_empty() {
        survivors.truncate(MAX_PIDS);
        return Outcome::CancelFailed { pids: survivors };
    }
    match (reason, status) {
        (Some(EndReason::TimedOut), _) => Outcome::TimedOut,
        (Some(EndReason::IdleTimedOut), _) => Outcome::IdleTimedOut,
        (Some(EndReason::Cancelled), _) => Outcome::Cancelled,
        (_, Some(ExitStatus::Exited(exit_code))) if success.contains(&exit_code) => {
            Outcome::Succeeded { exit_code }
        }
        // A command that lost a process and succeeded all the same has succeeded, as above.
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

/// The exit record of an Attempt that ends now.
pub(super) fn ended(
    outcome: Outcome,
    started_at: Option<UnixMillis>,
    output: OutputSummary,
    exit: ExitDetails,
) -> Ended {
    let usage = if started_at.is_some() { usage() } else { Usage::default() };
    Ended { outcome, started_at, ended_at: host::wall_clock(), usage, output, exit }
}

/// The usage of all reaped children.
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
    fn outcome_follows_from_status_reason_and_survivors() {
        use ExitStatus::{Exited, Signaled};
        let check = |status, why, left: &[i32], expected| {
            assert_eq!(outcome(Some(status), why, left.to_vec(), &[0, 3], None), expected);
        };
        check(Exited(0), None, &[], Outcome::Succeeded { exit_code: 0 });
        check(Exited(3), None, &[], Outcome::Succeeded { exit_code: 3 });
        check(Exited(1), None, &[], Outcome::Failed { exit_code: 1 });
        check(Signaled(9), None, &[], Outcome::Signaled { signal: 9 });
        check(Exited(0), Some(EndReason::Leftovers), &[], Outcome::Succeeded { exit_code: 0 });
        check(Exited(0), Some(EndReason::TimedOut), &[], Outcome::TimedOut);
        check(Signaled(15), Some(EndReason::Cancelled), &[], Outcome::Cancelled);
        check(Signaled(9), Some(EndReason::Cancelled), &[7], Outcome::CancelFailed { pids: vec![7] });
    }

    #[test]
    fn out_of_memory_explains_every_end_but_success_and_termination() {
        let oom = Some(OutOfMemory { peak: Some(7) });
        let check = |status, why, expected| {
            assert_eq!(outcome(Some(status), why, vec![], &[0], oom), expected);
        };
        let killed = Outcome::OomKilled { peak: Some(7) };
        check(ExitStatus::Signaled(9), None, killed.clone());
        check(ExitStatus::Exited(137), None, killed.clone());
        check(ExitStatus::Exited(1), Some(EndReason::Leftovers), killed);
        check(ExitStatus::Exited(0), None, Outcome::Succeeded { exit_code: 0 });
        check(ExitStatus::Signaled(9), Some(EndReason::TimedOut), Outcome::TimedOut);
        check(ExitStatus::Signaled(9), Some(EndReason::IdleTimedOut), Outcome::IdleTimedOut);
        check(ExitStatus::Signaled(9), Some(EndReason::Cancelled), Outcome::Cancelled);
    }

    #[test]
    fn truncates_a_long_message_between_characters() {
        let Outcome::StartFailed { message, .. } = start_failed(StartFailure::Other, &"ä".repeat(400))
        else {
            panic!("another outcome")
        };
        assert_eq!(message, "ä".repeat(300));
    }
}
