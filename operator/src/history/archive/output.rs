//! The queue of output: per Attempt the records that are not stored yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::time::Instant;

use super::options::ArchiverOptions;
use crate::history::segment::{MAX_POSITION, MAX_SEGMENT_DATA};

/// Why output is refused. Nothing is lost: the node keeps what is not archived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputRefusal {
    /// The Attempt's output was not opened here.
    #[error("output of this attempt was not opened")]
    NotOpen,
    /// It does not begin where the queued output ends.
    #[error("output must continue at {expected}")]
    Hole {
        /// Where it must continue.
        expected: u64,
    },
    /// The queue is full.
    #[error("the queue of output for History is full")]
    Full,
    /// The record does not match its head, or is too large.
    #[error("malformed record of output")]
    Malformed,
}

/// Bytes that a record takes beside its data.
const FIXED_COST: usize = 96;
/// Most bytes in one write, so that a write is short.
const BATCH_BYTES: usize = 4 << 20;

fn output_cost(record: &LogRecord) -> usize {
    record.data.len() + FIXED_COST
}

#[derive(Debug)]
struct AttemptOutput {
    /// Where the next record must begin.
    next: u64,
    records: VecDeque<LogRecord>,
    cost: usize,
    since: Instant,
    is_closing: bool,
}

#[derive(Debug)]
pub(super) struct OutputQueue {
    max: usize,
    state: Mutex<OutputState>,
}

#[derive(Debug, Default)]
struct OutputState {
    attempts: HashMap<AttemptId, AttemptOutput>,
    /// Attempts with queued records, each once, in round-robin order.
    ready: VecDeque<AttemptId>,
    cost: usize,
    /// For each batch in flight, since when its oldest record was queued.
    in_flight: VecDeque<Instant>,
}

/// Records of some Attempts, taken out of the queue.
#[derive(Debug)]
pub(super) struct OutputBatch {
    pub(super) runs: Vec<(AttemptId, Vec<LogRecord>)>,
    pub(super) cost: usize,
}

/// Whether short runs of output may wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    WhenDue,
    Now,
}

impl OutputQueue {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, attempt: &AttemptId, from: u64) -> u64 {
        let mut state = self.state();
        let output = state.attempts.entry(attempt.clone()).or_insert_with(|| AttemptOutput {
            next: from,
            records: VecDeque::new(),
            cost: 0,
            since: Instant::now(),
            is_closing: false,
        });
        output.is_closing = false;
        output.next = output.next.max(from);
        output.next
    }

    pub(super) fn push(&self, attempt: &AttemptId, record: LogRecord) -> Result<(), OutputRefusal> {
        let expected = if record.head.dropped.is_some() { 0 } else { record.head.len };
        if record.data.len() as u64 != expected
            || record.data.len() > MAX_SEGMENT_DATA
            || record.head.len == 0
            || record.end() > MAX_POSITION
        {
            return Err(OutputRefusal::Malformed);
        }
        let mut state = self.state();
        let room = self.max.saturating_sub(state.cost);
        let output = state.attempts.get_mut(attempt).ok_or(OutputRefusal::NotOpen)?;
        if record.head.position > output.next {
            return Err(OutputRefusal::Hole { expected: output.next });
        }
        let Some(record) = record.from_position(output.next) else { return Ok(()) };
        let cost = output_cost(&record);
        if cost > room {
            return Err(OutputRefusal::Full);
        }
        let was_empty = output.records.is_empty();
        if was_empty {
            output.since = Instant::now();
        }
        output.next = record.end();
        output.cost += cost;
        output.records.push_back(record);
        state.cost += cost;
        if was_empty {
            state.ready.push_back(attempt.clone());
        }
        Ok(())
    }

    pub(super) fn close(&self, attempt: &AttemptId) {
        let mut state = self.state();
        let Some(output) = state.attempts.get_mut(attempt) else { return };
        output.is_closing = true;
        if output.records.is_empty() {
            state.attempts.remove(attempt);
        }
    }

    pub(super) fn room(&self) -> usize {
        self.max.saturating_sub(self.state().cost)
    }

    /// Bytes that are queued or in flight, and since when the oldest are.
    pub(super) fn queued(&self) -> (usize, Option<Instant>) {
        let state = self.state();
        let first_in_flight = state.in_flight.front().copied();
        let first_queued = state.ready.iter().filter_map(|id| state.attempts.get(id)).map(|o| o.since).min();
        (state.cost, [first_in_flight, first_queued].into_iter().flatten().min())
    }

    /// Records that are due, or how long until some are: `None` when the queue is empty.
    pub(super) fn take_due(
        &self,
        options: &ArchiverOptions,
        flush: Flush,
    ) -> Result<OutputBatch, Option<Duration>> {
        let mut state = self.state();
        let mut batch = OutputBatch { runs: Vec::new(), cost: 0 };
        let mut soonest: Option<Duration> = None;
        let mut oldest: Option<Instant> = None;
        for _ in 0..state.ready.len() {
            if batch.cost >= BATCH_BYTES {
                break;
            }
            let Some(id) = state.ready.pop_front() else { break };
            let Some(output) = state.attempts.get_mut(&id) else { continue };
            let age = output.since.elapsed();
            let is_due = output.cost >= options.segment_bytes || age >= options.delay || output.is_closing;
            if !is_due && flush == Flush::WhenDue {
                let left = options.delay.saturating_sub(age);
                soonest = Some(soonest.map_or(left, |s| s.min(left)));
                state.ready.push_back(id);
                continue;
            }
            oldest = Some(oldest.map_or(output.since, |o| o.min(output.since)));
            let records = output.take_run(BATCH_BYTES - batch.cost);
            batch.cost += records.iter().map(output_cost).sum::<usize>();
            if output.records.is_empty() {
                if output.is_closing {
                    state.attempts.remove(&id);
                }
            } else {
                state.ready.push_back(id.clone());
            }
            batch.runs.push((id, records));
        }
        match oldest {
            Some(oldest) => {
                state.in_flight.push_back(oldest);
                Ok(batch)
            }
            None => Err(soonest),
        }
    }

    /// A batch of this cost is stored.
    pub(super) fn finish_batch(&self, cost: usize) {
        let mut state = self.state();
        state.cost = state.cost.saturating_sub(cost);
        state.in_flight.pop_front();
    }

    /// Drops the queue of an Attempt whose output cannot be stored.
    pub(super) fn reject(&self, attempt: &AttemptId) {
        let mut state = self.state();
        if let Some(output) = state.attempts.remove(attempt) {
            state.cost = state.cost.saturating_sub(output.cost);
            state.ready.retain(|id| id != attempt);
        }
    }
}

impl AttemptOutput {
    /// Some records from the front: at least one, and about `max` bytes at most.
    fn take_run(&mut self, max: usize) -> Vec<LogRecord> {
        let mut taken = Vec::new();
        let mut sum = 0;
        while let Some(record) = self.records.front()
            && (taken.is_empty() || sum + output_cost(record) <= max)
        {
            sum += output_cost(record);
            taken.extend(self.records.pop_front());
        }
        self.cost -= sum;
        taken
    }
}
