//! Whether a command may start: when its `Start` arrives, and again when it is launched, which may be long after.

use sentinel_core::agent::{Permit, PolicyVerdict};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::Start;

use crate::host;
use crate::journal::{Accepted, AttemptDir, JournalError};
use crate::policy::PolicyGate;
use crate::shortage::describe;

/// The policy, and what it has decided about last.
#[derive(Debug)]
pub(super) struct Permission {
    gate: PolicyGate,
    /// The version of the policy that decided about the latest `Start`.
    version: u64,
    /// The Attempt that was recorded last, and the version of the policy that had allowed it.
    recorded: Option<(AttemptId, u64)>,
}

impl Permission {
    pub(super) fn new(gate: PolicyGate) -> Self {
        Self { gate, version: 0, recorded: None }
    }

    /// What is decided about a `Start` now. What was accepted of it before has its use of what was signed.
    pub(super) fn verdict(&mut self, start: &Start, accepted: Option<&Accepted>) -> PolicyVerdict {
        let now = host::wall_clock();
        let verdict = self.gate.verdict(start, now);
        self.version = self.gate.decided_by();
        match verdict.permit() {
            Ok(Some(permit)) if has_use(accepted, permit) => verdict,
            _ => self.gate.with_uses(verdict, &start.attempt, now),
        }
    }

    /// Uses up what was signed, if the permit rests on that, before the Attempt is recorded.
    ///
    /// # Errors
    /// Why it may not be used.
    pub(super) fn use_up(&self, permit: &Permit, attempt: &AttemptId) -> Result<(), Refusal> {
        self.gate.use_up(permit, attempt, host::wall_clock())
    }

    /// The same for what was accepted before: it may have its use already.
    ///
    /// # Errors
    /// Why it may not be used.
    pub(super) fn use_up_again(
        &self,
        permit: &Permit,
        attempt: &AttemptId,
        accepted: Option<&Accepted>,
    ) -> Result<(), Refusal> {
        if has_use(accepted, permit) { Ok(()) } else { self.use_up(permit, attempt) }
    }

    /// Notes that the Attempt that was allowed last is in the Journal.
    pub(super) fn note_recorded(&mut self, attempt: &AttemptId) {
        self.recorded = Some((attempt.clone(), self.version));
    }

    /// What is decided by a policy that did not change while the request was examined, which can take seconds.
    fn latest_verdict(&mut self, start: &Start) -> PolicyVerdict {
        loop {
            let verdict = self.gate.verdict(start, host::wall_clock());
            if self.gate.decided_by() == self.gate.version() {
                return verdict;
            }
        }
    }

    /// Whether an Attempt may still start: it may have been accepted by another agent, and under another policy.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn check_again(&mut self, dir: &AttemptDir, attempt: &AttemptId) -> Result<(), Refusal> {
        if let Some(refusal) = self.gate.kill_switch() {
            return Err(refusal);
        }
        let version = self.gate.version();
        if self.recorded.as_ref().is_some_and(|(recorded, by)| recorded == attempt && *by == version) {
            return Ok(());
        }
        match dir.accepted() {
            // What runs is what the first permit names: the process that becomes the command compares it.
            Ok(Some(accepted)) => {
                let verdict = self.latest_verdict(&accepted.start);
                if let Some(refusal) = self.gate.kill_switch() {
                    return Err(refusal);
                }
                let Some(now) = verdict.permit()? else { return Ok(()) };
                match without_its_use_or_place(&accepted, now) {
                    None => Ok(()),
                    Some(why) => Err(Refusal::Policy { rule: now.rule.clone(), why: Some(why.into()) }),
                }
            }
            // Without a readable request nothing can be started.
            Ok(None) | Err(JournalError::Corrupt { .. }) => Ok(()),
            // The process that starts it may be able to read it.
            Err(error) => Err(Refusal::JournalUnsafe { message: describe(&error).into() }),
        }
    }
}

/// Whether what was accepted has used what this permit rests on, if that was signed.
fn has_use(accepted: Option<&Accepted>, permit: &Permit) -> bool {
    let Some(signed) = &permit.signed else { return true };
    let used = accepted.and_then(|accepted| accepted.permit.as_ref()?.signed.as_ref());
    used.is_some_and(|used| used.statement == signed.statement)
}

/// Why what was accepted cannot start by this permit, although it would be allowed if it was asked for now: neither a use of what was
/// signed nor a place among those that the rule bounds was taken for it.
fn without_its_use_or_place(accepted: &Accepted, now: &Permit) -> Option<String> {
    let Some(then) = &accepted.permit else {
        return Some("it was accepted before this node had a policy; run it again".to_owned());
    };
    let was_bounded = |limit| then.rule == now.rule && then.concurrent.is_some_and(|then| then <= limit);
    let is_whole = now.concurrent.is_none_or(was_bounded) && has_use(Some(accepted), now);
    (!is_whole).then(|| format!("it was accepted by rule {}, when that was another; run it again", then.rule))
}
