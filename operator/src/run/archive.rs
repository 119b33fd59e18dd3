//! The way to History: archiver, results, output, and what is waited for at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tasks::{Tasks, until};
use crate::backoff::Backoff;
use crate::controller::RunStore;
use crate::gateway::{OUTPUT_WITHIN, Registry, Results, ResultsParts};
use crate::history::History;
use crate::history::archive::{Archiver, ArchiverOptions};
use crate::logs::{Hub, HubRules};
use crate::metrics::Registry as MetricsRegistry;

/// Notices of the archiver that may wait for the results.
const MAX_NOTICES: usize = 4096;

/// How often a drain is checked.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Between attempts to prepare History.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(15) };

/// What the archive is made of.
pub(super) struct ArchiveParts<'a> {
    pub(super) history: &'a Arc<dyn History>,
    pub(super) runs: &'a RunStore,
    pub(super) registry: &'a Registry,
    pub(super) metrics: &'a MetricsRegistry,
    pub(super) stop: &'a CancellationToken,
}

/// The running archive.
pub(super) struct Archive {
    pub(super) archiver: Archiver,
    pub(super) hub: Hub,
    pub(super) results: Arc<Results>,
    /// Set once History has answered.
    pub(super) answered: Arc<AtomicBool>,
}

impl Archive {
    /// Starts it.
    pub(super) fn start(tasks: &mut Tasks, parts: &ArchiveParts<'_>) -> Self {
        let ArchiveParts { history, runs, registry, metrics, stop } = *parts;
        let (notices_in, notices) = mpsc::channel(MAX_NOTICES);
        let (archiver, archiving) = Archiver::new(history.clone(), ArchiverOptions::default(), notices_in);
        let hub = Hub::new(archiver.clone(), HubRules::default(), metrics);
        let (results, settling) = Results::new(ResultsParts {
            archiver: archiver.clone(),
            archived: notices,
            history: history.clone(),
            ledgers: Arc::new(runs.clone()),
            registry: registry.clone(),
            hub: hub.clone(),
            output_within: OUTPUT_WITHIN,
            metrics: metrics.clone(),
        });
        let answered = Arc::new(AtomicBool::new(false));
        tasks.spawn("preparing History", prepare(history.clone(), answered.clone(), stop.clone()));
        tasks.spawn("the archiver", until(stop.clone(), archiving.run()));
        tasks.spawn("the results", until(stop.clone(), settling.run()));
        Self { archiver, hub, results, answered }
    }
}

/// Waits until nothing is queued for History.
pub(super) async fn drained(archiver: &Archiver) {
    loop {
        let status = archiver.status();
        if status.queued_records == 0 && status.queued_bytes == 0 {
            return;
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

/// Prepares History, however long it takes to answer; logs the first failure, and the success after it.
async fn prepare(history: Arc<dyn History>, answered: Arc<AtomicBool>, stop: CancellationToken) {
    let mut failures = 0;
    while let Err(error) = history.prepare().await {
        failures += 1;
        if failures == 1 {
            let category = error.category();
            tracing::warn!(%error, category, "History does not answer yet; commands run, their results stay on the nodes");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BACKOFF.after(failures)) => {}
        }
    }
    answered.store(true, Ordering::Relaxed);
    if failures > 0 {
        tracing::info!("History answers");
    }
    stop.cancelled().await;
}
