//! Hand-over to the archiver: the records of Runs, and of Attempts that the operator concluded. Every decision repeats
//! them until History holds them; what was handed over recently is not handed over again.

use sentinel_audit::record::EndedBy;
use sentinel_core::reconcile::Action;
use sentinel_core::reconcile::run::RunState;
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_operator::Ended;

use super::context::Context;
use super::counters::Counters;
use super::history_records::{concluded_record, run_record};
use super::task_runs::TaskRuns;
use crate::history::record::HistoryRecord;
use crate::kill_point::KillPoint;

/// Delay before what is not archived yet is handed over again, milliseconds.
const REPEAT_MS: u64 = 30_000;

/// Hands over the records of one Task.
pub(super) struct ArchiveHandover<'a> {
    pub(super) context: &'a Context,
    pub(super) runs: &'a TaskRuns,
    pub(super) now: Monotonic,
}

impl ArchiveHandover<'_> {
    /// Hands over an Attempt that the operator concluded; returns when to do so again.
    pub(super) fn conclude(&self, attempt: &AttemptId, ended: &Ended) -> Option<Monotonic> {
        let mut runs = self.runs.lock();
        let run = runs.get_mut(attempt.run)?;
        let handed = run.handed.conclusions.get(attempt).copied();
        if let Some(again) = self.pending(handed) {
            return Some(again);
        }
        if handed.is_none() {
            // The time in it is the operator's own.
            self.context.parts.runs.endings().attempt(run, attempt, (ended, EndedBy::Operator), 0);
        }
        let record = concluded_record(run, attempt, ended, self.context.epoch());
        if self.hand_over(HistoryRecord::Attempt(Box::new(record))) {
            run.handed.conclusions.insert(attempt.clone(), self.now);
        }
        Some(self.now.plus(REPEAT_MS))
    }

    /// Applies `action` and hands over the record of its Run; returns when to do so again.
    pub(super) fn archive_run(&self, record: &RunState, action: &Action) -> Option<Monotonic> {
        let mut runs = self.runs.lock();
        let run = runs.get_mut(record.number)?;
        if record.finished_at.is_some() {
            KillPoint::RunOver.pass();
        }
        if record.finished_at.is_some() && !run.is_finished() {
            Counters::add(&self.context.counters.runs_ended);
            self.context.parts.runs.endings().run(run, record);
        }
        run.ledger.apply(action, self.now);
        let handed = run.handed.run.as_ref().filter(|(handed, _)| handed == record).map(|(_, at)| *at);
        if let Some(again) = self.pending(handed) {
            return Some(again);
        }
        let archived = HistoryRecord::Run(Box::new(run_record(run, record, self.context.epoch())));
        if self.hand_over(archived) {
            run.handed.run = Some((record.clone(), self.now));
        }
        Some(self.now.plus(REPEAT_MS))
    }

    /// When to hand over again what was handed over at this time; `None` when that is now.
    fn pending(&self, handed: Option<Monotonic>) -> Option<Monotonic> {
        handed.map(|at| at.plus(REPEAT_MS)).filter(|again| self.now < *again)
    }

    /// Whether the archiver took it. When it is full, the next reconcile tries again.
    fn hand_over(&self, record: HistoryRecord) -> bool {
        let taken = self.context.parts.archiver.record(record).is_ok();
        if !taken {
            Counters::add(&self.context.counters.unarchived);
        }
        taken
    }
}
