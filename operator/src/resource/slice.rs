//! A part of a frozen target list that is too long for the Task's status.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::{CustomResource, KubeSchema};
use sentinel_protocol::ids::NodeName;
use serde::{Deserialize, Serialize};

use super::task::NODE_NAME_PATTERN;

/// Most nodes in one slice: at 253 bytes each a slice stays under 256 KiB.
pub const MAX_SLICE_NODES: usize = 1000;

/// Part `index` of the frozen target list of Run `run`; written once, owned by the Task.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[kube(
    group = "sentinelnode.dev",
    version = "v1alpha1",
    kind = "TargetSlice",
    plural = "targetslices",
    singular = "targetslice",
    category = "sentinel",
    namespaced,
    derive = "PartialEq",
    doc = "A part of the frozen target list of one Run of a Task; made by the operator and never changed. Example: `kubectl get targetslices -l sentinelnode.dev/task=hello`.",
    printcolumn(name = "Run", type_ = "integer", json_path = ".spec.run", description = "Number of the Run"),
    printcolumn(name = "Index", type_ = "integer", json_path = ".spec.index", description = "Position of this part"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("spec of a TargetSlice cannot be changed")
)]
#[serde(rename_all = "camelCase")]
pub struct TargetSliceSpec {
    /// Number of the Run that this list belongs to. Example: `2`.
    #[schemars(range(min = 1))]
    pub run: i64,

    /// Position of this part in the list, from 0. Example: `0`.
    #[schemars(range(min = 0, max = 9999))]
    pub index: i64,

    /// Names of nodes, in order. Example: `[worker-1, worker-2]`.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253), regex(pattern = NODE_NAME_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nodes: Vec<String>,
}

/// What the status says of a frozen target list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The list itself, where it is short.
    pub targets: Vec<NodeName>,
    /// How many slices hold it otherwise.
    pub slices: u32,
    /// The digest in their names.
    pub digest: String,
}
