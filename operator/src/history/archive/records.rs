//! The queue of records: the latest of each id, in the order in which the ids were first handed over.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentinel_protocol::ids::{AttemptId, RunNumber, TaskUid};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::options::{Archived, ArchiverOptions};
use super::retry::{ArchiverStopped, WriteFailure, until_stored};
use super::status::Totals;
use crate::history::error::HistoryError;
use crate::history::rank;
use crate::history::record::HistoryRecord;
use crate::history::store::History;

/// The queue holds as many records, or bytes of them, as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue of records for History is full")]
pub struct RecordsFull;

/// The id of a record, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum RecordKey {
    Attempt(AttemptId),
    Run(TaskUid, RunNumber),
}

impl RecordKey {
    fn of(record: &HistoryRecord) -> Self {
        match record {
            HistoryRecord::Attempt(attempt) => Self::Attempt(attempt.attempt.clone()),
            HistoryRecord::Run(run) => Self::Run(run.task_uid.clone(), run.run),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Attempt(id) => id.task.len() + id.node.len(),
            Self::Run(task, _) => task.len(),
        }
    }
}

/// About how many bytes a queued record takes: its texts, and twice its key.
fn record_cost(record: &HistoryRecord, key: &RecordKey) -> usize {
    let texts = match record {
        HistoryRecord::Attempt(a) => {
            let outcome = a.outcome.as_ref().map_or(0, |outcome| outcome.message().len());
            a.namespace.len() + a.name.len() + a.command.len() + outcome
        }
        HistoryRecord::Run(r) => {
            let reason = r.reason.as_ref().map_or(0, String::len);
            r.namespace.len() + r.name.len() + r.command.len() + reason
        }
    };
    FIXED_COST + texts + 2 * key.len()
}

/// Bytes that a record takes beside its texts: ids, digests, its slot in the queue.
const FIXED_COST: usize = 768;

/// Batches that wait for the delay to pass. An Attempt that ends meanwhile is written once, and not while a thousand others
/// still report.
const WAITING: usize = 8;

#[derive(Debug)]
struct QueuedRecord {
    record: HistoryRecord,
    cost: usize,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct RecordQueue {
    max: usize,
    max_bytes: usize,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    queued: HashMap<RecordKey, QueuedRecord>,
    order: VecDeque<RecordKey>,
    /// Bytes of all records that are queued or in flight.
    bytes: usize,
    /// The batch that is being written.
    in_flight: Arc<Vec<HistoryRecord>>,
    in_flight_bytes: usize,
    in_flight_since: Option<Instant>,
}

impl QueueState {
    fn oldest(&self) -> Option<Instant> {
        self.order.front().and_then(|key| self.queued.get(key)).map(|queued| queued.since)
    }
}

impl RecordQueue {
    pub(super) fn new(max: usize, max_bytes: usize) -> Self {
        Self { max, max_bytes, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, record: HistoryRecord) -> Result<(), RecordsFull> {
        let key = RecordKey::of(&record);
        let cost = record_cost(&record, &key);
        let mut state = self.state();
        let state = &mut *state;
        if let Some(queued) = state.queued.get_mut(&key) {
            if rank::outranks(&record, &queued.record) {
                let bytes = state.bytes.saturating_sub(queued.cost).saturating_add(cost);
                if bytes > self.max_bytes && cost > queued.cost {
                    return Err(RecordsFull);
                }
                state.bytes = bytes;
                (queued.record, queued.cost) = (record, cost);
            }
            return Ok(());
        }
        let bytes = state.bytes.saturating_add(cost);
        if state.queued.len() + state.in_flight.len() >= self.max || bytes > self.max_bytes {
            return Err(RecordsFull);
        }
        state.bytes = bytes;
        state.order.push_back(key.clone());
        state.queued.insert(key, QueuedRecord { record, cost, since: Instant::now() });
        Ok(())
    }

    /// Number of records that are queued or in flight, and since when the oldest is.
    pub(super) fn queued(&self) -> (usize, Option<Instant>) {
        let state = self.state();
        let oldest = [state.oldest(), state.in_flight_since].into_iter().flatten().min();
        (state.queued.len() + state.in_flight.len(), oldest)
    }

    /// Whether more is queued than should wait, and since when the oldest record is.
    fn is_due(&self, batch: usize) -> (bool, Option<Instant>) {
        let state = self.state();
        (state.queued.len() >= WAITING.saturating_mul(batch), state.oldest())
    }

    /// Visits every record that History may not hold yet: the queued ones, and those in flight.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&HistoryRecord)) {
        let state = self.state();
        let queued = state.queued.values().map(|queued| &queued.record);
        state.in_flight.iter().chain(queued).for_each(&mut visit);
    }

    fn take_batch(&self, batch: usize) -> Arc<Vec<HistoryRecord>> {
        let mut state = self.state();
        let count = batch.min(state.order.len());
        let keys: Vec<RecordKey> = state.order.drain(..count).collect();
        let taken: Vec<QueuedRecord> = keys.iter().filter_map(|key| state.queued.remove(key)).collect();
        state.in_flight_bytes = taken.iter().map(|queued| queued.cost).sum();
        state.in_flight_since = taken.iter().map(|queued| queued.since).min();
        state.in_flight = Arc::new(taken.into_iter().map(|queued| queued.record).collect());
        Arc::clone(&state.in_flight)
    }

    fn finish_batch(&self) {
        let mut state = self.state();
        state.in_flight = Arc::default();
        state.bytes = state.bytes.saturating_sub(std::mem::take(&mut state.in_flight_bytes));
        state.in_flight_since = None;
    }
}

/// Writes records until every handle is dropped and the queue is empty.
pub(super) async fn store_records(
    history: &dyn History,
    queue: &RecordQueue,
    totals: &Totals,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
    mut woken: mpsc::Receiver<()>,
) -> Result<(), ArchiverStopped> {
    let mut has_handles = true;
    loop {
        let (is_full, oldest) = queue.is_due(options.batch);
        match oldest {
            None if !has_handles => return Ok(()),
            None => has_handles = woken.recv().await.is_some(),
            Some(since) if !is_full && has_handles && since.elapsed() < options.delay => {
                tokio::select! {
                    () = tokio::time::sleep_until(since + options.delay) => {}
                    wake = woken.recv() => has_handles = wake.is_some(),
                }
            }
            Some(_) => {
                let batch = queue.take_batch(options.batch);
                let stored = store_batch(history, &batch, totals, options, done).await;
                queue.finish_batch();
                stored?;
            }
        }
    }
}

async fn store_batch(
    history: &dyn History,
    batch: &[HistoryRecord],
    totals: &Totals,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
) -> Result<(), ArchiverStopped> {
    let notify = async |archived| done.send(archived).await.map_err(|_| ArchiverStopped::Unobserved);
    match until_stored(totals, options, || history.record(batch.to_vec())).await {
        Ok(()) => {
            totals.stored_records(batch.len());
            for record in batch {
                notify(archived(record)).await?;
            }
            return Ok(());
        }
        Err(WriteFailure::Closed(error)) => return Err(ArchiverStopped::HistoryClosed(error)),
        // One of them cannot be stored; the others can, one by one.
        Err(WriteFailure::Rejected(_)) => {}
    }
    for record in batch {
        match until_stored(totals, options, || history.record(vec![record.clone()])).await {
            Ok(()) => {
                totals.stored_records(1);
                notify(archived(record)).await?;
            }
            Err(WriteFailure::Closed(error)) => return Err(ArchiverStopped::HistoryClosed(error)),
            Err(WriteFailure::Rejected(error)) => {
                log_rejected(record, &error);
                totals.rejected();
                let (record, message) = (Box::new(record.clone()), error.to_string());
                notify(Archived::RejectedRecord { record, message }).await?;
            }
        }
    }
    Ok(())
}

fn log_rejected(record: &HistoryRecord, error: &HistoryError) {
    let category = error.category();
    match record {
        HistoryRecord::Attempt(record) => {
            let AttemptId { task: task_uid, run, node, attempt } = &record.attempt;
            let (namespace, task) = (&record.namespace, &record.name);
            tracing::error!(
                %namespace, %task, %task_uid, %run, %node, attempt, category, %error,
                "History rejected the record of an Attempt"
            );
        }
        HistoryRecord::Run(record) => {
            let (namespace, task) = (&record.namespace, &record.name);
            tracing::error!(
                %namespace, %task, task_uid = %record.task_uid, run = %record.run, category, %error,
                "History rejected the record of a Run"
            );
        }
    }
}

fn archived(record: &HistoryRecord) -> Archived {
    match record {
        HistoryRecord::Attempt(attempt) => {
            Archived::Attempt { id: attempt.attempt.clone(), stage: attempt.stage, source: attempt.source }
        }
        HistoryRecord::Run(run) => {
            Archived::Run { task_uid: run.task_uid.clone(), run: run.run, verdict: run.verdict }
        }
    }
}
