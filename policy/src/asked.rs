//! What is asked of a node, and what the node itself knows about it.

use sentinel_protocol::ids::TaskRef;
use sentinel_protocol::request::{
    Deadlines, EnvVar, Environment, Leftovers, OutputRules, Program, ResourceLimits, RunRequest, Sandbox,
};
use sentinel_protocol::requester::RequestedBy;
use sentinel_protocol::secret::SecretKeyRef;
use sentinel_protocol::signed::Signed;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

/// What the node knows about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name, as the kubelet has given it to the agent, if it is known.
    pub name: Option<String>,
    /// The program or the interpreter; the error if it cannot be found.
    pub program: Result<ProgramFacts, String>,
    /// The working directory without symbolic links; the error if there is none.
    pub working_dir: Result<String, String>,
    /// The user and groups that the command would have; the error if there are none of these names.
    pub identity: Result<IdentityFacts, String>,
}

/// A program, or the interpreter of a script, as the kernel resolves it in the file system that the command sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Its absolute path by the name in the request.
    pub requested: String,
    /// Its path without symbolic links.
    pub resolved: String,
    /// SHA-256 of its content in hexadecimal, where it was asked for ([`crate::document::Policy::asks_for_digests`]).
    pub sha256: Option<String>,
    /// Which part of its path others than root can replace, if any.
    pub replaceable: Option<String>,
    /// Which of the paths in `Deny` rules ([`crate::document::Policy::denied_paths`]) are the same file.
    pub also_named: Vec<String>,
}

/// The user and groups of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFacts {
    /// Its user.
    pub uid: u32,
    /// The user's name, if it has one.
    pub user: Option<String>,
    /// All names of that number, which a `Deny` rule may have.
    pub user_names: Vec<String>,
    /// Its group.
    pub gid: u32,
    /// The group's name, if it has one.
    pub group: Option<String>,
    /// The user's own primary group, if the user has an entry.
    pub primary_gid: Option<u32>,
    /// Its further groups.
    pub groups: Vec<u32>,
    /// All names of its group and its further groups, which a `Deny` rule may have.
    pub group_names: Vec<String>,
}

impl IdentityFacts {
    /// Whether it is root, or in the group of root.
    pub fn is_root(&self) -> bool {
        self.uid == 0 || self.gid == 0 || self.groups.contains(&0)
    }
}

/// What is asked: the fields of a `Start` that a rule decides about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub(crate) task: &'a TaskRef,
    pub(crate) requested_by: Option<&'a RequestedBy>,
    pub(crate) signed: Option<&'a Signed>,
    /// The whole request, as it was signed.
    pub(crate) request: &'a RunRequest,
    pub(crate) program: &'a Program,
    pub(crate) env: &'a [EnvVar],
    pub(crate) working_dir: &'a str,
    pub(crate) asks_for_group: bool,
    pub(crate) umask: u32,
    pub(crate) stdin: &'a str,
    pub(crate) stdin_from: Option<&'a SecretKeyRef>,
    pub(crate) environment: Environment,
    pub(crate) sandbox: Sandbox,
    pub(crate) limits: &'a ResourceLimits,
    pub(crate) leftovers: Leftovers,
    pub(crate) run_ms: Option<u64>,
    pub(crate) node: &'a NodeFacts,
    pub(crate) now: UnixMillis,
}

impl<'a> Asked<'a> {
    /// What a `Start` asks for. Each field is named: what is left out here is decided by no rule, and why is in [`HARMLESS`].
    pub fn of(start: &'a Start, node: &'a NodeFacts, now: UnixMillis) -> Self {
        let Start {
            attempt: _,
            spec_hash: _,
            epoch: _,
            task,
            request,
            deadlines,
            credit: _,
            offer: _,
            trace: _,
            requested_by,
            signed,
            secrets: _,
        } = start;
        let RunRequest {
            program,
            env,
            working_dir,
            // Decided by what the node makes of it: `node.identity`.
            user: _,
            group,
            umask,
            stdin,
            stdin_from,
            environment,
            success_exit_codes: _,
            output: OutputRules { limit: _, spool: _, max_block_ms: _, merge: _, mask: _ },
            limits,
            leftovers,
            sandbox: _,
            root_filesystem: _,
        } = request;
        let Deadlines { start_ms: _, run_ms, idle_ms: _, total_ms, grace_ms: _ } = deadlines;
        Self {
            task,
            requested_by: requested_by.as_ref(),
            signed: signed.as_ref(),
            request,
            program,
            env,
            working_dir,
            asks_for_group: group.is_some(),
            umask: *umask,
            stdin,
            stdin_from: stdin_from.as_ref(),
            environment: *environment,
            sandbox: request.sandbox(),
            limits,
            leftovers: *leftovers,
            run_ms: [*run_ms, *total_ms].into_iter().flatten().min(),
            node,
            now,
        }
    }
}

/// The part of a rule that decides about each field of a `Start`, by its path.
pub const DECIDED: &[(&str, &str)] = &[
    ("task.namespace", "who"),
    ("requestedBy.author", "who"),
    ("requestedBy.rerun", "who"),
    ("signed", "signature"),
    ("request.program", "what"),
    ("request.user", "users"),
    ("request.group", "groups"),
    ("request.environment", "environments"),
    ("request.sandbox", "sandboxes"),
    ("request.env", "env"),
    ("request.workingDir", "workingDirs"),
    ("request.umask", "umask"),
    ("request.stdin", "stdin"),
    ("request.stdinFrom", "stdin"),
    ("request.leftovers", "leftovers"),
    ("request.limits", "limits"),
    ("deadlines.runMs", "maxRun"),
    ("deadlines.totalMs", "maxRun"),
];

/// The fields of a `Start` that no rule decides about, and why.
pub const HARMLESS: &[(&str, &str)] = &[
    ("attempt", "names the Attempt; the agent's journal keeps it from running twice"),
    ("specHash", "compared, never used"),
    ("epoch", "fencing: the agent refuses a lower one"),
    ("requestedBy.creator", "for the records: who created the Task has not asked for what it runs now"),
    ("requestedBy.approver", "for the records: an approval gives no right that who asked has not"),
    ("task.name", "a name; the command sees it as SENTINEL_TASK"),
    ("request.successExitCodes", "decides what the result is called, not what runs"),
    ("request.output.limit", "how much is kept; bounded by the space that the agent keeps free"),
    ("request.output.spool", "how much waits on the node; bounded by the space that the agent keeps free"),
    ("request.output.maxBlockMs", "how long a command waits before its output is dropped"),
    ("request.output.merge", "how output is called"),
    (
        "request.output.mask",
        "whether who reads the output sees the values of Secrets, which the command has anyway and may print in any form",
    ),
    ("request.readOnlyRootFilesystem", "makes mounts read-only, and nothing writable"),
    ("deadlines.startMs", "how long it may wait before it starts"),
    ("deadlines.idleMs", "ends the command sooner"),
    ("deadlines.graceMs", "how long it may take to end; the agent refuses more than an hour"),
    ("credit", "how much output the operator takes"),
    ("offer", "counts repetitions of an offer"),
    ("trace", "two variables of a checked form, which name a trace"),
    ("secrets", "the values of what request.env and request.stdinFrom refer to"),
];
