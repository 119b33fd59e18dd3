//! Which Run is followed, and how its output is shown.

use std::collections::BTreeSet;

use sentinel_protocol::log::Stream;

use crate::client::{Client, Since};
use crate::output::format::StreamFormat;

/// Selects a Run of a Task.
#[derive(Debug, Clone)]
pub(crate) enum RunSelector {
    /// The Run of the latest edit.
    Latest,
    /// The Run with this number.
    Number(u32),
    /// The Run that a rerun request with this token started.
    OfToken(String),
}

/// What to follow.
#[derive(Debug, Clone)]
pub(crate) struct FollowRequest {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) run: RunSelector,
    /// Only these nodes; all if empty.
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) options: LogOptions,
    /// Whether lines have a prefix; `None`: with more than one node.
    pub(crate) prefixed: Option<bool>,
    /// Whether prefixes and messages name the Task, since several are followed at once.
    pub(crate) show_task: bool,
    /// Whether the output is all that is wanted, so that following ends where it may not be read.
    pub(crate) output_only: bool,
}

/// Which part of a log is shown, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogOptions {
    /// Prefix lines with their time on the node.
    pub(crate) timestamps: bool,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
    /// First position, bytes.
    pub(crate) from: u64,
    /// At most this many last lines.
    pub(crate) tail: Option<u32>,
    /// Only output since this time.
    pub(crate) since: Option<Since>,
    /// Continue until the Attempt has ended.
    pub(crate) follow: bool,
    /// Text or JSON.
    pub(crate) format: StreamFormat,
}
