//! What the targets of a Run wrote, equal outputs as one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Partial, StreamDetails};

/// The outputs of a Run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputsView {
    /// Targets that ended the same and wrote the same: those that did not succeed first, then the rarest first.
    pub groups: Vec<OutputGroupView>,
    /// Targets that have ended.
    pub ended: u64,
    /// Targets that have not.
    pub pending: u64,
    /// Why targets may be missing; absent when none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// Targets that ended the same and wrote the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputGroupView {
    /// Their Outcome.
    pub outcome: String,
    /// Exit code of the command, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// How many they are.
    pub count: u64,
    /// Their nodes, folded: `web-[1-40,43]`.
    pub nodes: String,
    /// One of them, the first by name: its log is theirs.
    pub node: String,
    /// Number of its Attempt.
    pub attempt: u32,
    /// Its Outcome in one sentence, for people.
    pub message: String,
    /// Its standard output; the digest is empty where it is unknown.
    pub stdout: StreamDetails,
    /// Its standard error.
    pub stderr: StreamDetails,
}
