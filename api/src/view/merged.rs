//! Lines of the output of a Run: those of all its nodes, by time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LineItemView;

/// Lines of several logs as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergedLinesView {
    /// The lines, and the gaps between them, by time; those of one node are in their order in any case.
    pub lines: Vec<MergedItemView>,
    /// A cursor where they begin: `to` reads the lines before them.
    pub before: String,
    /// A cursor where they end: `from` reads, and the stream of lines sends, every line that is not here, or not complete
    /// here.
    pub next: String,
    /// Whether the logs have ended, and these lines are the last ones.
    pub ended: bool,
    /// The logs: one for each Attempt that was sent to its node.
    pub nodes: Vec<MergedNodeView>,
}

/// One of the logs that are merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergedNodeView {
    /// Its node.
    pub node: String,
    /// Number of the Attempt.
    pub attempt: u32,
    /// What was added to the node's time to have that of the operator, milliseconds; absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_millis: Option<i64>,
}

/// The data of an event of the stream of merged lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MergedEventView {
    /// Lines that are new or have changed, and new gaps; a line with a known node, Attempt and number replaces the earlier
    /// one.
    pub lines: Vec<MergedItemView>,
}

/// A line or a gap of one of the logs. `atMicros` of a line is by the operator's clock where the offset of the node's is
/// known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergedItemView {
    /// Its node.
    pub node: String,
    /// Number of the Attempt.
    pub attempt: u32,
    /// When a line was written by the node's clock, if that differs from `atMicros`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_at_micros: Option<i64>,
    /// Whether lines that were written later were sent before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// The line or the gap.
    #[serde(flatten)]
    pub item: LineItemView,
}
