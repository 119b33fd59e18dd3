//! Who asked for a Run, as the API server authenticated them. An agent has it from the operator, so it is only as trustworthy as the
//! operator.

use serde::{Deserialize, Serialize};

use crate::text;

/// Longest name of a user, uid or group, bytes. A longer one is truncated, and then equals no name that a policy has.
pub const MAX_IDENTITY: usize = 256;

/// Most groups of a requester; further ones are left out.
pub const MAX_GROUPS: usize = 128;

/// A name of a user or group.
pub type IdentityName = text::Text<MAX_IDENTITY>;

/// A user as the API server has authenticated them (`UserInfo` of `authentication.k8s.io/v1`, without its extra fields).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// The user's name, for example `alice` or `system:serviceaccount:ops:deployer`.
    pub user: IdentityName,
    /// Differs between two users who have had the same name at different times; many authenticators leave it empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<IdentityName>,
    /// The groups they were in when they asked.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "text::first::<_, _, MAX_GROUPS>"
    )]
    pub groups: Vec<IdentityName>,
}

/// Who is behind a Run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedBy {
    /// Who last changed the spec.
    pub author: Requester,
    /// Who asked to run the unchanged spec again; `None` if the author's change began the Run, or a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Requester>,
    /// Who created the Task, where that is known. For the records: no rule decides by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<Requester>,
    /// Who approved the Run; `None` if it needed no approval. For the records: no rule decides by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<Requester>,
}

impl RequestedBy {
    /// These, and no other person is known.
    pub fn new(author: Requester, rerun: Option<Requester>) -> Self {
        Self { author, rerun, creator: None, approver: None }
    }
}
