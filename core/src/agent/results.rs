//! Results of effects, and what an inspection of an Attempt shows.

use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_operator::Ended;

use super::attempt::{CancelState, Ending, Phase};
use super::effect::Effect;
use super::event::AttemptSnapshot;
use super::recovery::{RecoveryAction, recover};
use super::step::Agent;
use super::transition::{
    abandon_as, conclude_as, note_running, report_state, request_cancel, start_or_expire, waited_for,
    without_record,
};
use crate::time::Now;

impl Agent {
    pub(super) fn recorded(&mut self, id: &AttemptId, now: Now, out: &mut Vec<Effect>) {
        let (stopping, connected) = (self.stopping, self.connected);
        let Some(attempt) = self.attempt_mut(id) else { return };
        if matches!(attempt.phase, Phase::Recording | Phase::Unconfirmed) {
            attempt.enter(Phase::Accepted);
            start_or_expire(attempt, stopping, now, out);
            if connected {
                report_state(attempt, now, out);
            }
        }
    }

    pub(super) fn not_recorded(&mut self, id: &AttemptId, why: Refusal, out: &mut Vec<Effect>) {
        let directory = id.directory_name();
        if self.attempts.get(&directory).is_some_and(|a| a.id == *id && matches!(a.phase, Phase::Recording))
            && let Some(attempt) = self.attempts.remove(&directory)
        {
            self.refuse(&attempt.id, &attempt.spec_hash, why, out);
        }
    }

    pub(super) fn launch_failed(&mut self, id: &AttemptId, message: String, now: Now, out: &mut Vec<Effect>) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) {
            let reason = StartFailure::OutOfResources;
            abandon_as(attempt, Outcome::StartFailed { reason, message: message.into() }, now, out);
        }
    }

    pub(super) fn launch_refused(
        &mut self,
        id: &AttemptId,
        refusal: Refusal,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) {
            abandon_as(attempt, Outcome::Refused { refusal }, now, out);
        }
    }

    pub(super) fn observed(&mut self, seen: &AttemptSnapshot, now: Now, out: &mut Vec<Effect>) {
        let (stopping, connected) = (self.stopping, self.connected);
        let Some(attempt) = self.attempt_mut(&seen.attempt) else { return };
        if attempt.is_over() || matches!(attempt.phase, Phase::Recording) {
            return;
        }
        attempt.start_by = seen.start_by;
        let stage = attempt.stage();
        match recover(&seen.evidence) {
            RecoveryAction::Report => {
                if let Some(ended) = &seen.ended {
                    attempt.enter(Phase::Ended(ended.clone()));
                }
            }
            RecoveryAction::Adopt => {
                note_running(attempt, seen);
                request_cancel(attempt, out);
            }
            RecoveryAction::StartNow => start_or_expire(attempt, stopping, now, out),
            RecoveryAction::AwaitConfirmation => {
                attempt.phase = Phase::Unconfirmed;
                if attempt.cancel != CancelState::Unwanted {
                    abandon_as(attempt, Outcome::Cancelled, now, out);
                } else if now.monotonic >= attempt.start_by {
                    abandon_as(attempt, Outcome::StartTimedOut { why: waited_for(attempt) }, now, out);
                }
            }
            RecoveryAction::NotStarted => {
                let outcome = seen.abandoned.clone().unwrap_or(Outcome::NotStarted);
                abandon_as(attempt, outcome, now, out);
            }
            RecoveryAction::Over(end) => {
                note_running(attempt, seen);
                // The tree being killed is empty before `TreeEnded` arrives.
                if attempt.ending.is_none_or(|ending| ending.is_overdue(now.monotonic)) {
                    conclude_as(attempt, end.outcome(), now, out);
                }
            }
            RecoveryAction::EndTreeThen(end) => {
                note_running(attempt, seen);
                if attempt.ending.is_none_or(|ending| ending.is_overdue(now.monotonic)) {
                    attempt.ending = Some(Ending { end, since: now.monotonic });
                    out.push(Effect::EndTree(attempt.id.clone()));
                }
            }
        }
        if connected && attempt.stage() != stage {
            report_state(attempt, now, out);
        }
    }

    pub(super) fn tree_ended(&mut self, id: &AttemptId, left: Vec<i32>, now: Now, out: &mut Vec<Effect>) {
        let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) else { return };
        let Some(ending) = attempt.ending.take() else { return };
        let outcome =
            if left.is_empty() { ending.end.outcome() } else { Outcome::CancelFailed { pids: left } };
        // Without a supervisor there is only SIGKILL.
        let exit = ExitDetails { killed: true, ..ExitDetails::default() };
        let ended = Ended { exit, ..without_record(attempt, outcome, now) };
        out.push(Effect::Conclude { attempt: attempt.id.clone(), ended: Box::new(ended) });
    }

    pub(super) fn concluded(&mut self, id: &AttemptId, ended: Box<Ended>, now: Now, out: &mut Vec<Effect>) {
        let connected = self.connected;
        let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) else { return };
        attempt.enter(Phase::Ended(ended));
        if connected {
            report_state(attempt, now, out);
        }
    }

    pub(super) fn too_late(&mut self, id: &AttemptId, out: &mut Vec<Effect>) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) {
            request_cancel(attempt, out);
            out.push(Effect::Inspect(id.clone()));
        }
    }

    pub(super) fn cancel_not_requested(&mut self, id: &AttemptId) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| attempt.cancel == CancelState::Requested)
        {
            attempt.cancel = CancelState::Wanted;
        }
    }

    pub(super) fn compacted(&mut self, id: &AttemptId) {
        if self.attempt_mut(id).is_some_and(|attempt| attempt.is_over()) {
            self.attempts.remove(&id.directory_name());
        }
    }
}
