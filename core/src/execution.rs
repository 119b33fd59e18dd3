//! What the operator knows of one Execution: its latest Attempt, and the ones before it.

use sentinel_protocol::ids::SessionId;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_operator::{Ended, ReportedState, Running, Stage};

use crate::ledger::Told;
use crate::moment::Moment;

/// A Run on one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Execution {
    /// The latest Attempt.
    pub latest: Tried,
    /// Since when the latest could have been started: the start clock.
    pub turn_at: Option<Moment>,
    /// The last `Start` of the latest that was handed to a Session.
    pub started: Option<Sent>,
    /// Which offer of the latest was made last in this operator's life; 0 before the first.
    offers: u32,
    /// The last offer was declined for a reason that passes, and nothing is under way.
    declined: Option<Declined>,
    /// The last `Cancel` of the latest that was handed to a Session.
    pub cancelled: Option<Sent>,
    /// The agent answered an Inventory in which the latest, that it once owned, is missing.
    pub missing: bool,
    /// When it is tried again, the latest having ended.
    pub retry_at: Option<Moment>,
    /// The Attempts before the latest, oldest first.
    earlier: Vec<Tried>,
}

/// One Attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// Its number, from 1.
    pub number: u32,
    /// What it is, as far as anybody said.
    pub known: Known,
    /// How much of it History holds.
    pub archived: Option<Stage>,
    /// Its agent said that it owns it, and was not told to forget it since.
    pub held: bool,
}

/// An agent declined an offer for a reason that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// The reason.
    pub refusal: Refusal,
    /// When the Attempt is offered again.
    pub again_at: Moment,
    /// How many offers in a row were declined.
    times: u32,
}

/// A message handed to a Session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// To which one; a later Session has not seen it.
    pub session: SessionId,
    /// When.
    pub at: Moment,
}

/// What an Attempt is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Known {
    /// Nobody said anything.
    #[default]
    Nothing,
    /// In the agent's Journal, not yet started.
    Accepted,
    /// Its command runs.
    Running(Running),
    /// It is over, by the agent's word.
    Ended(Box<Ended>),
    /// It is over, by the operator's own conclusion.
    Concluded(Box<Ended>),
}

/// After the first refusal that passes, the Attempt is offered again after this time, milliseconds; after each further
/// one after twice the time.
const OFFER_AGAIN_MS: u64 = 500;

/// The longest wait between two offers, milliseconds: a node that is busy for minutes is used soon after it has room,
/// and asked seldom enough that a thousand waiting targets are no load.
const OFFER_AGAIN_AT_MOST_MS: u64 = 5_000;

impl Execution {
    /// The number of the offer that the next `Start` of the latest Attempt is. A `Start` that is sent once more in its
    /// Session is the same offer.
    pub fn offer(&self) -> u32 {
        self.offers.saturating_add(u32::from(self.started.is_none())).max(1)
    }

    /// The reason that passes for which the latest Attempt waits, and when it is offered again.
    pub fn declined(&self) -> Option<&Declined> {
        self.declined.as_ref()
    }

    /// A `Start` of the latest Attempt was handed to a Session.
    pub(crate) fn sent_start(&mut self, sent: Sent) {
        self.offers = self.offer();
        self.started = Some(sent);
    }

    /// The agent declined an offer of the latest Attempt for a reason that passes. When it is the offer that was made
    /// last, none is on its way: the agent declines the earlier ones as well, however late they arrive.
    pub(crate) fn decline(&mut self, offer: u32, refusal: &Refusal) -> Told {
        let Some(sent) = self.started.take_if(|_| offer == self.offers) else { return Told::Known };
        let times = self.declined.as_ref().map_or(0, |declined| declined.times).saturating_add(1);
        let wait = OFFER_AGAIN_MS.saturating_mul(1 << (times - 1).min(8)).min(OFFER_AGAIN_AT_MOST_MS);
        self.declined = Some(Declined { refusal: refusal.clone(), again_at: sent.at.plus(wait), times });
        Told::News
    }

    /// Whether its latest Attempt has its Outcome.
    pub fn is_over(&self) -> bool {
        self.ended().is_some()
    }

    /// How its latest Attempt ended.
    pub fn ended(&self) -> Option<&Ended> {
        self.latest.ended()
    }

    /// Whether an agent has, or may have, a command for it: it takes a place in the rollout.
    pub fn is_under_way(&self) -> bool {
        !self.is_over() && (self.started.is_some() || self.latest.known != Known::Nothing)
    }

    /// Its Attempts, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = &Tried> {
        self.earlier.iter().chain([&self.latest])
    }

    /// The Attempt before the latest.
    pub fn before_latest(&self) -> Option<&Tried> {
        self.earlier.last()
    }

    /// The Attempts of these numbers are the ones that its agent owns.
    pub(crate) fn hold_only(&mut self, owned: impl Fn(u32) -> bool) {
        for tried in self.earlier.iter_mut().chain([&mut self.latest]) {
            tried.held &= owned(tried.number);
        }
    }

    /// Nothing was ever handed out for its latest Attempt, and nobody has heard of it.
    fn is_unsent(&self) -> bool {
        self.latest.known == Known::Nothing && self.started.is_none()
    }

    /// Takes in what an agent says of one of its Attempts.
    pub(crate) fn hear(&mut self, number: u32, state: &ReportedState) -> Told {
        let tried = self.attempt_mut(number);
        // Who reports it has not forgotten it, whatever was said before.
        tried.held = true;
        let told = tried.learn(state);
        if number == self.latest.number {
            self.missing = false;
            self.declined = None;
        } else if told == Told::News && self.is_unsent() {
            // It is not over as it was thought to be, so whether it is followed by another is to be asked anew.
            self.withdraw();
        }
        told
    }

    /// The Attempt of that number. One above the latest becomes the latest; what was said of the one before stays.
    pub(crate) fn attempt_mut(&mut self, number: u32) -> &mut Tried {
        if number > self.latest.number {
            let fresh = Self { latest: Tried { number, ..Tried::default() }, ..Self::default() };
            let before = std::mem::replace(self, fresh);
            self.earlier = before.earlier;
            if before.latest != (Tried { number: before.latest.number, ..Tried::default() }) {
                self.earlier.push(before.latest);
            }
        }
        if number == self.latest.number {
            return &mut self.latest;
        }
        let at = self.earlier.partition_point(|tried| tried.number < number);
        if self.earlier.get(at).is_none_or(|tried| tried.number != number) {
            self.earlier.insert(at, Tried { number, ..Tried::default() });
        }
        #[expect(clippy::indexing_slicing, reason = "just looked up or inserted")]
        &mut self.earlier[at]
    }

    /// The latest Attempt, for which nobody was told anything, is given up: the one before it was the last.
    pub(crate) fn withdraw(&mut self) {
        if let Some(latest) = self.earlier.pop() {
            let earlier = std::mem::take(&mut self.earlier);
            *self = Self { latest, earlier, ..Self::default() };
        }
    }
}

impl Default for Tried {
    fn default() -> Self {
        Self { number: 1, known: Known::Nothing, archived: None, held: false }
    }
}

impl Tried {
    /// How it ended.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.known {
            Known::Ended(ended) | Known::Concluded(ended) => Some(ended),
            _ => None,
        }
    }

    /// Whether it is over by a conclusion of this operator that nobody else knows of: no agent, and not History.
    pub fn is_only_concluded(&self) -> bool {
        matches!(self.known, Known::Concluded(_)) && self.archived != Some(Stage::Ended)
    }

    /// Notes how much of it History holds.
    pub(crate) fn note_archived(&mut self, stage: Stage) -> Told {
        if self.archived >= Some(stage) {
            return Told::Known;
        }
        self.archived = Some(stage);
        Told::News
    }

    /// Takes in evidence. A stage never goes back, and an Outcome never changes but from a conclusion of `Lost` to
    /// what the agent knows.
    pub(crate) fn learn(&mut self, state: &ReportedState) -> Told {
        let before = self.known.clone();
        match (&self.known, state) {
            (Known::Ended(_), _) => {}
            // Evidence of a command that ran stands above every conclusion.
            (Known::Concluded(ours), ReportedState::Ended(theirs))
                if matches!(ours.outcome, Outcome::Lost { .. }) || theirs.started_at.is_some() =>
            {
                self.known = Known::Ended(theirs.clone());
                self.archived = None;
            }
            (Known::Concluded(_), _) => {}
            (_, ReportedState::Ended(ended)) => self.known = Known::Ended(ended.clone()),
            (Known::Nothing | Known::Accepted, ReportedState::Running(running)) => {
                self.known = Known::Running(running.clone());
            }
            (Known::Nothing, ReportedState::Accepted) => self.known = Known::Accepted,
            _ => {}
        }
        if self.known == before { Told::Known } else { Told::News }
    }

    /// The operator concludes how it ended. What an agent said stands against it.
    pub(crate) fn conclude(&mut self, ended: Box<Ended>) -> Told {
        if self.ended().is_some() {
            return Told::Known;
        }
        self.known = Known::Concluded(ended);
        Told::News
    }
}
