//! One event in, effects out.

use std::collections::{BTreeMap, BTreeSet};

use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::limits::INVENTORY_PART;
use sentinel_protocol::outcome::{LostReason, Outcome, StartFailure};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel as CancelRequest, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{
    Ended, Inventory, OutputSummary, Refused, Report, ReportedState, Stage, ToOperator, Usage,
};

use super::admission::{Candidate, Rules, admit};
use super::attempt::{Attempt, CancelState, Ending, Phase};
use super::effect::{Effect, Ignored};
use super::event::{AttemptSnapshot, Event, Facts, Tombstone};
use super::recovery::{RecoveryAction, recover};
use crate::time::Now;

/// A Report whose Ack has not come is said again after this time, milliseconds.
pub const RESEND_AFTER_MS: u64 = 10_000;

/// A launched Attempt whose lock nobody took for this long has lost its supervisor on the way and is launched again,
/// milliseconds. Safe at any value: the lock decides between the two.
pub const RELAUNCH_AFTER_MS: u64 = 5_000;

/// Reports said again in one Tick, at most, so that a long absence of History ends in a stream and not in a burst.
const RESENDS_PER_TICK: usize = 256;

/// Refusals remembered in one Session, at most; beyond, the one that sorts first is dropped.
const REFUSALS_REMEMBERED: usize = 4096;

/// Whether there is a Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
}

/// The brain of one agent.
#[derive(Debug)]
pub struct Agent {
    rules: Rules,
    highest_epoch: Epoch,
    link: Link,
    stopping: bool,
    journal_failure: Option<String>,
    /// By the name of their directory, which leaves out the node: there is one directory for each.
    attempts: BTreeMap<String, Attempt>,
    unreadable: BTreeSet<String>,
    /// What was refused in this Session stays refused in it: a `Start` that was sent twice must not be declined and
    /// then run. What was refused for a reason that passes can be asked for with a higher offer.
    refused: BTreeMap<AttemptId, Refused>,
}

impl Agent {
    /// An agent that owns nothing yet; its first event is [`Event::Replayed`].
    pub fn new(rules: Rules, highest_epoch: Epoch) -> Self {
        Self {
            rules,
            highest_epoch,
            link: Link::Down,
            stopping: false,
            journal_failure: None,
            attempts: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    /// The highest epoch seen.
    pub fn highest_epoch(&self) -> Epoch {
        self.highest_epoch
    }

    /// Attempts that are not over.
    pub fn living(&self) -> usize {
        self.attempts.values().filter(|attempt| !attempt.is_over()).count()
    }

    /// Whether this Attempt is here and not over.
    pub fn is_living(&self, id: &AttemptId) -> bool {
        self.attempts.get(&id.directory_name()).is_some_and(|attempt| attempt.id == *id && !attempt.is_over())
    }

    /// Reports that wait for their Ack.
    pub fn unacknowledged(&self) -> usize {
        self.attempts.values().filter(|attempt| attempt.is_unacknowledged()).count()
    }

    /// Thinks about one event. `now.monotonic` is the node's boot clock.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let out = &mut effects;
        match event {
            Event::Replayed { seen, unreadable } => self.replayed(seen, unreadable, now, out),
            Event::Connected { epoch } => self.connected(epoch, now, out),
            Event::Disconnected => self.disconnected(),
            Event::Received { message, facts } => self.received(message, &facts, now, out),
            Event::Recorded { attempt } => self.recorded(&attempt, now, out),
            Event::NotRecorded { attempt, why } => self.not_recorded(&attempt, why, out),
            Event::LaunchFailed { attempt, message } => self.launch_failed(&attempt, message, now, out),
            Event::Observed(seen) => self.observed(&seen, now, out),
            Event::Concluded { attempt, ended } => self.concluded(&attempt, ended, now, out),
            Event::TooLate { attempt } => self.too_late(&attempt, out),
            Event::TreeEnded { attempt, left } => self.tree_ended(&attempt, left, now, out),
            Event::CancelNotRequested { attempt } => self.cancel_not_requested(&attempt),
            Event::TombstoneWritten(tombstone) => {
                self.send(ToOperator::Report(Box::new(tombstone.report())), out)
            }
            Event::Compacted { attempt } => self.compacted(&attempt),
            Event::JournalFailed { message } => self.journal_failed(&message, out),
            Event::Tick => self.tick(now, out),
            Event::Stopping => self.stopping = true,
        }
        effects
    }

    // --- life -------------------------------------------------------------------------------------------------

    fn replayed(
        &mut self,
        seen: Vec<AttemptSnapshot>,
        unreadable: Vec<String>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.unreadable = unreadable.into_iter().collect();
        for seen in seen {
            self.attempts.insert(seen.attempt.directory_name(), Attempt::replayed(&seen));
            self.observed(&seen, now, out);
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let looks = self.attempts.values().filter(|a| !a.is_over() && !matches!(a.phase, Phase::Recording));
        out.extend(looks.map(|attempt| Effect::Inspect(attempt.id.clone())));
        if self.link == Link::Down {
            return;
        }
        let mut due: Vec<&mut Attempt> = self
            .attempts
            .values_mut()
            .filter(|a| a.is_unacknowledged())
            .filter(|a| a.reported_at.is_none_or(|said| now.monotonic.since(said) >= RESEND_AFTER_MS))
            .collect();
        due.sort_by_key(|attempt| attempt.reported_at);
        for attempt in due.into_iter().take(RESENDS_PER_TICK) {
            report_state(attempt, now, out);
        }
    }

    fn journal_failed(&mut self, message: &str, out: &mut Vec<Effect>) {
        self.journal_failure = Some(message.to_owned());
        let recording: Vec<AttemptId> = self
            .attempts
            .values()
            .filter(|attempt| matches!(attempt.phase, Phase::Recording))
            .map(|attempt| attempt.id.clone())
            .collect();
        for id in recording {
            self.not_recorded(&id, Refusal::JournalUnsafe { message: message.into() }, out);
        }
    }

    // --- the Session ------------------------------------------------------------------------------------------

    fn connected(&mut self, epoch: Epoch, now: Now, out: &mut Vec<Effect>) {
        self.link = Link::Up;
        self.raise_epoch(epoch, out);
        let mut reports = Vec::with_capacity(self.attempts.len().min(INVENTORY_PART));
        let mut parts = Vec::new();
        for attempt in self.attempts.values_mut() {
            let Some(report) = attempt.report() else { continue };
            attempt.reported_at = Some(now.monotonic);
            if reports.len() == INVENTORY_PART {
                parts.push(std::mem::take(&mut reports));
            }
            reports.push(report);
        }
        let whole = parts.into_iter().map(|attempts| Inventory { attempts, more: true });
        for part in whole.chain([Inventory { attempts: reports, more: false }]) {
            out.push(Effect::Send(ToOperator::Inventory(part)));
        }
    }

    fn disconnected(&mut self) {
        self.link = Link::Down;
        self.refused.clear();
    }

    fn received(&mut self, message: ToAgent, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        match message {
            ToAgent::Start(start) => self.start(start, facts, now, out),
            ToAgent::Cancel(cancel) => self.cancel(cancel, facts, now, out),
            ToAgent::Ack(ack) => self.ack(ack, out),
            ToAgent::Forget(forget) => self.forget(forget, now, out),
            ToAgent::Welcome(_) | ToAgent::Refuse(_) => {
                out.push(Effect::Ignored { what: Ignored::Handshake, attempt: None });
            }
        }
    }

    fn raise_epoch(&mut self, epoch: Epoch, out: &mut Vec<Effect>) {
        if epoch > self.highest_epoch {
            self.highest_epoch = epoch;
            out.push(Effect::SetEpoch(epoch));
        }
    }

    // --- Start ------------------------------------------------------------------------------------------------

    fn start(&mut self, start: Box<Start>, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        // What is known is said whoever asks: it is the truth, and cannot do harm.
        if self.answer_known(&start.attempt, &start.spec_hash, facts.tombstone.as_ref(), now, out) {
            let known = self.attempts.get(&start.attempt.directory_name());
            if known.is_some_and(|attempt| self.may_confirm(attempt, &start)) {
                self.raise_epoch(start.epoch, out);
                out.push(Effect::Confirm(start));
            }
            return;
        }
        if let Some(refused) = self.refused.get(&start.attempt).filter(|refused| stands(refused, &start)) {
            return self.send(ToOperator::Refused(refused.clone()), out);
        }
        let candidate = Candidate {
            start: &start,
            rules: &self.rules,
            highest_epoch: self.highest_epoch,
            stopping: self.stopping,
            journal_failure: self.journal_failure.as_deref(),
            living: self.living(),
            owned: self.attempts.len(),
            free: facts.free,
        };
        if let Err(refusal) = admit(&candidate) {
            return self.decline(&start.attempt, &start.spec_hash, refusal, start.offer, out);
        }
        self.refused.remove(&start.attempt);
        self.raise_epoch(start.epoch, out);
        let start_by = now.monotonic.plus(start.deadlines.start_ms);
        let attempt = Attempt::new(start.attempt.clone(), start.spec_hash.clone(), start_by);
        self.attempts.insert(start.attempt.directory_name(), attempt);
        out.push(Effect::Record(start));
    }

    fn may_confirm(&self, attempt: &Attempt, start: &Start) -> bool {
        matches!(attempt.phase, Phase::Unconfirmed)
            && attempt.spec_hash == start.spec_hash
            && attempt.id == start.attempt
            && start.epoch >= self.highest_epoch
            && !self.stopping
            && self.journal_failure.is_none()
    }

    /// Answers for an Attempt that is here, was here, or is here and unreadable.
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
                let message = format!("{} is here already, so {id} cannot be", attempt.id);
                self.refuse(id, spec_hash, Refusal::InvalidRequest { message: message.into() }, out);
            } else if attempt.spec_hash != *spec_hash {
                self.refuse(id, spec_hash, Refusal::SpecHashMismatch, out);
            } else if self.link == Link::Up {
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
            let ended = ended_without_record(Outcome::Lost { reason: LostReason::StateLost }, now.wall);
            let state = ReportedState::Ended(Box::new(ended));
            let report = Report { attempt: id.clone(), spec_hash: spec_hash.clone(), state };
            self.send(ToOperator::Report(Box::new(report)), out);
            return true;
        }
        false
    }

    fn recorded(&mut self, id: &AttemptId, now: Now, out: &mut Vec<Effect>) {
        let (stopping, link) = (self.stopping, self.link);
        let Some(attempt) = self.attempt_mut(id) else { return };
        if matches!(attempt.phase, Phase::Recording | Phase::Unconfirmed) {
            attempt.enter(Phase::Accepted);
            start_or_expire(attempt, stopping, now, out);
            if link == Link::Up {
                report_state(attempt, now, out);
            }
        }
    }

    fn not_recorded(&mut self, id: &AttemptId, why: Refusal, out: &mut Vec<Effect>) {
        let directory = id.directory_name();
        if self.attempts.get(&directory).is_some_and(|a| a.id == *id && matches!(a.phase, Phase::Recording))
            && let Some(attempt) = self.attempts.remove(&directory)
        {
            self.refuse(&attempt.id, &attempt.spec_hash, why, out);
        }
    }

    fn launch_failed(&mut self, id: &AttemptId, message: String, now: Now, out: &mut Vec<Effect>) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) {
            let reason = StartFailure::OutOfResources;
            abandon_as(attempt, Outcome::StartFailed { reason, message: message.into() }, now, out);
        }
    }

    // --- what is seen of it -----------------------------------------------------------------------------------

    fn observed(&mut self, seen: &AttemptSnapshot, now: Now, out: &mut Vec<Effect>) {
        let (stopping, link) = (self.stopping, self.link);
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
                    abandon_as(attempt, Outcome::StartTimedOut { why: None }, now, out);
                }
            }
            RecoveryAction::NotStarted => {
                let outcome = seen.abandoned.clone().unwrap_or(Outcome::NotStarted);
                abandon_as(attempt, outcome, now, out);
            }
            RecoveryAction::Over(verdict) => {
                note_running(attempt, seen);
                // A tree that we are ending looks empty before we have been told so.
                if attempt.ending.is_none_or(|ending| ending.is_overdue(now.monotonic)) {
                    conclude_as(attempt, verdict.outcome(), now, out);
                }
            }
            RecoveryAction::EndTreeThen(verdict) => {
                note_running(attempt, seen);
                if attempt.ending.is_none_or(|ending| ending.is_overdue(now.monotonic)) {
                    attempt.ending = Some(Ending { end: verdict, since: now.monotonic });
                    out.push(Effect::EndTree(attempt.id.clone()));
                }
            }
        }
        if link == Link::Up && attempt.stage() != stage {
            report_state(attempt, now, out);
        }
    }

    fn tree_ended(&mut self, id: &AttemptId, left: Vec<i32>, now: Now, out: &mut Vec<Effect>) {
        let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) else { return };
        let Some(ending) = attempt.ending.take() else { return };
        let outcome =
            if left.is_empty() { ending.end.outcome() } else { Outcome::CancelFailed { pids: left } };
        // Nothing but KILL is used on a command whose supervisor is gone.
        let exit = ExitDetails { killed: true, ..ExitDetails::default() };
        let ended = Ended { exit, ..without_record(attempt, outcome, now) };
        out.push(Effect::Conclude { attempt: attempt.id.clone(), ended: Box::new(ended) });
    }

    fn concluded(&mut self, id: &AttemptId, ended: Box<Ended>, now: Now, out: &mut Vec<Effect>) {
        let link = self.link;
        let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) else { return };
        attempt.enter(Phase::Ended(ended));
        if link == Link::Up {
            report_state(attempt, now, out);
        }
    }

    fn too_late(&mut self, id: &AttemptId, out: &mut Vec<Effect>) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| !attempt.is_over()) {
            request_cancel(attempt, out);
            out.push(Effect::Inspect(id.clone()));
        }
    }

    fn cancel_not_requested(&mut self, id: &AttemptId) {
        if let Some(attempt) = self.attempt_mut(id).filter(|attempt| attempt.cancel == CancelState::Requested)
        {
            attempt.cancel = CancelState::Wanted;
        }
    }

    // --- Cancel, Ack, Forget ----------------------------------------------------------------------------------

    fn cancel(&mut self, cancel: CancelRequest, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        let CancelRequest { attempt: id, spec_hash, epoch } = cancel;
        if epoch < self.highest_epoch {
            return ignore(Ignored::StaleEpoch, id, out);
        }
        self.raise_epoch(epoch, out);
        if let Some(attempt) = self.attempt_mut(&id).filter(|a| a.spec_hash == spec_hash && !a.is_over()) {
            return cancel_attempt(attempt, now, out);
        }
        if self.answer_known(&id, &spec_hash, facts.tombstone.as_ref(), now, out) {
            return;
        }
        if self.journal_failure.is_some() {
            return ignore(Ignored::CancelWithoutJournal, id, out);
        }
        let ended = ended_without_record(Outcome::Cancelled, now.wall);
        out.push(Effect::WriteTombstone(Tombstone { attempt: id, spec_hash, ended }));
    }

    fn ack(&mut self, ack: Ack, out: &mut Vec<Effect>) {
        let Ack { attempt: id, stage } = ack;
        let Some(attempt) = self.attempt_mut(&id) else { return ignore(Ignored::UnknownAttempt, id, out) };
        if Some(stage) > attempt.stage() {
            return ignore(Ignored::AckBeyondReport, id, out);
        }
        if Some(stage) > attempt.acked {
            attempt.acked = Some(stage);
            // Of the earlier stages nothing is lost with the process: a new Session says everything anyway.
            if stage == Stage::Ended {
                out.push(Effect::NoteAck { attempt: id, stage });
                if attempt.forget_requested {
                    compact(attempt, out);
                }
            }
        }
    }

    fn forget(&mut self, forget: Forget, now: Now, out: &mut Vec<Effect>) {
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
        // An operator that took over may know the result from History and not that some of its output is missing there:
        // only the Ack says both. Until it comes, the Report is said again.
        if attempt.is_unacknowledged() {
            return report_state(attempt, now, out);
        }
        compact(attempt, out);
    }

    fn compacted(&mut self, id: &AttemptId) {
        if self.attempt_mut(id).is_some_and(|attempt| attempt.is_over()) {
            self.attempts.remove(&id.directory_name());
        }
    }

    // --- sending ------------------------------------------------------------------------------------------------

    fn attempt_mut(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        self.attempts.get_mut(&id.directory_name()).filter(|attempt| attempt.id == *id)
    }

    fn send(&self, message: ToOperator, out: &mut Vec<Effect>) {
        if self.link == Link::Up {
            out.push(Effect::Send(message));
        }
    }

    fn refuse(&mut self, id: &AttemptId, spec_hash: &SpecHash, refusal: Refusal, out: &mut Vec<Effect>) {
        self.decline(id, spec_hash, refusal, 0, out);
    }

    fn decline(
        &mut self,
        id: &AttemptId,
        spec_hash: &SpecHash,
        refusal: Refusal,
        offer: u32,
        out: &mut Vec<Effect>,
    ) {
        if self.link == Link::Down {
            return;
        }
        // A leader that learns of a higher epoch rises above it and asks again; what is here stays known anyway.
        let passing = matches!(refusal, Refusal::StaleEpoch { .. });
        let offer = if refusal.passes() { offer } else { 0 };
        let refused = Refused { attempt: id.clone(), spec_hash: spec_hash.clone(), refusal, offer };
        if !passing && self.attempt_mut(id).is_none() {
            if self.refused.len() >= REFUSALS_REMEMBERED {
                self.refused.pop_first();
            }
            self.refused.insert(id.clone(), refused.clone());
        }
        out.push(Effect::Send(ToOperator::Refused(refused)));
    }
}

/// Whether what was refused stays refused when this `Start` asks for it.
fn stands(refused: &Refused, start: &Start) -> bool {
    refused.offer == 0 || start.offer <= refused.offer
}

/// What comes next for an Attempt that surely has not started.
fn start_or_expire(attempt: &mut Attempt, stopping: bool, now: Now, out: &mut Vec<Effect>) {
    let on_its_way = attempt.launched.is_some_and(|at| now.monotonic.since(at) < RELAUNCH_AFTER_MS);
    if attempt.cancel != CancelState::Unwanted {
        abandon_as(attempt, Outcome::Cancelled, now, out);
    } else if now.monotonic >= attempt.start_by {
        abandon_as(attempt, Outcome::StartTimedOut { why: None }, now, out);
    } else if !on_its_way && !stopping {
        attempt.launched = Some(now.monotonic);
        out.push(Effect::Launch(attempt.id.clone()));
    }
}

fn cancel_attempt(attempt: &mut Attempt, now: Now, out: &mut Vec<Effect>) {
    if attempt.cancel == CancelState::Unwanted {
        attempt.cancel = CancelState::Wanted;
    }
    match attempt.phase {
        Phase::Accepted | Phase::Unconfirmed if attempt.ending.is_none() => {
            abandon_as(attempt, Outcome::Cancelled, now, out);
        }
        Phase::Running(_) if attempt.ending.is_none() => request_cancel(attempt, out),
        // Being recorded: decided when that is done. Being ended: it ends. Over: nothing to do.
        _ => {}
    }
}

fn request_cancel(attempt: &mut Attempt, out: &mut Vec<Effect>) {
    if attempt.cancel == CancelState::Wanted {
        attempt.cancel = CancelState::Requested;
        out.push(Effect::RequestCancel(attempt.id.clone()));
    }
}

fn note_running(attempt: &mut Attempt, seen: &AttemptSnapshot) {
    if let (Some(running), Phase::Accepted | Phase::Unconfirmed) = (&seen.running, &attempt.phase) {
        attempt.enter(Phase::Running(running.clone()));
    }
}

fn report_state(attempt: &mut Attempt, now: Now, out: &mut Vec<Effect>) {
    if let Some(report) = attempt.report() {
        attempt.reported_at = Some(now.monotonic);
        out.push(Effect::Send(ToOperator::Report(Box::new(report))));
    }
}

fn compact(attempt: &Attempt, out: &mut Vec<Effect>) {
    if let Phase::Ended(ended) = &attempt.phase {
        let (attempt, spec_hash) = (attempt.id.clone(), attempt.spec_hash.clone());
        out.push(Effect::Compact(Tombstone { attempt, spec_hash, ended: (**ended).clone() }));
    }
}

fn abandon_as(attempt: &Attempt, outcome: Outcome, now: Now, out: &mut Vec<Effect>) {
    let ended = Box::new(ended_without_record(outcome, now.wall));
    out.push(Effect::Abandon { attempt: attempt.id.clone(), ended });
}

fn conclude_as(attempt: &Attempt, outcome: Outcome, now: Now, out: &mut Vec<Effect>) {
    let ended = Box::new(without_record(attempt, outcome, now));
    out.push(Effect::Conclude { attempt: attempt.id.clone(), ended });
}

/// The end of an Attempt whose supervisor did not record it.
fn without_record(attempt: &Attempt, outcome: Outcome, now: Now) -> Ended {
    Ended { started_at: attempt.started_at(), ..ended_without_record(outcome, now.wall) }
}

fn ended_without_record(outcome: Outcome, at: UnixMillis) -> Ended {
    let (usage, output) = (Usage::default(), OutputSummary::default());
    Ended { outcome, started_at: None, ended_at: at, usage, output, exit: ExitDetails::default() }
}

fn ignore(what: Ignored, attempt: AttemptId, out: &mut Vec<Effect>) {
    out.push(Effect::Ignored { what, attempt: Some(attempt) });
}
