//! Questions to History that results wait for, one after the other and never in a Session.

use std::sync::Arc;
use std::time::Duration;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::request::Environment;
use sentinel_protocol::to_operator::Report;
use tokio::sync::mpsc;

use super::books::{AttemptFacts, Books};
use super::counts::GatewayMetrics;
use super::registry::Registry;
use super::results::Results;
use crate::history::archive::{Archived, Archiver};
use crate::history::{History, HistoryError, RunQuery};
use crate::logs::Hub;
use crate::metrics::Registry as MetricsRegistry;

/// Questions that may wait.
const MAX_CHORES: usize = 1024;

/// A question.
#[derive(Debug)]
pub(super) enum Chore {
    /// What is this Attempt, of which no ledger is open, part of?
    Describe(Box<Report>),
    /// Is all output of this Attempt archived?
    FindEnd(AttemptId),
    /// The rest of this Attempt's output will not come: how far is it archived?
    GiveUp(AttemptId),
}

/// How long output of an Attempt that is over may come no further, its node being connected and History taking what
/// others send, before the rest is archived as missing.
pub const OUTPUT_WITHIN: Duration = Duration::from_mins(10);

/// How often is looked for it, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The work behind [`Results`], which somebody must run.
pub struct ResultsWork {
    results: Arc<Results>,
    history: Arc<dyn History>,
    output_within: Duration,
    chores: mpsc::Receiver<Chore>,
    words: mpsc::Receiver<Archived>,
}

impl std::fmt::Debug for ResultsWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultsWork").finish_non_exhaustive()
    }
}

/// What results are made of.
pub struct ResultsParts {
    /// Takes records.
    pub archiver: Archiver,
    /// The words of that archiver.
    pub words: mpsc::Receiver<Archived>,
    /// The archive behind it.
    pub history: Arc<dyn History>,
    /// The controller's ledgers.
    pub books: Arc<dyn Books>,
    /// The connected agents.
    pub registry: Registry,
    /// Output on its way.
    pub hub: Hub,
    /// See [`OUTPUT_WITHIN`].
    pub output_within: Duration,
    /// Where to count.
    pub metrics: MetricsRegistry,
}

impl Results {
    /// Results, and the work behind them.
    pub fn new(parts: ResultsParts) -> (Arc<Self>, ResultsWork) {
        let (sender, chores) = mpsc::channel(MAX_CHORES);
        let counts = GatewayMetrics::new(&parts.metrics);
        let ResultsParts { archiver, words, history, books, registry, hub, output_within, .. } = parts;
        let results = Arc::new(Self::with_chores(archiver, books, registry, hub, counts, sender));
        let work = ResultsWork { results: results.clone(), history, output_within, chores, words };
        (results, work)
    }
}

impl ResultsWork {
    /// Runs until the archiver and every [`Results`] but its own are gone.
    pub async fn run(self) {
        let Self { results, history, output_within, mut chores, mut words } = self;
        let waiting = results.clone();
        let watching = async move {
            loop {
                tokio::time::sleep((output_within / 4).min(LOOK_EVERY)).await;
                for attempt in waiting.overdue(output_within) {
                    waiting.want_given_up(attempt);
                }
            }
        };
        let answers = results.clone();
        let asking = async move {
            while let Some(chore) = chores.recv().await {
                if let Err(error) = answer(&answers, &*history, chore).await {
                    tracing::debug!(%error, "a result waits for history");
                }
            }
        };
        let hearing = async move {
            while let Some(word) = words.recv().await {
                results.archived(&word);
            }
        };
        // Whoever stops hearing the archiver stops it: nothing is left to ask for then.
        tokio::select! {
            () = hearing => {}
            () = asking => {}
            () = watching => {}
        }
    }
}

async fn answer(results: &Results, history: &dyn History, chore: Chore) -> Result<(), HistoryError> {
    match chore {
        Chore::Describe(report) => {
            if let Some(facts) = describe(history, &report.attempt).await? {
                results.archive(&report, facts);
            }
        }
        Chore::FindEnd(attempt) => {
            let end = history.output_end(attempt.clone(), 0).await?;
            results.settle(&attempt, end);
        }
        Chore::GiveUp(attempt) => {
            let archived = match results.archived_position(&attempt) {
                Some(position) => position,
                None => history.output_end(attempt.clone(), 0).await?,
            };
            results.give_up(&attempt, archived);
        }
    }
    Ok(())
}

/// What History knows of an Attempt, or else of its Run.
async fn describe(history: &dyn History, id: &AttemptId) -> Result<Option<AttemptFacts>, HistoryError> {
    use sentinel_protocol::ids::TaskRef;
    // A record whose names are none was never written by us; it describes nothing.
    if let Some(known) = history.attempt(id.clone()).await?
        && let Ok(task) = TaskRef::new(known.namespace, known.name)
    {
        return Ok(Some(AttemptFacts {
            task,
            spec_hash: known.spec_hash,
            run_started_at: known.run_started_at,
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
            command: run.command,
            // The record of a Run does not say; no Attempt of it was ever recorded, so no reader has seen another value.
            environment: Environment::Container,
            output_limit: None,
        })
    }))
}
