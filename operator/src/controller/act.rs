//! Act: performs a decision in a fixed order: target list, status, then the actions that they are the intent of.

use std::sync::Arc;

use kube::ResourceExt;
use sentinel_core::plan::{OnRecreate, TaskPlan};
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::{Action, Decision, Finalizer};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::NodeName;

use super::archive_handover::ArchiveHandover;
use super::ceilings;
use super::context::Context;
use super::counters::Counters;
use super::dispatcher::Dispatcher;
use super::error::ReconcileError;
use super::events::publish;
use super::observe::Snapshot;
use super::requesters::{named, note_begun, note_written};
use super::secrets::SecretReader;
use super::status_writer::{RETRY_WRITE_MS, StatusWriter, Written};
use super::task_cache::TaskCache;
use super::task_runs::TaskRuns;
use super::tracking;
use crate::cluster::ClusterError;
use crate::kill_point::KillPoint;
use crate::later::catch_up;
use crate::resource::Task;
use crate::resource::marks::FINALIZER;
use crate::resource::slice::Frozen;

/// Actions, or targets, for which others may wait: they learn of what has become durable once its messages are sent.
const FEW: usize = 16;

/// The result.
pub(super) struct Acted {
    /// The Task as it is now; `None` when it is deleted.
    pub(super) task: Option<Arc<Task>>,
    /// When to reconcile it again at the latest.
    pub(super) wake_at: Option<Monotonic>,
}

/// Performs a decision.
pub(super) async fn act(
    context: &Arc<Context>,
    cache: &mut TaskCache,
    task: Arc<Task>,
    plan: &TaskPlan,
    snapshot: &Snapshot,
    decision: Decision,
    now: Now,
) -> Result<Acted, ReconcileError> {
    let mut act = Act { context, cache, task, plan, runs: &snapshot.runs, now, wake_at: decision.wake_at };
    let frozen = act.persist_targets(&decision).await?;
    act.write_status(&decision, frozen.as_ref()).await?;
    let targets = decision.freeze.as_ref().map_or(0, Vec::len);
    if decision.actions.len().max(targets) > FEW {
        catch_up();
    }
    let mut exists = true;
    if !decision.actions.is_empty() {
        // A decision without an intent of its own may follow from a change that is not durable yet.
        act.context.parts.cluster.settle(&act.task).await?;
    }
    let mut secrets = SecretReader::default();
    for action in decision.actions {
        exists &= act.perform(action, &mut secrets).await?;
    }
    if let Some(notice) = secrets.notice() {
        publish(context, &act.task, notice);
    }
    let wake_at = act.wake_at;
    Ok(Acted { task: exists.then_some(act.task), wake_at })
}

struct Act<'a> {
    context: &'a Arc<Context>,
    cache: &'a mut TaskCache,
    task: Arc<Task>,
    plan: &'a TaskPlan,
    runs: &'a Arc<TaskRuns>,
    now: Now,
    wake_at: Option<Monotonic>,
}

impl Act<'_> {
    /// Stores the target list of a new Run, which is durable no later than the status that names it.
    async fn persist_targets(&self, decision: &Decision) -> Result<Option<Frozen>, ReconcileError> {
        let Some((run, targets)) = begins(decision) else { return Ok(None) };
        Ok(Some(self.context.parts.cluster.persist_targets(&self.task, run.number, targets).await?))
    }

    /// Writes the status if it is due. An intent that cannot be written ends the reconcile.
    async fn write_status(
        &mut self,
        decision: &Decision,
        frozen: Option<&Frozen>,
    ) -> Result<(), ReconcileError> {
        let had_slices = self.task.status.as_ref().and_then(|status| status.run.as_ref());
        let had_slices = had_slices.is_some_and(|run| run.target_slices > 0);
        let mut writer = StatusWriter { context: self.context, cache: self.cache, now: self.now };
        match writer.write_decided(&self.task, decision, frozen).await? {
            Written::Unchanged => return Ok(()),
            Written::Later(at) => {
                self.requeue_at(Some(at));
                return Ok(());
            }
            Written::Now(task) => {
                note_written(self.context, self.runs, &self.task, &task);
                ceilings::note_written(self.context, self.runs, &decision.status, (&self.task, &task));
                self.task = task;
            }
        }
        if let Some((run, targets)) = begins(decision) {
            self.begin_run(run, targets);
            if had_slices {
                self.delete_old_targets();
            }
        }
        Ok(())
    }

    /// Tracks a Run that has become durable.
    fn begin_run(&mut self, run: &RunState, targets: &[NodeName]) {
        KillPoint::RunBegun.pass();
        Counters::add(&self.context.counters.runs_begun);
        let targets = Arc::new(targets.to_vec());
        self.cache.begun = Some(run.number);
        self.cache.targets = Some((run.number, targets.clone()));
        tracking::begin_run(self.context, self.cache, self.runs, self.plan, (&self.task, run), targets);
        note_begun(self.context, &self.task);
        ceilings::note_begun(self.context, &self.task);
    }

    /// Performs one action; whether the Task still exists.
    async fn perform(&mut self, action: Action, secrets: &mut SecretReader) -> Result<bool, ReconcileError> {
        // The hand-over compares the record with the one that the ledger has, and applies the action itself.
        if !matches!(action, Action::ArchiveRun(_)) {
            self.apply(&action);
        }
        match action {
            Action::AddFinalizer if self.task.finalizers().iter().any(|text| text == FINALIZER) => {}
            Action::AddFinalizer => self.hold().await?,
            Action::RemoveFinalizer => {
                KillPoint::Released.pass();
                self.set_finalizer(Finalizer::Absent).await?;
                return Ok(false);
            }
            Action::DeleteTask => match self.context.parts.cluster.delete(self.plan.task.clone()).await {
                Ok(()) | Err(ClusterError::Gone { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            },
            Action::Retry(_) => {
                Counters::add(&self.context.counters.retries);
                // The new Attempt is to be started now.
                self.requeue_at(Some(self.now.monotonic));
            }
            Action::Start { .. } | Action::Cancel(_) | Action::Forget(_) => {
                let dispatcher =
                    Dispatcher { context: self.context, plan: self.plan, runs: self.runs, now: self.now };
                let again_at = match action {
                    Action::Start { .. } => dispatcher.start(&action, secrets).await,
                    _ => dispatcher.dispatch(&action),
                };
                self.requeue_at(again_at);
            }
            Action::Conclude { ref attempt, ref ended } => {
                self.requeue_at(self.handover().conclude(attempt, ended));
            }
            Action::ArchiveRun(ref record) => self.requeue_at(self.handover().archive_run(record, &action)),
            Action::Publish(notice) => publish(self.context, &self.task, named(notice, &self.task)),
            Action::Admit(_) | Action::RetryAt(..) | Action::AbandonRetry(_) => {}
        }
        Ok(true)
    }

    fn handover(&self) -> ArchiveHandover<'_> {
        ArchiveHandover { context: self.context, runs: self.runs, now: self.now.monotonic }
    }

    /// Applies an action to the ledger of its Run.
    fn apply(&self, action: &Action) {
        if let Some(run) = self.runs.lock().get_or_current(action.run()) {
            run.ledger.apply(action, self.now.monotonic);
        }
    }

    /// Adds the finalizer. Where it is not the intent of what follows, an API server that is unavailable delays nothing
    /// else.
    async fn hold(&mut self) -> Result<(), ReconcileError> {
        match self.set_finalizer(Finalizer::Present).await {
            Err(ReconcileError::Cluster(error @ ClusterError::Unavailable { .. }))
                if self.plan.on_recreate == OnRecreate::Run =>
            {
                tracing::warn!(%error, category = error.category(), "unable to set the finalizer; will retry");
                self.requeue_at(Some(self.now.monotonic.plus(RETRY_WRITE_MS)));
                Ok(())
            }
            done => done,
        }
    }

    async fn set_finalizer(&mut self, finalizer: Finalizer) -> Result<(), ReconcileError> {
        self.task = Arc::new(self.context.parts.cluster.set_finalizer(&self.task, finalizer).await?);
        self.cache.note_written(self.task.clone());
        Ok(())
    }

    /// Removes target lists of earlier Runs, later. What is left is removed with the Task.
    fn delete_old_targets(&self) {
        let (cluster, task) = (self.context.parts.cluster.clone(), self.task.clone());
        self.context.background.spawn(async move {
            if let Err(error) = cluster.delete_old_targets(&task).await {
                tracing::warn!(%error, category = error.category(), "failed to delete an old target list");
            }
        });
    }

    fn requeue_at(&mut self, at: Option<Monotonic>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }
}

/// The Run that a decision begins, and its targets.
fn begins(decision: &Decision) -> Option<(&RunState, &[NodeName])> {
    let targets = decision.freeze.as_deref()?;
    Some((decision.status.recorded.run.as_ref()?, targets))
}
