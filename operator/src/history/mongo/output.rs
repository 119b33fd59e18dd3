//! Segments of output. Their `_id` is `<attempt>/<end>/<first>`, so that the segments that end after a position are one
//! range of the only index, and coverage follows from the ids alone.

use futures_util::TryStreamExt as _;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, doc};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::LogRecord;

use super::connection::Connection;
use super::record::is_only_duplicates;
use crate::history::error::HistoryError;
use crate::history::segment::{OutputSegment, SegmentLines};
use crate::history::stitch::{Coverage, Stitch};

/// Version of the documents, in their field `v`.
const VERSION: i32 = 1;
/// Segments per insert: a few megabytes.
const INSERT_BATCH: usize = 16;
/// Segments per read.
const READ_BATCH: usize = 16;
const APPEND_ACTION: &str = "append output";
const READ_ACTION: &str = "read output";
const LINES_ACTION: &str = "read the lines of output";
const END_ACTION: &str = "find the end of archived output";

pub(super) async fn append(connection: &Connection, segments: &[OutputSegment]) -> Result<(), HistoryError> {
    let expire_at = connection.expiry();
    for batch in segments.chunks(INSERT_BATCH) {
        let documents = batch.iter().map(|segment| {
            let mut document = doc! {
                "_id": segment_id(&segment.attempt, segment.end, segment.first),
                "v": VERSION,
                "attempt": segment.attempt.to_string(),
                "first": segment.first as i64,
                "end": segment.end as i64,
                "records": segment.records,
                "rawBytes": segment.raw_bytes as i64,
                "packed": Binary { subtype: BinarySubtype::Generic, bytes: segment.packed.to_vec() },
                "expireAt": expire_at,
            };
            if let Some(lines) = segment.lines.and_then(|lines| serde_json::to_string(&lines).ok()) {
                document.insert("lines", lines);
            }
            document
        });
        match connection.output.insert_many(documents).ordered(false).await {
            Ok(_) => {}
            Err(error) if is_only_duplicates(&error) => {}
            Err(error) => return Err(connection.failed(APPEND_ACTION)(error)),
        }
    }
    Ok(())
}

fn segment_id(attempt: &AttemptId, end: u64, first: u64) -> String {
    format!("{}/{end:020}/{first:020}", attempt.sort_key())
}

/// `first` and `end` of an id.
fn parse_segment_id(id: &str) -> Option<(u64, u64)> {
    let mut parts = id.rsplit('/');
    let first = parts.next()?.parse().ok()?;
    let end = parts.next()?.parse().ok()?;
    Some((first, end))
}

/// Matches the segments that end after `at`. '~' sorts after every digit.
fn ending_after(connection: &Connection, attempt: &AttemptId, at: u64) -> Document {
    let key = attempt.sort_key();
    doc! {
        "_id": { "$gt": format!("{key}/{at:020}/~"), "$lt": format!("{key}/~") },
        "expireAt": { "$gt": connection.now() },
    }
}

pub(super) async fn end(
    connection: &Connection,
    attempt: &AttemptId,
    from: u64,
) -> Result<u64, HistoryError> {
    let mut coverage = Coverage::from(from);
    for_each_segment_id(connection, attempt, from, END_ACTION, |first, end| coverage.add(first, end)).await?;
    Ok(coverage.end())
}

/// The lines of segments that end after a position; a string of JSON in their field `lines`.
pub(super) async fn lines(
    connection: &Connection,
    attempt: &AttemptId,
    from: u64,
    limit: usize,
) -> Result<Vec<SegmentLines>, HistoryError> {
    let failed = || connection.failed(LINES_ACTION);
    let mut cursor = connection
        .output
        .find(ending_after(connection, attempt, from))
        .projection(doc! { "_id": 1, "lines": 1 })
        .sort(doc! { "_id": 1 })
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .batch_size(1000)
        .max_time(connection.max_time())
        .await
        .map_err(failed())?;
    let mut found = Vec::new();
    while let Some(document) = cursor.try_next().await.map_err(failed())? {
        if let Some((first, end)) = document.get_str("_id").ok().and_then(parse_segment_id) {
            let lines = document.get_str("lines").ok().and_then(|text| serde_json::from_str(text).ok());
            found.push(SegmentLines { first, end, lines });
        }
    }
    Ok(found)
}

async fn for_each_segment_id(
    connection: &Connection,
    attempt: &AttemptId,
    at: u64,
    action: &'static str,
    mut visit: impl FnMut(u64, u64),
) -> Result<(), HistoryError> {
    let mut cursor = connection
        .output
        .find(ending_after(connection, attempt, at))
        .projection(doc! { "_id": 1 })
        .sort(doc! { "_id": 1 })
        .batch_size(1000)
        .max_time(connection.max_time())
        .await
        .map_err(connection.failed(action))?;
    while let Some(document) = cursor.try_next().await.map_err(connection.failed(action))? {
        if let Some((first, end)) = document.get_str("_id").ok().and_then(parse_segment_id) {
            visit(first, end);
        }
    }
    Ok(())
}

pub(super) async fn read(
    connection: &Connection,
    attempt: &AttemptId,
    from: u64,
    max_bytes: usize,
) -> Result<Vec<LogRecord>, HistoryError> {
    let mut stitch = Stitch::new(from, max_bytes);
    while !stitch.is_full() {
        let segments = next_segments(connection, attempt, stitch.position(), max_bytes).await?;
        if segments.is_empty() {
            break;
        }
        let before = stitch.position();
        for segment in segments {
            if stitch.is_full() {
                break;
            }
            if segment.first > stitch.position() {
                cross_gap(connection, attempt, &mut stitch).await?;
                break;
            }
            if segment.end > stitch.position() {
                stitch.take(&segment)?;
            }
        }
        if stitch.position() == before {
            // The segment that covered the position has expired in between.
            return Err(HistoryError::Contended { action: READ_ACTION });
        }
    }
    Ok(stitch.finish())
}

/// The next segment by its end begins after the position: either a longer segment covers it, or it is a hole.
async fn cross_gap(
    connection: &Connection,
    attempt: &AttemptId,
    stitch: &mut Stitch,
) -> Result<(), HistoryError> {
    let at = stitch.position();
    let mut covering: Option<(u64, u64)> = None;
    let mut nearest: Option<u64> = None;
    for_each_segment_id(connection, attempt, at, READ_ACTION, |first, end| {
        if first <= at && covering.is_none_or(|(_, longest)| end > longest) {
            covering = Some((first, end));
        }
        nearest = Some(nearest.map_or(first, |n| n.min(first)));
    })
    .await?;
    match (covering, nearest) {
        (Some((first, end)), _) => {
            let filter = doc! { "_id": segment_id(attempt, end, first) };
            let found = connection
                .output
                .find_one(filter)
                .max_time(connection.max_time())
                .await
                .map_err(connection.failed(READ_ACTION))?;
            // It may have expired in between; then the position does not advance.
            if let Some(document) = found {
                stitch.take(&parse(attempt, &document)?)?;
            }
        }
        (None, Some(first)) => stitch.skip_to(first),
        (None, None) => {}
    }
    Ok(())
}

async fn next_segments(
    connection: &Connection,
    attempt: &AttemptId,
    at: u64,
    max_bytes: usize,
) -> Result<Vec<OutputSegment>, HistoryError> {
    // The archiver's segments hold up to half a megabyte; one more, since the first is read from its middle.
    let wanted = (max_bytes / (512 << 10) + 2).min(READ_BATCH);
    let cursor = connection
        .output
        .find(ending_after(connection, attempt, at))
        .sort(doc! { "_id": 1 })
        .limit(wanted as i64)
        .batch_size(wanted as u32)
        .max_time(connection.max_time())
        .await
        .map_err(connection.failed(READ_ACTION))?;
    let documents: Vec<Document> = cursor.try_collect().await.map_err(connection.failed(READ_ACTION))?;
    documents.iter().map(|document| parse(attempt, document)).collect()
}

fn parse(attempt: &AttemptId, document: &Document) -> Result<OutputSegment, HistoryError> {
    let unreadable = |message: String| HistoryError::Unreadable {
        what: format!("a segment of output of {attempt}"),
        message,
    };
    let id = document.get_str("_id").unwrap_or_default();
    let (first, end) = parse_segment_id(id).ok_or_else(|| unreadable(format!("its id is {id:?}")))?;
    let packed = document.get_binary_generic("packed").map_err(|e| unreadable(e.to_string()))?;
    let number =
        |name: &str| document.get(name).and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from)));
    Ok(OutputSegment {
        attempt: attempt.clone(),
        first,
        end,
        records: number("records").unwrap_or_default() as u32,
        raw_bytes: number("rawBytes").unwrap_or_default() as u64,
        lines: None,
        packed: packed.clone().into(),
    })
}
