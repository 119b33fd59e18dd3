//! Lines of a log that match an expression, one JSON object a line.

use schemars::JsonSchema;
use sentinel_protocol::log::Stream;
use serde::{Deserialize, Serialize};

/// A line of the answer to a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum SearchLineView {
    /// A line of the log that matches.
    Hit {
        /// Number of the line.
        line: u64,
        /// Position of its first byte.
        position: u64,
        /// Its stream: `stdout` or `stderr`.
        #[schemars(with = "String")]
        stream: Stream,
        /// When it was written, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
        at_micros: i64,
        /// Its text before the match, the match, and its text behind it; a long line has some of it only.
        text: [String; 3],
    },
    /// How far the search is.
    Progress {
        /// Everything before this position was searched.
        position: u64,
        /// Position behind the last byte of the log.
        end: u64,
    },
    /// The search is over: the last line.
    End {
        /// Everything before this position was searched.
        position: u64,
        /// Whether that is the whole log as it is now; otherwise a bound was reached, and `from` continues.
        complete: bool,
    },
}

/// A line of the answer to a search in all logs of a Run, which are searched one after the other, by node and Attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RunSearchLineView {
    /// A line that matches.
    Hit {
        /// Its node.
        node: String,
        /// Number of the Attempt.
        attempt: u32,
        /// Number of the line in its log.
        line: u64,
        /// Position of its first byte in its log.
        position: u64,
        /// Its stream: `stdout` or `stderr`.
        #[schemars(with = "String")]
        stream: Stream,
        /// When it was written, by the operator's clock where the offset of the node's is known, microseconds since the Unix
        /// epoch; 0 if unknown.
        at_micros: i64,
        /// Its text before the match, the match, and its text behind it; a long line has some of it only.
        text: [String; 3],
    },
    /// How far the search is.
    Progress {
        /// The node whose log is searched.
        node: String,
        /// Bytes of all logs that were searched, by earlier searches too.
        searched: u64,
        /// Bytes of all logs.
        size: u64,
    },
    /// The search is over: the last line.
    End {
        /// A cursor from which another search continues.
        next: String,
        /// Whether all logs were searched as they are now; otherwise a bound was reached, and `from` continues.
        complete: bool,
    },
}
