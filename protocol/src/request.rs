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
    /// Time between asking the command to end (TERM) and making it end (KILL).
    pub grace_ms: u64,
}
