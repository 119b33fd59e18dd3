//! What History may not hold yet, gathered from where it is known: the Runs in memory, the records on their way to
//! History, and the status of the Tasks. Of two statements about one thing, the one that knows more stands.

use std::collections::BTreeMap;

use super::live::{Awaited, Execution, LiveRuns, Scope};
use super::status::StatusRun;
use crate::history::archive::Archiver;
use crate::history::{Entry, ExecutionRecord, PageToken, RunRecord, rank};
use crate::resource::Task;

/// Where a statement is from; among statements that know the same, a later one in this order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A Task's status: written now and then, and in few words.
    Status,
    /// History.
    History,
    /// On its way to History.
    Queue,
    /// Known first hand.
    Memory,
}

/// A statement about an Execution.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) execution: Execution,
    pub(super) origin: Origin,
}

impl Row {
    pub(super) fn archived(record: ExecutionRecord) -> Self {
        Self { execution: Execution::recorded(record), origin: Origin::History }
    }

    /// How much it knows: the Attempt's number, how far that is known, and whether that is the last word on it.
    fn weight(&self) -> (u32, u8, Origin) {
        let (attempt, known) = rank::weight_of_execution(&self.execution.record);
        match &self.execution.waiting {
            None => (attempt, known, self.origin),
            Some(waiting) if waiting.what == Awaited::Start => (attempt, 0, self.origin),
            // The end of the Attempt is known, of which the status repeats but the words.
            Some(_) => (attempt, u8::MAX, self.origin),
        }
    }

    pub(super) fn knows_more_than(&self, other: &Self) -> bool {
        self.weight() > other.weight()
    }
}

/// Rows in the order of pages. Behind the horizon there may be others.
#[derive(Debug)]
pub(super) struct Overlay<R> {
    pub(super) rows: BTreeMap<PageToken, R>,
    pub(super) horizon: Option<PageToken>,
    /// Number of rows that are held.
    most: usize,
}

impl<R> Overlay<R> {
    fn new(most: usize) -> Self {
        Self { rows: BTreeMap::new(), horizon: None, most }
    }

    /// Takes a row in, unless `stays` prefers the one that is there.
    pub(super) fn put(&mut self, key: PageToken, row: R, wins: impl Fn(&R, &R) -> bool) {
        if self.horizon.as_ref().is_some_and(|horizon| key > *horizon) {
            return;
        }
        match self.rows.get(&key) {
            Some(there) if !wins(&row, there) => return,
            _ => {
                self.rows.insert(key, row);
            }
        }
        if self.rows.len() > self.most {
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

/// Executions, those behind `after`, about `most` of them.
pub(super) fn executions(
    live: &dyn LiveRuns,
    archiver: &Archiver,
    tasks: &[std::sync::Arc<Task>],
    scope: &Scope,
    after: Option<&PageToken>,
    most: usize,
) -> Overlay<Row> {
    let mut overlay = Overlay::new(most);
    let behind = |key: &PageToken| after.is_none_or(|after| key > after);
    let wins = Row::knows_more_than;
    // First the one from which things move on to the other.
    let known = live.executions(scope, after, most);
    let horizon =
        (known.len() >= most).then(|| known.last().map(|last| PageToken::of_execution(&last.record)));
    for execution in known {
        let key = PageToken::of_execution(&execution.record);
        overlay.put(key, Row { execution, origin: Origin::Memory }, wins);
    }
    if let Some(horizon) = horizon.flatten() {
        overlay.cut(horizon);
    }
    archiver.each_waiting(|entry| {
        let record = match entry {
            Entry::Attempt(attempt) if scope.has_node(&attempt.attempt.node) => attempt.execution(),
            Entry::Execution(execution) if scope.has_node(&execution.node) => (**execution).clone(),
            _ => return,
        };
        let wanted = scope.has_task(&record.namespace, &record.name, &record.task_uid);
        let key = PageToken::of_execution(&record);
        if wanted && scope.has_run(record.run) && behind(&key) {
            let row = Row { execution: Execution::recorded(record), origin: Origin::Queue };
            overlay.put(key, row, wins);
        }
    });
    for run in tasks.iter().filter_map(|task| StatusRun::of(task, scope)) {
        for execution in run.executions(scope) {
            let key = PageToken::of_execution(&execution.record);
            if behind(&key) {
                overlay.put(key, Row { execution, origin: Origin::Status }, wins);
            }
        }
    }
    overlay
}

/// Runs, those behind `after`, about `most` of them.
pub(super) fn runs(
    live: &dyn LiveRuns,
    archiver: &Archiver,
    tasks: &[std::sync::Arc<Task>],
    scope: &Scope,
    after: Option<&PageToken>,
    most: usize,
) -> Overlay<(RunRecord, Origin)> {
    let mut overlay = Overlay::new(most);
    let behind = |key: &PageToken| after.is_none_or(|after| key > after);
    for run in live.runs(scope) {
        let key = PageToken::of_run(&run);
        if behind(&key) {
            overlay.put(key, (run, Origin::Memory), run_wins);
        }
    }
    archiver.each_waiting(|entry| {
        let Entry::Run(run) = entry else { return };
        let key = PageToken::of_run(run);
        let wanted = scope.has_task(&run.namespace, &run.name, &run.task_uid) && scope.has_run(run.run);
        if wanted && behind(&key) {
            overlay.put(key, ((**run).clone(), Origin::Queue), run_wins);
        }
    });
    for run in tasks.iter().filter_map(|task| StatusRun::of(task, scope)) {
        let record = run.record();
        let key = PageToken::of_run(&record);
        if !behind(&key) {
            continue;
        }
        match overlay.rows.get_mut(&key) {
            // That it is over is written a moment before it is known in memory, which knows everything else better.
            Some((known, _)) if known.verdict.is_none() => {
                known.verdict = record.verdict;
                known.finished_at = record.finished_at;
                known.reason = record.reason;
            }
            Some(_) => {}
            None => overlay.put(key, (record, Origin::Status), run_wins),
        }
    }
    overlay
}

/// Whether a statement about a Run stands against another. Of a Run under way, memory alone knows which of the targets
/// that have ended are tried again.
pub(super) fn run_wins(one: &(RunRecord, Origin), other: &(RunRecord, Origin)) -> bool {
    let weight = |(record, origin): &(RunRecord, Origin)| {
        let (over, ended) = rank::weight_of_run(record);
        (over, *origin == Origin::Memory, ended, *origin)
    };
    weight(one) > weight(other)
}
