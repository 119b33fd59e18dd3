//! The ledgers as readers see them: Runs, Executions and Attempts in the words of History.

use std::sync::Arc;

use sentinel_core::reconcile::execution::{self, AttemptPhase, AttemptState};
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{self, Counts};
use sentinel_core::reconcile::status::{self, NodeStatus, PendingRetries, Reach, RollUp};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, TaskUid};
use sentinel_protocol::request::Environment;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Stage, Usage};

use super::fleet::Fleet;
use super::ledgers::{Book, Ledgers, Page};
use super::records::run_record;
use crate::history::{AttemptRecord, ExecutionRecord, PageToken, RunRecord, Source};
use crate::records::{Awaited, Execution, Extent, LiveRuns, Progress, Scope, TriedAgain, Waiting};

/// The Runs that the ledgers hold. Cloning it is cheap.
#[derive(Clone)]
pub struct LiveLedgers {
    ledgers: Ledgers,
    fleet: Arc<dyn Fleet>,
}

impl std::fmt::Debug for LiveLedgers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveLedgers").finish_non_exhaustive()
    }
}

impl LiveLedgers {
    /// Reads these ledgers; whether a node can be reached is asked of the fleet.
    pub fn new(ledgers: Ledgers, fleet: Arc<dyn Fleet>) -> Self {
        Self { ledgers, fleet }
    }

    fn books(&self, scope: &Scope) -> Vec<Arc<Book>> {
        if let Some(uid) = &scope.task_uid {
            let book = self.ledgers.book(uid);
            return book.filter(|book| in_scope(book, uid, scope)).into_iter().collect();
        }
        let all = self.ledgers.all().into_iter();
        all.filter(|(uid, book)| in_scope(book, uid, scope)).map(|(_, book)| book).collect()
    }

    fn reach(&self, node: &NodeName) -> Reach {
        if self.fleet.agent(node).session.is_some() { Reach::Reachable } else { Reach::Unreachable }
    }
}

fn in_scope(book: &Book, uid: &TaskUid, scope: &Scope) -> bool {
    scope.has_task(&book.task().namespace, &book.task().name, uid)
}

/// A settled Run is in History to the last record.
fn is_wanted(page: &Page, scope: &Scope) -> bool {
    scope.has_run(page.facts.run) && (scope.extent == Extent::All || !page.settled)
}

impl LiveRuns for LiveLedgers {
    fn runs(&self, scope: &Scope) -> Vec<RunRecord> {
        let mut runs = Vec::new();
        for book in self.books(scope) {
            let pages = book.pages();
            // Of a Run that was taken over, History knows more until it has been asked.
            let knows = |page: &&Page| page.recall == HistoryLookup::Done || scope.extent == Extent::All;
            runs.extend(
                pages
                    .all()
                    .filter(|page| is_wanted(page, scope))
                    .filter(knows)
                    .map(|page| run_row(page, scope)),
            );
        }
        runs
    }

    fn executions(&self, scope: &Scope, after: Option<&PageToken>, most: usize) -> Vec<Execution> {
        let mut found: Vec<(PageToken, Arc<Book>, RunNumber)> = Vec::new();
        for book in self.books(scope) {
            let pages = book.pages();
            for page in pages.all().filter(|page| is_wanted(page, scope)) {
                let facts = &page.facts;
                let passed = |after: &PageToken| after.is_behind_run(facts.started_at, &facts.uid, facts.run);
                if !after.is_some_and(passed) {
                    let place = PageToken::of_run_start(facts.started_at, &facts.uid, facts.run);
                    found.push((place, Arc::clone(&book), facts.run));
                }
            }
        }
        found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let mut rows: Vec<Execution> = Vec::new();
        for (_, book, run) in found {
            if rows.len() >= most {
                break;
            }
            let pages = book.pages();
            let Some(page) = pages.page(run) else { continue };
            let behind =
                |row: &Execution| after.is_none_or(|after| PageToken::of_execution(&row.record) > *after);
            let targets = page.targets.iter().filter(|node| scope.has_node(node));
            let tried_again = scope.tried_again(&page.facts.uid, page.facts.run);
            let rows_of = |node: &NodeName| row(page, node, self.reach(node), tried_again);
            let of_page = targets.map(rows_of).filter(behind);
            rows.extend(of_page.take(most - rows.len()));
        }
        rows
    }

    fn attempt(&self, id: &AttemptId) -> Option<AttemptRecord> {
        let book = self.ledgers.book(&id.task)?;
        let pages = book.pages();
        let page = pages.page(id.run)?;
        let tried = page.ledger.execution(&id.node)?.attempts().find(|tried| tried.number == id.attempt)?;
        // Of an end that History recalled, the ledger holds the Outcome alone.
        let recalled = page.ledger.origin() == Origin::Inherited && tried.archived == Some(Stage::Ended);
        if recalled || tried.phase == AttemptPhase::Unknown {
            return None;
        }
        Some(attempt(page, id, tried))
    }

    fn roll_up(&self, task: &TaskUid, run: RunNumber, tried_again: TriedAgain) -> Option<RollUp> {
        let book = self.ledgers.book(task)?;
        let pages = book.pages();
        let page = pages.page(run).filter(|page| page.recall == HistoryLookup::Done)?;
        let again = |node: &&NodeName| {
            let execution = page.ledger.execution(node);
            execution.and_then(|one| followed(page, one, tried_again)).is_some()
        };
        let again = page.targets.iter().filter(again).cloned().collect();
        let prospects = PendingRetries { targets: &again, limit: page.facts.retry.limit };
        Some(status::roll_up(&page.targets, &page.ledger, prospects, |node| self.reach(node)))
    }

    fn progress(&self, task: &TaskUid, run: RunNumber) -> Option<Progress> {
        let book = self.ledgers.book(task)?;
        let pages = book.pages();
        let page = pages.page(run)?;
        Some(if is_finished(page) { Progress::Finished } else { Progress::UnderWay })
    }
}

fn is_finished(page: &Page) -> bool {
    page.ledger.record().is_some_and(|record| record.finished_at.is_some())
}

fn run_row(page: &Page, scope: &Scope) -> RunRecord {
    let facts = &page.facts;
    let tried_again = scope.tried_again(&facts.uid, facts.run);
    let begun = || run::RunState {
        number: facts.run,
        trigger: facts.trigger,
        spec_hash: facts.spec_hash.clone(),
        rerun_token: String::new(),
        started_at: facts.started_at,
        finished_at: None,
        verdict: None,
        stopping: None,
        targets: u32::try_from(page.targets.len()).unwrap_or(u32::MAX),
        counts: Counts::default(),
    };
    let record = page.ledger.record().cloned().unwrap_or_else(begun);
    let mut record = run_record(page, &record, Epoch::ZERO);
    // What is tried again has not ended.
    for node in page.targets.iter() {
        let again = page.ledger.execution(node).and_then(|execution| followed(page, execution, tried_again));
        if let Some(ended) = again
            && let Some(count) = record.counts.outcomes.get_mut(ended.outcome.name())
        {
            *count = count.saturating_sub(1);
        }
    }
    record.counts.outcomes.retain(|_, count| *count > 0);
    record
}

/// How the latest Attempt ended, if another follows it as far as is known here.
fn followed<'a>(
    page: &Page,
    execution: &'a execution::Execution,
    tried_again: TriedAgain,
) -> Option<&'a Ended> {
    let ended = execution.ended().filter(|_| tried_again == TriedAgain::Yes && !is_finished(page))?;
    page.facts.retry.allows(execution.latest.number, &ended.outcome).then_some(ended)
}

fn row(page: &Page, node: &NodeName, reach: Reach, tried_again: TriedAgain) -> Execution {
    let none = execution::Execution::default();
    let execution = page.ledger.execution(node).unwrap_or(&none);
    let id = page.ledger.attempt_of(node, execution.latest.number);
    let record = attempt(page, &id, &execution.latest).execution();
    let waiting = |line: NodeStatus, what| Some(Waiting { state: line.state, message: line.message, what });
    if let Some(ended) = followed(page, execution, tried_again) {
        let line = status::between_attempts(node, execution, ended, page.facts.retry.limit, reach);
        return Execution { record, waiting: waiting(line, Awaited::Retry) };
    }
    if execution.latest.phase != AttemptPhase::Unknown {
        return Execution::recorded(record);
    }
    let unsent = execution.started.is_none() && execution.before_latest().is_none();
    let number = if unsent { 0 } else { record.attempt };
    let record = ExecutionRecord { attempt: number, ..record };
    Execution { record, waiting: waiting(status::node_status(node, execution, reach), Awaited::Start) }
}

fn attempt(page: &Page, id: &AttemptId, tried: &AttemptState) -> AttemptRecord {
    let facts = &page.facts;
    let ended = tried.ended();
    let (stage, source) = match &tried.phase {
        AttemptPhase::Unknown => (Stage::Accepted, Source::Operator),
        AttemptPhase::Accepted => (Stage::Accepted, Source::Agent),
        AttemptPhase::Running(_) => (Stage::Running, Source::Agent),
        AttemptPhase::Ended(_) => (Stage::Ended, Source::Agent),
        AttemptPhase::Concluded(_) => (Stage::Ended, Source::Operator),
    };
    AttemptRecord {
        attempt: id.clone(),
        namespace: facts.task.namespace.to_string(),
        name: facts.task.name.to_string(),
        run_started_at: facts.started_at,
        spec_hash: facts.spec_hash.clone(),
        command: facts.command.clone(),
        environment: facts.request.as_ref().map_or(Environment::Container, |request| request.environment),
        stage,
        started_at: match &tried.phase {
            AttemptPhase::Running(running) => Some(running.started_at),
            _ => ended.and_then(|ended| ended.started_at),
        },
        ended_at: ended.map(|ended| ended.ended_at),
        outcome: ended.map(|ended| ended.outcome.clone()),
        usage: ended.map_or_else(Usage::default, |ended| ended.usage),
        output: ended.map_or_else(OutputSummary::default, |ended| ended.output.clone()),
        exit: ended.map(|ended| ended.exit.clone()).unwrap_or_default(),
        source,
        epoch: Epoch::ZERO,
    }
}
