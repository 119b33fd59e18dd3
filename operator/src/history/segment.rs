//! Output as it is archived: runs of records, compressed together.

use bytes::Bytes;
use sentinel_protocol::ids::AttemptId;

/// A run of output records without a hole between them, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSegment {
    /// Whose output.
    pub attempt: AttemptId,
    /// Position of the first byte.
    pub first: u64,
    /// Position behind the last byte, dropped ones included.
    pub end: u64,
    /// Number of records.
    pub records: u32,
    /// Bytes of output, before compression.
    pub raw_bytes: u64,
    /// Everything about the records, compressed.
    pub packed: Bytes,
}
