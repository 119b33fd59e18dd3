//! The operator's commands: `Start`, `Cancel`, `Ack` and `Forget`.

use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start};
use sentinel_protocol::to_operator::{Ended, Refused, Report, ReportedState, ToOperator};

use super::admission::{Candidate, admit, admit_again};
use super::attempt::{Attempt, Phase, Secrets};
use super::effect::{Admitted, Effect, Ignored};
use super::event::{Facts, Journaled, SecretsSent, Tombstone};
use super::step::Agent;
use super::transition::{abandon_as, cancel_attempt, compact, ignore, report_state};
use crate::time::Now;

impl Agent {
    pub(super) fn start(&mut self, start: Box<Start>, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        // Reporting what is known is harmless, whichever leader asks.
        if self.answer_known(&start.attempt, &start.spec_hash, facts.tombstone.as_ref(), now, out) {
            self.take_missing_secrets(&start, facts, out);
            return self.confirm(start, facts, now, out);
        }
        if let Some(refused) = self.refused.get(&start.attempt).filter(|refused| applies_to(refused, &start))
        {
            return self.send(ToOperator::Refused(refused.clone()), out);
        }
        let living_by = |rule: &str| self.living_by(rule);
        let permit = match admit(&self.candidate(&start, facts, &living_by)) {
            Ok(permit) => permit.cloned(),
            Err(refusal) => {
                return self.decline(&start.attempt, &start.spec_hash, refusal, start.offer, out);
            }
        };
        self.refused.remove(&start.attempt);
        self.raise_epoch(start.epoch, out);
        let start_by = now.monotonic.plus(start.deadlines.start_ms);
        let rule = permit.as_ref().map(|permit| permit.rule.clone());
        let attempt =
            Attempt { rule, ..Attempt::new(start.attempt.clone(), start.spec_hash.clone(), start_by) };
        self.attempts.insert(start.attempt.directory_name(), attempt);
        out.push(Effect::Record(Box::new(Admitted { start: recorded(*start), permit })));
    }

    fn candidate<'a>(
        &'a self,
        start: &'a Start,
        facts: &'a Facts,
        living_by: &'a dyn Fn(&str) -> usize,
    ) -> Candidate<'a> {
        Candidate {
            start,
            rules: &self.rules,
            highest_epoch: self.highest_epoch,
            stopping: self.stopping,
            journal_failure: self.journal_failure.as_deref(),
            living: self.living(),
            owned: self.attempts.len(),
            free: facts.free,
            policy: &facts.policy,
            secrets: &facts.secrets,
            living_by,
        }
    }

    /// Takes the values of the Secrets of what an earlier process of the agent has accepted in this boot. Whether it has started
    /// meanwhile, the inspection that follows shows.
    fn take_missing_secrets(&mut self, start: &Start, facts: &Facts, out: &mut Vec<Effect>) {
        let is_current =
            start.epoch >= self.highest_epoch && !self.stopping && facts.journaled == Journaled::Same;
        let Some(attempt) = self.attempt_mut(&start.attempt).filter(|attempt| {
            attempt.secrets == Secrets::Missing
                && matches!(attempt.phase, Phase::Accepted)
                && attempt.spec_hash == start.spec_hash
        }) else {
            return;
        };
        if is_current && facts.secrets == SecretsSent::Values {
            attempt.secrets = Secrets::Here;
            self.raise_epoch(start.epoch, out);
            out.push(Effect::KeepSecrets(start.attempt.clone()));
            out.push(Effect::Inspect(start.attempt.clone()));
        }
    }

    /// Starts what was accepted before a reboot, if it may still start and this node admits it again. What was accepted is what starts: a
    /// `Start` with another request ends the Attempt, since the Journal, the audit and what was signed are about the first.
    fn confirm(&mut self, start: Box<Start>, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        let known = self.attempts.get(&start.attempt.directory_name());
        let Some(attempt) = known.filter(|attempt| self.may_confirm(attempt, &start)) else { return };
        match facts.journaled {
            Journaled::Same => {}
            Journaled::Another => {
                return abandon_as(
                    attempt,
                    Outcome::Refused { refusal: Refusal::SpecHashMismatch },
                    now,
                    out,
                );
            }
            Journaled::Unknown => return,
        }
        // Those that wait like this one have no place yet: they would wait for each other.
        let others_by = |rule: &str| self.placed_by(rule);
        match admit_again(&self.candidate(&start, facts, &others_by)) {
            Ok(_) if start.request.needs_secrets() && facts.secrets != SecretsSent::Values => {}
            Ok(permit) => {
                let permit = permit.cloned();
                if let Some(attempt) = self.attempt_mut(&start.attempt) {
                    attempt.secrets = Secrets::Here;
                    attempt.rule = permit.as_ref().map(|permit| permit.rule.clone());
                }
                self.raise_epoch(start.epoch, out);
                out.push(Effect::Confirm(Box::new(Admitted { start: recorded(*start), permit })));
            }
            // It waits for its turn, as long as it may.
            Err(refusal) if refusal.is_temporary() => {}
            Err(refusal) => abandon_as(attempt, Outcome::Refused { refusal }, now, out),
        }
    }

    fn may_confirm(&self, attempt: &Attempt, start: &Start) -> bool {
        matches!(attempt.phase, Phase::Unconfirmed)
            && attempt.spec_hash == start.spec_hash
            && attempt.id == start.attempt
            && start.epoch >= self.highest_epoch
            && !self.stopping
            && self.journal_failure.is_none()
    }

    /// Reports what is known of an Attempt that this node has, had, or cannot read. False if it knows nothing of it.
    fn answer_known(
        &mut self,
        id: &AttemptId,
        spec_hash: &SpecHash,
        tombstone: Option<&Tombstone>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> bool {
        let directory = id.directory_name();
        if let Some(attempt) = self.attempts.get_mut(&directory) {
            if attempt.id != *id {
                let message =
                    format!("this node already has {} in the directory that {id} needs", attempt.id);
                self.refuse(id, spec_hash, Refusal::InvalidRequest { message: message.into() }, out);
            } else if attempt.spec_hash != *spec_hash {
                self.refuse(id, spec_hash, Refusal::SpecHashMismatch, out);
            } else if self.connected {
                report_state(attempt, now, out);
            }
            return true;
        }
        if let Some(tombstone) = tombstone {
            if tombstone.spec_hash == *spec_hash {
                self.send(ToOperator::Report(Box::new(tombstone.report())), out);
            } else {
                self.refuse(id, spec_hash, Refusal::SpecHashMismatch, out);
            }
            return true;
        }
        if self.unreadable.contains(&directory) {
            let ended = Ended::without_record(Outcome::Lost { reason: LostReason::StateLost }, now.wall);
            let state = ReportedState::Ended(Box::new(ended));
            let report = Report { attempt: id.clone(), spec_hash: spec_hash.clone(), state };
            self.send(ToOperator::Report(Box::new(report)), out);
            return true;
        }
        false
    }

    pub(super) fn cancel(&mut self, cancel: Cancel, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        let Cancel { attempt: id, spec_hash, epoch, requested_by } = cancel;
        if epoch < self.highest_epoch {
            return ignore(Ignored::StaleEpoch, id, out);
        }
        self.raise_epoch(epoch, out);
        if let Some(attempt) = self.attempt_mut(&id).filter(|a| a.spec_hash == spec_hash && !a.is_over()) {
            let by = requested_by.map(|by| *by);
            return cancel_attempt(attempt, by, now, out);
        }
        if self.answer_known(&id, &spec_hash, facts.tombstone.as_ref(), now, out) {
            return;
        }
        if self.journal_failure.is_some() {
            return ignore(Ignored::CancelWithoutJournal, id, out);
        }
        let ended = Ended::without_record(Outcome::Cancelled, now.wall);
        out.push(Effect::WriteTombstone(Tombstone { attempt: id, spec_hash, ended }));
    }

    pub(super) fn ack(&mut self, ack: Ack, out: &mut Vec<Effect>) {
        let Ack { attempt: id, stage } = ack;
        let Some(attempt) = self.attempt_mut(&id) else { return ignore(Ignored::UnknownAttempt, id, out) };
        if Some(stage) > attempt.stage() {
            return ignore(Ignored::AckBeyondReport, id, out);
        }
        if Some(stage) > attempt.acked {
            attempt.acked = Some(stage);
            // Earlier stages need no durable Ack: a new Session reports everything anyway.
            if stage == Stage::Ended {
                out.push(Effect::NoteAck { attempt: id, stage });
                if attempt.forget_requested {
                    compact(attempt, out);
                }
            }
        }
    }

    pub(super) fn forget(&mut self, forget: Forget, now: Now, out: &mut Vec<Effect>) {
        let Forget { attempt: id, epoch } = forget;
        if epoch < self.highest_epoch {
            return ignore(Ignored::StaleEpoch, id, out);
        }
        self.raise_epoch(epoch, out);
        let Some(attempt) = self.attempt_mut(&id) else { return ignore(Ignored::UnknownAttempt, id, out) };
        if !attempt.is_over() {
            return ignore(Ignored::ForgetOfLiving, id, out);
        }
        attempt.forget_requested = true;
        // A new leader may know the result from History without knowing that some output is missing there: only the Ack
        // confirms both. Until then the Report is resent.
        if attempt.is_unacknowledged() {
            return report_state(attempt, now, out);
        }
        compact(attempt, out);
    }
}

/// What the Journal may have of a `Start`: references to Secrets, and no values, not even sealed ones.
fn recorded(start: Start) -> Start {
    Start { secrets: None, ..start }
}

/// Whether a Refusal also applies to this `Start`.
fn applies_to(refused: &Refused, start: &Start) -> bool {
    refused.offer == 0 || start.offer <= refused.offer
}
