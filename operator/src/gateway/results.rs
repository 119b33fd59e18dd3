//! The path of a result: from an agent's Report to the ledger, to History, and back to the agent as an Ack.
//!
//! ```text
//!   Report ──▶ ledger (wakes its Task)
//!        └───▶ archiver ──▶ History ──▶ archived ─┐
//!   output ──▶ hub ──▶ archiver ──▶ archived ─────┴─ both, for an end ──▶ ledger, Ack
//! ```
//!
//! An end counts as archived when History holds the record *and* all output, since an agent that may forget an Attempt
//! forgets its output as well. Output that does not arrive, with its node connected and History accepting output of
//! others, is archived as missing after [`ResultsParts::output_within`](super::ResultsParts), so that one node cannot
//! keep a Run from being archived. Everything here is level-triggered: an agent repeats a Report until it is
//! acknowledged, so whatever is not queued, or is lost in between, arrives again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_core::reconcile::ledger::{Applied, RunStage};
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, ToAgent};
use sentinel_protocol::to_operator::{Report, ReportedState};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ledger_sink::{AttemptFacts, LedgerSink};
use super::metrics::GatewayMetrics;
use super::registry::Registry;
use crate::history::archive::{Archived, Archiver};
use crate::history::{AttemptRecord, HistoryRecord, RecordSource, RunContext};
use crate::kill_point::KillPoint;
use crate::logs::{End, Hub};

/// Ends that may wait for their record and output to be archived; beyond that, agents resend them.
const MAX_PENDING: usize = 50_000;

/// Largest `output.limit` of a Task (`resource/validate`): the bound where that of the Run is not known.
const MAX_OUTPUT_LIMIT: u64 = 1 << 40;

/// Ends below this are not compared with the limit of their Run.
const SMALL_OUTPUT: u64 = 1 << 20;

/// Archives results and acknowledges them.
pub struct Results {
    archiver: Archiver,
    ledgers: Arc<dyn LedgerSink>,
    registry: Registry,
    hub: Hub,
    metrics: GatewayMetrics,
    lookups: mpsc::Sender<Lookup>,
    pending: Mutex<HashMap<AttemptId, PendingEnd>>,
}

/// A lookup in History.
#[derive(Debug)]
pub(super) enum Lookup {
    /// What is this Attempt, which has no ledger, part of? Its Report is then archived.
    Describe(Box<Report>),
    /// How far is the output of this Attempt archived?
    FindEnd(AttemptId),
    /// The same for an Attempt the rest of whose output will not arrive; it is then archived as missing.
    GiveUp(AttemptId),
}

/// An end that is not archived yet.
#[derive(Debug, Clone, Copy)]
struct PendingEnd {
    /// The position at which its log ends.
    end: u64,
    record_is_archived: bool,
    /// How far its output has arrived, and since when it has made no progress although it could.
    received: u64,
    since: Instant,
}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}

impl Results {
    pub(super) fn with_lookups(
        archiver: Archiver,
        ledgers: Arc<dyn LedgerSink>,
        registry: Registry,
        hub: Hub,
        metrics: GatewayMetrics,
        lookups: mpsc::Sender<Lookup>,
    ) -> Self {
        Self { archiver, ledgers, registry, hub, metrics, lookups, pending: Mutex::default() }
    }

    /// Applies a Report to its ledger, and has it archived.
    pub(super) fn report(&self, report: &Report) {
        match self.ledgers.report(report) {
            Some(Applied::NeverDispatched) => return,
            Some(Applied::Conflict) => {
                self.note_conflict(&report.attempt);
                // Its number was used before, in a future that a restored cluster does not know. The result is kept.
                return self.lookup(Lookup::Describe(Box::new(report.clone())));
            }
            Some(Applied::Changed | Applied::Unchanged | Applied::OtherRun) => {}
            None => {
                self.metrics.results.orphaned.add(1);
                self.registry.note_orphan();
            }
        }
        if let ReportedState::Ended(ended) = &report.state {
            self.hub.ended(&report.attempt, End::At(ended.output.end));
            if self.add_pending(&report.attempt, ended.output.end) {
                // Sent again while its output is still arriving.
                return self.on_record_archived(&report.attempt);
            }
        }
        match self.ledgers.facts(&report.attempt) {
            Some(facts) => self.archive(report, facts),
            // Of an earlier Run, most likely: History holds what it was part of.
            None => self.lookup(Lookup::Describe(Box::new(report.clone()))),
        }
    }

    /// Makes the end of its output credible: an agent keeps `output.limit` bytes behind what it dropped.
    pub(super) fn bound(&self, report: &mut Report) {
        let ReportedState::Ended(ended) = &mut report.state else { return };
        let output = &mut ended.output;
        if output.end <= SMALL_OUTPUT {
            return;
        }
        let limit = self.ledgers.facts(&report.attempt).and_then(|facts| facts.output_limit);
        let limit = limit.unwrap_or(MAX_OUTPUT_LIMIT).max(SMALL_OUTPUT);
        let dropped = output.stdout.dropped.saturating_add(output.stderr.dropped);
        let bound = dropped.saturating_add(limit);
        if output.end > bound {
            let attempt = &report.attempt;
            self.metrics.security.output_beyond_limit.note(|count| {
                tracing::warn!(
                    task = %attempt.task, run = %attempt.run, node = %attempt.node, attempt = attempt.attempt,
                    end = output.end, limit, count,
                    "security: an agent reports more output than output.limit allows; the excess is ignored"
                );
            });
            output.end = bound;
        }
    }

    /// Ends whose output has made no progress for `within` although nothing prevented it.
    pub(super) fn overdue(&self, within: Duration) -> Vec<AttemptId> {
        let now = Instant::now();
        let is_blocked = !self.archiver.status().is_up || self.hub.is_short();
        let mut overdue = Vec::new();
        for (attempt, pending) in self.pending().iter_mut() {
            if !pending.record_is_archived {
                continue;
            }
            let received = self.hub.held_position(attempt).unwrap_or(0);
            let is_connected = self.registry.active_session(&attempt.node).is_some();
            if received != pending.received || is_blocked || !is_connected {
                pending.received = received;
                pending.since = now;
                continue;
            }
            // An agent that no longer owns the Attempt has no output of it.
            let is_released = self.registry.is_released(attempt);
            if is_released || now.saturating_duration_since(pending.since) >= within {
                pending.since = now;
                overdue.push(attempt.clone());
            }
        }
        overdue
    }

    /// How far the hub knows the output of an Attempt to be archived; `None` when only History knows.
    pub(super) fn archived_position(&self, attempt: &AttemptId) -> Option<u64> {
        self.hub.archived_position(attempt)
    }

    /// The output of this Attempt, archived up to `archived`, is complete or will not be: the rest is archived as missing.
    pub(super) fn give_up(&self, attempt: &AttemptId, archived: u64) {
        let Some(end) = self.pending().get(attempt).map(|pending| pending.end) else { return };
        if archived >= end {
            return self.on_output_archived(attempt, archived);
        }
        self.metrics.results.output_given_up.add(1);
        tracing::warn!(
            task = %attempt.task, run = %attempt.run, node = %attempt.node, attempt = attempt.attempt,
            archived, end, "the node does not send the rest of this output; it is archived as missing"
        );
        self.hub.give_up(attempt, archived, end);
    }

    /// The Run of a Report, by what its Task records of it.
    pub(super) fn earlier_facts(&self, report: &Report) -> Option<AttemptFacts> {
        self.ledgers.earlier_facts(&report.attempt, &report.spec_hash)
    }

    /// Queues the record of a Report for History.
    pub(super) fn archive(&self, report: &Report, facts: AttemptFacts) {
        let record = record_of(report, facts, self.registry.epoch());
        if self.archiver.record(HistoryRecord::Attempt(Box::new(record))).is_err() {
            self.metrics.results.not_archived.add(1);
        }
    }

    /// Takes in what the archiver has stored.
    pub fn on_archived(&self, archived: &Archived) {
        match archived {
            Archived::Attempt { id, stage, source: RecordSource::Agent } if *stage < Stage::Ended => {
                self.acknowledge(id, *stage);
            }
            Archived::Attempt { id, source: RecordSource::Agent, .. } => self.on_record_archived(id),
            // Concluded by the operator. Where the agent's own result is pending, that one counts.
            Archived::Attempt { id, stage, source: RecordSource::Operator } => {
                if !self.pending().contains_key(id) {
                    self.ledgers.archived(id, *stage);
                }
            }
            Archived::Output { attempt, end } => {
                self.hub.archived(attempt, *end);
                self.on_output_archived(attempt, *end);
            }
            Archived::RejectedOutput { attempt, .. } => {
                self.hub.rejected(attempt);
                if let Some(end) = self.hub.archived_position(attempt) {
                    self.on_output_archived(attempt, end);
                }
            }
            Archived::Run { task_uid, run, verdict } => {
                let stage = if verdict.is_some() { RunStage::Finished } else { RunStage::Begun };
                self.ledgers.archived_run(task_uid, *run, stage);
            }
            Archived::RejectedRecord { .. } => {}
        }
    }

    /// All output of an Attempt up to `position` is archived; acknowledges its end when that was all that was missing.
    pub(super) fn on_output_archived(&self, attempt: &AttemptId, position: u64) {
        let mut pending = self.pending();
        let is_done = pending.get(attempt).is_some_and(|p| p.record_is_archived && position >= p.end);
        if is_done {
            pending.remove(attempt);
            drop(pending);
            self.acknowledge(attempt, Stage::Ended);
        }
    }

    /// Queues a lookup. When the queue is full it is dropped: the agent resends its Report.
    pub(super) fn lookup(&self, lookup: Lookup) {
        if self.lookups.try_send(lookup).is_err() {
            self.metrics.results.not_archived.add(1);
        }
    }

    fn on_record_archived(&self, attempt: &AttemptId) {
        let end = match self.pending().get_mut(attempt) {
            Some(pending) => {
                pending.record_is_archived = true;
                pending.end
            }
            // Evicted, or acknowledged already: the agent resends it if it has received no Ack.
            None => return,
        };
        match self.hub.archived_position(attempt) {
            Some(position) if position >= end => self.on_output_archived(attempt, position),
            Some(_) => {}
            None if end == 0 => self.on_output_archived(attempt, 0),
            // This operator has received none of its output: History knows whether it is complete.
            None => self.lookup(Lookup::FindEnd(attempt.clone())),
        }
    }

    /// Adds an end to the pending ones; returns whether its record is archived already.
    fn add_pending(&self, attempt: &AttemptId, end: u64) -> bool {
        let mut pending = self.pending();
        if pending.len() >= MAX_PENDING
            && !pending.contains_key(attempt)
            && let Some(evicted) = pending.keys().next().cloned()
        {
            // Its agent resends it.
            pending.remove(&evicted);
            self.metrics.results.not_archived.add(1);
        }
        let new = || PendingEnd { end, record_is_archived: false, received: 0, since: Instant::now() };
        pending.entry(attempt.clone()).or_insert_with(new).record_is_archived
    }

    /// History holds everything that an agent reported of an Attempt up to this stage.
    fn acknowledge(&self, attempt: &AttemptId, stage: Stage) {
        if stage == Stage::Ended {
            KillPoint::Archived.pass();
        }
        self.registry.note_archived(attempt, stage);
        self.ledgers.archived(attempt, stage);
        if stage == Stage::Ended && self.ledgers.facts(attempt).is_none() {
            self.registry.note_orphan();
        }
        let ack = ToAgent::Ack(Ack { attempt: attempt.clone(), stage });
        if self.registry.send_later(&attempt.node, &ack).is_some() {
            self.metrics.results.acks.add(1);
        }
    }

    fn note_conflict(&self, attempt: &AttemptId) {
        self.metrics.security.spec_hash_conflict.note(|count| {
            tracing::warn!(
                task = %attempt.task, run = %attempt.run, node = %attempt.node, attempt = attempt.attempt,
                count, "security: an attempt is reported for another spec than it was started for"
            );
        });
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<AttemptId, PendingEnd>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_of(report: &Report, facts: AttemptFacts, epoch: Epoch) -> AttemptRecord {
    let run = RunContext {
        task: facts.task,
        started_at: facts.run_started_at,
        trigger: facts.trigger,
        spec_hash: report.spec_hash.clone(),
        command: facts.command,
        environment: facts.environment,
    };
    AttemptRecord::accepted(report.attempt.clone(), run, RecordSource::Agent, epoch).in_state(&report.state)
}
