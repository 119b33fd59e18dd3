//! The part of a Task that is sent to a node: what to run and how.

use serde::{Deserialize, Serialize};

use crate::secret::SecretKeyRef;

/// A command and how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRequest {
    /// The program to execute.
    pub program: Program,
    /// Environment variables, in addition to those that every command gets (`docs/clocks-and-limits.md`).
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Working directory of the command.
    pub working_dir: String,
    /// User name or number; `None` means the agent's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group name or number; `None` means the user's primary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// File mode creation mask, 0 to 0o777.
    pub umask: u32,
    /// Standard input of the command, followed by end-of-file.
    #[serde(default)]
    pub stdin: String,
    /// Standard input from a Secret, instead of [`RunRequest::stdin`]; see [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_from: Option<SecretKeyRef>,
    /// Where the command runs.
    pub environment: Environment,
    /// Exit codes that count as success.
    pub success_exit_codes: Vec<u8>,
    /// Limits of the output.
    pub output: OutputRules,
    /// Resource limits; see [`crate::to_agent::Start::needs`] for the version that they require.
    #[serde(default, skip_serializing_if = "ResourceLimits::is_none")]
    pub limits: ResourceLimits,
    /// What happens to processes that outlive the main process; see [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Leftovers::is_end")]
    pub leftovers: Leftovers,
    /// What the command is kept from; `None` means [`Environment::default_sandbox`]. See [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// Whether the command may write to files; see [`crate::to_agent::Start::needs`].
    #[serde(default, rename = "readOnlyRootFilesystem", skip_serializing_if = "RootFilesystem::is_writable")]
    pub root_filesystem: RootFilesystem,
}

impl RunRequest {
    /// This program, and everything else as in a Task that states nothing else.
    pub fn new(program: Program) -> Self {
        Self {
            program,
            env: Vec::new(),
            working_dir: "/".to_owned(),
            user: None,
            group: None,
            umask: 0o022,
            stdin: String::new(),
            stdin_from: None,
            environment: Environment::Container,
            success_exit_codes: vec![0],
            output: OutputRules::default(),
            limits: ResourceLimits::default(),
            leftovers: Leftovers::End,
            sandbox: None,
            root_filesystem: RootFilesystem::Writable,
        }
    }

    /// What the command is kept from: what the request names, or else the default of its environment.
    pub fn sandbox(&self) -> Sandbox {
        self.sandbox.unwrap_or(self.environment.default_sandbox())
    }
}

/// Whether a command may write to files. On the wire it is the field `readOnlyRootFilesystem`, a boolean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum RootFilesystem {
    /// As its user may.
    #[default]
    Writable,
    /// Every mount is read-only, except an empty `/tmp` and `/dev/shm` of its own.
    ReadOnly,
}

impl RootFilesystem {
    /// Whether it is the default, which messages leave out.
    pub fn is_writable(&self) -> bool {
        *self == Self::Writable
    }
}

impl From<bool> for RootFilesystem {
    fn from(is_read_only: bool) -> Self {
        if is_read_only { Self::ReadOnly } else { Self::Writable }
    }
}

impl From<RootFilesystem> for bool {
    fn from(root: RootFilesystem) -> Self {
        root == RootFilesystem::ReadOnly
    }
}

impl RunRequest {
    /// Every reference to a key of a Secret, with the field of the Task that has it.
    pub fn secrets(&self) -> impl Iterator<Item = (String, &SecretKeyRef)> {
        let in_env = self.env.iter().filter_map(|variable| {
            Some((format!("run.env variable {}", variable.name), variable.value_from.as_ref()?))
        });
        in_env.chain(self.stdin_from.as_ref().map(|reference| ("run.stdinFrom".to_owned(), reference)))
    }

    /// Whether it cannot be run without the values of Secrets.
    pub fn needs_secrets(&self) -> bool {
        self.stdin_from.is_some() || self.env.iter().any(|variable| variable.value_from.is_some())
    }
}

/// What a command is kept from. The names are those of the Pod Security Standards of Kubernetes, and mean the same for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sandbox {
    /// An ordinary user without any capability, who can gain none.
    Restricted,
    /// The capabilities that a container has by default, and no system calls that reconfigure the node.
    Baseline,
    /// All that the agent itself may.
    Privileged,
}

impl Sandbox {
    /// Its name in the Task and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "Restricted",
            Self::Baseline => "Baseline",
            Self::Privileged => "Privileged",
        }
    }
}

/// What happens to processes that still run when the main process of a command has exited on its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Leftovers {
    /// They are terminated: SIGTERM, and SIGKILL after `timeouts.grace`. The Attempt ends when none is left.
    #[default]
    End,
    /// They are left running, and the Attempt ends.
    Keep,
}

impl Leftovers {
    /// Whether this is the default.
    pub fn is_end(&self) -> bool {
        *self == Self::End
    }
}

/// Resource limits of a command and all its descendants. `None` means no limit unless the field's description differs.
/// A node that cannot enforce one of them does not start the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLimits {
    /// Thousandths of a CPU: 1500 is one and a half. Within [`crate::limits::CPU_MILLIS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Bytes of memory. Within [`crate::limits::MEMORY_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads. Within [`crate::limits::PIDS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Open files of each process: `RLIMIT_NOFILE`, soft and hard. `None` means soft 1024 and the agent's hard limit.
    /// Within [`crate::limits::NOFILE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u32>,
    /// Bytes of a core dump of each process: `RLIMIT_CORE`, soft and hard. `None` means 0, no core dumps. Within
    /// [`crate::limits::CORE_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u64>,
}

impl ResourceLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The program to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Program {
    /// A program and its arguments, executed without a shell.
    Command(Vec<String>),
    /// A script, passed to an interpreter as a file.
    Script {
        /// The interpreter: a path, or a name to search for in `PATH`.
        interpreter: String,
        /// One argument for the interpreter, before the path of the script, as from a `#!` line; see
        /// [`crate::to_agent::Start::needs`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        argument: Option<String>,
        /// The text of the script.
        text: String,
    },
}

/// One variable of the command's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name: not empty, without `=` and NUL.
    pub name: String,
    /// Value: without NUL. Empty with [`EnvVar::value_from`].
    pub value: String,
    /// The key of a Secret that has the value; see [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<SecretKeyRef>,
}

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Environment {
    /// In the namespaces of the node itself.
    Host,
    /// In the agent's own container.
    Container,
}

impl Environment {
    /// Its name in the Task and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "Host",
            Self::Container => "Container",
        }
    }

    /// The sandbox of a command that names none.
    pub fn default_sandbox(self) -> Sandbox {
        match self {
            Self::Host => Sandbox::Baseline,
            Self::Container => Sandbox::Restricted,
        }
    }
}

/// Limits of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputRules {
    /// Most bytes kept of both streams together; the rest is counted and dropped.
    pub limit: u64,
    /// Most bytes in the Spool, the window of output on the node; a full Spool blocks the command on its pipe.
    pub spool: u64,
    /// How long a full Spool may block the command before the oldest output is dropped, milliseconds.
    pub max_block_ms: u64,
    /// Whether both streams share one pipe. The order is then the order of writing, all output counts as standard
    /// output, and standard error is empty. See [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// Whether the values of Secrets are replaced by a mark in the output.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub mask: bool,
}

impl Default for OutputRules {
    /// As in a Task that states nothing else.
    fn default() -> Self {
        Self { limit: 1 << 30, spool: 64 << 20, max_block_ms: 30_000, merge: false, mask: true }
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The timeouts of one Attempt, as the milliseconds that remain when the agent receives the message. The agent measures
/// them with its boot clock (`CLOCK_BOOTTIME`), so no wall clocks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deadlines {
    /// Time until the command must have started.
    pub start_ms: u64,
    /// Time from the start of the command until it must have ended; `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<u64>,
    /// Longest time without output; `None` means no limit. See [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Time that is left to the whole Run, in which the command must have ended; `None` means no limit. The operator
    /// also sends a Cancel when it expires, for agents that do not know this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// Time from SIGTERM to SIGKILL.
    pub grace_ms: u64,
}
