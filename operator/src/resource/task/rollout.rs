//! `spec.rollout`: how many nodes run at once.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::rules;

/// How many nodes run at once.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many nodes may be active at once: a number, or a percentage of all targets, rounded down to at least 1. By
    /// default all of them. Example: `25%`.
    #[serde(default = "default_max_concurrent")]
    #[schemars(schema_with = "max_concurrent_schema")]
    pub max_concurrent: IntOrString,
}

/// Written out: the derive supports no bounds on a value of two types.
fn max_concurrent_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": MAX_CONCURRENT,
        "maxLength": 4,
        "x-kubernetes-validations": [rules::count_or_percentage("spec.rollout.maxConcurrent", MAX_CONCURRENT)],
    })
}

/// Largest number of active targets, far above the largest cluster.
pub(in crate::resource) const MAX_CONCURRENT: i32 = 100_000;

impl Default for Rollout {
    fn default() -> Self {
        Self { max_concurrent: default_max_concurrent() }
    }
}

fn default_max_concurrent() -> IntOrString {
    IntOrString::String("100%".to_owned())
}
