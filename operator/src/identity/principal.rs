//! An authenticated person or program.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::UserInfo;
use sentinel_protocol::requester::{MAX_GROUPS, Requester};

/// A user whom the API server has authenticated, with the attributes by which it authorizes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    /// The user name, for example `jane@example.com` or `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// The uid, where there is one.
    pub uid: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
    /// Further attributes, by key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&Principal> for Requester {
    fn from(principal: &Principal) -> Self {
        let groups = principal.groups.iter().take(MAX_GROUPS).map(|group| group.as_str().into()).collect();
        Self { user: principal.name.as_str().into(), uid: principal.uid.as_deref().map(Into::into), groups }
    }
}

impl From<UserInfo> for Principal {
    fn from(user: UserInfo) -> Self {
        Self {
            name: user.username.unwrap_or_default(),
            uid: user.uid.filter(|uid| !uid.is_empty()),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }
    }
}
