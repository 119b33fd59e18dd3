//! Whether a command may start: when its `Start` arrives, and again when it is launched, which may be long after.

use sentinel_core::agent::{Permit, PolicyVerdict};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::Start;

use crate::host;
use crate::journal::AttemptDir;
use crate::policy::PolicyGate;

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

    /// What is decided about a `Start` now. One that this node has already has its use of what was signed.
    pub(super) fn verdict(&mut self, start: &Start, is_known: bool) -> PolicyVerdict {
        let now = host::wall_clock();
        let verdict = self.gate.verdict(start, now);
        self.version = self.gate.version();
        if is_known { verdict } else { self.gate.with_uses(verdict, &start.attempt, now) }
    }

    /// Uses up what was signed, if the permit rests on that, before the Attempt is recorded.
    ///
    /// # Errors
    /// Why it may not be used.
    pub(super) fn use_up(&self, permit: &Permit, attempt: &AttemptId) -> Result<(), Refusal> {
        self.gate.use_up(permit, attempt, host::wall_clock())
    }

    /// Notes that the Attempt that was allowed last is in the Journal.
    pub(super) fn note_recorded(&mut self, attempt: &AttemptId) {
        self.recorded = Some((attempt.clone(), self.version));
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
                let verdict = self.gate.verdict(&accepted.start, host::wall_clock());
                match verdict.permit()? {
                    Some(now) if accepted.permit.is_none() => Err(Refusal::Policy {
                        rule: now.rule.clone(),
                        why: Some("it was accepted before this node had a policy; run it again".into()),
                    }),
                    _ => Ok(()),
                }
            }
            // Without a readable request nothing can be started.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
