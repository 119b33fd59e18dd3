//! `spec.run.limits`: resource limits of a command.

#![expect(clippy::doc_markdown, reason = "kubectl explain prints these texts as they are")]
#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::resource::rules;

/// Resource limits of a command; without a value a resource is not limited, unless stated otherwise.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// CPU time, in thousandths of a CPU such as 500m, or in whole CPUs. A command that needs more is throttled.
    /// Example: `1500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "cpu_schema")]
    pub cpu: Option<IntOrString>,

    /// Memory. A command that needs more is killed, with the Outcome OomKilled; swap is not used. Example: `256Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.limits.memory", "4Mi", "16Ti"))]
    pub memory: Option<String>,

    /// Processes and threads; beyond it fork fails. Example: `64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub pids: Option<i32>,

    /// Open files of each process (RLIMIT_NOFILE, soft and hard); by default 1024, up to the hard limit of the agent. Example:
    /// `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_073_741_816))]
    pub nofile: Option<i32>,

    /// Size of a core dump of each process (RLIMIT_CORE, soft and hard); by default 0, which disables dumps. Example:
    /// `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.limits.core", "0", "16Ti"))]
    pub core: Option<String>,
}

/// Written out: the derive supports no bounds on a value of two types.
fn cpu_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": 1024,
        "maxLength": 8,
        "x-kubernetes-validations": [rules::cpu("spec.run.limits.cpu")],
    })
}
