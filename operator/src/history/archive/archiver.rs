//! The handle that callers hold, and the work behind it.

use std::sync::Arc;
use std::time::Duration;

use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};
use sentinel_protocol::log::LogRecord;
use sentinel_protocol::to_operator::Stage;
use tokio::sync::mpsc;

use super::entries::{EntriesFull, EntryQueue, store_entries};
use super::output::{OutputQueue, OutputRefusal, pack_output, store_output};
use super::status::{ArchiverStatus, Status};
use crate::history::History;
use crate::history::record::{Entry, Source, Verdict};
use crate::history::segment::MAX_SEGMENT_DATA;

/// Bounds and times of an [`Archiver`].
#[derive(Debug, Clone, Copy)]
pub struct ArchiverOptions {
    /// Things (Attempts, Executions, Runs) whose latest record may wait; more are refused.
    pub max_entries: usize,
    /// Bytes that these records may take; more are refused.
    pub max_entry_bytes: usize,
    /// Bytes of output that may wait, over all Attempts; more are refused.
    pub max_output_bytes: usize,
    /// Most records in one write.
    pub batch: usize,
    /// How long a record or a short run of output waits for others to be written with it.
    pub delay: Duration,
    /// Output of an Attempt is written at once when there is as much as this; at most [`MAX_SEGMENT_DATA`].
    pub segment_bytes: usize,
    /// First pause after a failure; it doubles from there.
    pub retry_first: Duration,
    /// Longest pause after failures.
    pub retry_most: Duration,
}

impl Default for ArchiverOptions {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_entry_bytes: 128 << 20,
            max_output_bytes: 16 << 20,
            batch: 500,
            delay: Duration::from_millis(50),
            segment_bytes: 512 << 10,
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_secs(5),
        }
    }
}

/// Something is durable, or never will be.
#[derive(Debug, Clone, PartialEq)]
pub enum Archived {
    /// History holds this Attempt at this stage and every earlier one.
    Attempt {
        /// Which.
        id: AttemptId,
        /// How far it is known.
        stage: Stage,
        /// Whose word was stored.
        source: Source,
    },
    /// History holds this Execution.
    Execution {
        /// The Task.
        task_uid: TaskUid,
        /// The Run.
        run: RunNumber,
        /// The node.
        node: NodeName,
    },
    /// History holds this Run.
    Run {
        /// The Task.
        task_uid: TaskUid,
        /// The Run.
        run: RunNumber,
        /// Its verdict, once it has one.
        verdict: Option<Verdict>,
    },
    /// History holds all output from where it was opened up to `end`.
    Output {
        /// Whose.
        attempt: AttemptId,
        /// Position behind the last byte.
        end: u64,
    },
    /// History will never take this record; nothing is gained by handing it over again.
    RejectedEntry {
        /// The record.
        entry: Box<Entry>,
        /// Why.
        message: String,
    },
    /// History will never take this output; the Attempt's output is closed.
    RejectedOutput {
        /// Whose.
        attempt: AttemptId,
        /// Why.
        message: String,
    },
}

/// Takes what is to be archived. Cloning it gives the same archiver.
#[derive(Debug, Clone)]
pub struct Archiver {
    entries: Arc<EntryQueue>,
    output: Arc<OutputQueue>,
    status: Arc<Status>,
    wake_entries: mpsc::Sender<()>,
    wake_output: mpsc::Sender<()>,
}

impl Archiver {
    /// An archiver and its work, which somebody must run. `done` hears what is durable; while it is full, nothing more
    /// is stored.
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
        let (wake_entries, entries_woken) = mpsc::channel(1);
        let (wake_output, output_woken) = mpsc::channel(1);
        let archiver = Self {
            entries: Arc::new(EntryQueue::new(options.max_entries, options.max_entry_bytes)),
            output: Arc::new(OutputQueue::new(options.max_output_bytes)),
            status: Arc::new(Status::default()),
            wake_entries,
            wake_output,
        };
        let work = ArchiverWork {
            history,
            entries: Arc::clone(&archiver.entries),
            output: Arc::clone(&archiver.output),
            status: Arc::clone(&archiver.status),
            options,
            done,
            entries_woken,
            output_woken,
        };
        (archiver, work)
    }

    /// Wants a record stored. It takes the place of one of the same thing that knows less and still waits.
    ///
    /// # Errors
    /// [`EntriesFull`] when too many things wait already.
    pub fn record(&self, entry: Entry) -> Result<(), EntriesFull> {
        let outcome = self.entries.put(entry);
        match &outcome {
            Ok(()) => wake(&self.wake_entries),
            Err(EntriesFull) => self.status.refused_entry(),
        }
        outcome
    }

    /// Output of this Attempt will follow from `from` on; everything before is archived, or gone for good. Answers with
    /// the position that is wanted next: later than `from` when output from an earlier Session still waits here.
    pub fn open_output(&self, attempt: &AttemptId, from: u64) -> u64 {
        self.output.open(attempt, from)
    }

    /// Wants output stored. What is here already is passed over.
    ///
    /// # Errors
    /// [`OutputRefusal`]; nothing of the record was taken.
    pub fn output(&self, attempt: &AttemptId, record: LogRecord) -> Result<(), OutputRefusal> {
        let outcome = self.output.put(attempt, record);
        match &outcome {
            Ok(()) => wake(&self.wake_output),
            Err(OutputRefusal::Full) => self.status.refused_output(),
            Err(_) => {}
        }
        outcome
    }

    /// No output of this Attempt follows for now; what waits is stored, and then the Attempt is forgotten here.
    pub fn close_output(&self, attempt: &AttemptId) {
        self.output.close(attempt);
        wake(&self.wake_output);
    }

    /// Bytes of output that would be taken right now; credit for agents is cut from this.
    pub fn output_room(&self) -> usize {
        self.output.room()
    }

    /// Shows `look` every record that was handed over and that History may not hold yet, in no order. Who reads
    /// History after this sees each of them in one of the two. It must be quick: nothing is handed over meanwhile.
    pub fn each_waiting(&self, look: impl FnMut(&Entry)) {
        self.entries.each(look);
    }

    /// How it does.
    pub fn status(&self) -> ArchiverStatus {
        self.status.snapshot(&self.entries, &self.output)
    }
}

fn wake(waker: &mpsc::Sender<()>) {
    // Full means that it is about to look anyway; closed means that nobody works any more, which `status` shows.
    let _ = waker.try_send(());
}

/// The work of an [`Archiver`].
pub struct ArchiverWork {
    history: Arc<dyn History>,
    entries: Arc<EntryQueue>,
    output: Arc<OutputQueue>,
    status: Arc<Status>,
    options: ArchiverOptions,
    done: mpsc::Sender<Archived>,
    entries_woken: mpsc::Receiver<()>,
    output_woken: mpsc::Receiver<()>,
}

impl ArchiverWork {
    /// Runs until every [`Archiver`] is dropped and all that waited is stored, or until nobody listens to what is done.
    pub async fn run(self) {
        // One batch is packed while another is stored.
        let (packed, batches) = mpsc::channel(1);
        tokio::join!(
            store_entries(
                &*self.history,
                &self.entries,
                &self.status,
                &self.options,
                &self.done,
                self.entries_woken
            ),
            pack_output(&self.output, &self.options, &self.done, self.output_woken, packed),
            store_output(&*self.history, &self.output, &self.status, &self.options, &self.done, batches),
        );
    }
}
