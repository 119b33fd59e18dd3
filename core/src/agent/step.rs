//! [`Agent::step`]: one event in, effects out. Here are the events of the process and its Session; commands of the operator
//! are in [`super::commands`], results of effects in [`super::results`].

use std::collections::{BTreeMap, BTreeSet};

use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::limits::INVENTORY_PART;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::{Inventory, Refused, ToOperator};

use super::admission::Rules;
use super::attempt::{Attempt, Phase};
use super::effect::{Effect, Ignored};
use super::event::{AttemptSnapshot, Event, Facts};
use super::transition::report_state;
use crate::time::Now;

/// A Report without an Ack is resent after this time, milliseconds.
pub const RESEND_AFTER_MS: u64 = 10_000;

/// Reports resent per Tick at most, so that the end of a long History outage causes no burst.
const RESENDS_PER_TICK: usize = 256;

/// Refusals remembered per Session at most; beyond, the first in key order is dropped.
const REFUSALS_REMEMBERED: usize = 4096;

/// The state machine of one agent.
#[derive(Debug)]
pub struct Agent {
    pub(super) rules: Rules,
    pub(super) highest_epoch: Epoch,
    pub(super) connected: bool,
    pub(super) stopping: bool,
    pub(super) journal_failure: Option<String>,
    /// By directory name, which leaves out the node.
    pub(super) attempts: BTreeMap<String, Attempt>,
    pub(super) unreadable: BTreeSet<String>,
    /// A refused `Start` stays refused for the Session, as a resent one must not be refused and then run. One that was
    /// refused for a temporary reason can be accepted with a higher offer number.
    pub(super) refused: BTreeMap<AttemptId, Refused>,
}

impl Agent {
    /// An agent without Attempts; its first event is [`Event::Replayed`].
    pub fn new(rules: Rules, highest_epoch: Epoch) -> Self {
        Self {
            rules,
            highest_epoch,
            connected: false,
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

    /// Attempts that are not over and were allowed by this rule of the policy.
    pub(super) fn living_by(&self, rule: &str) -> usize {
        self.living_of(rule).count()
    }

    /// The same, without those that wait to be confirmed.
    pub(super) fn placed_by(&self, rule: &str) -> usize {
        self.living_of(rule).filter(|attempt| !matches!(attempt.phase, Phase::Unconfirmed)).count()
    }

    fn living_of(&self, rule: &str) -> impl Iterator<Item = &Attempt> {
        let by_rule = move |attempt: &&Attempt| attempt.rule.as_deref() == Some(rule) && !attempt.is_over();
        self.attempts.values().filter(by_rule)
    }

    /// Whether this node has the Attempt, so that a `Start` of it needs no verdict of the policy, unless it waits for one.
    pub fn is_settled(&self, id: &AttemptId) -> bool {
        let known = self.attempts.get(&id.directory_name());
        known.is_some_and(|attempt| attempt.id == *id && !matches!(attempt.phase, Phase::Unconfirmed))
    }

    /// Whether this node has the Attempt and it is not over.
    pub fn is_living(&self, id: &AttemptId) -> bool {
        self.attempts.get(&id.directory_name()).is_some_and(|attempt| attempt.id == *id && !attempt.is_over())
    }

    /// Reports that wait for their Ack.
    pub fn unacknowledged(&self) -> usize {
        self.attempts.values().filter(|attempt| attempt.is_unacknowledged()).count()
    }

    /// Handles one event. `now.monotonic` is the node's boot clock.
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
            Event::LaunchRefused { attempt, refusal } => self.launch_refused(&attempt, refusal, now, out),
            Event::Observed(seen) => self.observed(&seen, now, out),
            Event::Concluded { attempt, ended } => self.concluded(&attempt, ended, now, out),
            Event::TooLate { attempt } => self.too_late(&attempt, out),
            Event::TreeEnded { attempt, left } => self.tree_ended(&attempt, left, now, out),
            Event::CancelNotRequested { attempt } => self.cancel_not_requested(&attempt),
            Event::TombstoneWritten(tombstone) => {
                self.send(ToOperator::Report(Box::new(tombstone.report())), out);
            }
            Event::Compacted { attempt } => self.compacted(&attempt),
            Event::JournalFailed { message } => self.journal_failed(&message, out),
            Event::Tick => self.tick(now, out),
            Event::Stopping => self.stopping = true,
        }
        effects
    }

    // --- lifecycle -------------------------------------------------------------------------------------------------

    pub(super) fn replayed(
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

    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let active = self.attempts.values().filter(|a| !a.is_over() && !matches!(a.phase, Phase::Recording));
        out.extend(active.map(|attempt| Effect::Inspect(attempt.id.clone())));
        if !self.connected {
            return;
        }
        let mut due: Vec<&mut Attempt> = self
            .attempts
            .values_mut()
            .filter(|a| a.is_unacknowledged())
            .filter(|a| a.reported_at.is_none_or(|at| now.monotonic.since(at) >= RESEND_AFTER_MS))
            .collect();
        due.sort_by_key(|attempt| attempt.reported_at);
        for attempt in due.into_iter().take(RESENDS_PER_TICK) {
            report_state(attempt, now, out);
        }
    }

    pub(super) fn journal_failed(&mut self, message: &str, out: &mut Vec<Effect>) {
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

    pub(super) fn connected(&mut self, epoch: Epoch, now: Now, out: &mut Vec<Effect>) {
        self.connected = true;
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
        let whole = parts.into_iter().map(|attempts| Inventory { attempts, more: true, sealing_key: None });
        for part in whole.chain([Inventory { attempts: reports, more: false, sealing_key: None }]) {
            out.push(Effect::Send(ToOperator::Inventory(part)));
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.refused.clear();
    }

    pub(super) fn received(&mut self, message: ToAgent, facts: &Facts, now: Now, out: &mut Vec<Effect>) {
        match message {
            ToAgent::Start(start) => self.start(start, facts, now, out),
            ToAgent::Cancel(cancel) => self.cancel(cancel, facts, now, out),
            ToAgent::Ack(ack) => self.ack(ack, out),
            ToAgent::Forget(forget) => self.forget(forget, now, out),
            ToAgent::Welcome(_) | ToAgent::Refuse(_) => {
                out.push(Effect::Ignored { what: Ignored::Handshake, attempt: None });
            }
            // It concerns the record of what was done, and nothing that is done.
            ToAgent::AuditHead(_) => {}
        }
    }

    pub(super) fn raise_epoch(&mut self, epoch: Epoch, out: &mut Vec<Effect>) {
        if epoch > self.highest_epoch {
            self.highest_epoch = epoch;
            out.push(Effect::SetEpoch(epoch));
        }
    }

    // --- sending ------------------------------------------------------------------------------------------------

    pub(super) fn attempt_mut(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        self.attempts.get_mut(&id.directory_name()).filter(|attempt| attempt.id == *id)
    }

    pub(super) fn send(&self, message: ToOperator, out: &mut Vec<Effect>) {
        if self.connected {
            out.push(Effect::Send(message));
        }
    }

    pub(super) fn refuse(
        &mut self,
        id: &AttemptId,
        spec_hash: &SpecHash,
        refusal: Refusal,
        out: &mut Vec<Effect>,
    ) {
        self.decline(id, spec_hash, refusal, 0, out);
    }

    pub(super) fn decline(
        &mut self,
        id: &AttemptId,
        spec_hash: &SpecHash,
        refusal: Refusal,
        offer: u32,
        out: &mut Vec<Effect>,
    ) {
        if !self.connected {
            return;
        }
        // A leader that learns of a higher epoch raises its own and sends another `Start`.
        let passing = matches!(refusal, Refusal::StaleEpoch { .. });
        let offer = if refusal.is_temporary() { offer } else { 0 };
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
