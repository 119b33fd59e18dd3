//! Writing output: packs what is due into segments and stores them in batches.

use std::collections::HashMap;
use std::time::Duration;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;
use tokio::sync::mpsc;

use super::options::{Archived, ArchiverOptions};
use super::output::{Flush, OutputBatch, OutputQueue};
use super::retry::{ArchiverStopped, WriteFailure, until_stored};
use super::status::Totals;
use crate::history::error::HistoryError;
use crate::history::segment::{MAX_SEGMENT_RECORDS, OutputSegment, Packer};
use crate::history::store::History;

/// Output of Attempts that cannot be stored, and why.
type Unstorable = Vec<(AttemptId, HistoryError)>;

/// A batch as segments.
#[derive(Debug)]
pub(super) struct PackedBatch {
    segments: Vec<OutputSegment>,
    unstorable: Unstorable,
    cost: usize,
}

/// Packs output that is due, until every handle is dropped and the queue is empty.
pub(super) async fn pack_output(
    queue: &OutputQueue,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
    mut woken: mpsc::Receiver<()>,
    packed: mpsc::Sender<PackedBatch>,
) -> Result<(), ArchiverStopped> {
    let mut flush = Flush::WhenDue;
    // Kept between batches and dropped when idle: it takes megabytes.
    let mut packer = None;
    loop {
        match queue.take_due(options, flush) {
            Ok(batch) => {
                let segment_bytes = options.segment_bytes;
                let kept = packer.take();
                // Compression takes milliseconds of CPU: not on a thread that serves sockets.
                match tokio::task::spawn_blocking(move || pack(kept, batch, segment_bytes)).await {
                    Ok((kept, batch)) => {
                        packer = kept;
                        if packed.send(batch).await.is_err() {
                            return Ok(());
                        }
                    }
                    // An invariant is broken; continuing could report output as archived that is not.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // The runtime is shutting down.
                    Err(_) => return Ok(()),
                }
            }
            Err(None) if flush == Flush::Now => return Ok(()),
            Err(soonest) => {
                if soonest.is_none() {
                    packer = None;
                }
                let wait = soonest.unwrap_or(Duration::from_hours(1));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    wake = woken.recv() => if wake.is_none() { flush = Flush::Now },
                    () = done.closed() => return Err(ArchiverStopped::Unobserved),
                }
            }
        }
    }
}

fn pack(packer: Option<Packer>, batch: OutputBatch, segment_bytes: usize) -> (Option<Packer>, PackedBatch) {
    let mut packed = PackedBatch { segments: Vec::new(), unstorable: Vec::new(), cost: batch.cost };
    let mut packer = packer.or_else(|| Packer::new().ok());
    let mut pack_one = |attempt: &AttemptId, run: &[LogRecord]| match &mut packer {
        Some(packer) => packer.pack(attempt.clone(), run),
        // Fails again, with the reason.
        None => OutputSegment::pack(attempt.clone(), run),
    };
    for (attempt, records) in batch.runs {
        let segments: Result<Vec<_>, _> =
            segment_runs(&records, segment_bytes).map(|run| pack_one(&attempt, run)).collect();
        match segments {
            Ok(segments) => packed.segments.extend(segments),
            Err(error) => packed.unstorable.push((attempt, error)),
        }
    }
    (packer, packed)
}

/// Splits records into runs that each fit a segment and have no hole.
fn segment_runs(records: &[LogRecord], segment_bytes: usize) -> impl Iterator<Item = &[LogRecord]> {
    let (mut bytes, mut count) = (0, 0);
    records.chunk_by(move |record, next| {
        bytes += record.data.len();
        count += 1;
        let continues = next.head.position == record.end()
            && bytes + next.data.len() <= segment_bytes
            && count < MAX_SEGMENT_RECORDS;
        if !continues {
            (bytes, count) = (0, 0);
        }
        continues
    })
}

/// Writes batches until there are no more.
pub(super) async fn store_output(
    history: &dyn History,
    queue: &OutputQueue,
    totals: &Totals,
    options: &ArchiverOptions,
    done: &mpsc::Sender<Archived>,
    mut batches: mpsc::Receiver<PackedBatch>,
) -> Result<(), ArchiverStopped> {
    while let Some(PackedBatch { segments, mut unstorable, cost }) = batches.recv().await {
        match store_segments(history, &segments, totals, options).await {
            Ok(()) => {}
            Err(WriteFailure::Closed(error)) => return Err(ArchiverStopped::HistoryClosed(error)),
            // One of them cannot be stored; the others can, one by one.
            Err(WriteFailure::Rejected(error)) => {
                tracing::debug!(%error, "unable to store a batch of output; storing its segments one by one");
                unstorable.extend(store_each(history, &segments, totals, options).await?);
            }
        }
        queue.finish_batch(cost);
        for archived in notifications(&segments, unstorable, queue, totals) {
            done.send(archived).await.map_err(|_| ArchiverStopped::Unobserved)?;
        }
    }
    Ok(())
}

async fn store_segments(
    history: &dyn History,
    segments: &[OutputSegment],
    totals: &Totals,
    options: &ArchiverOptions,
) -> Result<(), WriteFailure> {
    until_stored(totals, options, || history.append_output(segments.to_vec())).await
}

async fn store_each(
    history: &dyn History,
    segments: &[OutputSegment],
    totals: &Totals,
    options: &ArchiverOptions,
) -> Result<Unstorable, ArchiverStopped> {
    let mut unstorable = Unstorable::new();
    for segment in segments {
        // Nothing after a hole may be reported as archived, so the rest of that Attempt is left out.
        if unstorable.iter().any(|(id, _)| *id == segment.attempt) {
            continue;
        }
        match store_segments(history, std::slice::from_ref(segment), totals, options).await {
            Ok(()) => {}
            Err(WriteFailure::Closed(error)) => return Err(ArchiverStopped::HistoryClosed(error)),
            Err(WriteFailure::Rejected(error)) => unstorable.push((segment.attempt.clone(), error)),
        }
    }
    Ok(unstorable)
}

/// The result of a batch: per Attempt how far it is stored, or that it will not be.
fn notifications(
    segments: &[OutputSegment],
    unstorable: Unstorable,
    queue: &OutputQueue,
    totals: &Totals,
) -> Vec<Archived> {
    let is_storable = |id: &AttemptId| unstorable.iter().all(|(other, _)| other != id);
    let mut ends: HashMap<&AttemptId, u64> = HashMap::new();
    for segment in segments.iter().filter(|segment| is_storable(&segment.attempt)) {
        totals.stored_output(segment.raw_bytes, segment.packed.len() as u64);
        let end = ends.entry(&segment.attempt).or_default();
        *end = segment.end.max(*end);
    }
    let mut notifications: Vec<Archived> =
        ends.into_iter().map(|(id, end)| Archived::Output { attempt: id.clone(), end }).collect();
    for (id, error) in unstorable {
        let AttemptId { task: task_uid, run, node, attempt } = &id;
        let category = error.category();
        tracing::error!(%task_uid, %run, %node, attempt, category, %error, "History rejected output");
        totals.rejected();
        queue.reject(&id);
        notifications.push(Archived::RejectedOutput { attempt: id, message: error.to_string() });
    }
    notifications
}
