//! The run store as the API reads it: Runs, Executions and Attempts as records of History.

use std::sync::Arc;

use sentinel_core::reconcile::execution::{self, AttemptPhase, AttemptState};
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{self, Counts};
use sentinel_core::reconcile::status::{self, NodeStatus, PendingRetries, Reach, RollUp};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, TaskUid};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::Ended;

use super::fleet::Fleet;
use super::history_records::{run_context, run_record};
use super::run_store::RunStore;
use super::task_runs::{TaskRuns, TrackedRun};
use crate::history::{AttemptRecord, ExecutionRecord, OutcomeName, PageToken, RecordSource, RunRecord};
use crate::records::{
    ExecutionStatus, Extent, LiveRuns, Retries, RunProgress, Scope, WaitingFor, WaitingState,
};

/// The Runs of the run store. Cloning it is cheap.
#[derive(Clone)]
pub struct RunStoreReader {
    store: RunStore,
    fleet: Arc<dyn Fleet>,
}

impl std::fmt::Debug for RunStoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunStoreReader").finish_non_exhaustive()
    }
}

impl RunStoreReader {
    /// Reads this store; `fleet` knows which nodes are reachable.
    pub fn new(store: RunStore, fleet: Arc<dyn Fleet>) -> Self {
        Self { store, fleet }
    }

    fn tasks(&self, scope: &Scope) -> Vec<Arc<TaskRuns>> {
        if let Some(uid) = &scope.task_uid {
            let task = self.store.get(uid);
            return task.filter(|task| in_scope(task, uid, scope)).into_iter().collect();
        }
        let all = self.store.all().into_iter();
        all.filter(|(uid, task)| in_scope(task, uid, scope)).map(|(_, task)| task).collect()
    }

    fn reach(&self, node: &NodeName) -> Reach {
        if self.fleet.agent(node).session.is_some() { Reach::Reachable } else { Reach::Unreachable }
    }
}

fn in_scope(task: &TaskRuns, uid: &TaskUid, scope: &Scope) -> bool {
    scope.has_task(&task.task().namespace, &task.task().name, uid)
}

/// Everything of a settled Run is in History.
fn is_wanted(run: &TrackedRun, scope: &Scope) -> bool {
    scope.has_run(run.facts.run) && (scope.extent == Extent::All || !run.settled)
}

impl LiveRuns for RunStoreReader {
    fn runs(&self, scope: &Scope) -> Vec<RunRecord> {
        let mut records = Vec::new();
        for task in self.tasks(scope) {
            let runs = task.lock();
            // History knows more of a Run that was taken over until its lookup is done.
            let is_known =
                |run: &&TrackedRun| run.lookup == HistoryLookup::Done || scope.extent == Extent::All;
            let wanted = runs.all().filter(|run| is_wanted(run, scope)).filter(is_known);
            records.extend(wanted.map(|run| run_view(run, scope)));
        }
        records
    }

    fn executions(&self, scope: &Scope, after: Option<&PageToken>, most: usize) -> Vec<ExecutionStatus> {
        let mut found: Vec<(PageToken, Arc<TaskRuns>, RunNumber)> = Vec::new();
        for task in self.tasks(scope) {
            let runs = task.lock();
            for run in runs.all().filter(|run| is_wanted(run, scope)) {
                let facts = &run.facts;
                let passed = |after: &PageToken| after.is_behind_run(facts.started_at, &facts.uid, facts.run);
                if !after.is_some_and(passed) {
                    let place = PageToken::of_run_start(facts.started_at, &facts.uid, facts.run);
                    found.push((place, Arc::clone(&task), facts.run));
                }
            }
        }
        found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let mut rows: Vec<ExecutionStatus> = Vec::new();
        for (_, task, run) in found {
            if rows.len() >= most {
                break;
            }
            let runs = task.lock();
            let Some(run) = runs.get(run) else { continue };
            let behind = |row: &ExecutionStatus| {
                after.is_none_or(|after| PageToken::of_execution(&row.record) > *after)
            };
            let targets = run.targets.iter().filter(|node| scope.has_node(node));
            let retries = scope.retries(&run.facts.uid, run.facts.run);
            let rows_of = |node: &NodeName| execution_view(run, node, self.reach(node), retries);
            let of_page = targets.map(rows_of).filter(behind);
            rows.extend(of_page.take(most - rows.len()));
        }
        rows
    }

    fn attempt(&self, id: &AttemptId) -> Option<AttemptRecord> {
        let task = self.store.get(&id.task)?;
        let runs = task.lock();
        let run = runs.get(id.run)?;
        let attempt =
            run.ledger.execution(&id.node)?.attempts().find(|attempt| attempt.number == id.attempt)?;
        // Of an end that was read from History, the ledger has the Outcome alone.
        let recalled = run.ledger.origin() == Origin::Inherited && attempt.archived == Some(Stage::Ended);
        if recalled || attempt.phase == AttemptPhase::Unknown {
            return None;
        }
        Some(attempt_view(run, id, attempt))
    }

    fn roll_up(&self, task: &TaskUid, run: RunNumber, retries: Retries) -> Option<RollUp> {
        let task = self.store.get(task)?;
        let runs = task.lock();
        let run = runs.get(run).filter(|run| run.lookup == HistoryLookup::Done)?;
        let again = |node: &&NodeName| {
            let execution = run.ledger.execution(node);
            execution.and_then(|one| followed(run, one, retries)).is_some()
        };
        let again = run.targets.iter().filter(again).cloned().collect();
        let prospects = PendingRetries { targets: &again, limit: run.facts.retry.limit };
        Some(status::roll_up(&run.targets, &run.ledger, prospects, |node| self.reach(node)))
    }

    fn progress(&self, task: &TaskUid, run: RunNumber) -> Option<RunProgress> {
        let task = self.store.get(task)?;
        let runs = task.lock();
        let run = runs.get(run)?;
        Some(if run.is_finished() { RunProgress::Finished } else { RunProgress::Active })
    }
}

fn run_view(run: &TrackedRun, scope: &Scope) -> RunRecord {
    let facts = &run.facts;
    let retries = scope.retries(&facts.uid, facts.run);
    let begun = || run::RunState {
        number: facts.run,
        trigger: facts.trigger,
        spec_hash: facts.spec_hash.clone(),
        rerun_token: String::new(),
        started_at: facts.started_at,
        finished_at: None,
        verdict: None,
        stopping: None,
        targets: u32::try_from(run.targets.len()).unwrap_or(u32::MAX),
        counts: Counts::default(),
        ceiling: None,
        approved_by: facts.approved_by.clone(),
    };
    let record = run.ledger.record().cloned().unwrap_or_else(begun);
    let mut record = run_record(run, &record, Epoch::ZERO);
    // What is retried has not ended.
    for node in run.targets.iter() {
        let again = run.ledger.execution(node).and_then(|execution| followed(run, execution, retries));
        if let Some(ended) = again
            && let Some(count) = record.counts.outcomes.get_mut(&OutcomeName::from(&ended.outcome))
        {
            *count = count.saturating_sub(1);
        }
    }
    record.counts.outcomes.retain(|_, count| *count > 0);
    record
}

/// How the latest Attempt ended, if it will be retried as far as is known here.
fn followed<'a>(
    run: &TrackedRun,
    execution: &'a execution::Execution,
    retries: Retries,
) -> Option<&'a Ended> {
    let ended = execution.ended().filter(|_| retries == Retries::Allowed && !run.is_finished())?;
    run.facts.retry.allows(execution.latest.number, &ended.outcome).then_some(ended)
}

fn execution_view(run: &TrackedRun, node: &NodeName, reach: Reach, retries: Retries) -> ExecutionStatus {
    let none = execution::Execution::default();
    let execution = run.ledger.execution(node).unwrap_or(&none);
    let id = run.ledger.attempt_of(node, execution.latest.number);
    let record = attempt_view(run, &id, &execution.latest).execution();
    let waiting = |line: NodeStatus, waiting_for| {
        Some(WaitingState { state: line.state, message: line.message, waiting_for })
    };
    if let Some(ended) = followed(run, execution, retries) {
        let line = status::between_attempts(node, execution, ended, run.facts.retry.limit, reach);
        return ExecutionStatus { record, waiting: waiting(line, WaitingFor::Retry) };
    }
    if execution.latest.phase != AttemptPhase::Unknown {
        return ExecutionStatus::recorded(record);
    }
    let unsent = execution.started.is_none() && execution.before_latest().is_none();
    let number = if unsent { 0 } else { record.attempt };
    let record = ExecutionRecord { attempt: number, ..record };
    ExecutionStatus {
        record,
        waiting: waiting(status::node_status(node, execution, reach), WaitingFor::Start),
    }
}

/// An Attempt as History would have it.
fn attempt_view(run: &TrackedRun, id: &AttemptId, attempt: &AttemptState) -> AttemptRecord {
    let source = match &attempt.phase {
        AttemptPhase::Unknown | AttemptPhase::Concluded(_) => RecordSource::Operator,
        AttemptPhase::Accepted | AttemptPhase::Running(_) | AttemptPhase::Ended(_) => RecordSource::Agent,
    };
    let record = AttemptRecord::accepted(id.clone(), run_context(run), source, Epoch::ZERO);
    match &attempt.phase {
        AttemptPhase::Unknown | AttemptPhase::Accepted => record,
        AttemptPhase::Running(running) => record.running(running.started_at),
        AttemptPhase::Ended(ended) | AttemptPhase::Concluded(ended) => record.ended(ended),
    }
}
