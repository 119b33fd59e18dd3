//! What an agent is asked to run: the part of a Task that reaches a node.

use serde::{Deserialize, Serialize};

/// A command and everything that decides how it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRequest {
    /// What is executed.
    pub program: Program,
    /// The command's environment, beside the few variables every command gets.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Directory in which the command starts.
    pub working_dir: String,
    /// User name or number; `None` is the agent's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group name or number; `None` is the user's own group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// File mode creation mask, 0 to 0o777.
    pub umask: u32,
    /// Bytes that the command finds on its standard input, then end-of-file.
    #[serde(default)]
    pub stdin: String,
    /// Where the command runs.
    pub environment: Environment,
    /// Exit codes that count as success.
    pub success_exit_codes: Vec<u8>,
    /// What happens to the output.
    pub output: OutputRules,
    /// What the command may use; see [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "ResourceLimits::is_none")]
    pub limits: ResourceLimits,
    /// What becomes of processes that outlive the main process; see [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Leftovers::is_end")]
    pub leftovers: Leftovers,
}

/// What becomes of processes that are still there when the main process of a command has ended by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Leftovers {
    /// They are ended: TERM, after `timeouts.grace` KILL. The Attempt ends when none is left.
    #[default]
    End,
    /// They are left running, and the Attempt ends without them.
    Keep,
}

impl Leftovers {
    /// Whether this is the default.
    pub fn is_end(&self) -> bool {
        *self == Self::End
    }
}

/// What a command and everything that it starts may use; `None` is without limit unless it says otherwise. A node that
/// cannot hold one of them does not start the command.
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
    /// Open files of each process, `RLIMIT_NOFILE` soft and hard; `None` is what the agent has. Within
    /// [`crate::limits::NOFILE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u32>,
    /// Bytes of a core dump of each process, `RLIMIT_CORE` soft and hard; `None` is 0, which means no dumps. Within
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

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Program {
    /// A program and its arguments; no shell touches it.
    Command(Vec<String>),
    /// A text handed to an interpreter as a file.
    Script {
        /// The interpreter: a path, or a name that is looked up in `PATH`.
        interpreter: String,
        /// The one argument that it gets before the script's path, as from a script's first line; see
        /// [`crate::to_agent::Start::needs`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        argument: Option<String>,
        /// The script.
        text: String,
    },
}

/// One variable of the command's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name; not empty, without `=` and NUL.
    pub name: String,
    /// Value; without NUL.
    pub value: String,
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
    /// The word used in the Task and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "Host",
            Self::Container => "Container",
        }
    }
}

/// What happens to the output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputRules {
    /// Bytes kept in all, over both streams; what comes after is counted and dropped.
    pub limit: u64,
    /// Bytes that may wait on the node; a full window holds the command on its pipe.
    pub spool: u64,
    /// How long a full window may hold the command up, in milliseconds, before the oldest output is dropped.
    pub max_block_ms: u64,
    /// Whether both streams share one pipe: then their order is that of writing, all of it is standard output and
    /// standard error is empty. See [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The clocks of one Attempt, as milliseconds that remain when the message is read. They run on the node's boot
/// clock, so no two wall clocks need to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deadlines {
    /// The command must have started within this time.
    pub start_ms: u64,
    /// The command must have ended within this time of its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<u64>,
    /// The command must not be without output for this long; see [`crate::to_agent::Start::needs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// What is left of the whole Run's time: the command must have ended within it. An agent that does not know of
    /// this one is sent a Cancel when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// Time between asking the command to end (TERM) and making it end (KILL).
    pub grace_ms: u64,
}
