//! Runs, Executions and Attempts as this operator knows them: History, and over it what has not got there yet.
//!
//! ```text
//!   Runs in memory ([`LiveRuns`]) ─┐
//!   records on their way (archiver) ├─▶ overlay ─┐
//!   status of the Tasks ───────────┘            ├─▶ one page, in the order of History's pages
//!   History ────────────────────────────────────┘
//! ```
//!
//! History lags behind by design: nothing waits for it. Readers must not see that, so every question about a Run is
//! asked here and not of History. What always holds:
//!
//! * An answer knows at least what any earlier answer of this operator showed, the status of the Task included.
//! * The overlay is read before History is: a record that moves from one to the other meanwhile is seen in one of them.
//! * A row has one key, in memory and in History. So pages have no gap and no repeat across the seam, and a page may end
//!   on either side of it.
//! * A History that does not answer makes a list [`Listed::partial`], and neither an error nor a shorter truth.

mod live;
mod overlay;
mod status;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::Store;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};

pub use self::live::{Awaited, Execution, Extent, LiveRuns, Progress, Scope, TriedAgain, Waiting};
use self::overlay::{Origin, Overlay, Row};
use self::status::StatusRun;
use crate::history::archive::Archiver;
use crate::history::error::Retry;
use crate::history::query::page_size;
use crate::history::{
    AttemptRecord, Entry, ExecutionQuery, ExecutionRecord, History, HistoryError, Page, PageToken, RunQuery,
    RunRecord, rank,
};
use crate::resource::{Task, recorded};

/// How long a reader waits for History before it gets what is in memory.
const HISTORY_WITHIN: Duration = Duration::from_secs(5);

/// How many pages of History one question looks through for rows that fit.
const PAGES_PER_QUESTION: usize = 8;

/// How long a reader waits for memory to say what the status of a Task says already, and how often it looks.
const CATCH_UP_WITHIN: Duration = Duration::from_millis(500);
const CATCH_UP_EVERY: Duration = Duration::from_millis(5);

/// Rows of a page, and whether they are all.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Ask with this for what follows; `None` when nothing does.
    pub next: Option<PageToken>,
    /// Why rows may be missing that exist, for people; `None` when none are.
    pub partial: Option<String>,
}

/// What is known of Runs, wherever it is. Cloning it is cheap.
#[derive(Clone)]
pub struct Records {
    history: Arc<dyn History>,
    archiver: Archiver,
    live: Arc<dyn LiveRuns>,
    tasks: Store<Task>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// What History answered, or that it did not.
enum Asked<T> {
    Answered(T),
    Unavailable(String),
}

impl Records {
    /// Reads this History, what is on its way to it through `archiver`, the Runs in memory, and the cached Tasks.
    pub fn new(
        history: Arc<dyn History>,
        archiver: Archiver,
        live: Arc<dyn LiveRuns>,
        tasks: Store<Task>,
    ) -> Self {
        Self { history, archiver, live, tasks }
    }

    /// Executions, those of the newest Run first, within a Run by node; of these, those that fit. A page may have fewer
    /// rows than wanted and still be followed by another.
    ///
    /// # Errors
    /// [`HistoryError`] when the question cannot be answered at all, now or later.
    pub async fn executions(
        &self,
        query: ExecutionQuery,
        fits: impl Fn(&Execution) -> bool + Send,
    ) -> Result<Listed<Execution>, HistoryError> {
        let limit = page_size(query.limit)?;
        let mut listed = Listed { items: Vec::new(), next: query.after.clone(), partial: None };
        for _ in 0..PAGES_PER_QUESTION {
            let (page, partial) = self.page(&query, listed.next.as_ref(), limit).await?;
            listed.partial = listed.partial.or(partial);
            let (rows, horizon) = page;
            for (key, execution) in rows {
                let as_wanted = query.outcome.is_none() || execution.outcome() == query.outcome.as_deref();
                if !as_wanted || !fits(&execution) {
                    continue;
                }
                listed.items.push(execution);
                listed.next = Some(key);
                if listed.items.len() > limit {
                    listed.items.pop();
                    listed.next = listed.items.last().map(|last| PageToken::of_execution(&last.record));
                    return Ok(listed);
                }
            }
            listed.next = horizon;
            if listed.next.is_none() || listed.items.len() >= limit {
                break;
            }
        }
        Ok(listed)
    }

    /// One page of rows with their places, and where the next begins.
    async fn page(
        &self,
        query: &ExecutionQuery,
        after: Option<&PageToken>,
        limit: usize,
    ) -> Result<(Rows, Option<String>), HistoryError> {
        let tasks =
            self.tasks_in_scope(query.namespace.as_deref(), query.task.as_deref(), query.task_uid.as_ref());
        let scope = stopping(&tasks, Scope::of_executions(query, Extent::Unarchived));
        self.catch_up(&tasks, &scope).await;
        let overlay = |extent| {
            let scope = Scope { extent, ..scope.clone() };
            overlay::executions(&*self.live, &self.archiver, &tasks, &scope, after, limit + 1)
        };
        let known = overlay(Extent::Unarchived);
        let asked = ExecutionQuery { limit: limit as u32, after: after.cloned(), ..query.clone() };
        let (known, page, mut partial) = match asked_in_time(self.history.executions(asked)).await? {
            Asked::Answered(page) => (known, page, None),
            Asked::Unavailable(why) => {
                (overlay(Extent::All), Page { items: Vec::new(), next: None }, Some(only_memory(&why)))
            }
        };
        if partial.is_none() {
            partial = self.unlisted(&tasks, &scope);
        }
        let mut rows = merge(known, page);
        if query.outcome.is_some() {
            self.ask_about_hearsay(&mut rows).await?;
        }
        let horizon = rows.horizon;
        let rows = rows.rows.into_iter().map(|(key, row)| (key, row.execution)).collect();
        Ok(((rows, horizon), partial))
    }

    /// The status may be older than History, which was asked for rows of one Outcome only and so kept silent about the
    /// others.
    async fn ask_about_hearsay(&self, overlay: &mut Overlay<Row>) -> Result<(), HistoryError> {
        for row in overlay.rows.values_mut().filter(|row| row.origin == Origin::Status) {
            let record = &row.execution.record;
            let one = one_execution(&record.task_uid, record.run, &record.node);
            let Asked::Answered(page) = asked_in_time(self.history.executions(one)).await? else {
                return Ok(());
            };
            if let Some(archived) = page.items.into_iter().next().map(Row::archived)
                && archived.knows_more_than(row)
            {
                *row = archived;
            }
        }
        Ok(())
    }

    /// One Execution; `None` when there is none.
    ///
    /// # Errors
    /// [`HistoryError`] when nothing is known of it and History does not answer.
    pub async fn execution(
        &self,
        task: &TaskUid,
        run: RunNumber,
        node: &NodeName,
    ) -> Result<Option<Execution>, HistoryError> {
        let tasks = self.tasks_in_scope(None, None, Some(task));
        let query = one_execution(task, run, node);
        self.catch_up(&tasks, &Scope::of_executions(&query, Extent::Unarchived)).await;
        let scope = stopping(&tasks, Scope::of_executions(&query, Extent::All));
        let known = overlay::executions(&*self.live, &self.archiver, &tasks, &scope, None, 2);
        let known = known.rows.into_values().next();
        match (asked(self.history.executions(query)).await, known) {
            (Ok(page), known) => {
                let archived = page.items.into_iter().next().map(Row::archived);
                let row = match (known, archived) {
                    (Some(known), Some(archived)) if archived.knows_more_than(&known) => Some(archived),
                    (known, archived) => known.or(archived),
                };
                Ok(row.map(|row| row.execution))
            }
            (Err(error), Some(known)) if error.retry() == Retry::Later => Ok(Some(known.execution)),
            (Err(error), _) => Err(error),
        }
    }

    /// One Attempt; `None` when nothing is known of it.
    ///
    /// # Errors
    /// [`HistoryError`] when its end is not known here and History does not answer.
    pub async fn attempt(&self, id: &AttemptId) -> Result<Option<AttemptRecord>, HistoryError> {
        let mut known = self.live.attempt(id);
        self.archiver.each_waiting(|entry| {
            if let Entry::Attempt(waiting) = entry
                && waiting.attempt == *id
            {
                let better = known
                    .as_ref()
                    .is_none_or(|known| rank::weight_of_attempt(waiting) > rank::weight_of_attempt(known));
                if better {
                    known = Some((**waiting).clone());
                }
            }
        });
        match asked(self.history.attempt(id.clone())).await {
            Ok(Some(archived)) => Ok(Some(match known {
                Some(known) if rank::weight_of_attempt(&known) > rank::weight_of_attempt(&archived) => known,
                _ => archived,
            })),
            Ok(None) => Ok(known),
            Err(error) if error.retry() == Retry::Later => known.map(Some).ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// [`HistoryError`] when the question cannot be answered at all, now or later.
    pub async fn runs(&self, query: RunQuery) -> Result<Listed<RunRecord>, HistoryError> {
        let limit = page_size(query.limit)?;
        let tasks =
            self.tasks_in_scope(query.namespace.as_deref(), query.task.as_deref(), query.task_uid.as_ref());
        let overlay = |extent| {
            let scope = stopping(&tasks, Scope::of_runs(&query, extent));
            overlay::runs(&*self.live, &self.archiver, &tasks, &scope, query.after.as_ref(), limit + 1)
        };
        let known = overlay(Extent::Unarchived);
        let wanted = RunQuery { limit: limit as u32, ..query.clone() };
        let (mut known, page, partial) = match asked_in_time(self.history.runs(wanted)).await? {
            Asked::Answered(page) => (known, page, None),
            Asked::Unavailable(why) => {
                (overlay(Extent::All), Page { items: Vec::new(), next: None }, Some(only_memory(&why)))
            }
        };
        if let Some(next) = page.next {
            known.cut(next);
        }
        for record in page.items {
            known.put(PageToken::of_run(&record), (record, Origin::History), overlay::run_wins);
        }
        let mut items: Vec<RunRecord> = known.rows.into_values().map(|(record, _)| record).collect();
        let next = if items.len() > limit {
            items.truncate(limit);
            items.last().map(PageToken::of_run)
        } else {
            known.horizon
        };
        Ok(Listed { items, next, partial })
    }

    /// The Task with what its status will say of the Run under way when it is next written: that happens about once a
    /// second, and lists of Executions do not wait for it.
    pub fn current(&self, task: &Task) -> Option<Task> {
        let run = StatusRun::of(task, &Scope::everything()).filter(|run| !run.is_finished())?;
        let tried_again = if run.is_stopping() { TriedAgain::No } else { TriedAgain::Yes };
        let rolled = self.live.roll_up(run.task_uid(), run.number(), tried_again)?;
        recorded::rewrite_progress(task, &rolled)
    }

    fn tasks_in_scope(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        uid: Option<&TaskUid>,
    ) -> Vec<Arc<Task>> {
        let metadata = |task: &Task| {
            let is = |wanted: Option<&str>, given: Option<&String>| {
                wanted.is_none_or(|wanted| given.is_some_and(|given| given == wanted))
            };
            is(namespace, task.metadata.namespace.as_ref())
                && is(name, task.metadata.name.as_ref())
                && is(uid.map(TaskUid::as_str), task.metadata.uid.as_ref())
        };
        let mut tasks = self.tasks.state();
        tasks.retain(|task| metadata(task));
        tasks
    }

    /// What was concluded at the end of a Run is written to the Task's status first and noted in memory a moment later.
    /// The status lists a part of the nodes only, so of a long Run a reader waits for that moment.
    async fn catch_up(&self, tasks: &[Arc<Task>], scope: &Scope) {
        let lags = || {
            let runs = tasks.iter().filter_map(|task| StatusRun::of(task, scope));
            runs.filter(|run| run.is_finished() && run.unlisted() > 0)
                .any(|run| self.live.progress(run.task_uid(), run.number()) == Some(Progress::UnderWay))
        };
        let until = tokio::time::Instant::now() + CATCH_UP_WITHIN;
        while lags() && tokio::time::Instant::now() < until {
            tokio::time::sleep(CATCH_UP_EVERY).await;
        }
    }

    /// Why targets may be missing: this operator does not carry the Run out, and the status names a part of them only.
    fn unlisted(&self, tasks: &[Arc<Task>], scope: &Scope) -> Option<String> {
        let runs = tasks.iter().filter_map(|task| StatusRun::of(task, scope));
        let unknown = runs
            .filter(|run| self.live.progress(run.task_uid(), run.number()).is_none())
            .map(|run| run.unlisted())
            .sum::<u64>();
        (unknown > 0).then(|| {
            format!(
                "this operator does not lead yet: of {unknown} targets only those are listed that have begun and are archived"
            )
        })
    }
}

/// Rows with their places in order, and the place behind which others may follow.
type Rows = (Vec<(PageToken, Execution)>, Option<PageToken>);

/// The scope with the Runs of these Tasks that start nothing more.
fn stopping(tasks: &[Arc<Task>], scope: Scope) -> Scope {
    let all = Scope { extent: Extent::All, ..scope.clone() };
    let runs = tasks.iter().filter_map(|task| StatusRun::of(task, &all)).filter(StatusRun::is_stopping);
    Scope { stopping: runs.map(|run| (run.task_uid().clone(), run.number())).collect(), ..scope }
}

fn one_execution(task: &TaskUid, run: RunNumber, node: &NodeName) -> ExecutionQuery {
    ExecutionQuery {
        task_uid: Some(task.clone()),
        run: Some(run),
        node: Some(node.clone()),
        limit: 1,
        ..ExecutionQuery::default()
    }
}

/// The overlay and a page of History as one: up to where both are known.
fn merge(mut known: Overlay<Row>, page: Page<ExecutionRecord>) -> Overlay<Row> {
    if let Some(next) = page.next {
        known.cut(next);
    }
    for record in page.items {
        known.put(PageToken::of_execution(&record), Row::archived(record), Row::knows_more_than);
    }
    known
}

fn only_memory(why: &str) -> String {
    format!("History does not answer, only what this operator holds in memory is listed: {why}")
}

/// History's answer, or the error it would give when it takes too long.
async fn asked<T>(question: impl Future<Output = Result<T, HistoryError>> + Send) -> Result<T, HistoryError> {
    let late = HistoryError::TimedOut {
        action: "answer a reader",
        store: "History".to_owned(),
        after: HISTORY_WITHIN,
    };
    tokio::time::timeout(HISTORY_WITHIN, question).await.unwrap_or(Err(late))
}

/// The same, where memory stands in for a History that may answer later.
async fn asked_in_time<T>(
    question: impl Future<Output = Result<T, HistoryError>> + Send,
) -> Result<Asked<T>, HistoryError> {
    match asked(question).await {
        Ok(answer) => Ok(Asked::Answered(answer)),
        Err(error) if error.retry() == Retry::Later => Ok(Asked::Unavailable(error.to_string())),
        Err(error) => Err(error),
    }
}
