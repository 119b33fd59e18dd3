//! The heads of audit chains.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The head of an audit chain as it was at some time, as History keeps it. The same head may be listed more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditHeadView {
    /// Who keeps the chain: the name of a node, or `operator`.
    pub of: String,
    /// Id of the chain.
    pub chain: String,
    /// The number of the record in its chain.
    pub seq: u64,
    /// The record's hash, SHA-256, which covers all records before.
    pub hash: String,
    /// When it was recorded, by the operator's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<String>,
}
