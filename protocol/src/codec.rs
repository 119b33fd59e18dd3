//! Encodes values to frames and decodes them. No input panics, and every size is bounded by [`crate::limits`].

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::AttemptId;
use crate::limits::{MAX_CONTROL_FRAME, MAX_POSITION, MAX_RECORD_DATA};
use crate::log::{LogRecord, RecordHead};
use crate::time::UnixMillis;

/// Why a frame could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame exceeds its limit.
    #[error("frame of {len} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size, bytes.
        len: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The text is not a valid JSON message.
    #[error("not a message: {0}")]
    Json(String),
    /// The binary frame is truncated, or its head does not match its data.
    #[error("not a log record: {0}")]
    Record(&'static str),
}

/// Most messages have fewer bytes: they are written without growing the buffer.
const USUAL_MESSAGE: usize = 1 << 10;

/// Encodes a control message as a text frame.
///
/// # Errors
/// [`CodecError::TooLarge`] when the other end would reject the frame for its size.
pub fn encode_text<T: Serialize>(message: &T) -> Result<String, CodecError> {
    let mut json = Vec::with_capacity(USUAL_MESSAGE);
    serde_json::to_writer(&mut json, message).map_err(|error| CodecError::Json(error.to_string()))?;
    within(json.len(), MAX_CONTROL_FRAME)?;
    // It may wait in a queue.
    json.shrink_to_fit();
    String::from_utf8(json).map_err(|error| CodecError::Json(error.to_string()))
}

/// Decodes the control message in a text frame.
///
/// # Errors
/// [`CodecError`] when the frame is too large or not a valid message.
pub fn decode_text<T: DeserializeOwned>(text: &str) -> Result<T, CodecError> {
    within(text.len(), MAX_CONTROL_FRAME)?;
    serde_json::from_str(text).map_err(|error| CodecError::Json(error.to_string()))
}

/// Whether the text is a well-formed message of a kind that this build does not know. Such a message is ignored, so
/// that a newer peer can send kinds that an older one does not have.
pub fn is_unknown_kind(text: &str, known: &[&str]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    serde_json::from_str::<Kind>(text).is_ok_and(|message| !known.contains(&message.kind.as_str()))
}

#[derive(Serialize, Deserialize)]
struct Head {
    attempt: AttemptId,
    #[serde(flatten)]
    head: RecordHead,
}

/// Encodes a log record as a binary frame: length of the head (u16, big-endian), head as JSON, data.
///
/// # Errors
/// [`CodecError`] when the record has more than [`MAX_RECORD_DATA`] bytes of data or its head does not match them.
pub fn encode_record(attempt: &AttemptId, record: &LogRecord) -> Result<Bytes, CodecError> {
    within(record.data.len(), MAX_RECORD_DATA)?;
    check_lengths(&record.head, record.data.len())?;
    let head = serde_json::to_vec(&Head { attempt: attempt.clone(), head: record.head })
        .map_err(|error| CodecError::Json(error.to_string()))?;
    let head_len = u16::try_from(head.len()).map_err(|_| CodecError::Record("head too long"))?;
    let mut frame = BytesMut::with_capacity(2 + head.len() + record.data.len());
    frame.put_u16(head_len);
    frame.put_slice(&head);
    frame.put_slice(&record.data);
    Ok(frame.freeze())
}

/// Decodes the log record in a binary frame. Its data shares the frame's memory.
///
/// # Errors
/// [`CodecError`] when the frame is truncated, its head is invalid, or the head does not match the data.
pub fn decode_record(frame: &Bytes) -> Result<(AttemptId, LogRecord), CodecError> {
    let [high, low, ..] = frame[..] else {
        return Err(CodecError::Record("shorter than its length field"));
    };
    let body = 2 + usize::from(u16::from_be_bytes([high, low]));
    let head = frame.get(2..body).ok_or(CodecError::Record("shorter than its head"))?;
    let Head { attempt, head } =
        serde_json::from_slice(head).map_err(|error| CodecError::Json(error.to_string()))?;
    let head = RecordHead { at_micros: head.at_micros.clamp(0, UnixMillis::LAST.0 * 1000), ..head };
    let data = frame.slice(body..);
    within(data.len(), MAX_RECORD_DATA)?;
    check_lengths(&head, data.len())?;
    Ok((attempt, LogRecord { head, data }))
}

fn check_lengths(head: &RecordHead, data: usize) -> Result<(), CodecError> {
    let expected = if head.dropped.is_some() { 0 } else { head.len };
    if data as u64 != expected {
        return Err(CodecError::Record("its length does not match its data"));
    }
    if head.len == 0 {
        return Err(CodecError::Record("it is empty"));
    }
    let end_of = |start: u64| start.checked_add(head.len).filter(|end| *end <= MAX_POSITION);
    if end_of(head.position).is_none() || end_of(head.offset).is_none() {
        return Err(CodecError::Record("its position is out of range"));
    }
    Ok(())
}

fn within(len: usize, limit: usize) -> Result<(), CodecError> {
    if len > limit { Err(CodecError::TooLarge { len, limit }) } else { Ok(()) }
}
