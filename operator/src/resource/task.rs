//! The spec of a Task, as people write it.
//!
//! A field that is declared here works; what does not work yet is not declared. Defaults are in the schema, so that
//! `kubectl get -o yaml` shows them, and nothing is implied in code. The doc comments are what `kubectl explain`
//! prints, each with an example.

#![expect(clippy::doc_markdown, reason = "kubectl explain prints these texts as they are")]
#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]
#![expect(clippy::duplicated_attributes, reason = "clippy takes the parts of several printcolumn for one")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use sentinel_protocol::limits::{MAX_COMMAND_BYTES, MAX_ENV_BYTES, MAX_STDIN_BYTES};
use serde::{Deserialize, Serialize};

use super::retry::Retry;
use super::rules;
use super::status::TaskStatus;

/// What is run, and on which nodes. Editing `targets` or `run` begins a new Run; editing anything else does not.
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
    doc = "A command to be run on chosen nodes, and how that went. Example: `kubectl explain stask.spec --recursive`.",
    selectable = ".status.phase",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where its latest Run stands"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.run.targetCount",
        description = "Nodes the Run is for"
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
        description = "Nodes on which it ended otherwise"
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
        description = "Nodes on which it runs now"
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
        description = "Why it is ready, or not",
        priority = "1"
    ),
    printcolumn(
        name = "Command",
        type_ = "string",
        json_path = ".spec.run.command",
        description = "What is run",
        priority = "1"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.run.progress",
        description = "Nodes that have ended, of all",
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
        description = "When that Run began",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// The nodes to run on: exactly one of nodeSelector, nodeNames and all. Example: `{all: true}`.
    pub targets: Targets,

    /// What is run, and how. Example: `{command: ["df", "-h"]}`.
    pub run: RunSpec,

    /// The clocks of each node's command, every one of them its own. Example: `{run: 10m, grace: 30s}`.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// How often, and after what, a node is tried again in the same Run. Example: `{limit: 2, causes: [Failed]}`.
    #[serde(default)]
    pub retry: Retry,

    /// How the Run goes over its nodes. Example: `{maxConcurrent: 25%}`.
    #[serde(default)]
    pub rollout: Rollout,

    /// What a new Run does to the commands of the old one: Finish lets what runs end by itself and starts nothing
    /// more of it, Cancel ends it. The new Run begins when all of the old one has ended. Example: `Cancel`.
    #[serde(default)]
    pub on_change: OnChange,

    /// ConditionStatus back new starts; what runs goes on. Example: `true`.
    #[serde(default)]
    pub suspend: bool,

    /// Any text; change it to run the same spec again. Example: `2026-11-24`.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub rerun_token: String,

    /// Deletes the Task this long after its Run has ended; without it the Task stays. Under GitOps a deleted Task is
    /// created, and so run, again. Example: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.ttlAfterFinished", "0s", "87600h", ""))]
    pub ttl_after_finished: Option<String>,
}

/// The nodes to run on.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.nodeSelector) ? 1 : 0) + (has(self.nodeNames) ? 1 : 0) + (self.all ? 1 : 0) == 1").message("spec.targets must have exactly one of nodeSelector, nodeNames and all: true"))]
#[x_kube(validation = rules::listed_or_excluded())]
pub struct Targets {
    /// Takes the nodes whose labels match. It must not be empty. Example: `{matchLabels: {pool: web}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,

    /// Takes these nodes by name, whether they exist or not; one that does not is never reached, and the Run says
    /// so. Example: `[worker-1, worker-2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(max = 253)))]
    #[schemars(transform = rules::each(rules::node_name("spec.targets.nodeNames")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub node_names: Option<Vec<String>>,

    /// Takes every node but those of the control plane (see controlPlane). Example: `true`.
    #[serde(default)]
    pub all: bool,

    /// Leaves nodes out again. Example: `{nodeNames: [worker-7]}`.
    #[serde(default)]
    pub exclude: Exclude,

    /// Whether nodeSelector and all may take control plane nodes; nodeNames always may. Example: `Include`.
    #[serde(default)]
    pub control_plane: ControlPlane,
}

/// For what the operator writes and people read; what people write has rules with sentences.
pub(super) const NODE_NAME_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A label selector, as in Kubernetes: all of it must hold.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("spec.targets.nodeSelector must not be empty, it would mean every node; write all: true if that is meant"))]
pub struct NodeSelector {
    /// Labels that must have exactly this value. Example: `{pool: web}`.
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

    /// What must hold for it; a missing label satisfies NotIn and DoesNotExist. Example: `In`.
    pub operator: LabelOperator,

    /// The values that In and NotIn compare with. Example: `[a, b]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[schemars(transform = rules::each(rules::label_value("spec.targets.nodeSelector.matchExpressions.values")))]
    pub values: Vec<String>,
}

/// What must hold for a label.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOperator {
    /// Its value is one of `values`.
    In,
    /// Its value is none of `values`, or it is missing.
    NotIn,
    /// It is there.
    Exists,
    /// It is missing.
    DoesNotExist,
}

/// Nodes to leave out.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Exclude {
    /// Nodes to leave out, by name. Example: `[worker-7]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 253)))]
    #[schemars(transform = rules::each(rules::node_name("spec.targets.exclude.nodeNames")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub node_names: Vec<String>,
}

/// Whether control plane nodes may be targets.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ControlPlane {
    /// They may.
    Include,
    /// They are left out, unless named one by one.
    #[default]
    Exclude,
}

/// What is run, and how.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.command) != has(self.script)").message("spec.run must have exactly one of command and script"))]
#[x_kube(validation = Rule::new("!has(self.command) || size(self.command) == 0 || size(self.command[0]) > 0").message("spec.run.command[0] must name a program").field_path(".command"))]
#[x_kube(validation = Rule::new("!has(self.command) || self.command.map(item, size(item) + 1).sum() <= 131072").message("spec.run.command must be at most 131072 bytes in all; put more into spec.run.script or spec.run.stdin").field_path(".command"))]
pub struct RunSpec {
    /// A program and its arguments, handed over as they are: no shell touches them. Example: `["df", "-h"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(max = 131_072), regex(pattern = NO_NUL_PATTERN)))]
    pub command: Option<Vec<String>>,

    /// A script for an interpreter, instead of a command. Example: `{text: "uname -a; uptime"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,

    /// Environment variables of the command. Example: `[{name: LANG, value: C}]`.
    #[serde(default)]
    #[schemars(length(max = 256), transform = rules::env_bytes("spec.run.env", MAX_ENV_BYTES))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// The directory the command starts in, from the root. Example: `/var/log`.
    #[serde(default = "default_working_dir")]
    #[schemars(length(max = 4096), transform = rules::absolute_path("spec.run.workingDir"))]
    #[schemars(transform = rules::no_zero_byte("spec.run.workingDir"))]
    #[schemars(transform = rules::max_bytes("spec.run.workingDir", 4096))]
    pub working_dir: String,

    /// User to run as, by name or number; without it the agent's own. Example: `nobody`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), transform = rules::identity("spec.run.user"))]
    pub user: Option<String>,

    /// Group to run as, by name or number; without it the user's own. Example: `nogroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), transform = rules::identity("spec.run.group"))]
    pub group: Option<String>,

    /// File mode creation mask, as an octal text. Example: `"077"`.
    #[serde(default = "default_umask")]
    #[schemars(length(max = 4), transform = rules::umask("spec.run.umask"))]
    pub umask: String,

    /// Text that the command finds on its standard input, then end-of-file. Example: `"yes\n"`.
    #[serde(default)]
    #[schemars(length(max = 65_536), transform = rules::max_bytes("spec.run.stdin", MAX_STDIN_BYTES))]
    pub stdin: String,

    /// Exit codes that count as success. Example: `[0, 3]`.
    #[serde(default = "default_success_exit_codes")]
    #[schemars(length(min = 1, max = 256), inner(range(min = 0, max = 255)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub success_exit_codes: Vec<i32>,

    /// Where the command runs: in the agent's Container, or in the namespaces of the Host. Example: `Host`.
    #[serde(default)]
    pub environment: Environment,

    /// What becomes of the output. Example: `{limit: 10Mi}`.
    #[serde(default)]
    pub output: Output,

    /// What the command and all that it starts may use: cpu, memory and pids together, nofile and core each process. A
    /// node that cannot hold a limit does not start the command. Example: `{cpu: 500m, memory: 256Mi, pids: 64}`.
    #[serde(default)]
    pub limits: Limits,

    /// What becomes of processes that are still there when the command itself has ended: `End` ends them, `Keep` leaves
    /// them running. Example: `Keep`.
    #[serde(default)]
    pub leftovers: Leftovers,
}

/// What becomes of processes that outlive the command.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// They are ended: TERM, after `timeouts.grace` KILL.
    #[default]
    End,
    /// They are left running, under the limits of the command; nothing stops them later.
    Keep,
}

/// What a command may use; what is left out is without limit, unless it says otherwise.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// CPU time: thousandths of a CPU such as 500m, or whole CPUs. With more to do the command is slowed down.
    /// Example: `1500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "cpu_schema")]
    pub cpu: Option<IntOrString>,

    /// Memory. A command that needs more is ended and its Outcome is OomKilled; swap is not used. Example: `256Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.limits.memory", "4Mi", "16Ti"))]
    pub memory: Option<String>,

    /// Processes and threads; with as many there, another one cannot be made. Example: `64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub pids: Option<i32>,

    /// Open files of each process (RLIMIT_NOFILE, soft and hard); without it 1024, up to the agent's hard limit. Example:
    /// `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_073_741_816))]
    pub nofile: Option<i32>,

    /// Bytes of a core dump of each process (RLIMIT_CORE, soft and hard); without it 0, which means no dumps. Example:
    /// `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.limits.core", "0", "16Ti"))]
    pub core: Option<String>,
}

/// Written out because the derive knows no bounds on a value that may be of two types.
fn cpu_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": 1024,
        "maxLength": 8,
        "x-kubernetes-validations": [rules::cpu("spec.run.limits.cpu")],
    })
}

/// Of the items of a command, as the one pattern of the schema: a rule for each of 1024 items of 128 KiB costs more than
/// an API server allows.
pub(super) const NO_NUL_PATTERN: &str = r"^[^\x00]*$";

/// A script and who reads it.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.text.startsWith('\\ufeff')").message("spec.run.script.text must not begin with a byte-order mark; save it as UTF-8 without one").field_path(".text"))]
#[x_kube(validation = Rule::new("!self.text.contains('\\r\\n') && !(self.text.contains('\\r') && !self.text.contains('\\n'))").message("spec.run.script.text has lines that end with CR LF or CR; save it with LF, for example with: dos2unix FILE, or mac2unix FILE").field_path(".text"))]
#[x_kube(validation = Rule::new("has(self.interpreter) || !self.text.matches('^\\\\s+#!')").message("spec.run.script.text has a #! line after blank space; make it the very first line, or set spec.run.script.interpreter").field_path(".text"))]
#[x_kube(validation = Rule::new("has(self.interpreter) || !self.text.startsWith('#!') || (self.text.matches('^#![ \\\\t]*[^ \\\\t\\\\n]') && !self.text.matches('^#![^\\\\n]{254}'))").message("spec.run.script.text has a #! line that names no program or is longer than 255 bytes; correct it, or set spec.run.script.interpreter").field_path(".text"))]
#[x_kube(validation = Rule::new("!has(self.interpreter) || !self.interpreter.matches('\\\\s')").message("spec.run.script.interpreter takes no arguments; leave it out and write them in the first line of the text, such as #!/bin/bash -eu").field_path(".interpreter"))]
pub struct Script {
    /// The program that reads the script: a path, or a name that is looked up in PATH, without arguments. Without it,
    /// the first line of the text says it (`#!/usr/bin/python3 -u`, one argument at most, as the kernel takes it); a
    /// text without such a line is read by /bin/sh. Example: `/usr/bin/python3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), transform = rules::no_zero_byte("spec.run.script.interpreter"))]
    #[schemars(transform = rules::max_bytes("spec.run.script.interpreter", 4096))]
    pub interpreter: Option<String>,

    /// The script itself. Example: `"set -e\nuname -a\n"`.
    #[schemars(length(min = 1, max = 131_072), transform = rules::no_zero_byte("spec.run.script.text"))]
    #[schemars(transform = rules::max_bytes("spec.run.script.text", MAX_COMMAND_BYTES))]
    pub text: String,
}

/// One environment variable.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name: letters, digits, `_`, `-` and `.`, not beginning with a digit. Example: `LANG`.
    #[schemars(length(max = 256), transform = rules::env_name("spec.run.env.name"))]
    pub name: String,

    /// Its value. Example: `C`.
    #[serde(default)]
    #[schemars(length(max = 65_536), transform = rules::no_zero_byte("spec.run.env.value"))]
    pub value: String,
}

/// Where a command runs.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Environment {
    /// In the namespaces of the node itself.
    Host,
    /// In the agent's own container.
    #[default]
    Container,
}

/// What becomes of the output.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Bytes kept in all, over both streams; what comes after is counted and dropped. Example: `10Mi`.
    #[serde(default = "default_limit")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.output.limit", "0", "1Ti"))]
    pub limit: String,

    /// Bytes that may wait on the node; when as many wait, the command is held up. Example: `256Mi`.
    #[serde(default = "default_spool")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.output.spool", "1Mi", "64Gi"))]
    pub spool: String,

    /// How long the command may be held up before the oldest output is dropped instead. Example: `0s`.
    #[serde(default = "default_max_block")]
    #[schemars(length(max = 32), transform = rules::duration("spec.run.output.maxBlock", "0s", "24h", ""))]
    pub max_block: String,

    /// Gives the command one pipe for both streams, so that their order is that of writing. All of it is then standard
    /// output, and standard error is empty. With two pipes the order between them is not known. Example: `true`.
    #[serde(default)]
    pub merge: bool,
}

/// The clocks of each node's command.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From a node's turn until its command must have started. Example: `30s`.
    #[serde(default = "default_start")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.start", "1s", "720h", ""))]
    pub start: String,

    /// From the start of a command until it must have ended; without it there is no limit. Example: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.run", "1s", "8760h", "; leave it out for no limit"))]
    pub run: Option<String>,

    /// How long a command may write nothing, on neither stream; it is then ended as for run, and its Outcome is
    /// IdleTimedOut. While a full window holds its output up, this clock stands. Example: `2m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.idle", "1s", "8760h", "; leave it out for no limit"))]
    pub idle: Option<String>,

    /// From the beginning of the Run until all of it must have ended: what runs then is TimedOut, what has not been
    /// started is NotStarted. Example: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.total", "1s", "8760h", "; leave it out for no limit"))]
    pub total: Option<String>,

    /// From the last sign of a node until what runs there is taken for lost. Example: `2m`.
    #[serde(default = "default_unreachable")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.unreachable", "15s", "720h", ""))]
    pub unreachable: String,

    /// From asking a command to end (TERM) until it is made to (KILL). Example: `1m`.
    #[serde(default = "default_grace")]
    #[schemars(length(max = 32), transform = rules::duration("spec.timeouts.grace", "0s", "1h", ""))]
    pub grace: String,
}

/// How the Run goes over its nodes.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many nodes may be under way at once: a number, or a share of all nodes rounded down but at least one.
    /// Unless said, all of them. Example: `25%`.
    #[serde(default = "default_max_concurrent")]
    #[schemars(schema_with = "max_concurrent_schema")]
    pub max_concurrent: IntOrString,
}

/// Written out because the derive knows no bounds on a value that may be of two types.
fn max_concurrent_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": MAX_CONCURRENT,
        "maxLength": 4,
        "x-kubernetes-validations": [rules::count_or_percentage("spec.rollout.maxConcurrent", MAX_CONCURRENT)],
    })
}

/// Largest number of targets at once, far above the largest cluster.
pub(super) const MAX_CONCURRENT: i32 = 100_000;

/// What a new Run does to the commands of the old one.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// What runs may finish; nothing more of the old Run is started.
    #[default]
    Finish,
    /// What runs is ended.
    Cancel,
}

impl Default for Output {
    fn default() -> Self {
        Self { limit: default_limit(), spool: default_spool(), max_block: default_max_block(), merge: false }
    }
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

impl Default for Rollout {
    fn default() -> Self {
        Self { max_concurrent: default_max_concurrent() }
    }
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            command: None,
            script: None,
            env: Vec::new(),
            working_dir: default_working_dir(),
            user: None,
            group: None,
            umask: default_umask(),
            stdin: String::new(),
            success_exit_codes: default_success_exit_codes(),
            environment: Environment::default(),
            output: Output::default(),
            limits: Limits::default(),
            leftovers: Leftovers::default(),
        }
    }
}

fn default_working_dir() -> String {
    "/".to_owned()
}
fn default_umask() -> String {
    "022".to_owned()
}
fn default_success_exit_codes() -> Vec<i32> {
    vec![0]
}
fn default_limit() -> String {
    "1Gi".to_owned()
}
fn default_spool() -> String {
    "64Mi".to_owned()
}
fn default_max_block() -> String {
    "30s".to_owned()
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
fn default_max_concurrent() -> IntOrString {
    IntOrString::String("100%".to_owned())
}

impl TaskSpec {
    /// A spec that is valid and does nothing of note, for where one must be there and is never run.
    pub(crate) fn stand_in() -> Self {
        Self {
            targets: Targets { all: true, ..Targets::default() },
            run: RunSpec { command: Some(vec!["true".to_owned()]), ..RunSpec::default() },
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            rollout: Rollout::default(),
            on_change: OnChange::default(),
            suspend: true,
            rerun_token: String::new(),
            ttl_after_finished: None,
        }
    }
}
