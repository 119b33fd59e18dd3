//! The records of a log in an answer, with their bytes as they are.
//!
//! A frame is the length of its head in bytes (2 bytes, big-endian), the head as JSON, and the data. Heads are the objects of
//! the log as JSON (`application/x-ndjson`) without their `data`. A head of kind `record` without `dropped` has `len` bytes of
//! data behind it; every other head has none. That is the log record of the agents' protocol, whose Attempt is in a header of
//! the answer.

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.sentinelnode.records";

/// Largest head, bytes: it has a few numbers.
pub const MAX_HEAD: usize = 1 << 10;

/// A head behind its length, with room for so many bytes of data; `None` when it is larger than [`MAX_HEAD`].
pub fn frame(head: &[u8], room: usize) -> Option<Vec<u8>> {
    let len = u16::try_from(head.len()).ok().filter(|len| usize::from(*len) <= MAX_HEAD)?;
    let mut frame = Vec::with_capacity(2 + head.len() + room);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(head);
    Some(frame)
}
