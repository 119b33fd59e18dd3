//! A Run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use sentinel_protocol::requester::{RequestedBy, Requester};
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
    /// Who asked for it; absent when that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RequestedByView>,
    /// Who cancelled it; absent if it was not cancelled, or when that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<RequesterView>,
    /// Who approved it; absent if it needed no approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<RequesterView>,
    /// Number of its targets.
    pub targets: u32,
    /// Number of finished targets, by Outcome.
    pub outcomes: BTreeMap<String, u32>,
}

/// Who is behind a Run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestedByView {
    /// Who last changed its spec.
    pub author: RequesterView,
    /// Who asked to run the unchanged spec again, if that is why it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerun: Option<RequesterView>,
}

/// A user as the API server has authenticated them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequesterView {
    /// The user's name.
    pub user: String,
    /// Their uid, where the authenticator has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The groups they were in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl From<RequestedBy> for RequestedByView {
    fn from(by: RequestedBy) -> Self {
        Self { author: by.author.into(), rerun: by.rerun.map(Into::into) }
    }
}

impl From<Requester> for RequesterView {
    fn from(who: Requester) -> Self {
        let groups = who.groups.into_iter().map(Into::into).collect();
        Self { user: who.user.into(), uid: who.uid.map(Into::into), groups }
    }
}
