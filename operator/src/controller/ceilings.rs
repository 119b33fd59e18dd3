//! The ceilings of now: from a file, read again and again, and what is counted and published when they hold a Run.
//!
//! The file is polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss. A file that cannot be used
//! closes: no Run begins until it can, since the limits that its author has written may be narrower than those of before.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sentinel_core::reconcile::ceiling::Ceilings;
use sentinel_core::reconcile::conditions::{AWAITING_APPROVAL, CEILING_EXCEEDED, CEILINGS_UNREADABLE};
use sentinel_core::reconcile::{Level, Notice};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::events::publish;
use super::run_store::RunStore;
use crate::metrics::{Counter, Gauge, Registry};
use crate::resource::Task;
use crate::resource::ceilings::read;

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_secs(2);

/// The ceilings of now. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CurrentCeilings {
    file: Option<PathBuf>,
    current: Arc<RwLock<Arc<Ceilings>>>,
}

impl CurrentCeilings {
    /// Those of a file, which is read at once.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn of_file(file: PathBuf) -> Result<Self, crate::resource::ceilings::CeilingsError> {
        let rules = read(&file)?;
        let current = Arc::new(RwLock::new(Arc::new(Ceilings::Set(rules))));
        Ok(Self { file: Some(file), current })
    }

    /// These, without a file.
    pub fn fixed(ceilings: Ceilings) -> Self {
        Self { file: None, current: Arc::new(RwLock::new(Arc::new(ceilings))) }
    }

    /// The ceilings of now.
    pub fn get(&self) -> Arc<Ceilings> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them; whether they are others.
    pub fn set(&self, ceilings: Ceilings) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **current != ceilings;
        if changed {
            *current = Arc::new(ceilings);
        }
        changed
    }

    /// Reads the file again and again until `stop`; Tasks that wait are reconciled when it has changed.
    pub async fn keep_current(self, runs: RunStore, metrics: Registry, stop: CancellationToken) {
        let unreadable = unreadable_gauge(&metrics);
        let Some(file) = self.file.clone() else { return stop.cancelled().await };
        let polls = async {
            loop {
                tokio::time::sleep(READ_EVERY).await;
                self.poll(&file, &runs, &unreadable).await;
            }
        };
        stop.run_until_cancelled(polls).await;
    }

    async fn poll(&self, file: &std::path::Path, runs: &RunStore, unreadable: &Gauge) {
        let path = file.to_owned();
        let ceilings = match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(Ok(rules)) => Ceilings::Set(rules),
            Ok(Err(error)) => Ceilings::Unreadable(error.to_string()),
            Err(error) => Ceilings::Unreadable(format!("unable to read the ceilings: {error}")),
        };
        let why = match &ceilings {
            Ceilings::Unreadable(why) => Some(why.clone()),
            _ => None,
        };
        unreadable.set(i64::from(why.is_some()));
        if !self.set(ceilings) {
            return;
        }
        match why {
            Some(error) => {
                tracing::error!(error, file = %file.display(), "no Run begins until the ceilings can be read");
            }
            None => tracing::info!(file = %file.display(), "the ceilings were read again"),
        }
        runs.ceilings_changed();
    }
}

fn unreadable_gauge(metrics: &Registry) -> Gauge {
    let help = "1 while the file of ceilings cannot be used, so that no Run begins, else 0.";
    metrics.gauge_with("sentinel_ceilings_unreadable", help, &[])
}

/// The reasons for which a Run that is due does not begin.
const REASONS: [&str; 3] = [CEILING_EXCEEDED, AWAITING_APPROVAL, CEILINGS_UNREADABLE];

/// Metrics of ceilings.
pub(super) struct CeilingMetrics {
    held: [Counter; 3],
    approved: Counter,
}

impl CeilingMetrics {
    pub(super) fn new(metrics: &Registry) -> Self {
        unreadable_gauge(metrics);
        let held = REASONS.map(|reason| {
            let help = "Runs that were due and did not begin because of a ceiling, by reason; each counted once per reason.";
            metrics.counter_with("sentinel_runs_held_total", help, &[("reason", reason)])
        });
        let help = "Runs that began because somebody else than their author approved them.";
        Self { held, approved: metrics.counter("sentinel_runs_approved_total", help) }
    }
}

/// The reason for which the Task shows that its Run does not begin, and the sentence for people.
fn held(task: &Task) -> Option<(usize, &str)> {
    let conditions = &task.status.as_ref()?.conditions;
    let shown = conditions.iter().find_map(|condition| {
        let at = REASONS.iter().position(|reason| *reason == condition.reason)?;
        Some((at, condition.message.as_str()))
    });
    shown
}

/// Whether the status of a decision holds a Run for its ceiling: then a change of ceilings or nodes may let it begin.
pub(super) fn holds(status: &sentinel_core::reconcile::Status) -> bool {
    status.conditions.iter().any(|condition| REASONS.contains(&condition.reason))
}

/// The status of a Task was written. Publishes that a ceiling holds its Run, when that is new.
pub(super) fn note_written(context: &Context, before: &Task, after: &Task) {
    let Some((at, message)) = held(after) else { return };
    let is_known = held(before).is_some_and(|(known, _)| known == at);
    let generation = |task: &Task| task.status.as_ref().map(|status| status.observed_generation);
    if is_known && generation(before) == generation(after) {
        return;
    }
    context.ceilings.held[at].add(1);
    let level = if REASONS[at] == AWAITING_APPROVAL { Level::Normal } else { Level::Warning };
    publish(context, after, Notice { reason: REASONS[at], note: message.to_owned(), level });
}

/// A Run has begun, as this Task records it. Publishes and records who approved it.
pub(super) fn note_begun(context: &Context, task: &Task) {
    let Some(run) = task.status.as_ref().and_then(|status| status.run.as_ref()) else { return };
    let Some(approver) = &run.approved_by else { return };
    context.ceilings.approved.add(1);
    let note = format!("run {} began, as {} approved", run.number, approver.user);
    publish(context, task, Notice { reason: "RunApproved", note, level: Level::Normal });
}
