//! A node.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use sentinel_protocol::metrics::NodeMetrics;
use serde::{Deserialize, Serialize};

/// A node and its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether its agent is connected and has sent a heartbeat lately.
    pub reachable: bool,
    /// When the last message of its agent was received, by the operator's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard_at: Option<String>,
    /// Release of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// Operating system, architecture and kernel, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Where its agent can run commands: `Host`, `Container`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// What is added to the time of its clock to have that of the operator, milliseconds, as measured by its last
    /// heartbeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_millis: Option<i64>,
    /// The boot id of its kernel; it changes with each boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The latest sample that its agent sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub metrics: Option<NodeMetrics>,
}
