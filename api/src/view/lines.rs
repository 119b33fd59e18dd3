//! Lines of the output of an Execution, as the API answers them.

use schemars::JsonSchema;
use sentinel_protocol::log::Stream;
use serde::{Deserialize, Serialize};

/// A window of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinesView {
    /// Number of the Attempt that wrote them.
    pub attempt: u32,
    /// The lines, and the gaps between them, in order.
    pub lines: Vec<LineItemView>,
    /// Position from which the stream of lines continues: with every line that is not here, or not complete here.
    pub next: u64,
    /// Lines of the whole log so far, of both streams.
    pub total_lines: u64,
    /// Position behind the last byte so far.
    pub end: u64,
    /// Whether the log has ended.
    pub ended: bool,
}

/// The data of an event of the stream of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinesEventView {
    /// Lines that are new or have changed, and new gaps; a line with a known number replaces the earlier one.
    pub lines: Vec<LineItemView>,
}

/// A line or a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LineItemView {
    /// A line.
    Line(LineView),
    /// Output that was dropped.
    Gap(GapView),
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LineView {
    /// Its number, from 1, in the order in which lines of both streams begin. A line of more than 64 KiB counts as several.
    pub line: u64,
    /// Position of its first byte in the log of both streams.
    pub position: u64,
    /// Its stream: `stdout` or `stderr`.
    #[schemars(with = "String")]
    pub stream: Stream,
    /// When its first byte was written, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
    pub at_micros: i64,
    /// Its text without the newline; bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// Whether it continues the previous line of its stream, which was too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
    /// Whether the next line of its stream continues it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
    /// Whether its end is not there yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

/// Output that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GapView {
    /// Position of the first byte.
    pub position: u64,
    /// Its stream: `stdout` or `stderr`.
    #[schemars(with = "String")]
    pub stream: Stream,
    /// When its first bytes were dropped, by the node's clock, microseconds since the Unix epoch; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_micros: Option<i64>,
    /// Bytes that are missing.
    pub dropped: u64,
    /// Why, for people.
    pub reason: String,
}
