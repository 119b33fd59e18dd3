//! What the operator knows of one Execution: its latest Attempt and the earlier ones.

use sentinel_protocol::ids::SessionId;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::{Ended, ReportedState, Running};

use crate::time::Monotonic;

/// A Run on one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Execution {
    /// The latest Attempt.
    pub latest: AttemptState,
    /// Since when the rollout admits the latest Attempt: its start clock.
    pub admitted_at: Option<Monotonic>,
    /// The last `Start` of the latest Attempt that a Session took.
    pub started: Option<Sent>,
    /// The number of the last offer of the latest Attempt that this operator made; 0 before the first.
    offers: u32,
    /// The last offer was declined for a temporary reason, and no other is on its way.
    declined: Option<Declined>,
    /// The last `Cancel` of the latest Attempt that a Session took.
    pub cancelled: Option<Sent>,
    /// The latest Attempt, which the agent once owned, is missing in its Inventory.
    pub missing: bool,
    /// When it is retried, the latest having ended.
    pub retry_at: Option<Monotonic>,
    /// The earlier Attempts, oldest first.
    earlier: Vec<AttemptState>,
}

/// One Attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptState {
    /// Its number, from 1.
    pub number: u32,
    /// Its phase, as far as known.
    pub phase: AttemptPhase,
    /// How much of it History has.
    pub archived: Option<Stage>,
    /// Its agent owns it: it was reported, and no `Forget` was sent since.
    pub owned: bool,
}

/// An agent declined an offer for a temporary reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// The reason.
    pub refusal: Refusal,
    /// When the Attempt is offered again.
    pub again_at: Monotonic,
    /// How many offers in a row were declined.
    times: u32,
}

/// A message that a Session took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The Session; a later one has not seen the message.
    pub session: SessionId,
    /// When.
    pub at: Monotonic,
}

/// How far an Attempt is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum AttemptPhase {
    /// No Report of it has arrived.
    #[default]
    Unknown,
    /// In the agent's Journal, not started yet.
    Accepted,
    /// Its command runs.
    Running(Running),
    /// Over, as reported by the agent.
    Ended(Box<Ended>),
    /// Over, as concluded by the operator.
    Concluded(Box<Ended>),
}

/// What applying evidence to the ledger changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The ledger changed.
    Changed,
    /// The ledger already had this, or something later.
    Unchanged,
    /// The evidence is about another Run of the Task.
    OtherRun,
    /// The same Attempt with another spec hash: ignored.
    Conflict,
    /// No operator can have dispatched an Attempt of that number in this Run: ignored, and not archived.
    NeverDispatched,
}

/// Backoff before the second offer after a temporary Refusal, milliseconds; it doubles with each further one.
const OFFER_AGAIN_MS: u64 = 500;

/// The longest backoff between two offers, milliseconds: short enough to use a busy node soon after it has room, long
/// enough that a thousand waiting targets cause no load.
const OFFER_AGAIN_AT_MOST_MS: u64 = 5_000;

impl Execution {
    /// The offer number of the next `Start` of the latest Attempt. A `Start` that is resent in the same Session keeps its
    /// number.
    pub fn offer(&self) -> u32 {
        self.offers.saturating_add(u32::from(self.started.is_none())).max(1)
    }

    /// The temporary Refusal that the latest Attempt waits for, if any.
    pub fn declined(&self) -> Option<&Declined> {
        self.declined.as_ref()
    }

    /// A `Start` of the latest Attempt was handed to a Session.
    pub(crate) fn sent_start(&mut self, sent: Sent) {
        self.offers = self.offer();
        self.started = Some(sent);
    }

    /// The agent declined an offer of the latest Attempt for a temporary reason. If it was the last offer, none is on its
    /// way: the agent also declines the earlier ones, however late they arrive.
    pub(crate) fn note_declined(&mut self, offer: u32, refusal: &Refusal) -> Applied {
        let Some(sent) = self.started.take_if(|_| offer == self.offers) else { return Applied::Unchanged };
        let times = self.declined.as_ref().map_or(0, |declined| declined.times).saturating_add(1);
        let wait = OFFER_AGAIN_MS.saturating_mul(1 << (times - 1).min(8)).min(OFFER_AGAIN_AT_MOST_MS);
        self.declined = Some(Declined { refusal: refusal.clone(), again_at: sent.at.plus(wait), times });
        Applied::Changed
    }

    /// Whether its latest Attempt has its Outcome.
    pub fn is_over(&self) -> bool {
        self.ended().is_some()
    }

    /// How its latest Attempt ended.
    pub fn ended(&self) -> Option<&Ended> {
        self.latest.ended()
    }

    /// Whether an agent has, or may have, a command for it: it takes a slot of `maxConcurrent`.
    pub fn is_active(&self) -> bool {
        !self.is_over() && (self.started.is_some() || self.latest.phase != AttemptPhase::Unknown)
    }

    /// Its Attempts, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = &AttemptState> {
        self.earlier.iter().chain([&self.latest])
    }

    /// The previous Attempt.
    pub fn before_latest(&self) -> Option<&AttemptState> {
        self.earlier.last()
    }

    /// Its agent owns only the Attempts with these numbers.
    pub(crate) fn retain_owned(&mut self, owned: impl Fn(u32) -> bool) {
        for attempt in self.earlier.iter_mut().chain([&mut self.latest]) {
            attempt.owned &= owned(attempt.number);
        }
    }

    /// Its latest Attempt was never dispatched, and no evidence of it exists.
    fn is_unsent(&self) -> bool {
        self.latest.phase == AttemptPhase::Unknown && self.started.is_none()
    }

    /// Applies a Report of one of its Attempts.
    pub(crate) fn apply_report(&mut self, number: u32, state: &ReportedState) -> Applied {
        let attempt = self.attempt_mut(number);
        // An agent that reports it has not forgotten it.
        attempt.owned = true;
        let applied = attempt.observe(state);
        if number == self.latest.number {
            self.missing = false;
            self.declined = None;
        } else if applied == Applied::Changed && self.is_unsent() {
            // It did not end as concluded, so whether it is retried must be decided again.
            self.abandon_retry();
        }
        applied
    }

    /// The Attempt with this number; one above the latest becomes the latest.
    pub(crate) fn attempt_mut(&mut self, number: u32) -> &mut AttemptState {
        if number > self.latest.number {
            let fresh =
                Self { latest: AttemptState { number, ..AttemptState::default() }, ..Self::default() };
            let before = std::mem::replace(self, fresh);
            self.earlier = before.earlier;
            if before.latest != (AttemptState { number: before.latest.number, ..AttemptState::default() }) {
                self.earlier.push(before.latest);
            }
        }
        if number == self.latest.number {
            return &mut self.latest;
        }
        let at = self.earlier.partition_point(|attempt| attempt.number < number);
        if self.earlier.get(at).is_none_or(|attempt| attempt.number != number) {
            self.earlier.insert(at, AttemptState { number, ..AttemptState::default() });
        }
        #[expect(clippy::indexing_slicing, reason = "just looked up or inserted")]
        &mut self.earlier[at]
    }

    /// The latest Attempt, which was never dispatched, is given up: the previous one was the last.
    pub(crate) fn abandon_retry(&mut self) {
        if let Some(latest) = self.earlier.pop() {
            let earlier = std::mem::take(&mut self.earlier);
            *self = Self { latest, earlier, ..Self::default() };
        }
    }
}

impl Default for AttemptState {
    fn default() -> Self {
        Self { number: 1, phase: AttemptPhase::Unknown, archived: None, owned: false }
    }
}

impl AttemptState {
    /// How it ended.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            AttemptPhase::Ended(ended) | AttemptPhase::Concluded(ended) => Some(ended),
            _ => None,
        }
    }

    /// Whether only this operator's memory knows that it is over: neither an agent nor History does.
    pub fn is_only_concluded(&self) -> bool {
        matches!(self.phase, AttemptPhase::Concluded(_)) && self.archived != Some(Stage::Ended)
    }

    /// Notes how much of it History has.
    pub(crate) fn note_archived(&mut self, stage: Stage) -> Applied {
        if self.archived >= Some(stage) {
            return Applied::Unchanged;
        }
        self.archived = Some(stage);
        Applied::Changed
    }

    /// Applies evidence. A phase never goes back, and an Outcome changes only from a concluded one to the agent's.
    pub(crate) fn observe(&mut self, state: &ReportedState) -> Applied {
        let before = self.phase.clone();
        match (&self.phase, state) {
            (AttemptPhase::Ended(_), _) => {}
            // Evidence that the command ran outranks every conclusion.
            (AttemptPhase::Concluded(ours), ReportedState::Ended(theirs))
                if matches!(ours.outcome, Outcome::Lost { .. }) || theirs.started_at.is_some() =>
            {
                self.phase = AttemptPhase::Ended(theirs.clone());
                self.archived = None;
            }
            (AttemptPhase::Concluded(_), _) => {}
            (_, ReportedState::Ended(ended)) => self.phase = AttemptPhase::Ended(ended.clone()),
            (AttemptPhase::Unknown | AttemptPhase::Accepted, ReportedState::Running(running)) => {
                self.phase = AttemptPhase::Running(running.clone());
            }
            (AttemptPhase::Unknown, ReportedState::Accepted) => self.phase = AttemptPhase::Accepted,
            _ => {}
        }
        if self.phase == before { Applied::Unchanged } else { Applied::Changed }
    }

    /// The operator concludes how it ended. An agent's Report outranks it.
    pub(crate) fn conclude(&mut self, ended: Box<Ended>) -> Applied {
        if self.ended().is_some() {
            return Applied::Unchanged;
        }
        self.phase = AttemptPhase::Concluded(ended);
        Applied::Changed
    }
}
