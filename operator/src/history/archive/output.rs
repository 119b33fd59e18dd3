//! Output on its way: per Attempt what is not stored yet, packed into segments and written in batches.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::archiver::{Archived, ArchiverOptions};
use super::retry::until_stored;
use super::status::Status;
use crate::history::History;
use crate::history::error::HistoryError;
use crate::history::segment::{MAX_POSITION, MAX_SEGMENT_DATA, MAX_SEGMENT_RECORDS, OutputSegment, Packer};

/// Why output is not taken. Nothing is lost by it: the node keeps what is not archived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputRefusal {
    /// The Attempt's output was not opened here.
    #[error("output of this attempt was not opened")]
    NotOpen,
    /// Something before it is missing.
    #[error("output was expected at {expected}")]
    Hole {
        /// Where it must go on.
        expected: u64,
    },
    /// As much as may wait waits already.
    #[error("too much output waits for the history")]
    Full,
    /// The record does not hold what its head says, or is larger than any may be.
    #[error("a record of output is not what it says")]
    Malformed,
}

/// What a record costs beside its bytes.
const RECORD_COST: usize = 96;
/// Most bytes in one write, so that a write ends in good time.
const BATCH_BYTES: usize = 4 << 20;

fn cost(record: &LogRecord) -> usize {
    record.data.len() + RECORD_COST
}

#[derive(Debug)]
struct Outlet {
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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outlets: HashMap<AttemptId, Outlet>,
    /// Attempts with records, each once; who was served goes to the end.
    turns: VecDeque<AttemptId>,
    cost: usize,
    /// When the oldest record of each batch that was taken and is not stored had come, in order of taking.
    taken: VecDeque<Instant>,
}

/// Records of some Attempts, taken out of the queue.
#[derive(Debug)]
struct Batch {
    runs: Vec<(AttemptId, Vec<LogRecord>)>,
    cost: usize,
}

/// The same, packed. An Attempt whose output cannot be is named with the reason.
#[derive(Debug)]
pub(super) struct PackedBatch {
    segments: Vec<OutputSegment>,
    unstorable: Vec<(AttemptId, HistoryError)>,
    cost: usize,
}

impl OutputQueue {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, attempt: &AttemptId, from: u64) -> u64 {
        let mut state = self.state();
        let outlet = state.outlets.entry(attempt.clone()).or_insert_with(|| Outlet {
            next: from,
            records: VecDeque::new(),
            cost: 0,
            since: Instant::now(),
            is_closing: false,
        });
        outlet.is_closing = false;
        outlet.next = outlet.next.max(from);
        outlet.next
    }

    pub(super) fn put(&self, attempt: &AttemptId, record: LogRecord) -> Result<(), OutputRefusal> {
        let there = if record.head.dropped.is_some() { 0 } else { record.head.len };
        if record.data.len() as u64 != there
            || record.data.len() > MAX_SEGMENT_DATA
            || record.head.len == 0
            || record.end() > MAX_POSITION
        {
            return Err(OutputRefusal::Malformed);
        }
        let mut state = self.state();
        let room = self.max.saturating_sub(state.cost);
        let outlet = state.outlets.get_mut(attempt).ok_or(OutputRefusal::NotOpen)?;
        if record.head.position > outlet.next {
            return Err(OutputRefusal::Hole { expected: outlet.next });
        }
        let Some(record) = record.from_position(outlet.next) else { return Ok(()) };
        let cost = cost(&record);
        if cost > room {
            return Err(OutputRefusal::Full);
        }
        let was_empty = outlet.records.is_empty();
        if was_empty {
            outlet.since = Instant::now();
        }
        outlet.next = record.end();
        outlet.cost += cost;
        outlet.records.push_back(record);
        state.cost += cost;
        if was_empty {
            state.turns.push_back(attempt.clone());
        }
        Ok(())
    }

    pub(super) fn close(&self, attempt: &AttemptId) {
        let mut state = self.state();
        let Some(outlet) = state.outlets.get_mut(attempt) else { return };
        outlet.is_closing = true;
        if outlet.records.is_empty() {
            state.outlets.remove(attempt);
        }
    }

    pub(super) fn room(&self) -> usize {
        self.max.saturating_sub(self.state().cost)
    }

    /// Bytes that wait or are on their way, and since when the oldest.
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        let state = self.state();
        let first_taken = state.taken.front().copied();
        let first = state.turns.iter().filter_map(|id| state.outlets.get(id)).map(|o| o.since).min();
        (state.cost, [first_taken, first].into_iter().flatten().min())
    }

    /// Records that are due, or how long until some are: `None` when none waits.
    fn take_due(&self, options: &ArchiverOptions, flush: Flush) -> Result<Batch, Option<Duration>> {
        let mut state = self.state();
        let mut batch = Batch { runs: Vec::new(), cost: 0 };
        let mut soonest: Option<Duration> = None;
        let mut oldest: Option<Instant> = None;
        for _ in 0..state.turns.len() {
            if batch.cost >= BATCH_BYTES {
                break;
            }
            let Some(id) = state.turns.pop_front() else { break };
            let Some(outlet) = state.outlets.get_mut(&id) else { continue };
            let age = outlet.since.elapsed();
            let is_due = outlet.cost >= options.segment_bytes || age >= options.delay || outlet.is_closing;
            if !is_due && flush == Flush::WhenDue {
                let left = options.delay.saturating_sub(age);
                soonest = Some(soonest.map_or(left, |s| s.min(left)));
                state.turns.push_back(id);
                continue;
            }
            oldest = Some(oldest.map_or(outlet.since, |o| o.min(outlet.since)));
            let records = outlet.take_run(BATCH_BYTES - batch.cost);
            batch.cost += records.iter().map(cost).sum::<usize>();
            if outlet.records.is_empty() {
                if outlet.is_closing {
                    state.outlets.remove(&id);
                }
            } else {
                state.turns.push_back(id.clone());
            }
            batch.runs.push((id, records));
        }
        match oldest {
            Some(oldest) => {
                state.taken.push_back(oldest);
                Ok(batch)
            }
            None => Err(soonest),
        }
    }

    fn stored(&self, cost: usize) {
        let mut state = self.state();
        state.cost = state.cost.saturating_sub(cost);
        state.taken.pop_front();
    }

    /// Drops what waits of an Attempt whose output cannot be stored.
    fn reject(&self, attempt: &AttemptId) {
        let mut state = self.state();
        if let Some(outlet) = state.outlets.remove(attempt) {
            state.cost = state.cost.saturating_sub(outlet.cost);
            state.turns.retain(|id| id != attempt);
        }
    }
}

impl Outlet {
    /// Some records from the front: one at least, and no more than about `max` in bytes.
    fn take_run(&mut self, max: usize) -> Vec<LogRecord> {
        let mut taken = Vec::new();
        let mut sum = 0;
        while let Some(record) = self.records.front()
            && (taken.is_empty() || sum + cost(record) <= max)
        {
            sum += cost(record);
            taken.extend(self.records.pop_front());
        }
        self.cost -= sum;
        taken
    }
}

/// Whether short runs of output may wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    WhenDue,
    Now,
}

/// Takes output that is due and packs it, until every handle is gone and nothing waits.
pub(super) async fn pack_output(
    queue: &OutputQueue,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
    mut woken: mpsc::Receiver<()>,
    packed: mpsc::Sender<PackedBatch>,
) {
    let mut flush = Flush::WhenDue;
    // Kept from batch to batch while there are any, and not beyond: it is megabytes.
    let mut packer = None;
    loop {
        match queue.take_due(options, flush) {
            Ok(batch) => {
                let segment_bytes = options.segment_bytes;
                let kept = packer.take();
                // Compression takes milliseconds of processor time: not on a thread that serves sockets.
                match tokio::task::spawn_blocking(move || pack(kept, batch, segment_bytes)).await {
                    Ok((kept, batch)) => {
                        packer = kept;
                        if packed.send(batch).await.is_err() {
                            return;
                        }
                    }
                    // It is a broken invariant; to go on would be to call output archived that is not.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => return,
                }
            }
            Err(None) if flush == Flush::Now => return,
            Err(soonest) => {
                if soonest.is_none() {
                    packer = None;
                }
                let wait = soonest.unwrap_or(Duration::from_hours(1));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    wake = woken.recv() => if wake.is_none() { flush = Flush::Now },
                    () = done.closed() => return,
                }
            }
        }
    }
}

fn pack(packer: Option<Packer>, batch: Batch, segment_bytes: usize) -> (Option<Packer>, PackedBatch) {
    let mut packed = PackedBatch { segments: Vec::new(), unstorable: Vec::new(), cost: batch.cost };
    let mut packer = packer.or_else(|| Packer::new().ok());
    let mut pack_one = |attempt: &AttemptId, run: &[LogRecord]| match &mut packer {
        Some(packer) => packer.pack(attempt.clone(), run),
        // Says why there is none.
        None => OutputSegment::pack(attempt.clone(), run),
    };
    for (attempt, records) in batch.runs {
        let segments: Result<Vec<_>, _> =
            segments_of(&records, segment_bytes).map(|run| pack_one(&attempt, run)).collect();
        match segments {
            Ok(segments) => packed.segments.extend(segments),
            Err(error) => packed.unstorable.push((attempt, error)),
        }
    }
    (packer, packed)
}

/// Cuts records into runs that each fit a segment and have no hole.
fn segments_of(records: &[LogRecord], segment_bytes: usize) -> impl Iterator<Item = &[LogRecord]> {
    let (mut bytes, mut count) = (0, 0);
    records.chunk_by(move |record, next| {
        bytes += record.data.len();
        count += 1;
        let goes_on = next.head.position == record.end()
            && bytes + next.data.len() <= segment_bytes
            && count < MAX_SEGMENT_RECORDS;
        if !goes_on {
            (bytes, count) = (0, 0);
        }
        goes_on
    })
}

/// Writes batches until there are no more, or nobody listens.
pub(super) async fn store_output(
    history: &dyn History,
    queue: &OutputQueue,
    status: &Status,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
    mut batches: mpsc::Receiver<PackedBatch>,
) {
    while let Some(batch) = batches.recv().await {
        let PackedBatch { segments, mut unstorable, cost } = batch;
        if let Err(error) = store_segments(history, &segments, status, options).await {
            // One of them is not storable; the others must not suffer.
            unstorable.extend(store_each(history, &segments, status, options).await);
            tracing::debug!(%error, "a batch of output was stored one by one");
        }
        queue.stored(cost);
        for word in words(&segments, unstorable, queue, status) {
            if done.send(word).await.is_err() {
                return;
            }
        }
    }
}

async fn store_segments(
    history: &dyn History,
    segments: &[OutputSegment],
    status: &Status,
    options: &ArchiverOptions,
) -> Result<(), HistoryError> {
    until_stored(status, options, || history.append_output(segments.to_vec())).await
}

async fn store_each(
    history: &dyn History,
    segments: &[OutputSegment],
    status: &Status,
    options: &ArchiverOptions,
) -> Vec<(AttemptId, HistoryError)> {
    let mut unstorable: Vec<(AttemptId, HistoryError)> = Vec::new();
    for segment in segments {
        // Nothing behind a hole may be called archived, so the rest of that Attempt is left out.
        if unstorable.iter().any(|(id, _)| *id == segment.attempt) {
            continue;
        }
        if let Err(error) = store_segments(history, std::slice::from_ref(segment), status, options).await {
            unstorable.push((segment.attempt.clone(), error));
        }
    }
    unstorable
}

/// What to say after a batch: per Attempt how far it is stored, or that it will not be.
fn words(
    segments: &[OutputSegment],
    unstorable: Vec<(AttemptId, HistoryError)>,
    queue: &OutputQueue,
    status: &Status,
) -> Vec<Archived> {
    let is_storable = |id: &AttemptId| unstorable.iter().all(|(other, _)| other != id);
    let mut ends: HashMap<&AttemptId, u64> = HashMap::new();
    for segment in segments.iter().filter(|s| is_storable(&s.attempt)) {
        status.stored_output(segment.raw_bytes, segment.packed.len() as u64);
        let end = ends.entry(&segment.attempt).or_default();
        *end = segment.end.max(*end);
    }
    let mut words: Vec<Archived> =
        ends.into_iter().map(|(id, end)| Archived::Output { attempt: id.clone(), end }).collect();
    for (attempt, error) in unstorable {
        tracing::error!(%attempt, %error, "output is not archived");
        status.rejected();
        queue.reject(&attempt);
        words.push(Archived::RejectedOutput { attempt, message: error.to_string() });
    }
    words
}
