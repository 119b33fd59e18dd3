//! A Run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Run of a Task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
    pub task: String,
    /// Uid of the Task.
    pub task_uid: String,
    /// Number of the Run in the Task.
    pub run: u32,
    /// Why it began.
    pub trigger: String,
    /// The command, for people.
    pub command: String,
    /// Digest of the fields that decide what runs and where.
    pub spec_hash: String,
    /// When it began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When its last target ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// `Complete`, `Failed` or `Cancelled`; absent while it is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Why this verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of its targets.
    pub targets: u32,
    /// Number of finished targets, by Outcome.
    pub outcomes: BTreeMap<String, u32>,
}
