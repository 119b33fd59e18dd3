//! How often, and after what, a node is tried again: a part of the spec of a Task.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// How often, and after what, a node is tried again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts after the first, at most; 0 is none. Example: `2`.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_RETRIES))]
    pub limit: i32,

    /// The wait before each of them, less up to a quarter, so that nodes that failed together do not come back
    /// together. Example: `{initial: 5s, factor: 2, max: 5m}`.
    #[serde(default)]
    pub backoff: Backoff,

    /// The Outcomes that are tried again; all others are final. Lost, of which nobody can know whether the command
    /// ran to its end, is among them only if named here. Example: `[Failed, TimedOut]`.
    #[serde(default = "default_causes")]
    #[schemars(length(min = 1, max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub causes: Vec<RetryCause>,
}

/// Waits that grow.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::waits_grow())]
pub struct Backoff {
    /// The wait before the second Attempt. Example: `5s`.
    #[serde(default = "default_initial")]
    #[schemars(length(max = 32), transform = rules::duration("spec.retry.backoff.initial", "100ms", "24h", ""))]
    pub initial: String,

    /// How many times longer each wait is than the one before. Example: `2`.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 1, max = MAX_FACTOR))]
    pub factor: i32,

    /// The longest wait. Example: `5m`.
    #[serde(default = "default_max")]
    #[schemars(length(max = 32), transform = rules::duration("spec.retry.backoff.max", "100ms", "24h", ""))]
    pub max: String,
}

/// Most Attempts after the first.
pub(super) const MAX_RETRIES: i32 = 20;
/// Steepest growth of waits.
pub(super) const MAX_FACTOR: i32 = 10;

/// An Outcome after which a node may be tried again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCause {
    /// The command exited with a code that is no success.
    Failed,
    /// A signal that nobody here sent ended the command.
    Signaled,
    /// The command could not be started.
    StartFailed,
    /// The command was not started within timeouts.start.
    StartTimedOut,
    /// The command ran longer than timeouts.run.
    TimedOut,
    /// The command wrote nothing for timeouts.idle.
    IdleTimedOut,
    /// The command used more than run.limits.memory.
    OomKilled,
    /// The agent declined.
    Refused,
    /// The agent or its node cut the command off.
    Interrupted,
    /// Nobody can know how the command ended: it may run twice.
    Lost,
}

impl Default for Retry {
    fn default() -> Self {
        Self { limit: 0, backoff: Backoff::default(), causes: default_causes() }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: default_initial(), factor: default_factor(), max: default_max() }
    }
}

fn default_causes() -> Vec<RetryCause> {
    use RetryCause::{Failed, IdleTimedOut, OomKilled, Signaled, TimedOut};
    vec![Failed, Signaled, TimedOut, IdleTimedOut, OomKilled]
}
fn default_initial() -> String {
    "1s".to_owned()
}
fn default_factor() -> i32 {
    2
}
fn default_max() -> String {
    "1m".to_owned()
}
