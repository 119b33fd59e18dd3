//! The logs of a Run as one, by time.
//!
//! [`source`] makes the lines of one log, [`merging`] joins those of all, and [`page`] finds where a number of them begins.
//!
//! The way of a line: the records of a log go into a `LineWindow` of its `Source`. A `Take` decides which lines leave it:
//! those that have changed, also when they have not ended, or only settled ones. They are *unsent* until the merge finds that
//! it is their turn. What a reader has `Reached` in each log makes its cursor: a position before which everything was sent,
//! and the lines that were sent before they had ended. A page has an `Extent` of each log, from its first line to its end.
//!
//! What is held is bounded: [`memory`] bounds all readers together, and with it all logs of a reader; beyond that, a record of each.

pub(crate) mod memory;
mod merging;
mod page;
mod source;

use std::sync::Arc;

use sentinel_core::stream::cursor::{KEY, MergeCursor};
use sentinel_core::stream::window::WindowItem;
use sentinel_protocol::ids::{AttemptId, NodeName};
use sentinel_protocol::log::Stream as OutputStream;
use sha2::{Digest as _, Sha256};

pub use self::merging::Merging;
pub use self::page::{LogEnding, MergedFrom, MergedLines, MergedParams};
pub use sentinel_core::stream::cursor::MAX_LOGS;

/// How long a line waits for earlier ones of other logs while they are followed, microseconds.
pub const REORDER_WINDOW: u64 = 500_000;

/// A log to be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedLog {
    /// Its Attempt.
    pub attempt: AttemptId,
    /// What is added to times of its node to have those of the operator, microseconds; `None` if it is unknown.
    pub offset_micros: Option<i64>,
}

impl MergedLog {
    /// A time of its node by the operator's clock, if the offset is known; microseconds since the Unix epoch.
    pub fn adjusted(&self, at_micros: i64) -> i64 {
        at_micros.saturating_add(self.offset_micros.unwrap_or(0))
    }

    fn on_node(&self, at_micros: i64) -> i64 {
        at_micros.saturating_sub(self.offset_micros.unwrap_or(0))
    }

    /// What it is in a cursor.
    pub fn key(&self) -> ([u8; KEY], u32) {
        let digest = Sha256::digest(self.attempt.node.as_str().as_bytes());
        let mut key = [0; KEY];
        key.copy_from_slice(&digest[..KEY]);
        (key, self.attempt.attempt)
    }
}

/// Of equal times, the lower name goes first.
type LogName = Arc<(NodeName, u32)>;

/// A line or a gap of one of the logs.
#[derive(Debug, Clone)]
pub struct MergedItem {
    /// The log it is of.
    pub log: Arc<MergedLog>,
    /// The line, with the time by the node's clock.
    pub item: WindowItem,
    /// When it was written or dropped, by the operator's clock if the offset is known, microseconds since the Unix epoch; 0 if
    /// unknown.
    pub at_micros: i64,
    /// Whether a later line was sent before it.
    pub is_late: bool,
}

impl MergedItem {
    /// What identifies a line: one that is sent again has the same.
    pub fn line(&self) -> Option<(&NodeName, u32, u64)> {
        match &self.item {
            WindowItem::Line(line) => Some((&self.log.attempt.node, self.log.attempt.attempt, line.number)),
            WindowItem::Gap { .. } => None,
        }
    }
}

/// How much of the logs to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergedExtent {
    /// What exists now, sorted by time.
    Now,
    /// Each line as it is written.
    Follow,
}

/// What a reader of merged logs begins with.
#[derive(Debug, Clone)]
pub struct MergedStart {
    /// How far it is in each log.
    pub cursor: MergeCursor,
    /// Only lines of this stream.
    pub stream: Option<OutputStream>,
    /// How much to read.
    pub extent: MergedExtent,
}
