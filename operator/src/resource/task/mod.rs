//! The spec of a Task, as people write it.
//!
//! Every declared field works. Defaults are in the schema, so that `kubectl get -o yaml` shows them; the code implies
//! none. `kubectl explain` prints the doc comments, each with an example. [`targets`], [`run`] with [`script`]
//! and [`limits`], [`timeouts`], [`retry`], [`rollout`]: one file for each part.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]
#![expect(clippy::doc_markdown, reason = "kubectl explain prints these texts as they are")]
#![expect(clippy::duplicated_attributes, reason = "clippy takes the parts of several printcolumn for one")]

pub mod limits;
pub mod retry;
pub mod rollout;
pub mod run;
pub mod script;
pub mod targets;
pub mod timeouts;

pub use limits::Limits;
pub use rollout::Rollout;
pub use run::{EnvVar, Environment, Leftovers, Output, RunSpec, Sandbox, SecretKey, ValueFrom};
pub use script::Script;
pub use targets::{ControlPlane, LabelOperator, LabelRequirement, NodeSelector, Targets};
pub use timeouts::Timeouts;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::retry::Retry;
use super::rules;
use super::status::TaskStatus;

/// The command, and the nodes to run it on. A change of `targets` or `run` starts a new Run; other changes do not.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "sentinelnode.dev",
    version = "v1alpha1",
    kind = "Task",
    plural = "tasks",
    singular = "task",
    shortname = "stask",
    category = "sentinel",
    namespaced,
    status = "TaskStatus",
    derive = "PartialEq",
    doc = "A command that runs on selected nodes, and its results. Example: `kubectl explain stask.spec --recursive`.",
    selectable = ".status.phase",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "State of the latest Run"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.run.targetCount",
        description = "Number of target nodes"
    ),
    printcolumn(
        name = "OK",
        type_ = "integer",
        json_path = ".status.run.counts.succeeded",
        description = "Nodes on which it succeeded"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.run.counts.failed",
        description = "Nodes on which it ended without success"
    ),
    printcolumn(
        name = "Unreachable",
        type_ = "integer",
        json_path = ".status.run.counts.unreachable",
        description = "Nodes that were never reached, or whose result is unknown"
    ),
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.run.counts.running",
        description = "Nodes on which it is running"
    ),
    printcolumn(
        name = "Waiting",
        type_ = "integer",
        json_path = ".status.run.counts.waiting",
        description = "Nodes on which it has not started"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the condition Ready",
        priority = "1"
    ),
    printcolumn(
        name = "Command",
        type_ = "string",
        json_path = ".spec.run.command",
        description = "The command",
        priority = "1"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.run.progress",
        description = "Finished nodes out of total",
        priority = "1"
    ),
    printcolumn(
        name = "Run",
        type_ = "integer",
        json_path = ".status.run.number",
        description = "Number of the latest Run",
        priority = "1"
    ),
    printcolumn(
        name = "Started",
        type_ = "date",
        json_path = ".status.run.startedAt",
        description = "When the latest Run began",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// The nodes to run on: exactly one of nodeSelector, nodeNames and all. Example: `{all: true}`.
    pub targets: Targets,

    /// What to run, and how. Example: `{command: ["df", "-h"]}`.
    pub run: RunSpec,

    /// Timeouts, each counted for every node separately. Example: `{run: 10m, grace: 30s}`.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// How often, and after which Outcomes, a node is retried in the same Run. Example: `{limit: 2, causes: [Failed]}`.
    #[serde(default)]
    pub retry: Retry,

    /// How many nodes run at once. Example: `{maxConcurrent: 25%}`.
    #[serde(default)]
    pub rollout: Rollout,

    /// What a new Run does to the active one: Finish lets its running commands finish and starts no more of them,
    /// Cancel ends them. The new Run begins when the active one has ended. Example: `Cancel`.
    #[serde(default)]
    pub on_change: OnChange,

    /// What a Task does that was deleted and made again. Run: it runs. OncePerSpec: it does not run what an earlier Task of
    /// this name has run, by targets, run and rerunToken, but shows the verdict of that Run, with the reason AlreadyExecuted,
    /// and is not deleted by ttlAfterFinished. That is known as long as History keeps Runs (30 days by default); while History
    /// does not answer, nothing is started, and a deletion waits. To run it again, change rerunToken. Example: `OncePerSpec`.
    #[serde(default)]
    pub on_recreate: OnRecreate,

    /// Holds back new starts; running commands continue. Example: `true`.
    #[serde(default)]
    pub suspend: bool,

    /// Any string; a change of it runs the same spec again. Example: `2026-11-24`.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub rerun_token: String,

    /// Deletes the Task this long after its Run has finished; by default it is kept. GitOps creates a deleted Task
    /// again, and so runs it again, unless onRecreate is OncePerSpec. Example: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.ttlAfterFinished", "0s", "87600h", ""))]
    pub ttl_after_finished: Option<String>,
}

/// What a new Run does to the active one.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// Running commands finish; no more are started.
    #[default]
    Finish,
    /// Running commands are ended.
    Cancel,
}

/// What a Task does that was deleted and made again.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRecreate {
    /// It runs.
    #[default]
    Run,
    /// It does not run what an earlier Task of its name has run.
    OncePerSpec,
}

impl TaskSpec {
    /// A valid spec that does nothing, for where one is required and never run.
    pub(crate) fn stand_in() -> Self {
        Self {
            targets: Targets { all: true, ..Targets::default() },
            run: RunSpec { command: Some(vec!["true".to_owned()]), ..RunSpec::default() },
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            rollout: Rollout::default(),
            on_change: OnChange::default(),
            on_recreate: OnRecreate::default(),
            suspend: true,
            rerun_token: String::new(),
            ttl_after_finished: None,
        }
    }
}
