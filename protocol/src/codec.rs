//! Values to frames and back. Total, and bounded by [`crate::limits`].

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::AttemptId;
use crate::limits::{MAX_CONTROL_FRAME, MAX_POSITION, MAX_RECORD_DATA};
use crate::log::{LogRecord, RecordHead};
use crate::time::UnixMillis;

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame is larger than allowed.
    #[error("frame of {len} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The text is not the JSON of a message.
    #[error("not a message: {0}")]
    Json(String),
    /// The binary frame is shorter than it says, or its head and body disagree.
    #[error("not a log record: {0}")]
    Record(&'static str),
}

/// The text frame of a control message.
///
/// # Errors
/// [`CodecError::TooLarge`] when the message would not be accepted by the other end.
pub fn encode_text<T: Serialize>(message: &T) -> Result<String, CodecError> {
    let text = serde_json::to_string(message).map_err(|error| CodecError::Json(error.to_string()))?;
    within(text.len(), MAX_CONTROL_FRAME)?;
    Ok(text)
}

/// The control message in a text frame.
///
/// # Errors
/// [`CodecError`] when the frame is too large or not a message.
pub fn decode_text<T: DeserializeOwned>(text: &str) -> Result<T, CodecError> {
    within(text.len(), MAX_CONTROL_FRAME)?;
    serde_json::from_str(text).map_err(|error| CodecError::Json(error.to_string()))
}

/// Whether the text is well-formed but of a kind that this build does not know; such a message is ignored, so that
/// a newer peer can say more than an older one understands.
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

/// The binary frame of a log record: length of the head (u16, big-endian), head as JSON, bytes.
///
/// # Errors
/// [`CodecError`] when the record holds more than [`MAX_RECORD_DATA`] bytes or its head does not fit its bytes.
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

/// The log record in a binary frame; its bytes are shared with the frame and not copied.
///
/// # Errors
/// [`CodecError`] when the frame is cut, its head is no head, or head and bytes disagree.
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
        return Err(CodecError::Record("its length and its bytes disagree"));
    }
    if head.len == 0 {
        return Err(CodecError::Record("it covers no byte"));
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
