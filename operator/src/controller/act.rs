//! Act: what was decided is done, in a fixed order: durable intent first, then the deed.

use std::sync::Arc;

use kube::ResourceExt;
use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::ledger::Applied;
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::{Action, Decision, Finalizer, Notice, Write};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{AttemptId, SessionId};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::Deadlines;
use sentinel_protocol::to_agent::{Cancel, Forget, Start};
use sentinel_protocol::to_operator::{Ended, Refused};
use sentinel_protocol::version::Version;

use super::context::{Context, Counters};
use super::error::LookError;
use super::ledgers::{Page, Pages};
use super::observe::Sight;
use super::records::{attempt_record, run_record};
use super::slots::Slot;
use crate::cluster::{ClusterError, Publication};
use crate::history::record::Entry;
use crate::kill_point::KillPoint;
use crate::resource::marks::FINALIZER;
use crate::resource::slice::Frozen;
use crate::resource::status::TaskStatus;
use crate::resource::{Task, recorded};

/// Least time between two writes of one Task's status that nobody waits for, milliseconds.
const BETWEEN_WRITES_MS: u64 = 1000;

/// What no Session could take is offered again after this time, milliseconds.
const OFFER_AGAIN_MS: u64 = 200;

/// What the archiver was handed is handed over again after this time, milliseconds, unless it is archived by then.
const HAND_AGAIN_MS: u64 = 30_000;

/// What came of it.
pub(super) struct Acted {
    /// The Task as it now is; `None` when it is gone.
    pub(super) task: Option<Task>,
    /// When to look again at the latest.
    pub(super) wake_at: Option<Monotonic>,
}

/// Does what was decided. `status` is what the decision says, in the words of the resource.
pub(super) async fn act(
    context: &Arc<Context>,
    slot: &mut Slot,
    task: Task,
    plan: &TaskPlan,
    sight: &Sight,
    decision: Decision,
    now: Now,
) -> Result<Acted, LookError> {
    let mut act = Act { context, slot, task, plan, sight, now, wake_at: decision.wake_at };
    let frozen = act.freeze(&decision).await?;
    let status = recorded::write(&act.task, &decision.status, frozen.as_ref(), now.wall);
    act.begin(&decision, status).await?;
    let mut gone = false;
    for action in decision.actions {
        gone |= act.perform(action).await? == After::Gone;
    }
    let wake_at = act.wake_at;
    Ok(Acted { task: (!gone).then_some(act.task), wake_at })
}

/// Writes a status by itself, for a Task that cannot be decided about.
pub(super) async fn write_only(
    context: &Context,
    slot: &mut Slot,
    task: Task,
    status: TaskStatus,
    now: Now,
) -> Result<Task, LookError> {
    if task.status.as_ref() == Some(&status) {
        return Ok(task);
    }
    write(context, slot, &task, status, now).await
}

async fn write(
    context: &Context,
    slot: &mut Slot,
    task: &Task,
    status: TaskStatus,
    now: Now,
) -> Result<Task, LookError> {
    let written = context.parts.cluster.write_status(task, status).await?;
    Ok(note_written(context, slot, written, now))
}

fn note_written(context: &Context, slot: &mut Slot, written: Task, now: Now) -> Task {
    Counters::add(&context.counters.status_writes);
    slot.status_at = Some(now.monotonic);
    slot.wrote(&written);
    written
}

struct Act<'a> {
    context: &'a Arc<Context>,
    slot: &'a mut Slot,
    task: Task,
    plan: &'a TaskPlan,
    sight: &'a Sight,
    now: Now,
    wake_at: Option<Monotonic>,
}

#[derive(Debug, PartialEq, Eq)]
enum After {
    There,
    Gone,
}

impl Act<'_> {
    /// A Run's target list becomes durable before the status that names it.
    async fn freeze(&self, decision: &Decision) -> Result<Option<Frozen>, LookError> {
        let (Some(targets), Some(run)) = (&decision.freeze, &decision.status.recorded.run) else {
            return Ok(None);
        };
        Ok(Some(self.context.parts.cluster.freeze_targets(&self.task, run.number, targets).await?))
    }

    /// Writes the status, if it says anything new and its time has come. An intent that cannot be written ends the
    /// look; other news waits for the next.
    async fn begin(&mut self, decision: &Decision, status: TaskStatus) -> Result<(), LookError> {
        if self.task.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let due = self.slot.status_at.map_or(self.now.monotonic, |at| at.plus(BETWEEN_WRITES_MS));
        if decision.write == Write::Soon && self.now.monotonic < due {
            self.look_again(due);
            return Ok(());
        }
        let had_slices = self.task.status.as_ref().and_then(|status| status.run.as_ref());
        let had_slices = had_slices.is_some_and(|run| run.target_slices > 0);
        let cluster = &self.context.parts.cluster;
        let written = if decision.actions.contains(&Action::AddFinalizer) {
            cluster.write_status_and_hold(&self.task, status).await
        } else {
            cluster.write_status(&self.task, status).await
        };
        match written.map_err(LookError::from) {
            Ok(written) => self.task = note_written(self.context, self.slot, written, self.now),
            Err(LookError::Cluster(error))
                if decision.write != Write::Intent && matches!(*error, ClusterError::Unavailable { .. }) =>
            {
                // Commands go on while the API server is away; its status catches up.
                tracing::warn!(task = %self.plan.task, %error, "the status is written later");
                self.look_again(self.now.monotonic.plus(5 * BETWEEN_WRITES_MS));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if let (Some(targets), Some(run)) = (&decision.freeze, &decision.status.recorded.run) {
            KillPoint::RunBegun.pass();
            Counters::add(&self.context.counters.runs_begun);
            self.slot.begun = Some(run.number);
            self.slot.targets = Some((run.number, Arc::new(targets.clone())));
            super::observe::turn_page(self.context, self.slot, &self.sight.book, self.plan, run);
            if had_slices {
                self.thaw();
            }
        }
        Ok(())
    }

    async fn perform(&mut self, action: Action) -> Result<After, LookError> {
        // Archiving compares with what the ledger had before.
        if !matches!(action, Action::ArchiveRun(_)) {
            self.note(&action);
        }
        match action {
            Action::AddFinalizer if self.task.finalizers().iter().any(|text| text == FINALIZER) => {}
            Action::AddFinalizer => self.set_finalizer(Finalizer::Present).await?,
            Action::RemoveFinalizer => {
                self.set_finalizer(Finalizer::Absent).await?;
                return Ok(After::Gone);
            }
            Action::DeleteTask => match self.context.parts.cluster.delete(self.plan.task.clone()).await {
                Ok(()) | Err(ClusterError::Gone { .. }) => return Ok(After::Gone),
                Err(error) => return Err(error.into()),
            },
            Action::Retry(_) => {
                Counters::add(&self.context.counters.retries);
                // The new Attempt is to be started now.
                self.look_again(self.now.monotonic);
            }
            Action::Start { .. } => self.start(&action),
            Action::Cancel(_) => self.cancel(&action),
            Action::Forget(_) => self.forget(&action),
            Action::Conclude { ref attempt, ref ended } => self.conclude(attempt, ended),
            Action::ArchiveRun(ref record) => self.archive_run(record, &action),
            Action::Publish(notice) => self.publish(notice),
            Action::Admit(_) | Action::RetryAt(..) | Action::AbandonRetry(_) => {}
        }
        Ok(After::There)
    }

    /// Notes in its Run's ledger what an action changes there.
    fn note(&self, action: &Action) {
        let mut pages = self.sight.book.pages();
        if let Some(page) = pages.page_of(action.run()) {
            page.ledger.apply(action, self.now.monotonic);
        }
    }

    fn note_sent(&self, action: &Action, session: &SessionId) {
        let mut pages = self.sight.book.pages();
        if let Some(page) = pages.page_of(action.run()) {
            page.ledger.apply_sent(action, session, self.now.monotonic);
        }
    }

    async fn set_finalizer(&mut self, finalizer: Finalizer) -> Result<(), LookError> {
        self.task = self.context.parts.cluster.set_finalizer(&self.task, finalizer).await?;
        self.slot.wrote(&self.task);
        Ok(())
    }

    fn start(&mut self, action: &Action) {
        let Action::Start { attempt, start_ms, total_ms } = action else { return };
        let (start_ms, total_ms) = (*start_ms, *total_ms);
        let Some(facts) = self.context.parts.ledgers.facts(&attempt.task, attempt.run) else { return };
        // The spec of a Run that was taken over may be another by now; then nothing of it is started.
        let Some(request) = facts.request.clone() else { return };
        let node = attempt.node.clone();
        let mut offer = 1;
        self.on_page(|page, _| offer = page.ledger.offer(&node));
        let start = Start {
            attempt: attempt.clone(),
            spec_hash: facts.spec_hash.clone(),
            epoch: self.context.epoch(),
            task: facts.task.clone(),
            request,
            deadlines: Deadlines {
                start_ms,
                run_ms: self.plan.timeouts.run_ms,
                idle_ms: self.plan.timeouts.idle_ms,
                total_ms,
                grace_ms: self.plan.timeouts.grace_ms,
            },
            credit: 0,
            offer,
        };
        let speaks = self.context.parts.fleet.speaks(&node);
        if let Some(speaks) = speaks.filter(|speaks| *speaks < start.needs()) {
            return self.refuse_for_old_agent(&start, speaks);
        }
        let session = self.context.parts.fleet.start(start);
        let Some(session) = session else { return self.offer_again() };
        KillPoint::StartHanded.pass();
        Counters::add(&self.context.counters.starts);
        self.note_sent(action, &session);
    }

    /// An agent that does not know a limit or clock would run the command without it. Nothing is sent, and the target
    /// is over as if the agent had declined.
    fn refuse_for_old_agent(&mut self, start: &Start, speaks: Version) {
        let fields = start.unknown_to(speaks).join(", ");
        let message =
            format!("the node's agent is of an older release that does not know {fields}; upgrade the agent");
        let refused = Refused {
            attempt: start.attempt.clone(),
            spec_hash: start.spec_hash.clone(),
            refusal: Refusal::InvalidRequest { message: message.into() },
            offer: 0,
        };
        let mut told = Applied::Unchanged;
        self.on_page(|page, now| told = page.ledger.apply_refusal(&refused, now.wall));
        // One that accepted it while it was of a newer release is not told to start; its own start clock ends it.
        if told == Applied::Changed {
            self.look_again(self.now.monotonic);
        }
    }

    fn cancel(&mut self, action: &Action) {
        let Action::Cancel(attempt) = action else { return };
        let Some(facts) = self.context.parts.ledgers.facts(&attempt.task, attempt.run) else { return };
        let spec_hash = facts.spec_hash.clone();
        let cancel = Cancel { attempt: attempt.clone(), spec_hash, epoch: self.context.epoch() };
        let Some(session) = self.context.parts.fleet.cancel(cancel) else { return self.offer_again() };
        Counters::add(&self.context.counters.cancels);
        self.note_sent(action, &session);
    }

    fn forget(&mut self, action: &Action) {
        let Action::Forget(attempt) = action else { return };
        KillPoint::Forgets.pass();
        let forget = Forget { attempt: attempt.clone(), epoch: self.context.epoch() };
        let Some(session) = self.context.parts.fleet.forget(forget) else { return self.offer_again() };
        Counters::add(&self.context.counters.forgets);
        self.note_sent(action, &session);
    }

    /// Noted at once, archived when the archiver takes it. Said again by every decision until it is.
    fn conclude(&mut self, attempt: &AttemptId, ended: &Ended) {
        let now = self.now.monotonic;
        let mut pages = self.sight.book.pages();
        let Some(page) = pages.page_mut(attempt.run) else { return };
        let handed = page.handed.conclusions.get(attempt).copied();
        let again = handed.map(|at| at.plus(HAND_AGAIN_MS)).filter(|again| now < *again);
        if let Some(again) = again {
            drop(pages);
            return self.look_again(again);
        }
        let record = attempt_record(page, attempt, ended, self.context.epoch());
        match self.context.parts.archiver.record(Entry::Attempt(Box::new(record))) {
            Ok(()) => {
                page.handed.conclusions.insert(attempt.clone(), now);
            }
            Err(_) => Counters::add(&self.context.counters.unarchived),
        }
        drop(pages);
        self.look_again(now.plus(HAND_AGAIN_MS));
    }

    fn archive_run(&mut self, record: &RunState, action: &Action) {
        let now = self.now.monotonic;
        let mut pages = self.sight.book.pages();
        let Some(page) = pages.page_mut(record.number) else { return };
        if record.finished_at.is_some() {
            KillPoint::RunOver.pass();
        }
        let newly_ended = record.finished_at.is_some()
            && page.ledger.record().is_none_or(|known| known.finished_at.is_none());
        page.ledger.apply(action, now);
        let handed = page.handed.run.as_ref().filter(|(handed, _)| handed == record);
        let again = handed.map(|(_, at)| at.plus(HAND_AGAIN_MS)).filter(|again| now < *again);
        if again.is_none() {
            let entry = Entry::Run(Box::new(run_record(page, record, self.context.epoch())));
            match self.context.parts.archiver.record(entry) {
                Ok(()) => page.handed.run = Some((record.clone(), now)),
                Err(_) => Counters::add(&self.context.counters.unarchived),
            }
        }
        drop(pages);
        if newly_ended {
            Counters::add(&self.context.counters.runs_ended);
        }
        self.look_again(again.unwrap_or_else(|| now.plus(HAND_AGAIN_MS)));
    }

    /// Events are for people: they hold nobody up, and one too many is dropped.
    fn publish(&self, notice: Notice) {
        let Ok(permit) = self.context.events.clone().try_acquire_owned() else {
            Counters::add(&self.context.counters.dropped_events);
            return;
        };
        let counters = self.context.counters.clone();
        let (cluster, task) = (self.context.parts.cluster.clone(), self.task.clone());
        tokio::spawn(async move {
            match cluster.publish(&task, &notice).await {
                Ok(Publication::Published) => {}
                Ok(Publication::LeftOut) => Counters::add(&counters.dropped_events),
                Err(error) => {
                    tracing::warn!(%error, reason = notice.reason, "a cluster event is not published");
                }
            }
            drop(permit);
        });
    }

    /// Old target lists are of no use, and nobody waits for their removal; what is left goes with the Task.
    fn thaw(&self) {
        let (cluster, task) = (self.context.parts.cluster.clone(), self.task.clone());
        tokio::spawn(async move {
            if let Err(error) = cluster.thaw_targets(&task).await {
                tracing::warn!(%error, "an old target list stays");
            }
        });
    }

    fn on_page(&self, change: impl FnOnce(&mut Page, Now)) {
        let mut pages = self.sight.book.pages();
        let Pages { current, .. } = &mut *pages;
        if let Some(page) = current {
            change(page, self.now);
        }
    }

    fn offer_again(&mut self) {
        Counters::add(&self.context.counters.undelivered);
        self.look_again(self.now.monotonic.plus(OFFER_AGAIN_MS));
    }

    fn look_again(&mut self, at: Monotonic) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}
