//! Results on their way: from an agent's Report to the ledger, to History, and back to the agent as an Ack.
//!
//! ```text
//!   Report ──▶ ledger (wakes its Task)
//!        └───▶ archiver ──▶ History ──▶ "archived" ─┐
//!   output ──▶ hub ──▶ archiver ──▶ "archived" ─────┴─ both, for an end ──▶ ledger, Ack
//! ```
//!
//! Output that does not come, though its node is connected and History takes what others send, is marked as missing after
//! [`ResultsParts::output_within`](super::ResultsParts), so that one node cannot keep a Run from ever being archived.
//!
//! An end counts as archived when History holds the record *and* all output, for an agent that may forget an Attempt
//! forgets its output as well. Everything here is level: whatever is not taken, or is forgotten in between, comes again,
//! because an agent repeats a Report until it is acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_agent::{Ack, ToAgent};
use sentinel_protocol::to_operator::{OutputSummary, Report, ReportedState, Stage, Usage};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::books::{AttemptFacts, Books};
use super::chores::Chore;
use super::counts::GatewayMetrics;
use super::registry::Registry;
use crate::history::archive::{Archived, Archiver};
use crate::history::{AttemptRecord, Entry, Source};
use crate::kill_point::KillPoint;
use crate::logs::{End, Hub};

/// Ends that may wait for their record and output to be archived; beyond that, agents say them again.
const MAX_WAITING: usize = 50_000;

/// The way of results.
pub struct Results {
    archiver: Archiver,
    books: Arc<dyn Books>,
    registry: Registry,
    hub: Hub,
    metrics: GatewayMetrics,
    chores: mpsc::Sender<Chore>,
    waiting: Mutex<HashMap<AttemptId, Waiting>>,
}

/// An end that is not archived yet.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Where its log ends.
    end: u64,
    record: Record,
    /// How far its output had come, and since when it has come no further while it could.
    come: u64,
    since: Instant,
}

/// Largest `output.limit` of a Task (`resource/validate`): the bound where that of the Run is not known.
const MAX_OUTPUT_LIMIT: u64 = 1 << 40;

/// Ends below this are not compared with the limit of their Run.
const SMALL_OUTPUT: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    OnTheWay,
    Archived,
}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}

impl Results {
    pub(super) fn with_chores(
        archiver: Archiver,
        books: Arc<dyn Books>,
        registry: Registry,
        hub: Hub,
        metrics: GatewayMetrics,
        chores: mpsc::Sender<Chore>,
    ) -> Self {
        Self { archiver, books, registry, hub, metrics, chores, waiting: Mutex::default() }
    }

    /// An agent says what one of its Attempts is.
    pub(super) fn report(&self, report: &Report) {
        match self.books.report(report) {
            Some(Applied::NeverDispatched) => return,
            Some(Applied::Conflict) => {
                self.metrics.conflicts.note(|count| {
                    tracing::warn!(
                        attempt = %report.attempt, count,
                        "security: an attempt is reported for another spec than it was started for"
                    );
                });
                // Its number was used before, in a future that a restored cluster does not know. What it says is kept.
                return self.chore(Chore::Describe(Box::new(report.clone())));
            }
            Some(Applied::Changed | Applied::Unchanged | Applied::OtherRun) => {}
            None => self.metrics.strays.add(1),
        }
        if let ReportedState::Ended(ended) = &report.state {
            self.hub.ended(&report.attempt, End::At(ended.output.end));
            if self.wait_for(&report.attempt, ended.output.end) == Record::Archived {
                // Said again while its output is still on the way.
                return self.end_archived(&report.attempt);
            }
        }
        match self.books.facts(&report.attempt) {
            Some(facts) => self.archive(report, facts),
            // Of an earlier Run, most likely: History knows what it was part of.
            None => self.chore(Chore::Describe(Box::new(report.clone()))),
        }
    }

    /// The Report as far as it can be true: what is kept of output is at most `output.limit`, so its log ends no further
    /// behind what was dropped than that.
    pub(super) fn believed(&self, report: &Report) -> Report {
        let mut report = report.clone();
        let ReportedState::Ended(ended) = &mut report.state else { return report };
        let output = &mut ended.output;
        if output.end <= SMALL_OUTPUT {
            return report;
        }
        let limit = self.books.facts(&report.attempt).and_then(|facts| facts.output_limit);
        let limit = limit.unwrap_or(MAX_OUTPUT_LIMIT).max(SMALL_OUTPUT);
        let dropped = output.stdout.dropped.saturating_add(output.stderr.dropped);
        let most = dropped.saturating_add(limit);
        if output.end > most {
            let attempt = &report.attempt;
            self.metrics.output_lies.note(|count| {
                tracing::warn!(
                    %attempt, end = output.end, limit, count,
                    "security: an agent claims more output than output.limit allows; the rest is not waited for"
                );
            });
            output.end = most;
        }
        report
    }

    /// Ends whose output has not come any further for `within`, though nothing kept it.
    pub(super) fn overdue(&self, within: Duration) -> Vec<AttemptId> {
        let now = Instant::now();
        let is_held_up = !self.archiver.status().is_up || self.hub.is_short();
        let mut overdue = Vec::new();
        for (attempt, waiting) in self.waiting().iter_mut() {
            if waiting.record != Record::Archived {
                continue;
            }
            let come = self.hub.held_position(attempt).unwrap_or(0);
            let is_connected = self.registry.standing(&attempt.node).0.is_some();
            if come != waiting.come || is_held_up || !is_connected {
                waiting.come = come;
                waiting.since = now;
                continue;
            }
            // What its agent does not own any more it has nothing of to send.
            if self.registry.has_let_go(attempt) || now.saturating_duration_since(waiting.since) >= within {
                waiting.since = now;
                overdue.push(attempt.clone());
            }
        }
        overdue
    }

    /// Asks for the rest of this output to be marked as missing.
    pub(super) fn want_given_up(&self, attempt: AttemptId) {
        self.chore(Chore::GiveUp(attempt));
    }

    /// How far the hub has archived the output of an Attempt; `None` when only History knows.
    pub(super) fn archived_position(&self, attempt: &AttemptId) -> Option<u64> {
        self.hub.archived_position(attempt)
    }

    /// The output of this Attempt, archived up to `archived`, will not come any further.
    pub(super) fn give_up(&self, attempt: &AttemptId, archived: u64) {
        let Some(end) = self.waiting().get(attempt).map(|waiting| waiting.end) else { return };
        if archived >= end {
            return self.settle(attempt, archived);
        }
        self.metrics.output_given_up.add(1);
        tracing::warn!(
            %attempt, archived, end,
            "the node does not send the rest of this output; it is archived as missing"
        );
        self.hub.give_up(attempt, archived, end);
    }

    /// Wants the record of a Report archived.
    pub(super) fn archive(&self, report: &Report, facts: AttemptFacts) {
        let record = record_of(report, facts, self.registry.epoch());
        if self.archiver.record(Entry::Attempt(Box::new(record))).is_err() {
            self.metrics.not_archived.add(1);
        }
    }

    /// Something is durable. The one who receives the archiver's words hands each of them on to here.
    pub fn archived(&self, word: &Archived) {
        match word {
            Archived::Attempt { id, stage, source: Source::Agent } if *stage < Stage::Ended => {
                self.held(id, *stage);
            }
            Archived::Attempt { id, source: Source::Agent, .. } => self.end_archived(id),
            // Our own conclusion. Where an agent knows better, its own word is on the way and counts alone.
            Archived::Attempt { id, stage, source: Source::Operator } => {
                if !self.waiting().contains_key(id) {
                    self.books.archived(id, *stage);
                }
            }
            Archived::Output { attempt, end } => {
                self.hub.archived(attempt, *end);
                self.settle(attempt, *end);
            }
            Archived::RejectedOutput { attempt, .. } => {
                self.hub.rejected(attempt);
                if let Some(end) = self.hub.archived_position(attempt) {
                    self.settle(attempt, end);
                }
            }
            Archived::Run { task_uid, run, verdict } => {
                let stage = if verdict.is_some() { RunStage::Finished } else { RunStage::Begun };
                self.books.archived_run(task_uid, *run, stage);
            }
            Archived::Execution { .. } | Archived::RejectedEntry { .. } => {}
        }
    }

    /// All output of an Attempt up to `position` is archived: an end that waited for it is done.
    pub(super) fn settle(&self, attempt: &AttemptId, position: u64) {
        let mut waiting = self.waiting();
        let is_done = waiting.get(attempt).is_some_and(|w| w.record == Record::Archived && position >= w.end);
        if is_done {
            waiting.remove(attempt);
            drop(waiting);
            self.held(attempt, Stage::Ended);
        }
    }

    fn end_archived(&self, attempt: &AttemptId) {
        let end = match self.waiting().get_mut(attempt) {
            Some(waiting) => {
                waiting.record = Record::Archived;
                waiting.end
            }
            // It gave way to another, or is done already: the agent says it again if it still cares.
            None => return,
        };
        match self.hub.archived_position(attempt) {
            Some(position) if position >= end => self.settle(attempt, position),
            Some(_) => {}
            None if end == 0 => self.settle(attempt, 0),
            // No output came since this operator began: History knows whether it is all there.
            None => self.chore(Chore::FindEnd(attempt.clone())),
        }
    }

    fn wait_for(&self, attempt: &AttemptId, end: u64) -> Record {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING
            && !waiting.contains_key(attempt)
            && let Some(any) = waiting.keys().next().cloned()
        {
            // Its agent says it again.
            waiting.remove(&any);
            self.metrics.not_archived.add(1);
        }
        let fresh = || Waiting { end, record: Record::OnTheWay, come: 0, since: Instant::now() };
        waiting.entry(attempt.clone()).or_insert_with(fresh).record
    }

    /// History holds all that an agent said of an Attempt up to this stage.
    fn held(&self, attempt: &AttemptId, stage: Stage) {
        if stage == Stage::Ended {
            KillPoint::Archived.pass();
        }
        self.registry.archived(attempt, stage);
        self.books.archived(attempt, stage);
        let ack = ToAgent::Ack(Ack { attempt: attempt.clone(), stage });
        if self.registry.send(&attempt.node, &ack).is_some() {
            self.metrics.acks.add(1);
        }
    }

    fn chore(&self, chore: Chore) {
        // Full: the Report comes again.
        if self.chores.try_send(chore).is_err() {
            self.metrics.not_archived.add(1);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<AttemptId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_of(report: &Report, facts: AttemptFacts, epoch: sentinel_protocol::ids::Epoch) -> AttemptRecord {
    let mut record = AttemptRecord {
        attempt: report.attempt.clone(),
        namespace: facts.task.namespace.into(),
        name: facts.task.name.into(),
        run_started_at: facts.run_started_at,
        spec_hash: report.spec_hash.clone(),
        command: facts.command,
        environment: facts.environment,
        stage: report.state.stage(),
        started_at: None,
        ended_at: None,
        outcome: None,
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: sentinel_protocol::exit::ExitDetails::default(),
        source: Source::Agent,
        epoch,
    };
    match &report.state {
        ReportedState::Accepted => {}
        ReportedState::Running(running) => record.started_at = Some(running.started_at),
        ReportedState::Ended(ended) => {
            record.started_at = ended.started_at;
            record.ended_at = Some(ended.ended_at);
            record.outcome = Some(ended.outcome.clone());
            record.usage = ended.usage;
            record.output = ended.output.clone();
            record.exit = ended.exit.clone();
        }
    }
    record
}
