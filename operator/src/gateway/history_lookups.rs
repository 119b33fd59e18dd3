//! Lookups in History that results wait for: one after the other, and never in the task of a Session.

use std::sync::Arc;
use std::time::Duration;

use sentinel_protocol::ids::{AttemptId, TaskRef};
use sentinel_protocol::request::Environment;
use tokio::sync::mpsc;

use super::ledger_sink::{AttemptFacts, LedgerSink};
use super::metrics::GatewayMetrics;
use super::registry::Registry;
use super::results::{Lookup, Results};
use crate::history::archive::{Archived, Archiver};
use crate::history::{History, HistoryError, RunQuery};
use crate::logs::Hub;
use crate::metrics::Registry as MetricsRegistry;

/// Lookups that may be queued.
const MAX_LOOKUPS: usize = 1024;

/// How long output of an ended Attempt may make no progress, with its node connected and History accepting output of
/// others, before the rest is archived as missing.
pub const OUTPUT_WITHIN: Duration = Duration::from_mins(10);

/// Longest interval between checks for such output.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The worker behind [`Results`]: nothing is acknowledged unless it runs.
pub struct ResultsWork {
    results: Arc<Results>,
    history: Arc<dyn History>,
    registry: Registry,
    output_within: Duration,
    lookups: mpsc::Receiver<Lookup>,
    archived: mpsc::Receiver<Archived>,
}

impl std::fmt::Debug for ResultsWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultsWork").finish_non_exhaustive()
    }
}

/// What [`Results`] are made of.
pub struct ResultsParts {
    /// Takes records.
    pub archiver: Archiver,
    /// What that archiver has stored.
    pub archived: mpsc::Receiver<Archived>,
    /// The archive behind it.
    pub history: Arc<dyn History>,
    /// The controller's ledgers.
    pub ledgers: Arc<dyn LedgerSink>,
    /// The connected agents.
    pub registry: Registry,
    /// Output that is not archived yet.
    pub hub: Hub,
    /// See [`OUTPUT_WITHIN`].
    pub output_within: Duration,
    /// Where to register metrics.
    pub metrics: MetricsRegistry,
}

impl Results {
    /// Results, and the worker behind them.
    pub fn new(parts: ResultsParts) -> (Arc<Self>, ResultsWork) {
        let (sender, lookups) = mpsc::channel(MAX_LOOKUPS);
        let metrics = GatewayMetrics::new(&parts.metrics);
        let ResultsParts { archiver, archived, history, ledgers, registry, hub, output_within, .. } = parts;
        let results = Arc::new(Self::with_lookups(archiver, ledgers, registry.clone(), hub, metrics, sender));
        let work =
            ResultsWork { results: results.clone(), history, registry, output_within, lookups, archived };
        (results, work)
    }
}

impl ResultsWork {
    /// Runs until the archiver and every [`Results`] but its own are dropped.
    pub async fn run(self) {
        let Self { results, history, registry, output_within, mut lookups, mut archived } = self;
        let give_up_overdue = async {
            loop {
                tokio::time::sleep((output_within / 4).min(CHECK_EVERY)).await;
                for attempt in results.overdue(output_within) {
                    results.lookup(Lookup::GiveUp(attempt));
                }
            }
        };
        let look_up = async {
            while let Some(lookup) = lookups.recv().await {
                if let Err(error) = answer(&results, &*history, lookup).await {
                    let category = error.category();
                    tracing::debug!(%error, category, "a result waits for History; its agent will resend it");
                }
            }
        };
        let apply_archived = async {
            while let Some(stored) = archived.recv().await {
                results.on_archived(&stored);
            }
        };
        // When the archiver is dropped, no lookup can lead to anything any more.
        tokio::select! {
            () = apply_archived => {}
            () = look_up => {}
            () = give_up_overdue => {}
            never = registry.send_late_messages() => match never {},
        }
    }
}

async fn answer(results: &Results, history: &dyn History, lookup: Lookup) -> Result<(), HistoryError> {
    match lookup {
        Lookup::Describe(report) => {
            let known = describe(history, &report.attempt).await?;
            // The leaders that had this Run could not archive even that it began.
            let known = known.or_else(|| results.earlier_facts(&report));
            if let Some(facts) = known {
                results.archive(&report, facts);
            }
        }
        Lookup::FindEnd(attempt) => {
            let end = history.output_end(attempt.clone(), 0).await?;
            results.on_output_archived(&attempt, end);
        }
        Lookup::GiveUp(attempt) => {
            let archived = match results.archived_position(&attempt) {
                Some(position) => position,
                None => history.output_end(attempt.clone(), 0).await?,
            };
            results.give_up(&attempt, archived);
        }
    }
    Ok(())
}

/// What History holds about an Attempt, or else about its Run.
async fn describe(history: &dyn History, id: &AttemptId) -> Result<Option<AttemptFacts>, HistoryError> {
    // This operator writes no record with invalid names; such a record describes nothing.
    if let Some(known) = history.attempt(id.clone()).await?
        && let Ok(task) = TaskRef::new(known.namespace, known.name)
    {
        return Ok(Some(AttemptFacts {
            task,
            spec_hash: known.spec_hash,
            run_started_at: known.run_started_at,
            trigger: known.trigger,
            command: known.command,
            environment: known.environment,
            output_limit: None,
        }));
    }
    let query =
        RunQuery { task_uid: Some(id.task.clone()), run: Some(id.run), limit: 1, ..RunQuery::default() };
    let run = history.runs(query).await?.items.into_iter().next();
    Ok(run.and_then(|run| {
        Some(AttemptFacts {
            task: TaskRef::new(run.namespace, run.name).ok()?,
            spec_hash: run.spec_hash,
            run_started_at: run.started_at,
            trigger: Some(run.trigger),
            command: run.command,
            // The record of a Run has no environment. None of its Attempts is recorded, so no reader has seen another.
            environment: Environment::Container,
            output_limit: None,
        })
    }))
}
