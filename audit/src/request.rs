//! What a record has of a request: enough to know what was run, and nothing that may be secret.

use sentinel_protocol::ids::Sha256Hex;
use sentinel_protocol::request::{
    EnvVar, Environment, Leftovers, OutputRules, Program, ResourceLimits, RootFilesystem, RunRequest, Sandbox,
};
use sentinel_protocol::secret::SecretKeyRef;
use serde::{Deserialize, Serialize};

use crate::line::sha256;

/// What is run and how, without anything that may be secret but is not needed to know what was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The program.
    pub program: Command,
    /// The names of the environment variables, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The Secrets that it refers to, by their names and never by their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretKeyRef>,
    /// The working directory.
    pub working_dir: String,
    /// The user; missing for the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group; missing for the user's primary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// File mode creation mask.
    pub umask: u32,
    /// Standard input, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Bytes>,
    /// Where it runs.
    pub environment: Environment,
    /// What it is kept from; missing for the default of its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// Whether it may write to files.
    #[serde(default, rename = "readOnlyRootFilesystem", skip_serializing_if = "RootFilesystem::is_writable")]
    pub root_filesystem: RootFilesystem,
    /// Resource limits.
    #[serde(default, skip_serializing_if = "ResourceLimits::is_none")]
    pub limits: ResourceLimits,
    /// What happens to processes that outlive it.
    #[serde(default, skip_serializing_if = "Leftovers::is_end")]
    pub leftovers: Leftovers,
    /// Exit codes that count as success.
    pub success_exit_codes: Vec<u8>,
    /// Limits of its output.
    pub output: OutputRules,
}

/// A program with its arguments, exactly as it is executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// A program and its arguments.
    Argv(Vec<String>),
    /// A script.
    Script {
        /// Its interpreter.
        interpreter: String,
        /// One argument for the interpreter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        argument: Option<String>,
        /// SHA-256 of its text.
        sha256: Sha256Hex,
        /// Its text.
        text: String,
    },
}

/// Bytes that are not recorded themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// How many.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Sha256Hex,
}

impl Bytes {
    /// Of these.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: sha256(bytes) }
    }
}

impl From<&RunRequest> for Request {
    fn from(request: &RunRequest) -> Self {
        // Without `..`: for a new field it is decided here whether it may be recorded.
        let RunRequest {
            program,
            env,
            working_dir,
            user,
            group,
            umask,
            stdin,
            stdin_from: _,
            environment,
            success_exit_codes,
            output,
            limits,
            leftovers,
            sandbox,
            root_filesystem,
        } = request;
        Self {
            program: Command::from(program),
            env: env.iter().map(|EnvVar { name, value: _, value_from: _ }| name.clone()).collect(),
            secrets: request.secrets().map(|(_, secret)| secret.clone()).collect(),
            working_dir: working_dir.clone(),
            user: user.clone(),
            group: group.clone(),
            umask: *umask,
            stdin: (!stdin.is_empty()).then(|| Bytes::of(stdin.as_bytes())),
            environment: *environment,
            sandbox: *sandbox,
            root_filesystem: *root_filesystem,
            limits: *limits,
            leftovers: *leftovers,
            success_exit_codes: success_exit_codes.clone(),
            output: *output,
        }
    }
}

impl From<&Program> for Command {
    fn from(program: &Program) -> Self {
        match program {
            Program::Command(argv) => Self::Argv(argv.clone()),
            Program::Script { interpreter, argument, text } => Self::Script {
                interpreter: interpreter.clone(),
                argument: argument.clone(),
                sha256: sha256(text.as_bytes()),
                text: text.clone(),
            },
        }
    }
}
