//! How a node does, as its agent measured it.

use serde::{Deserialize, Serialize};

/// One sample of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    /// Share of all processors in use since the last sample, 0 to 100.
    pub cpu_percent: f32,
    /// Number of processors.
    pub cpu_count: u32,
    /// Memory in use, bytes.
    pub memory_used: u64,
    /// Memory in all, bytes.
    pub memory_total: u64,
    /// Load average over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Seconds since the node was started.
    pub uptime_seconds: u64,
    /// Disks, at most 32.
    #[serde(default)]
    pub disks: Vec<DiskMetrics>,
    /// Network interfaces, at most 32.
    #[serde(default)]
    pub networks: Vec<NetworkMetrics>,
    /// Attempts that the agent owns and that are not over.
    pub running: u32,
    /// Attempts that are not over, at most: with as many the node is busy. 0 from an agent that does not say.
    #[serde(default, skip_serializing_if = "crate::to_agent::is_zero")]
    pub running_limit: u32,
    /// Reports that wait for their Ack.
    pub unacknowledged: u32,
    /// Bytes of output that wait on the node's disk.
    pub spooled: u64,
}

/// One mounted disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskMetrics {
    /// Where it is mounted.
    pub mount: String,
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub available: u64,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkMetrics {
    /// Its name.
    pub interface: String,
    /// Bytes received since the node was started.
    pub received: u64,
    /// Bytes sent since the node was started.
    pub sent: u64,
}
