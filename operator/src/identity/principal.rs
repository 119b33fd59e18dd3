//! An authenticated person or program.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::UserInfo;

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
