//! Node metrics, as the agent samples them.

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::MAX_DEVICES;
use crate::text::{self, Name};

/// One sample of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    /// CPU usage of all processors since the last sample, percent from 0 to 100.
    #[serde(deserialize_with = "percent")]
    pub cpu_percent: f32,
    /// Number of logical processors.
    pub cpu_count: u32,
    /// Memory in use, bytes.
    #[serde(deserialize_with = "text::count")]
    pub memory_used: u64,
    /// Total memory, bytes.
    #[serde(deserialize_with = "text::count")]
    pub memory_total: u64,
    /// Load average over 1, 5 and 15 minutes.
    #[serde(deserialize_with = "load")]
    pub load: [f64; 3],
    /// Seconds since the node booted.
    #[serde(deserialize_with = "text::count")]
    pub uptime_seconds: u64,
    /// Disks, up to [`MAX_DEVICES`].
    #[serde(default, deserialize_with = "text::first::<_, _, MAX_DEVICES>")]
    pub disks: Vec<DiskMetrics>,
    /// Network interfaces, up to [`MAX_DEVICES`].
    #[serde(default, deserialize_with = "text::first::<_, _, MAX_DEVICES>")]
    pub networks: Vec<NetworkMetrics>,
    /// Attempts that the agent owns and that have not ended.
    pub running: u32,
    /// Most Attempts that may run at once (`--max-attempts`); a node with that many is busy. 0 from an agent that does
    /// not send it.
    #[serde(default, skip_serializing_if = "crate::text::is_zero")]
    pub running_limit: u32,
    /// Reports without an Ack.
    pub unacknowledged: u32,
    /// Bytes of output on the node's disk that are not archived.
    #[serde(deserialize_with = "text::count")]
    pub spooled: u64,
}

/// One mounted disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskMetrics {
    /// Mount point.
    pub mount: Name,
    /// Size, bytes.
    #[serde(deserialize_with = "text::count")]
    pub total: u64,
    /// Free space, bytes.
    #[serde(deserialize_with = "text::count")]
    pub available: u64,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkMetrics {
    /// Interface name.
    pub interface: Name,
    /// Bytes received since the node booted.
    #[serde(deserialize_with = "text::count")]
    pub received: u64,
    /// Bytes sent since the node booted.
    #[serde(deserialize_with = "text::count")]
    pub sent: u64,
}

/// Clamps a percentage. A number too large for an `f32` decodes as infinity and becomes 0.
fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let share = f32::deserialize(deserializer)?;
    Ok(if share.is_finite() { share.clamp(0.0, 100.0) } else { 0.0 })
}

fn load<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 3], D::Error> {
    let load = <[f64; 3]>::deserialize(deserializer)?;
    Ok(load.map(|load| if load.is_finite() { load.clamp(0.0, 1e9) } else { 0.0 }))
}
