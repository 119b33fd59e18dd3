//! `TargetSlice`s: the target list of a Run that is too long for the status of its Task.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::{CustomResource, KubeSchema};
use sentinel_protocol::ids::NodeName;
use serde::{Deserialize, Serialize};

use super::task::targets::NODE_NAME_PATTERN;

/// Largest number of nodes in one slice.
pub const MAX_SLICE_NODES: usize = 20_000;

/// Largest size of the names in one slice, in bytes, with 3 for each name's quotes and comma. An object of etcd has at most 1.5 MiB
/// (its `--max-request-bytes`).
pub const MAX_SLICE_BYTES: usize = 1 << 20;

/// Part `index` of the target list of Run `run`; written once, owned by the Task.
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
    doc = "A part of the target list of one Run of a Task; created by the operator and never changed. Example: `kubectl get targetslices -l sentinelnode.dev/task=hello`.",
    printcolumn(name = "Run", type_ = "integer", json_path = ".spec.run", description = "Number of the Run"),
    printcolumn(name = "Index", type_ = "integer", json_path = ".spec.index", description = "Position of this part"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("spec of a TargetSlice cannot be changed")
)]
#[serde(rename_all = "camelCase")]
pub struct TargetSliceSpec {
    /// Number of the Run. Example: `2`.
    #[schemars(range(min = 1))]
    pub run: i64,

    /// Position of this part in the list, from 0. Example: `0`.
    #[schemars(range(min = 0, max = 9999))]
    pub index: i64,

    /// Names of nodes, in order. Example: `[worker-1, worker-2]`.
    #[schemars(length(min = 1, max = 20000), inner(length(min = 1, max = 253), regex(pattern = NODE_NAME_PATTERN)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nodes: Vec<String>,
}

/// What the status records about the target list of a Run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The list, where it is short.
    pub targets: Vec<NodeName>,
    /// Number of slices that hold it otherwise.
    pub slices: u32,
    /// The digest in their names.
    pub digest: String,
}
