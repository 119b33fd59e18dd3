//! Steps of a single Attempt that several events share.

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::requester::Requester;
use sentinel_protocol::text::Message;
use sentinel_protocol::to_operator::{Ended, ToOperator};

use super::attempt::{Attempt, CancelState, Phase, Secrets};
use super::effect::{Effect, Ignored};
use super::event::{AttemptSnapshot, Tombstone};
use crate::time::Now;

/// A launched Attempt whose lock is still free after this time, milliseconds, is launched again: its supervisor died
/// early. Any value is safe, as the lock decides between two supervisors.
pub const RELAUNCH_AFTER_MS: u64 = 5_000;

/// Starts an Attempt that certainly has not started, or ends it if it was cancelled or its start clock ran out.
pub(super) fn start_or_expire(attempt: &mut Attempt, stopping: bool, now: Now, out: &mut Vec<Effect>) {
    let on_its_way = attempt.launched.is_some_and(|at| now.monotonic.since(at) < RELAUNCH_AFTER_MS);
    if attempt.cancel != CancelState::Unwanted {
        abandon_as(attempt, Outcome::Cancelled, now, out);
    } else if now.monotonic >= attempt.start_by {
        abandon_as(attempt, Outcome::StartTimedOut { why: waited_for(attempt) }, now, out);
    } else if !on_its_way && !stopping && attempt.secrets == Secrets::Here {
        attempt.launched = Some(now.monotonic);
        out.push(Effect::Launch(attempt.id.clone()));
    }
}

/// What an Attempt that was not started waited for, where that is known.
pub(super) fn waited_for(attempt: &Attempt) -> Option<Message> {
    let lost = "the values of its secrets were lost when the agent restarted, and the operator did not send them again";
    (attempt.secrets == Secrets::Missing).then(|| lost.into())
}

pub(super) fn cancel_attempt(attempt: &mut Attempt, by: Option<Requester>, now: Now, out: &mut Vec<Effect>) {
    if attempt.cancel == CancelState::Unwanted {
        attempt.cancel = CancelState::Wanted;
        attempt.cancelled_by = by;
    }
    match attempt.phase {
        Phase::Accepted | Phase::Unconfirmed if attempt.ending.is_none() => {
            abandon_as(attempt, Outcome::Cancelled, now, out);
        }
        Phase::Running(_) if attempt.ending.is_none() => request_cancel(attempt, out),
        // Being recorded: decided once durable. Being killed, or over: nothing to do.
        _ => {}
    }
}

pub(super) fn request_cancel(attempt: &mut Attempt, out: &mut Vec<Effect>) {
    if attempt.cancel == CancelState::Wanted {
        attempt.cancel = CancelState::Requested;
        let (attempt, by) = (attempt.id.clone(), attempt.cancelled_by.clone());
        out.push(Effect::RequestCancel { attempt, by });
    }
}

pub(super) fn note_running(attempt: &mut Attempt, seen: &AttemptSnapshot) {
    if let (Some(running), Phase::Accepted | Phase::Unconfirmed) = (&seen.running, &attempt.phase) {
        attempt.enter(Phase::Running(running.clone()));
    }
}

pub(super) fn report_state(attempt: &mut Attempt, now: Now, out: &mut Vec<Effect>) {
    if let Some(report) = attempt.report() {
        attempt.reported_at = Some(now.monotonic);
        out.push(Effect::Send(ToOperator::Report(Box::new(report))));
    }
}

pub(super) fn compact(attempt: &Attempt, out: &mut Vec<Effect>) {
    if let Phase::Ended(ended) = &attempt.phase {
        let (attempt, spec_hash) = (attempt.id.clone(), attempt.spec_hash.clone());
        out.push(Effect::Compact(Tombstone { attempt, spec_hash, ended: (**ended).clone() }));
    }
}

pub(super) fn abandon_as(attempt: &Attempt, outcome: Outcome, now: Now, out: &mut Vec<Effect>) {
    let ended = Box::new(Ended::without_record(outcome, now.wall));
    out.push(Effect::Abandon { attempt: attempt.id.clone(), ended });
}

pub(super) fn conclude_as(attempt: &Attempt, outcome: Outcome, now: Now, out: &mut Vec<Effect>) {
    let ended = Box::new(without_record(attempt, outcome, now));
    out.push(Effect::Conclude { attempt: attempt.id.clone(), ended });
}

/// The end of an Attempt without an exit record.
pub(super) fn without_record(attempt: &Attempt, outcome: Outcome, now: Now) -> Ended {
    Ended { started_at: attempt.started_at(), ..Ended::without_record(outcome, now.wall) }
}

pub(super) fn ignore(what: Ignored, attempt: AttemptId, out: &mut Vec<Effect>) {
    out.push(Effect::Ignored { what, attempt: Some(attempt) });
}
