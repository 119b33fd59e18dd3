//! `spec.targets`: the nodes to run on.

#![expect(clippy::doc_markdown, reason = "kubectl explain prints these texts as they are")]
#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::rules;

/// The nodes to run on.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.nodeSelector) ? 1 : 0) + (has(self.nodeNames) ? 1 : 0) + (self.all ? 1 : 0) == 1").message("spec.targets must have exactly one of nodeSelector, nodeNames and all: true"))]
#[x_kube(validation = rules::listed_or_excluded())]
pub struct Targets {
    /// Selects nodes by label. It must not be empty. Example: `{matchLabels: {pool: web}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,

    /// Selects nodes by name, whether they exist or not; one that does not exist counts as unreachable.
    /// Example: `[worker-1, worker-2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(max = 253)))]
    #[schemars(transform = rules::each(rules::node_name("spec.targets.nodeNames")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub node_names: Option<Vec<String>>,

    /// Selects every node, except those of the control plane (see controlPlane). Example: `true`.
    #[serde(default)]
    pub all: bool,

    /// Excludes nodes from the selection. Example: `{nodeNames: [worker-7]}`.
    #[serde(default)]
    pub exclude: Exclude,

    /// Whether nodeSelector and all select control plane nodes; nodeNames always does. Example: `Include`.
    #[serde(default)]
    pub control_plane: ControlPlane,
}

/// For what the operator writes; what people write has CEL rules, whose messages are sentences.
pub(in crate::resource) const NODE_NAME_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A label selector, as in Kubernetes: all requirements must hold.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("spec.targets.nodeSelector must not be empty, it would mean every node; write all: true if that is meant"))]
pub struct NodeSelector {
    /// Labels that must have exactly these values. Example: `{pool: web}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64), schema_with = "match_labels_schema")]
    pub match_labels: BTreeMap<String, String>,

    /// Further requirements on labels. Example: `[{key: zone, operator: In, values: [a, b]}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelRequirement>,
}

fn match_labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    const FIELD: &str = "spec.targets.nodeSelector.matchLabels";
    let mut value = schemars::json_schema!({"type": "string", "maxLength": 63});
    rules::label_value(&format!("each value of {FIELD}"))(&mut value);
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": value,
        "x-kubernetes-validations": [rules::label_keyed(FIELD)],
    })
}

/// One requirement on one label.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0").message("spec.targets.nodeSelector.matchExpressions: operators In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct LabelRequirement {
    /// The label's key. Example: `topology.kubernetes.io/zone`.
    #[schemars(length(max = 317), transform = rules::label_key("spec.targets.nodeSelector.matchExpressions.key"))]
    pub key: String,

    /// The relation of label and values; an absent label satisfies NotIn and DoesNotExist. Example: `In`.
    pub operator: LabelOperator,

    /// The values of In and NotIn. Example: `[a, b]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[schemars(transform = rules::each(rules::label_value("spec.targets.nodeSelector.matchExpressions.values")))]
    pub values: Vec<String>,
}

/// The relation of a label and the values.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOperator {
    /// The value of the label is one of `values`.
    In,
    /// The label is absent, or its value is not one of `values`.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Nodes to exclude.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Exclude {
    /// Nodes to exclude, by name. Example: `[worker-7]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 253)))]
    #[schemars(transform = rules::each(rules::node_name("spec.targets.exclude.nodeNames")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub node_names: Vec<String>,
}

/// Whether control plane nodes may be selected.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ControlPlane {
    /// They may be selected.
    Include,
    /// They are excluded, unless selected by name.
    #[default]
    Exclude,
}
