//! `spec.run`: what to run, and how.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::KubeSchema;
use schemars::JsonSchema;
use sentinel_protocol::limits::{MAX_ENV_BYTES, MAX_STDIN_BYTES};
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::script::Script;
use crate::resource::rules;

/// What to run, and how.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.command) != has(self.script)").message("spec.run must have exactly one of command and script"))]
#[x_kube(validation = Rule::new("!has(self.command) || size(self.command) == 0 || size(self.command[0]) > 0").message("spec.run.command[0] must name a program").field_path(".command"))]
#[x_kube(validation = Rule::new("!has(self.command) || self.command.map(item, size(item) + 1).sum() <= 131072").message("spec.run.command must be at most 131072 bytes in total; put more into spec.run.script or spec.run.stdin").field_path(".command"))]
#[x_kube(validation = Rule::new("!has(self.user) || !self.user.matches('^(root|0+)$') || (has(self.sandbox) ? self.sandbox != 'Restricted' : self.environment != 'Container')").message("spec.run.user must not be root in the sandbox Restricted, which the environment Container has by default; leave it out, or set spec.run.sandbox").field_path(".user"))]
#[x_kube(validation = Rule::new("!has(self.group) || !self.group.matches('^(root|0+)$') || (has(self.sandbox) ? self.sandbox != 'Restricted' : self.environment != 'Container')").message("spec.run.group must not be root in the sandbox Restricted, which the environment Container has by default; leave it out, or set spec.run.sandbox").field_path(".group"))]
#[x_kube(validation = Rule::new("!has(self.stdinFrom) || self.stdin == ''").message("spec.run must have at most one of stdin and stdinFrom").field_path(".stdinFrom"))]
#[x_kube(validation = Rule::new("!has(self.limits.core) || self.limits.core.matches('^0+[A-Za-z]*$') || !(has(self.stdinFrom) || self.env.exists(item, has(item.valueFrom)))").message("spec.run.limits.core must be 0 where spec.run uses a Secret: a core dump has its value").field_path(".limits"))]
pub struct RunSpec {
    /// A program and its arguments, passed on as they are, without a shell. Example: `["df", "-h"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(max = 131_072), regex(pattern = NO_NUL_PATTERN)))]
    pub command: Option<Vec<String>>,

    /// A script, instead of a command. Example: `{text: "uname -a; uptime"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,

    /// Environment variables of the command. Example: `[{name: LANG, value: C}]`.
    #[serde(default)]
    #[schemars(length(max = 256), transform = rules::env_bytes("spec.run.env", MAX_ENV_BYTES))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// The working directory, an absolute path. Example: `/var/log`.
    #[serde(default = "default_working_dir")]
    #[schemars(length(max = 4096), transform = rules::absolute_path("spec.run.workingDir"))]
    #[schemars(transform = rules::no_zero_byte("spec.run.workingDir"))]
    #[schemars(transform = rules::max_bytes("spec.run.workingDir", 4096))]
    pub working_dir: String,

    /// User to run as, by name or number; by default that of the agent, and in the sandbox `Restricted` 65534 where the agent
    /// is root. Example: `www-data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), transform = rules::identity("spec.run.user"))]
    pub user: Option<String>,

    /// Group to run as, by name or number; by default that of the user. Example: `adm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), transform = rules::identity("spec.run.group"))]
    pub group: Option<String>,

    /// File mode creation mask, as an octal string. Example: `"077"`.
    #[serde(default = "default_umask")]
    #[schemars(length(max = 4), transform = rules::umask("spec.run.umask"))]
    pub umask: String,

    /// Standard input of the command; end-of-file follows. Example: `"yes\n"`.
    #[serde(default)]
    #[schemars(length(max = 65_536), transform = rules::max_bytes("spec.run.stdin", MAX_STDIN_BYTES))]
    pub stdin: String,

    /// Standard input from a Secret, instead of `stdin`. Example: `{secretKeyRef: {name: tls, key: tls.key}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_from: Option<ValueFrom>,

    /// Exit codes that count as success. Example: `[0, 3]`.
    #[serde(default = "default_success_exit_codes")]
    #[schemars(length(min = 1, max = 256), inner(range(min = 0, max = 255)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub success_exit_codes: Vec<i32>,

    /// Where the command runs: in the container of the agent, or in the namespaces of the host. Example: `Host`.
    #[serde(default)]
    pub environment: Environment,

    /// What the command is kept from. Example: `Privileged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,

    /// Makes every mount read-only for the command, except an empty `/tmp` and `/dev/shm` of its own. A node that cannot do that
    /// does not start the command. Absent means that they are as they are. Example: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<bool>,

    /// How output is kept. Example: `{limit: 10Mi}`.
    #[serde(default)]
    pub output: Output,

    /// Resource limits of the command and its descendants: cpu, memory and pids together, nofile and core for each
    /// process. A node that cannot enforce a limit does not start the command. Example: `{cpu: 500m, memory: 256Mi, pids: 64}`.
    #[serde(default)]
    pub limits: Limits,

    /// What to do with processes that are left when the command has exited: `End` ends them, `Keep` leaves them
    /// running. Example: `Keep`.
    #[serde(default)]
    pub leftovers: Leftovers,
}

/// What to do with processes that outlive the command.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// They are ended: TERM, then KILL after `timeouts.grace`.
    #[default]
    End,
    /// They are left running, under the limits of the command; nothing stops them later.
    Keep,
}

/// For the items of a command. The only pattern of the schema: a rule for each of 1024 items of 128 KiB would cost more
/// than an API server allows.
pub(in crate::resource) const NO_NUL_PATTERN: &str = r"^[^\x00]*$";

/// One environment variable.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.valueFrom) || self.value == ''").message("spec.run.env must have at most one of value and valueFrom for each variable").field_path(".valueFrom"))]
#[x_kube(validation = Rule::new("!has(self.valueFrom) || self.name != 'PATH'").message("spec.run.env must not have PATH from a Secret: messages about programs have its value").field_path(".valueFrom"))]
pub struct EnvVar {
    /// Its name: letters, digits, `_`, `-` and `.`, not beginning with a digit. Example: `LANG`.
    #[schemars(length(max = 256), transform = rules::env_name("spec.run.env.name"))]
    pub name: String,

    /// Its value. Example: `C`.
    #[serde(default)]
    #[schemars(length(max = 65_536), transform = rules::no_zero_byte("spec.run.env.value"))]
    pub value: String,

    /// Where its value comes from, instead of `value`. Example: `{secretKeyRef: {name: db, key: password}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// Where a value comes from.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// A key of a Secret in the Task's namespace, which must have opted in. Example: `{name: db, key: password}`.
    pub secret_key_ref: SecretKey,
}

/// A key of a Secret.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret. Example: `db`.
    #[schemars(length(min = 1, max = 253), transform = rules::secret_name("spec.run: secretKeyRef.name"))]
    pub name: String,

    /// The key in it. Example: `password`.
    #[schemars(length(min = 1, max = 253), transform = rules::secret_key("spec.run: secretKeyRef.key"))]
    pub key: String,

    /// Whether the command also runs without it: the variable is not set then, and standard input is empty. Example: `true`.
    #[serde(default)]
    pub optional: bool,
}

/// Where a command runs.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Environment {
    /// In the namespaces of the node.
    Host,
    /// In the container of the agent.
    #[default]
    Container,
}

/// What the command is kept from: `Restricted` is an ordinary user without any capability, `Baseline` has those of a
/// container, `Privileged` may what the agent may. By default `Restricted` in the `Container` environment, `Baseline` on the
/// `Host`. Example: `Privileged`.
// The field has this description, as kube takes that of an optional field's type.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Never root, and without any capability.
    Restricted,
    /// The capabilities that a container has by default.
    Baseline,
    /// All that the agent may.
    Privileged,
}

/// How output is kept.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Bytes kept of both streams together; further output is counted and dropped. Example: `10Mi`.
    #[serde(default = "default_limit")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.output.limit", "0", "1Ti"))]
    pub limit: String,

    /// Bytes buffered on the node; a full buffer blocks the command. Example: `256Mi`.
    #[serde(default = "default_spool")]
    #[schemars(length(max = 16), transform = rules::amount("spec.run.output.spool", "1Mi", "64Gi"))]
    pub spool: String,

    /// How long the command may be blocked before the oldest output is dropped instead. Example: `0s`.
    #[serde(default = "default_max_block")]
    #[schemars(length(max = 32), transform = rules::duration("spec.run.output.maxBlock", "0s", "24h", ""))]
    pub max_block: String,

    /// Gives the command one pipe for both streams, which keeps their order: all output is standard output then, and
    /// standard error is empty. Between two pipes the order is unknown. Example: `true`.
    #[serde(default)]
    pub merge: bool,

    /// Replaces the values of Secrets in the output by `***`, also where they are encoded. Example: `false`.
    #[serde(default = "default_mask")]
    pub mask: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            limit: default_limit(),
            spool: default_spool(),
            max_block: default_max_block(),
            merge: false,
            mask: true,
        }
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
            stdin_from: None,
            success_exit_codes: default_success_exit_codes(),
            environment: Environment::default(),
            sandbox: None,
            read_only_root_filesystem: None,
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
fn default_mask() -> bool {
    true
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
