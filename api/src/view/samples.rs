//! Metrics of nodes over the last 15 minutes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Metrics of one node over the last 15 minutes. All lists are equally long, one value for each slot, oldest first; null
/// where there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSamplesView {
    /// Name of the node.
    pub name: String,
    /// When the first slot begins, by the operator's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Span of a slot, milliseconds.
    pub slot_ms: u64,
    /// CPU usage of all processors, percent.
    pub cpu: Vec<Option<f64>>,
    /// Memory in use, percent.
    pub memory: Vec<Option<f64>>,
    /// Usage of the fullest disk, percent.
    pub disk: Vec<Option<f64>>,
    /// Load average over a minute.
    pub load: Vec<Option<f64>>,
    /// Bytes received a second, over all interfaces.
    pub received: Vec<Option<u64>>,
    /// Bytes sent a second, over all interfaces.
    pub sent: Vec<Option<u64>>,
}

/// CPU usage of several nodes over the last 15 minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetSamplesView {
    /// When the first slot begins, by the operator's clock, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Span of a slot, milliseconds.
    pub slot_ms: u64,
    /// By name of the node: whole percent for each slot, oldest first, null where there is none. A node that this operator
    /// has no sample of is absent.
    pub cpu: BTreeMap<String, Vec<Option<u8>>>,
}
