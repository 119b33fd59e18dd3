//! The record of a reachable agent.

use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// A reachable agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceRecord {
    /// Its node.
    pub node: NodeName,
    /// Its Session.
    pub session: SessionId,
    /// When it was last seen, by the operator's clock.
    #[serde(rename = "lastHeard")]
    pub last_seen: UnixMillis,
    /// Its release.
    pub agent_version: String,
    /// The boot id of the node's kernel.
    pub boot_id: String,
    /// Its latest sample of the node's metrics.
    pub metrics: NodeMetrics,
}
