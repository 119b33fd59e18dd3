//! The handle that callers hold, and the work behind it.

use std::sync::Arc;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::options::{Archived, ArchiverOptions};
use super::output::{OutputQueue, OutputRefusal};
use super::output_writer::{pack_output, store_output};
use super::records::{RecordQueue, RecordsFull, store_records};
use super::retry::ArchiverStopped;
use super::status::{ArchiverStatus, Totals};
use crate::history::record::HistoryRecord;
use crate::history::segment::MAX_SEGMENT_DATA;
use crate::history::store::History;
use crate::later::later;

/// Queues what is to be archived. Clones share one archiver.
#[derive(Debug, Clone)]
pub struct Archiver {
    records: Arc<RecordQueue>,
    output: Arc<OutputQueue>,
    totals: Arc<Totals>,
    wake_records: mpsc::Sender<()>,
    wake_output: mpsc::Sender<()>,
}

impl Archiver {
    /// An archiver and its work, which the caller must run. `done` receives what is durable; while it is full, nothing
    /// more is stored.
    pub fn new(
        history: Arc<dyn History>,
        options: ArchiverOptions,
        done: mpsc::Sender<Archived>,
    ) -> (Self, ArchiverWork) {
        let options = ArchiverOptions {
            segment_bytes: options.segment_bytes.clamp(1, MAX_SEGMENT_DATA),
            batch: options.batch.max(1),
            ..options
        };
        let (wake_records, records_woken) = mpsc::channel(1);
        let (wake_output, output_woken) = mpsc::channel(1);
        let archiver = Self {
            records: Arc::new(RecordQueue::new(options.max_records, options.max_record_bytes)),
            output: Arc::new(OutputQueue::new(options.max_output_bytes)),
            totals: Arc::new(Totals::new()),
            wake_records,
            wake_output,
        };
        let work = ArchiverWork {
            history,
            records: Arc::clone(&archiver.records),
            output: Arc::clone(&archiver.output),
            totals: Arc::clone(&archiver.totals),
            options,
            done,
            records_woken,
            output_woken,
        };
        (archiver, work)
    }

    /// Queues a record. It replaces a queued record of the same id that knows less.
    ///
    /// # Errors
    /// [`RecordsFull`] when the queue is full.
    pub fn record(&self, record: HistoryRecord) -> Result<(), RecordsFull> {
        let queued = self.records.push(record);
        match &queued {
            Ok(()) => {
                let waker = self.wake_records.clone();
                later(move || wake(&waker));
            }
            Err(RecordsFull) => self.totals.refused_record(),
        }
        queued
    }

    /// Output of this Attempt will follow from `from` on; everything before is archived, or lost. Returns the position
    /// of the next byte: later than `from` when output from an earlier Session is still queued here.
    pub fn open_output(&self, attempt: &AttemptId, from: u64) -> u64 {
        self.output.open(attempt, from)
    }

    /// Queues output. Bytes that were queued before are skipped.
    ///
    /// # Errors
    /// [`OutputRefusal`]; nothing of the record was taken.
    pub fn output(&self, attempt: &AttemptId, record: LogRecord) -> Result<(), OutputRefusal> {
        let queued = self.output.push(attempt, record);
        match &queued {
            Ok(()) => wake(&self.wake_output),
            Err(OutputRefusal::Full) => self.totals.refused_output(),
            Err(_) => {}
        }
        queued
    }

    /// No more output of this Attempt for now; the rest of its queue is stored, and then the Attempt is dropped here.
    pub fn close_output(&self, attempt: &AttemptId) {
        self.output.close(attempt);
        wake(&self.wake_output);
    }

    /// Bytes of output that would be taken right now; credit for agents is limited by this.
    pub fn output_room(&self) -> usize {
        self.output.room()
    }

    /// Visits every record that was handed over and that History may not hold yet, in no order. A caller that reads
    /// History afterwards finds each of them in one of the two. `visit` must be quick: it runs under the queue's lock.
    pub fn for_each_queued(&self, visit: impl FnMut(&HistoryRecord)) {
        self.records.for_each(visit);
    }

    /// Its counters, and what is queued.
    pub fn status(&self) -> ArchiverStatus {
        let (records, oldest_record) = self.records.queued();
        let (bytes, oldest_output) = self.output.queued();
        let oldest = [oldest_record, oldest_output].into_iter().flatten().min();
        ArchiverStatus {
            queued_records: records as u64,
            queued_bytes: bytes as u64,
            lag: oldest.map(|at| Instant::now().saturating_duration_since(at)).unwrap_or_default(),
            ..self.totals.snapshot()
        }
    }
}

fn wake(waker: &mpsc::Sender<()>) {
    // Full: a wake-up is pending already. Closed: the work has ended, and the process with it.
    let _ = waker.try_send(());
}

/// The work of an [`Archiver`].
pub struct ArchiverWork {
    history: Arc<dyn History>,
    records: Arc<RecordQueue>,
    output: Arc<OutputQueue>,
    totals: Arc<Totals>,
    options: ArchiverOptions,
    done: mpsc::Sender<Archived>,
    records_woken: mpsc::Receiver<()>,
    output_woken: mpsc::Receiver<()>,
}

impl ArchiverWork {
    /// Runs until every [`Archiver`] is dropped and its queues are stored, until the receiver of `done` is dropped, or
    /// until History is closed: then nothing can be archived any more, and the process should end.
    pub async fn run(self) {
        let Self { history, records, output, totals, options, done, records_woken, output_woken } = self;
        let history = &*history;
        // One batch is packed while another is stored.
        let (packed, batches) = mpsc::channel(1);
        let ended = tokio::try_join!(
            store_records(history, &records, &totals, &options, &done, records_woken),
            pack_output(&output, &options, &done, output_woken, packed),
            store_output(history, &output, &totals, &options, &done, batches),
        );
        match ended {
            Ok(_) | Err(ArchiverStopped::Unobserved) => {}
            Err(ArchiverStopped::HistoryClosed(error)) => {
                tracing::error!(%error, category = error.category(), "archiver stopped");
            }
        }
    }
}
