//! `spec.retry`: how often, and after which Outcomes, a node is retried.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::rules;

/// How often, and after which Outcomes, a node is retried.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Largest number of retries; 0 disables them. Example: `2`.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_RETRIES))]
    pub limit: i32,

    /// The delay before each retry, minus a random part of up to a quarter, so that nodes that failed together do not
    /// retry together. Example: `{initial: 5s, factor: 2, max: 5m}`.
    #[serde(default)]
    pub backoff: Backoff,

    /// The Outcomes that are retried; all others are final. Lost is retried only if it is named here, since it is unknown
    /// whether the command ran. Example: `[Failed, TimedOut]`.
    #[serde(default = "default_causes")]
    #[schemars(length(min = 1, max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub causes: Vec<RetryCause>,
}

/// Exponential backoff.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::delays_grow())]
pub struct Backoff {
    /// The delay before the first retry. Example: `5s`.
    #[serde(default = "default_initial")]
    #[schemars(length(max = 32), transform = rules::duration("spec.retry.backoff.initial", "100ms", "24h", ""))]
    pub initial: String,

    /// The factor from one delay to the next. Example: `2`.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 1, max = MAX_FACTOR))]
    pub factor: i32,

    /// The longest delay. Example: `5m`.
    #[serde(default = "default_max")]
    #[schemars(length(max = 32), transform = rules::duration("spec.retry.backoff.max", "100ms", "24h", ""))]
    pub max: String,
}

/// Largest number of retries.
pub(in crate::resource) const MAX_RETRIES: i32 = 20;
/// Largest factor.
pub(in crate::resource) const MAX_FACTOR: i32 = 10;

/// An Outcome that may be retried.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCause {
    /// The command exited with a code that does not count as success.
    Failed,
    /// A signal that the agent did not send ended the command.
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
    /// The agent refused to run the command.
    Refused,
    /// The agent or its node interrupted the command.
    Interrupted,
    /// It is unknown how the command ended: with a retry it may run twice.
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
