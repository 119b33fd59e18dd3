//! Reads of Runs, Executions and Attempts: the overlay and History as one.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::Store;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};

use super::live::{ExecutionStatus, Extent, LiveRuns, Retries, RunProgress, Scope};
use super::overlay::{self, ExecutionRow, Overlay, RowOrigin};
use super::status::StatusRun;
use crate::history::archive::Archiver;
use crate::history::error::HistoryError;
use crate::history::head::{AuditHeadQuery, AuditHeadRecord};
use crate::history::query::{ExecutionQuery, Page, PageToken, RunQuery, page_size};
use crate::history::rank;
use crate::history::record::{AttemptRecord, ExecutionRecord, HistoryRecord, RunRecord};
use crate::history::store::History;
use crate::resource::{Task, recorded};

/// How long a reader waits for History before it gets only what is in memory.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most pages of History that one query reads to find matching rows.
const PAGES_PER_QUERY: usize = 8;

/// How long a reader waits for memory to know what the status of a Task shows already, and how often it checks.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(500);
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(5);

/// A page of rows, and whether it is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The `after` of the next page; `None` when this is the last.
    pub next: Option<PageToken>,
    /// Why rows may be missing, for people; `None` when the page is complete.
    pub partial: Option<String>,
}

/// Everything that this operator knows of Runs. Cloning it is cheap.
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

/// What History returned, or why it is unavailable.
enum Archive<T> {
    Available(T),
    Unavailable(String),
}

impl Records {
    /// Reads this History, the records queued in `archiver`, the Runs in memory, and the cached Tasks.
    pub fn new(
        history: Arc<dyn History>,
        archiver: Archiver,
        live: Arc<dyn LiveRuns>,
        tasks: Store<Task>,
    ) -> Self {
        Self { history, archiver, live, tasks }
    }

    /// Executions that match the query and `is_wanted`, those of the newest Run first, within a Run by node. A page may
    /// have fewer rows than its limit and still be followed by another.
    ///
    /// # Errors
    /// [`HistoryError`] when the query is invalid, or History cannot read its own records.
    pub async fn executions(
        &self,
        query: ExecutionQuery,
        is_wanted: impl Fn(&ExecutionStatus) -> bool + Send,
    ) -> Result<Listed<ExecutionStatus>, HistoryError> {
        let limit = page_size(query.limit)?;
        let start = query.began.after(query.after.as_ref());
        let mut listed = Listed { items: Vec::new(), next: start, partial: None };
        for _ in 0..PAGES_PER_QUERY {
            let (page, partial) = self.page(&query, listed.next.as_ref(), limit).await?;
            listed.partial = listed.partial.or(partial);
            let (rows, horizon) = page;
            for (key, execution) in rows {
                let has_outcome = query.outcome.is_none() || execution.outcome() == query.outcome;
                let record = &execution.record;
                let is_of_run = query.began.has(record.run_started_at)
                    && has_trigger(query.trigger.as_deref(), record.trigger.as_deref());
                if !has_outcome || !is_of_run || !is_wanted(&execution) {
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
            listed.next = horizon.filter(|horizon| !query.began.is_over_at(horizon));
            if listed.next.is_none() || listed.items.len() >= limit {
                break;
            }
        }
        Ok(listed)
    }

    /// One page of rows with their keys, and where the next begins.
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
        let archived = ExecutionQuery { limit: limit as u32, after: after.cloned(), ..query.clone() };
        let (known, page, mut partial) = match query_or_unavailable(self.history.executions(archived)).await?
        {
            Archive::Available(page) => (known, page, None),
            Archive::Unavailable(why) => {
                (overlay(Extent::All), Page { items: Vec::new(), next: None }, Some(memory_only(&why)))
            }
        };
        if partial.is_none() {
            partial = self.unlisted(&tasks, &scope);
        }
        let mut rows = merge(known, page);
        if query.outcome.is_some() {
            self.refresh_status_rows(&mut rows).await?;
        }
        let horizon = rows.horizon;
        let rows = rows.rows.into_iter().map(|(key, row)| (key, row.execution)).collect();
        Ok(((rows, horizon), partial))
    }

    /// Replaces rows of a status that is older than History. Needed when the query is for one Outcome: then History did
    /// not return newer rows with another Outcome.
    async fn refresh_status_rows(&self, overlay: &mut Overlay<ExecutionRow>) -> Result<(), HistoryError> {
        for row in overlay.rows.values_mut().filter(|row| row.origin == RowOrigin::Status) {
            let record = &row.execution.record;
            let one = one_execution(&record.task_uid, record.run, &record.node);
            let Archive::Available(page) = query_or_unavailable(self.history.executions(one)).await? else {
                return Ok(());
            };
            if let Some(archived) = page.items.into_iter().next().map(ExecutionRow::archived)
                && archived.knows_more_than(row)
            {
                *row = archived;
            }
        }
        Ok(())
    }

    /// One Execution; `None` when it does not exist.
    ///
    /// # Errors
    /// [`HistoryError`] when it is not known here and History is unavailable.
    pub async fn execution(
        &self,
        task: &TaskUid,
        run: RunNumber,
        node: &NodeName,
    ) -> Result<Option<ExecutionStatus>, HistoryError> {
        let tasks = self.tasks_in_scope(None, None, Some(task));
        let query = one_execution(task, run, node);
        self.catch_up(&tasks, &Scope::of_executions(&query, Extent::Unarchived)).await;
        let scope = stopping(&tasks, Scope::of_executions(&query, Extent::All));
        let known = overlay::executions(&*self.live, &self.archiver, &tasks, &scope, None, 2);
        let known = known.rows.into_values().next();
        match (query_in_time(self.history.executions(query)).await, known) {
            (Ok(page), known) => {
                let archived = page.items.into_iter().next().map(ExecutionRow::archived);
                let row = match (known, archived) {
                    (Some(known), Some(archived)) if archived.knows_more_than(&known) => Some(archived),
                    (known, archived) => known.or(archived),
                };
                Ok(row.map(|row| row.execution))
            }
            (Err(error), Some(known)) if error.is_retryable() => Ok(Some(known.execution)),
            (Err(error), _) => Err(error),
        }
    }

    /// One Attempt; `None` when it does not exist.
    ///
    /// # Errors
    /// [`HistoryError`] when it is not known here and History is unavailable.
    pub async fn attempt(&self, id: &AttemptId) -> Result<Option<AttemptRecord>, HistoryError> {
        let mut known = self.live.attempt(id);
        self.archiver.for_each_queued(|record| {
            if let HistoryRecord::Attempt(queued) = record
                && queued.attempt == *id
            {
                let knows_more = known
                    .as_ref()
                    .is_none_or(|known| rank::weight_of_attempt(queued) > rank::weight_of_attempt(known));
                if knows_more {
                    known = Some((**queued).clone());
                }
            }
        });
        match query_in_time(self.history.attempt(id.clone())).await {
            Ok(Some(archived)) => Ok(Some(match known {
                Some(known) if rank::weight_of_attempt(&known) > rank::weight_of_attempt(&archived) => known,
                _ => archived,
            })),
            Ok(None) => Ok(known),
            Err(error) if error.is_retryable() => known.map(Some).ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// Heads of audit chains. None is on its way for long, and none is in the status of a Task: History alone has them.
    ///
    /// # Errors
    /// [`HistoryError`] when History cannot be read.
    pub async fn audit_heads(&self, query: AuditHeadQuery) -> Result<Page<AuditHeadRecord>, HistoryError> {
        self.history.audit_heads(query).await
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// [`HistoryError`] when the query is invalid, or History cannot read its own records.
    pub async fn runs(&self, query: RunQuery) -> Result<Listed<RunRecord>, HistoryError> {
        let limit = page_size(query.limit)?;
        let tasks =
            self.tasks_in_scope(query.namespace.as_deref(), query.task.as_deref(), query.task_uid.as_ref());
        let after = query.began.after(query.after.as_ref());
        let overlay = |extent| {
            let scope = stopping(&tasks, Scope::of_runs(&query, extent));
            overlay::runs(&*self.live, &self.archiver, &tasks, &scope, after.as_ref(), limit + 1)
        };
        let known = overlay(Extent::Unarchived);
        let archived = RunQuery { limit: limit as u32, ..query.clone() };
        let (mut known, page, partial) = match query_or_unavailable(self.history.runs(archived)).await? {
            Archive::Available(page) => (known, page, None),
            Archive::Unavailable(why) => {
                (overlay(Extent::All), Page { items: Vec::new(), next: None }, Some(memory_only(&why)))
            }
        };
        if let Some(next) = page.next {
            known.cut(next);
        }
        for record in page.items {
            known.put(PageToken::of_run(&record), (record, RowOrigin::History), overlay::run_wins);
        }
        let rows = known.rows.into_values().map(|(record, _)| record);
        let is_wanted = |record: &RunRecord| {
            query.began.has(record.started_at) && has_trigger(query.trigger.as_deref(), Some(&record.trigger))
        };
        let mut items: Vec<RunRecord> = rows.filter(is_wanted).collect();
        let next = if items.len() > limit {
            items.truncate(limit);
            items.last().map(PageToken::of_run)
        } else {
            known.horizon.filter(|horizon| !query.began.is_over_at(horizon))
        };
        Ok(Listed { items, next, partial })
    }

    /// The Task with the progress of its active Run as the next write of its status will show it. The status is written
    /// about once a second; lists of Executions do not wait for that.
    pub fn current(&self, task: &Task) -> Option<Task> {
        let run = StatusRun::of(task, &Scope::everything()).filter(|run| !run.is_finished())?;
        let retries = if run.is_stopping() { Retries::Stopped } else { Retries::Allowed };
        let rolled = self.live.roll_up(run.task_uid(), run.number(), retries)?;
        recorded::rewrite_progress(task, &rolled)
    }

    fn tasks_in_scope(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        uid: Option<&TaskUid>,
    ) -> Vec<Arc<Task>> {
        let is_in_scope = |task: &Task| {
            let matches = |wanted: Option<&str>, given: Option<&String>| {
                wanted.is_none_or(|wanted| given.is_some_and(|given| given == wanted))
            };
            matches(namespace, task.metadata.namespace.as_ref())
                && matches(name, task.metadata.name.as_ref())
                && matches(uid.map(TaskUid::as_str), task.metadata.uid.as_ref())
        };
        let mut tasks = self.tasks.state();
        tasks.retain(|task| is_in_scope(task));
        tasks
    }

    /// Waits until memory has the end of every Run that has ended by its Task's status. The conclusions at the end of a Run
    /// are written to the status first, and the status lists only some of the nodes.
    async fn catch_up(&self, tasks: &[Arc<Task>], scope: &Scope) {
        let lags = || {
            let runs = tasks.iter().filter_map(|task| StatusRun::of(task, scope));
            runs.filter(|run| run.is_finished() && run.unlisted() > 0)
                .any(|run| self.live.progress(run.task_uid(), run.number()) == Some(RunProgress::Active))
        };
        let deadline = tokio::time::Instant::now() + CATCH_UP_TIMEOUT;
        while lags() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
    }

    /// Why targets may be missing: another operator carries the Run out, and the status lists only some of them.
    fn unlisted(&self, tasks: &[Arc<Task>], scope: &Scope) -> Option<String> {
        let runs = tasks.iter().filter_map(|task| StatusRun::of(task, scope));
        let unknown = runs
            .filter(|run| self.live.progress(run.task_uid(), run.number()).is_none())
            .map(|run| run.unlisted())
            .sum::<u64>();
        (unknown > 0).then(|| {
            format!(
                "this operator is not the leader yet: {unknown} targets are listed only if they have begun and are archived"
            )
        })
    }
}

/// Rows with their keys in order, and the key after which others may follow.
type Rows = (Vec<(PageToken, ExecutionStatus)>, Option<PageToken>);

/// Adds the Runs of these Tasks that start nothing more.
fn stopping(tasks: &[Arc<Task>], scope: Scope) -> Scope {
    let all = Scope { extent: Extent::All, ..scope.clone() };
    let runs = tasks.iter().filter_map(|task| StatusRun::of(task, &all)).filter(StatusRun::is_stopping);
    Scope { stopping: runs.map(|run| (run.task_uid().clone(), run.number())).collect(), ..scope }
}

fn has_trigger(wanted: Option<&str>, trigger: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| trigger == Some(wanted))
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

/// Merges a page of History into the overlay, up to where both are complete.
fn merge(mut known: Overlay<ExecutionRow>, page: Page<ExecutionRecord>) -> Overlay<ExecutionRow> {
    if let Some(next) = page.next {
        known.cut(next);
    }
    for record in page.items {
        known.put(
            PageToken::of_execution(&record),
            ExecutionRow::archived(record),
            ExecutionRow::knows_more_than,
        );
    }
    known
}

fn memory_only(why: &str) -> String {
    format!("History is unavailable; only what this operator holds in memory is listed: {why}")
}

/// The result of a query, or an error when it takes too long.
async fn query_in_time<T>(
    query: impl Future<Output = Result<T, HistoryError>> + Send,
) -> Result<T, HistoryError> {
    let late = HistoryError::TimedOut {
        action: "answer a query",
        store: "History".to_owned(),
        after: HISTORY_TIMEOUT,
    };
    tokio::time::timeout(HISTORY_TIMEOUT, query).await.unwrap_or(Err(late))
}

/// The same, with a retryable error as [`Archive::Unavailable`].
async fn query_or_unavailable<T>(
    query: impl Future<Output = Result<T, HistoryError>> + Send,
) -> Result<Archive<T>, HistoryError> {
    match query_in_time(query).await {
        Ok(found) => Ok(Archive::Available(found)),
        Err(error) if error.is_retryable() => Ok(Archive::Unavailable(error.to_string())),
        Err(error) => Err(error),
    }
}
