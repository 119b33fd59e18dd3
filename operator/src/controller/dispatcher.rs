//! Dispatch: `Start`, `Cancel` and `Forget` into the send queues of Sessions.

use sentinel_audit::Record;
use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::Action;
use sentinel_core::reconcile::execution::{Execution, Sent};
use sentinel_core::reconcile::ledger::Applied;
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{AttemptId, SessionId};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::Deadlines;
use sentinel_protocol::to_agent::{Cancel, Forget, Start};
use sentinel_protocol::to_operator::Refused;
use sentinel_protocol::version::Version;

use sentinel_secrets::values::SecretValues;

use super::context::{Context, Parts};
use super::counters::Counters;
use super::secrets::{SecretReader, Unresolved};
use super::task_runs::TaskRuns;
use crate::audit::Audit;
use crate::kill_point::KillPoint;

/// Delay before a message that no Session took is sent again, milliseconds.
const RESEND_MS: u64 = 200;

/// Delay before Secrets are read again that could not be read, milliseconds.
const READ_AGAIN_MS: u64 = 2_000;

/// Sends the messages of one Task.
pub(super) struct Dispatcher<'a> {
    pub(super) context: &'a Context,
    pub(super) plan: &'a TaskPlan,
    pub(super) runs: &'a TaskRuns,
    pub(super) now: Now,
}

impl Dispatcher<'_> {
    /// Sends the message of an action, which is not [`Action::Start`]; returns when to reconcile again, if that is needed.
    pub(super) fn dispatch(&self, action: &Action) -> Option<Monotonic> {
        match action {
            Action::Cancel(attempt) => self.cancel(action, attempt),
            Action::Forget(attempt) => self.forget(action, attempt),
            _ => None,
        }
    }

    /// Sends the message of [`Action::Start`], with the values of its Secrets; as [`Self::dispatch`].
    pub(super) async fn start(&self, action: &Action, secrets: &mut SecretReader) -> Option<Monotonic> {
        let Action::Start { attempt, start_ms, total_ms } = action else { return None };
        let facts = self.context.parts.runs.facts(&attempt.task, attempt.run)?;
        // The spec of a Run that was taken over may have changed; then nothing of it is started.
        let request = facts.request.clone()?;
        let offer = self.runs.lock().current.as_ref().map_or(1, |run| run.ledger.offer(&attempt.node));
        let timeouts = &self.plan.timeouts;
        let start = Start {
            attempt: attempt.clone(),
            spec_hash: facts.spec_hash.clone(),
            epoch: self.context.epoch(),
            task: facts.task.clone(),
            request,
            deadlines: Deadlines {
                start_ms: *start_ms,
                run_ms: timeouts.run_ms,
                idle_ms: timeouts.idle_ms,
                total_ms: *total_ms,
                grace_ms: timeouts.grace_ms,
            },
            credit: 0,
            offer,
            trace: facts.trace.for_command(attempt, self.context.parts.runs.endings().traces().is_on()),
            requested_by: facts.requested_by_for_nodes(),
            signed: facts.signed.clone(),
            secrets: None,
        };
        let version = self.context.parts.fleet.protocol_version(&attempt.node);
        if let Some(version) = version.filter(|version| *version < start.needs()) {
            return self.refuse_for_old_agent(&start, version);
        }
        let values = match self.secrets_of(&start, secrets).await {
            Ok(values) => values,
            Err(again_at) => return again_at,
        };
        let session = self.context.parts.fleet.start(start, values.as_ref());
        let Some(session) = session else { return Some(self.undelivered()) };
        KillPoint::StartHanded.pass();
        // Sent again, it is the same.
        if offer == 1 && !self.was_sent(attempt, |execution| execution.started.as_ref()) {
            let (spec_hash, epoch) = (facts.spec_hash.clone(), self.context.epoch());
            self.audit().record(|| Record::Dispatched { attempt: attempt.clone(), spec_hash, epoch });
        }
        Counters::add(&self.context.counters.starts);
        self.apply_sent(action, &session);
        None
    }

    /// The values of the Secrets of a `Start`, `None` where it goes without. Where it is not sent: when to reconcile again, `None` if
    /// its target has ended.
    async fn secrets_of(
        &self,
        start: &Start,
        secrets: &mut SecretReader,
    ) -> Result<Option<SecretValues>, Option<Monotonic>> {
        if !start.request.needs_secrets() {
            return Ok(None);
        }
        let Parts { cluster, fleet, .. } = &self.context.parts;
        if fleet.takes_secrets(&start.attempt.node) == Some(false) {
            let message = "the node's agent takes no values of Secrets; upgrade the agent";
            return Err(self.refuse(start, message.to_owned()));
        }
        match secrets.resolve(&**cluster, &start.task, &start.request).await {
            Ok(values) => Ok(Some(values)),
            Err(Unresolved::Later(error)) => {
                tracing::warn!(attempt = %start.attempt, error, "unable to read the secrets of a command; will retry");
                Err(Some(self.now.monotonic.plus(READ_AGAIN_MS)))
            }
            // Its agent may have accepted it: it reports what it has, and refuses what it has not.
            Err(Unresolved::Never(_)) if self.may_be_at_agent(start) => Ok(None),
            Err(Unresolved::Never(message)) => Err(self.refuse(start, message)),
        }
    }

    /// Whether an agent may have this Attempt.
    fn may_be_at_agent(&self, start: &Start) -> bool {
        let mut runs = self.runs.lock();
        let run = runs.get_or_current(Some(start.attempt.run));
        run.and_then(|run| run.ledger.execution(&start.attempt.node)).is_some_and(Execution::is_active)
    }

    /// An agent that does not know a limit or a clock would run the command without it. Nothing is sent, and the target
    /// ends as if the agent had refused.
    fn refuse_for_old_agent(&self, start: &Start, version: Version) -> Option<Monotonic> {
        let fields = start.unknown_to(version).join(", ");
        let message =
            format!("the node's agent is of an older release that does not know {fields}; upgrade the agent");
        self.refuse(start, message)
    }

    /// The target ends as if its agent had refused the `Start`, which is not sent.
    fn refuse(&self, start: &Start, message: String) -> Option<Monotonic> {
        let refused = Refused {
            attempt: start.attempt.clone(),
            spec_hash: start.spec_hash.clone(),
            refusal: Refusal::InvalidRequest { message: message.into() },
            offer: 0,
        };
        let mut runs = self.runs.lock();
        let applied = runs.current.as_mut().map(|run| run.ledger.apply_refusal(&refused, self.now.wall));
        if applied == Some(Applied::Changed) {
            self.context.parts.runs.endings().refused(&refused);
        }
        // One that was accepted while its agent was of a newer release is not sent; its own start clock ends it.
        (applied == Some(Applied::Changed)).then_some(self.now.monotonic)
    }

    fn cancel(&self, action: &Action, attempt: &AttemptId) -> Option<Monotonic> {
        let facts = self.context.parts.runs.facts(&attempt.task, attempt.run)?;
        let spec_hash = facts.spec_hash.clone();
        let epoch = self.context.epoch();
        let requested_by = self.runs.lock().get(attempt.run).and_then(|run| run.cancelled_by.clone());
        let cancel = Cancel {
            attempt: attempt.clone(),
            spec_hash,
            epoch,
            requested_by: requested_by.clone().map(Box::new),
        };
        let Some(session) = self.context.parts.fleet.cancel(cancel) else { return Some(self.undelivered()) };
        Counters::add(&self.context.counters.cancels);
        if !self.was_sent(attempt, |execution| execution.cancelled.as_ref()) {
            self.audit().record(|| Record::CancelSent { attempt: attempt.clone(), epoch, requested_by });
        }
        self.apply_sent(action, &session);
        None
    }

    fn forget(&self, action: &Action, attempt: &AttemptId) -> Option<Monotonic> {
        KillPoint::Forgets.pass();
        let forget = Forget { attempt: attempt.clone(), epoch: self.context.epoch() };
        let Some(session) = self.context.parts.fleet.forget(forget) else { return Some(self.undelivered()) };
        Counters::add(&self.context.counters.forgets);
        self.apply_sent(action, &session);
        None
    }

    fn audit(&self) -> &Audit {
        self.context.audit()
    }

    /// Whether this operator has sent such a message about this Attempt before.
    fn was_sent(&self, attempt: &AttemptId, sent: fn(&Execution) -> Option<&Sent>) -> bool {
        let runs = self.runs.lock();
        let execution = runs.get(attempt.run).and_then(|run| run.ledger.execution(&attempt.node));
        let latest = execution.filter(|execution| execution.latest.number == attempt.attempt);
        latest.and_then(sent).is_some()
    }

    /// Notes in the ledger which Session took the message.
    fn apply_sent(&self, action: &Action, session: &SessionId) {
        if let Some(run) = self.runs.lock().get_or_current(action.run()) {
            run.ledger.apply_sent(action, session, self.now.monotonic);
        }
    }

    /// No Session, or a full send queue: when to send again.
    fn undelivered(&self) -> Monotonic {
        Counters::add(&self.context.counters.undelivered);
        self.now.monotonic.plus(RESEND_MS)
    }
}
