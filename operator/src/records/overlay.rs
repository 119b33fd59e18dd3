//! What History may not hold yet: the Runs in memory, the records queued in the archiver, and the status of the Tasks.
//! Of two rows with the same key, the one that knows more stays.

use std::collections::BTreeMap;

use super::live::{ExecutionStatus, LiveRuns, Scope, WaitingFor};
use super::status::StatusRun;
use crate::history::archive::Archiver;
use crate::history::query::PageToken;
use crate::history::rank;
use crate::history::record::{ExecutionRecord, HistoryRecord, RunRecord};
use crate::resource::Task;

/// Where a row is from; among rows that know the same, the one with the greater origin stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowOrigin {
    /// A Task's status, which is written at intervals and abridged.
    Status,
    /// History.
    History,
    /// Queued in the archiver.
    Queue,
    /// The controller's memory.
    Memory,
}

/// An Execution and where it is known from.
#[derive(Debug, Clone)]
pub(super) struct ExecutionRow {
    pub(super) execution: ExecutionStatus,
    pub(super) origin: RowOrigin,
}

impl ExecutionRow {
    pub(super) fn archived(record: ExecutionRecord) -> Self {
        Self { execution: ExecutionStatus::recorded(record), origin: RowOrigin::History }
    }

    /// How much it knows: the Attempt's number, how far that is known, and the origin.
    fn weight(&self) -> (u32, u8, RowOrigin) {
        let (attempt, known) = rank::weight_of_execution(&self.execution.record);
        match &self.execution.waiting {
            None => (attempt, known, self.origin),
            Some(waiting) if waiting.waiting_for == WaitingFor::Start => (attempt, 0, self.origin),
            // The end of the Attempt is known.
            Some(_) => (attempt, u8::MAX, self.origin),
        }
    }

    pub(super) fn knows_more_than(&self, other: &Self) -> bool {
        self.weight() > other.weight()
    }
}

/// Rows in the order of pages, complete up to the horizon.
#[derive(Debug)]
pub(super) struct Overlay<R> {
    pub(super) rows: BTreeMap<PageToken, R>,
    pub(super) horizon: Option<PageToken>,
    /// Most rows to hold.
    limit: usize,
}

impl<R> Overlay<R> {
    fn new(limit: usize) -> Self {
        Self { rows: BTreeMap::new(), horizon: None, limit }
    }

    /// Inserts a row, unless there is one with its key that it does not win against.
    pub(super) fn put(&mut self, key: PageToken, row: R, wins: impl Fn(&R, &R) -> bool) {
        if self.horizon.as_ref().is_some_and(|horizon| key > *horizon) {
            return;
        }
        match self.rows.get(&key) {
            Some(present) if !wins(&row, present) => return,
            _ => {
                self.rows.insert(key, row);
            }
        }
        if self.rows.len() > self.limit {
            self.rows.pop_last();
            self.cut_at_last();
        }
    }

    fn cut_at_last(&mut self) {
        self.horizon = self.rows.keys().next_back().cloned();
    }

    pub(super) fn cut(&mut self, horizon: PageToken) {
        if self.horizon.as_ref().is_none_or(|known| *known > horizon) {
            self.rows.retain(|key, _| *key <= horizon);
            self.horizon = Some(horizon);
        }
    }
}

/// Executions after `after`, about `limit` of them.
pub(super) fn executions(
    live: &dyn LiveRuns,
    archiver: &Archiver,
    tasks: &[std::sync::Arc<Task>],
    scope: &Scope,
    after: Option<&PageToken>,
    limit: usize,
) -> Overlay<ExecutionRow> {
    let mut overlay = Overlay::new(limit);
    let is_after = |key: &PageToken| after.is_none_or(|after| key > after);
    let wins = ExecutionRow::knows_more_than;
    // Memory before the queue: records move from the former to the latter.
    let known = live.executions(scope, after, limit);
    let horizon =
        (known.len() >= limit).then(|| known.last().map(|last| PageToken::of_execution(&last.record)));
    for execution in known {
        let key = PageToken::of_execution(&execution.record);
        overlay.put(key, ExecutionRow { execution, origin: RowOrigin::Memory }, wins);
    }
    if let Some(horizon) = horizon.flatten() {
        overlay.cut(horizon);
    }
    archiver.for_each_queued(|record| {
        let record = match record {
            HistoryRecord::Attempt(attempt) if scope.has_node(&attempt.attempt.node) => attempt.execution(),
            _ => return,
        };
        let wanted = scope.has_task(&record.namespace, &record.name, &record.task_uid);
        let key = PageToken::of_execution(&record);
        if wanted && scope.has_run(record.run) && is_after(&key) {
            let row = ExecutionRow { execution: ExecutionStatus::recorded(record), origin: RowOrigin::Queue };
            overlay.put(key, row, wins);
        }
    });
    for run in tasks.iter().filter_map(|task| StatusRun::of(task, scope)) {
        for execution in run.executions(scope) {
            let key = PageToken::of_execution(&execution.record);
            if is_after(&key) {
                overlay.put(key, ExecutionRow { execution, origin: RowOrigin::Status }, wins);
            }
        }
    }
    overlay
}

/// Runs after `after`, about `limit` of them.
pub(super) fn runs(
    live: &dyn LiveRuns,
    archiver: &Archiver,
    tasks: &[std::sync::Arc<Task>],
    scope: &Scope,
    after: Option<&PageToken>,
    limit: usize,
) -> Overlay<(RunRecord, RowOrigin)> {
    let mut overlay = Overlay::new(limit);
    let is_after = |key: &PageToken| after.is_none_or(|after| key > after);
    for run in live.runs(scope) {
        let key = PageToken::of_run(&run);
        if is_after(&key) {
            overlay.put(key, (run, RowOrigin::Memory), run_wins);
        }
    }
    archiver.for_each_queued(|record| {
        let HistoryRecord::Run(run) = record else { return };
        let key = PageToken::of_run(run);
        let wanted = scope.has_task(&run.namespace, &run.name, &run.task_uid) && scope.has_run(run.run);
        if wanted && is_after(&key) {
            overlay.put(key, ((**run).clone(), RowOrigin::Queue), run_wins);
        }
    });
    for run in tasks.iter().filter_map(|task| StatusRun::of(task, scope)) {
        let record = run.record();
        let key = PageToken::of_run(&record);
        if !is_after(&key) {
            continue;
        }
        match overlay.rows.get_mut(&key) {
            // The status has the end of a Run first; memory knows everything else better.
            Some((known, _)) if known.verdict.is_none() => {
                known.verdict = record.verdict;
                known.finished_at = record.finished_at;
                known.reason = record.reason;
            }
            Some(_) => {}
            None => overlay.put(key, (record, RowOrigin::Status), run_wins),
        }
    }
    overlay
}

/// Whether a row of a Run wins against another. Of an active Run, only memory knows which ended targets are retried.
pub(super) fn run_wins(one: &(RunRecord, RowOrigin), other: &(RunRecord, RowOrigin)) -> bool {
    let weight = |(record, origin): &(RunRecord, RowOrigin)| {
        let (over, ended) = rank::weight_of_run(record);
        (over, *origin == RowOrigin::Memory, ended, *origin)
    };
    weight(one) > weight(other)
}
