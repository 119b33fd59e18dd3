//! `spec.timeouts`: timeouts of the command on each node.

#![expect(clippy::doc_markdown, reason = "kubectl explain prints these texts as they are")]
#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::resource::rules;

/// Timeouts of the command on each node.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the dispatch to a node until its command must have started. Example: `30s`.
    #[serde(default = "default_start")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.start", "1s", "720h", ""))]
    pub start: String,

    /// From the start of a command until it must have ended; unlimited by default. Example: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.run", "1s", "8760h", "; omit it for no limit"))]
    pub run: Option<String>,

    /// How long a command may write to neither stream; it is then ended as for run, with the Outcome IdleTimedOut.
    /// While a full buffer blocks the command, this timeout is not counted. Example: `2m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.idle", "1s", "8760h", "; omit it for no limit"))]
    pub idle: Option<String>,

    /// From the beginning of the Run until all of it must have ended: running commands are TimedOut then, and those not
    /// started are NotStarted. Example: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.total", "1s", "8760h", "; omit it for no limit"))]
    pub total: Option<String>,

    /// From the last message of a node until its commands count as Lost. Example: `2m`.
    #[serde(default = "default_unreachable")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.unreachable", "15s", "720h", ""))]
    pub unreachable: String,

    /// From TERM to KILL when a command is ended. Example: `1m`.
    #[serde(default = "default_grace")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.grace", "0s", "1h", ""))]
    pub grace: String,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: default_start(),
            run: None,
            idle: None,
            total: None,
            unreachable: default_unreachable(),
            grace: default_grace(),
        }
    }
}

fn default_start() -> String {
    "5m".to_owned()
}
fn default_unreachable() -> String {
    "5m".to_owned()
}
fn default_grace() -> String {
    "10s".to_owned()
}
