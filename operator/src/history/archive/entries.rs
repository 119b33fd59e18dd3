//! Records on their way: the latest of each thing, in the order in which the things were first handed over.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::archiver::{Archived, ArchiverOptions};
use super::retry::until_stored;
use super::status::Status;
use crate::history::record::Entry;
use crate::history::{History, rank};

/// As many things as may wait wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many records, or too many bytes of them, wait for the history")]
pub struct EntriesFull;

/// Attempt, Execution and Run ids never look alike only by luck; so the kind is part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(u8, String);

impl Key {
    fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Attempt(attempt) => Self(0, attempt.attempt.sort_key()),
            Entry::Execution(execution) => Self(1, execution.id()),
            Entry::Run(run) => Self(2, run.id()),
        }
    }
}

fn rank_of(entry: &Entry) -> String {
    match entry {
        Entry::Attempt(attempt) => rank::of_attempt(attempt),
        Entry::Execution(execution) => rank::of_execution(execution),
        Entry::Run(run) => rank::of_run(run),
    }
}

/// What a record takes while it waits, about, bytes: its texts, and twice its key.
fn cost(entry: &Entry, key: &Key) -> usize {
    let texts = match entry {
        Entry::Attempt(a) => {
            let outcome = a.outcome.as_ref().map_or(0, |outcome| outcome.message().len());
            a.namespace.len() + a.name.len() + a.command.len() + outcome
        }
        Entry::Execution(e) => e.namespace.len() + e.name.len() + e.command.len() + e.message.len(),
        Entry::Run(r) => {
            let reason = r.reason.as_ref().map_or(0, String::len);
            r.namespace.len() + r.name.len() + r.command.len() + reason
        }
    };
    RECORD_COST + texts + 2 * key.1.len()
}

/// What a record takes beside its texts: ids, digests, its rank, its place in the queue.
const RECORD_COST: usize = 768;

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    rank: String,
    cost: usize,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct EntryQueue {
    max: usize,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Key, Waiting>,
    order: VecDeque<Key>,
    on_the_way: Arc<Vec<Entry>>,
    /// What all records that wait or are on their way take.
    bytes: usize,
    on_the_way_bytes: usize,
    on_the_way_since: Option<Instant>,
}

impl EntryQueue {
    pub(super) fn new(max: usize, max_bytes: usize) -> Self {
        Self { max, max_bytes, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, entry: Entry) -> Result<(), EntriesFull> {
        let (key, rank) = (Key::of(&entry), rank_of(&entry));
        let cost = cost(&entry, &key);
        let mut state = self.state();
        let state = &mut *state;
        if let Some(waiting) = state.waiting.get_mut(&key) {
            if rank > waiting.rank {
                let bytes = state.bytes.saturating_sub(waiting.cost).saturating_add(cost);
                if bytes > self.max_bytes && cost > waiting.cost {
                    return Err(EntriesFull);
                }
                state.bytes = bytes;
                (waiting.entry, waiting.rank, waiting.cost) = (entry, rank, cost);
            }
            return Ok(());
        }
        let bytes = state.bytes.saturating_add(cost);
        if state.waiting.len() + state.on_the_way.len() >= self.max || bytes > self.max_bytes {
            return Err(EntriesFull);
        }
        state.bytes = bytes;
        state.order.push_back(key.clone());
        state.waiting.insert(key, Waiting { entry, rank, cost, since: Instant::now() });
        Ok(())
    }

    /// Number of records that wait or are on their way, and since when the oldest.
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        let state = self.state();
        let oldest = state.order.front().and_then(|key| state.waiting.get(key)).map(|w| w.since);
        (
            state.waiting.len() + state.on_the_way.len(),
            [oldest, state.on_the_way_since].into_iter().flatten().min(),
        )
    }

    /// Whether a batch is full, or else since when the oldest waits.
    fn look(&self, batch: usize) -> (bool, Option<Instant>) {
        let state = self.state();
        let oldest = state.order.front().and_then(|key| state.waiting.get(key)).map(|w| w.since);
        (state.waiting.len() >= batch, oldest)
    }

    /// Shows `look` every record that History may not hold yet: those that wait, and those of the write under way.
    pub(super) fn each(&self, mut look: impl FnMut(&Entry)) {
        let state = self.state();
        state
            .on_the_way
            .iter()
            .chain(state.waiting.values().map(|waiting| &waiting.entry))
            .for_each(&mut look);
    }

    fn take(&self, batch: usize) -> Arc<Vec<Entry>> {
        let mut state = self.state();
        let count = batch.min(state.order.len());
        let keys: Vec<Key> = state.order.drain(..count).collect();
        let taken: Vec<Waiting> = keys.iter().filter_map(|key| state.waiting.remove(key)).collect();
        state.on_the_way_bytes = taken.iter().map(|w| w.cost).sum();
        state.on_the_way_since = taken.iter().map(|w| w.since).min();
        state.on_the_way = Arc::new(taken.into_iter().map(|w| w.entry).collect());
        Arc::clone(&state.on_the_way)
    }

    fn arrived(&self) {
        let mut state = self.state();
        state.on_the_way = Arc::default();
        state.bytes = state.bytes.saturating_sub(std::mem::take(&mut state.on_the_way_bytes));
        state.on_the_way_since = None;
    }
}

/// Writes records until every handle is gone and none waits, or nobody listens.
pub(super) async fn store_entries(
    history: &dyn History,
    queue: &EntryQueue,
    status: &Status,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
    mut woken: mpsc::Receiver<()>,
) {
    let mut handles_left = true;
    loop {
        let (is_full, oldest) = queue.look(options.batch);
        match oldest {
            None if !handles_left => return,
            None => handles_left = woken.recv().await.is_some(),
            Some(since) if !is_full && handles_left && since.elapsed() < options.delay => {
                tokio::select! {
                    () = tokio::time::sleep_until(since + options.delay) => {}
                    wake = woken.recv() => handles_left = wake.is_some(),
                }
            }
            Some(_) => {
                let batch = queue.take(options.batch);
                let outcome = store_batch(history, &batch, status, options, done).await;
                queue.arrived();
                if outcome.is_err() {
                    return;
                }
            }
        }
    }
}

/// Nobody listens any more.
struct Unheard;

async fn store_batch(
    history: &dyn History,
    batch: &[Entry],
    status: &Status,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
) -> Result<(), Unheard> {
    if until_stored(status, options, || history.record(batch.to_vec())).await.is_ok() {
        status.stored_entries(batch.len());
        for entry in batch {
            done.send(archived(entry)).await.map_err(|_| Unheard)?;
        }
        return Ok(());
    }
    // One of them is not storable; the others must not suffer.
    for entry in batch {
        let word = match until_stored(status, options, || history.record(vec![entry.clone()])).await {
            Ok(()) => {
                status.stored_entries(1);
                archived(entry)
            }
            Err(error) => {
                tracing::error!(%error, "a record is not archived");
                status.rejected();
                Archived::RejectedEntry { entry: Box::new(entry.clone()), message: error.to_string() }
            }
        };
        done.send(word).await.map_err(|_| Unheard)?;
    }
    Ok(())
}

fn archived(entry: &Entry) -> Archived {
    match entry {
        Entry::Attempt(attempt) => {
            Archived::Attempt { id: attempt.attempt.clone(), stage: attempt.stage, source: attempt.source }
        }
        Entry::Execution(execution) => Archived::Execution {
            task_uid: execution.task_uid.clone(),
            run: execution.run,
            node: execution.node.clone(),
        },
        Entry::Run(run) => {
            Archived::Run { task_uid: run.task_uid.clone(), run: run.run, verdict: run.verdict }
        }
    }
}
