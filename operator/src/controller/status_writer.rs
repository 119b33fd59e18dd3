//! The only place that writes the status of Tasks.

use std::sync::Arc;

use sentinel_core::reconcile::{Action, Decision, Write};
use sentinel_core::time::{Monotonic, Now};

use super::context::Context;
use super::counters::Counters;
use super::error::ReconcileError;
use super::task_cache::TaskCache;
use crate::cluster::ClusterError;
use crate::resource::slice::Frozen;
use crate::resource::status::TaskStatus;
use crate::resource::{Task, recorded};

/// Least time between two writes of one Task's status that are not urgent, milliseconds.
const BETWEEN_WRITES_MS: u64 = 1000;

/// Delay of a write that failed because the API server is unavailable, milliseconds.
pub(super) const RETRY_WRITE_MS: u64 = 5000;

/// Writes the status of one Task.
pub(super) struct StatusWriter<'a> {
    pub(super) context: &'a Context,
    pub(super) cache: &'a mut TaskCache,
    pub(super) now: Now,
}

/// The result of a write.
pub(super) enum Written {
    /// The Task has this status already.
    Unchanged,
    /// Written; the Task as it is now.
    Now(Arc<Task>),
    /// Not written, and perhaps unchanged: due at this time.
    Later(Monotonic),
}

impl StatusWriter<'_> {
    /// Writes a status that no decision goes with, unless the Task has it already; returns the Task as it is now.
    pub(super) async fn write_if_changed(
        &mut self,
        task: Arc<Task>,
        status: TaskStatus,
    ) -> Result<Arc<Task>, ReconcileError> {
        if task.status.as_ref() == Some(&status) {
            return Ok(task);
        }
        Ok(self.note(self.context.parts.cluster.write_status(&task, status).await?))
    }

    /// Writes the status of a decision, as urgently as it asks for. `frozen` is the target list of a Run that begins.
    ///
    /// # Errors
    /// The write failed, and it was the intent of actions; or it failed for good.
    pub(super) async fn write_decided(
        &mut self,
        task: &Task,
        decision: &Decision,
        frozen: Option<&Frozen>,
    ) -> Result<Written, ReconcileError> {
        let now = self.now.monotonic;
        let due = self.cache.status_at.map_or(now, |at| at.plus(BETWEEN_WRITES_MS));
        if decision.write == Write::Soon && now < due {
            return Ok(Written::Later(due));
        }
        // Not before it is due: a Run over many nodes is reconciled many times a second.
        let status =
            recorded::write(task, &decision.status, frozen, &self.context.parts.stamps, self.now.wall);
        if task.status.as_ref() == Some(&status) {
            return Ok(Written::Unchanged);
        }
        let cluster = &self.context.parts.cluster;
        // A Run that begins needs the finalizer soon; with this write it costs none of its own.
        let holds = decision.freeze.is_some() || decision.actions.contains(&Action::AddFinalizer);
        let written = if holds {
            cluster.write_status_and_hold(task, status).await
        } else {
            cluster.write_status(task, status).await
        };
        match written {
            Ok(written) => Ok(Written::Now(self.note(written))),
            Err(error @ ClusterError::Unavailable { .. }) if decision.write != Write::Intent => {
                // Commands keep running while the API server is unavailable; the status catches up.
                tracing::warn!(%error, category = error.category(), "unable to write the status; will retry");
                Ok(Written::Later(now.plus(RETRY_WRITE_MS)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, written: Task) -> Arc<Task> {
        let written = Arc::new(written);
        Counters::add(&self.context.counters.status_writes);
        self.cache.status_at = Some(self.now.monotonic);
        self.cache.note_written(written.clone());
        written
    }
}
