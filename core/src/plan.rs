//! A validated Task.
//!
//! A [`TaskPlan`] is valid by construction. The operator's `resource::validate` is the only place that makes one, and no
//! later code reads the raw spec.

use std::collections::BTreeMap;

use sentinel_protocol::ids::{NodeName, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::request::{
    EnvVar, Environment, Leftovers, Program, ResourceLimits, RootFilesystem, RunRequest, Sandbox,
};
use sentinel_protocol::secret::SecretKeyRef;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::reconcile::retry::Retry;

/// A Task that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlan {
    /// Its namespace and name.
    pub task: TaskRef,
    /// Its uid.
    pub uid: TaskUid,
    /// Its targets.
    pub targets: TargetRule,
    /// What runs on each.
    pub request: RunRequest,
    /// Its clocks.
    pub timeouts: Timeouts,
    /// Its retry policy.
    pub retry: Retry,
    /// How many targets may be active at once.
    pub max_concurrent: Amount,
    /// What a new Run does to the commands of the old one.
    pub on_change: OnChange,
    /// Whether the first Run asks if an earlier Task of this name has run the same.
    pub on_recreate: OnRecreate,
    /// Whether it is suspended.
    pub starts: Starts,
    /// A changed token runs the same spec again.
    pub rerun_token: String,
    /// When a finished Task is deleted; `None` is never.
    pub ttl_after_finished_ms: Option<u64>,
    /// Digest of what is run and where.
    pub spec_hash: SpecHash,
}

/// The targets of a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRule {
    /// The nodes to select.
    pub select: Select,
    /// The nodes to exclude.
    pub exclude: Vec<NodeName>,
    /// Whether control plane nodes are included.
    pub control_plane: ControlPlane,
}

/// The nodes to select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Every node.
    All,
    /// These, whether they exist or not: a name without a Node is an unreachable target.
    Names(Vec<NodeName>),
    /// Nodes with matching labels.
    Labels(LabelSelector),
}

/// Whether control plane nodes may be targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPlane {
    /// They may.
    Include,
    /// They are excluded, unless listed by name.
    Exclude,
}

/// A Kubernetes label selector: all requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels and their required values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for it.
    pub operator: LabelOperator,
}

/// What must hold for a label. A label that is missing satisfies `NotIn` and `DoesNotExist`, as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelOperator {
    /// Its value is one of these.
    In(Vec<String>),
    /// Its value is none of these, or it is missing.
    NotIn(Vec<String>),
    /// It exists.
    Exists,
    /// It is missing.
    DoesNotExist,
}

/// The timeouts of a Task, in milliseconds; each has a clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the admission of a target until its command must have started.
    pub start_ms: u64,
    /// From the start of a command until it must have ended; `None` means unlimited.
    pub run_ms: Option<u64>,
    /// How long a command may write nothing; `None` means unlimited.
    pub idle_ms: Option<u64>,
    /// From the start of a Run until all of it must have ended; `None` means unlimited.
    pub total_ms: Option<u64>,
    /// From the last message of a node until its commands are concluded as lost.
    pub unreachable_ms: u64,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
}

/// A number of targets, absolute or as a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// A number.
    Count(u32),
    /// A percentage, 1 to 100; at least one target.
    Percent(u8),
}

impl Amount {
    /// The number out of `total`. Percentages are rounded down, as in a Deployment's `maxUnavailable`, but never to 0.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (total * usize::from(percent) / 100).max(1),
        }
    }
}

/// What a new Run does to the commands of the previous one. Two Runs of a Task never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// Running commands may finish; nothing more is started.
    Finish,
    /// Running commands are cancelled.
    Cancel,
}

/// What a Task does that was made again and has no Run yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRecreate {
    /// It runs.
    Run,
    /// It runs only what no earlier Task of its name has run.
    OncePerSpec,
}

/// Whether new commands may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// They may.
    Allowed,
    /// They may not; running ones continue.
    Suspended,
}

/// The digest of what runs and where.
///
/// A changed digest runs the Task again, so the digested form is written out here and pinned by a test: a field that is
/// added later must be omitted from the JSON while it has its default. `output` is not part of it, as how much output is
/// kept does not change what runs.
///
/// # Panics
/// Never: the digest is written in hexadecimal right here.
pub fn spec_hash(targets: &TargetRule, request: &RunRequest) -> SpecHash {
    let digested = Digested {
        targets: DigestedTargets::from(targets),
        run: DigestedRun {
            program: &request.program,
            env: &request.env,
            working_dir: &request.working_dir,
            user: request.user.as_deref(),
            group: request.group.as_deref(),
            umask: request.umask,
            stdin: &request.stdin,
            stdin_from: request.stdin_from.as_ref(),
            environment: request.environment,
            success_exit_codes: &request.success_exit_codes,
            limits: &request.limits,
            leftovers: request.leftovers,
            sandbox: request.sandbox,
            read_only_root: request.root_filesystem,
        },
    };
    let json = serde_json::to_vec(&digested).unwrap_or_default();
    let hex = Sha256::digest(&json).iter().fold(String::with_capacity(64), |mut hex, byte| {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        hex
    });
    #[expect(clippy::expect_used, reason = "64 hexadecimal digits were just written")]
    SpecHash::new(hex).expect("a SHA-256 in hexadecimal is a spec hash")
}

#[derive(Serialize)]
struct Digested<'a> {
    targets: DigestedTargets<'a>,
    run: DigestedRun<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DigestedTargets<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_names: Option<Vec<&'a NodeName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    match_labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    match_expressions: Vec<(&'a str, &'static str, Vec<&'a str>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<&'a NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DigestedRun<'a> {
    program: &'a Program,
    env: &'a [EnvVar],
    working_dir: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    umask: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    stdin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin_from: Option<&'a SecretKeyRef>,
    environment: Environment,
    success_exit_codes: &'a [u8],
    #[serde(skip_serializing_if = "ResourceLimits::is_none")]
    limits: &'a ResourceLimits,
    #[serde(skip_serializing_if = "Leftovers::is_end")]
    leftovers: Leftovers,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<Sandbox>,
    #[serde(rename = "readOnlyRootFilesystem", skip_serializing_if = "RootFilesystem::is_writable")]
    read_only_root: RootFilesystem,
}

impl<'a> From<&'a TargetRule> for DigestedTargets<'a> {
    fn from(rule: &'a TargetRule) -> Self {
        let sorted = |names: &'a [NodeName]| {
            let mut names: Vec<&NodeName> = names.iter().collect();
            names.sort();
            names
        };
        let mut digested = Self {
            all: None,
            node_names: None,
            match_labels: None,
            match_expressions: Vec::new(),
            exclude: sorted(&rule.exclude),
            control_plane: (rule.control_plane == ControlPlane::Include).then_some("Include"),
        };
        match &rule.select {
            Select::All => digested.all = Some(true),
            Select::Names(names) => digested.node_names = Some(sorted(names)),
            Select::Labels(selector) => {
                digested.match_labels = Some(&selector.match_labels);
                digested.match_expressions =
                    selector.match_expressions.iter().map(digested_requirement).collect();
            }
        }
        digested
    }
}

fn digested_requirement(requirement: &Requirement) -> (&str, &'static str, Vec<&str>) {
    let (operator, values) = match &requirement.operator {
        LabelOperator::In(values) => ("In", values.iter().map(String::as_str).collect()),
        LabelOperator::NotIn(values) => ("NotIn", values.iter().map(String::as_str).collect()),
        LabelOperator::Exists => ("Exists", Vec::new()),
        LabelOperator::DoesNotExist => ("DoesNotExist", Vec::new()),
    };
    (&requirement.key, operator, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_protocol::request::OutputRules;

    fn request() -> RunRequest {
        RunRequest {
            output: OutputRules { limit: 1, spool: 1, max_block_ms: 1, merge: false, mask: true },
            ..RunRequest::new(Program::Command(vec!["df".into(), "-h".into()]))
        }
    }

    fn names(names: &[&str]) -> TargetRule {
        TargetRule {
            select: Select::Names(names.iter().map(|n| NodeName::new(*n).unwrap()).collect()),
            exclude: vec![],
            control_plane: ControlPlane::Exclude,
        }
    }

    /// A changed value here means that an upgrade of the operator runs every Task of its users again.
    #[test]
    fn the_spec_hash_of_a_given_spec_never_changes() {
        assert_eq!(
            spec_hash(&names(&["a"]), &request()).as_str(),
            "196549c399bb6b28f9a19469e8e79efe32e97062c4ce506690084b1357b310fc"
        );
    }

    #[test]
    fn the_spec_hash_of_a_given_spec_with_limits_never_changes() {
        let mut limited = request();
        limited.limits = ResourceLimits {
            cpu_millis: Some(500),
            memory: Some(1 << 28),
            pids: Some(64),
            ..ResourceLimits::default()
        };
        assert_eq!(
            spec_hash(&names(&["a"]), &limited).as_str(),
            "5aa79e61f6ad01f0c81087b1de19341742cb4f13643f1c690a013c572857fb0c"
        );
    }

    #[test]
    fn the_spec_hash_of_a_given_script_never_changes() {
        let mut script = request();
        script.program =
            Program::Script { interpreter: "/bin/sh".into(), argument: None, text: "df\n".into() };
        assert_eq!(
            spec_hash(&names(&["a"]), &script).as_str(),
            "a6b470f5262e5fa82f61bcf48519c5b329c033a112402039f78d15514b6f76ec"
        );
    }

    #[test]
    fn the_order_of_node_names_and_the_output_rules_do_not_change_the_spec_hash() {
        let mut other = request();
        other.output.limit = 7;
        other.output.merge = true;
        other.output.mask = false;
        assert_eq!(spec_hash(&names(&["a", "b"]), &request()), spec_hash(&names(&["b", "a"]), &other));
    }

    #[test]
    fn what_is_run_and_where_changes_the_spec_hash() {
        let base = spec_hash(&names(&["a"]), &request());
        let mut argv = request();
        argv.program = Program::Command(vec!["df".into()]);
        let mut host = request();
        host.environment = Environment::Host;
        assert_ne!(base, spec_hash(&names(&["b"]), &request()));
        assert_ne!(base, spec_hash(&names(&["a"]), &argv));
        assert_ne!(base, spec_hash(&names(&["a"]), &host));
        let mut limited = request();
        limited.limits.pids = Some(64);
        assert_ne!(base, spec_hash(&names(&["a"]), &limited));
        let mut keeps = request();
        keeps.leftovers = Leftovers::Keep;
        assert_ne!(base, spec_hash(&names(&["a"]), &keeps));
        let mut privileged = request();
        privileged.sandbox = Some(Sandbox::Privileged);
        assert_ne!(base, spec_hash(&names(&["a"]), &privileged));
        let mut reads = request();
        reads.root_filesystem = RootFilesystem::ReadOnly;
        assert_ne!(base, spec_hash(&names(&["a"]), &reads));
        let reference = |key: &str| SecretKeyRef { name: "db".into(), key: key.into(), optional: false };
        let stdin = |key: &str| {
            let request = RunRequest { stdin_from: Some(reference(key)), ..request() };
            spec_hash(&names(&["a"]), &request)
        };
        assert_ne!(stdin("a"), stdin("b"));
        let env = |value_from| {
            let variable = EnvVar { name: "A".into(), value: String::new(), value_from };
            spec_hash(&names(&["a"]), &RunRequest { env: vec![variable], ..request() })
        };
        assert_ne!(env(None), env(Some(reference("a"))));
        assert_ne!(env(Some(reference("b"))), env(Some(reference("a"))));
        let script = |argument: Option<&str>| {
            let mut script = request();
            let (interpreter, text) = ("/bin/sh".to_owned(), "df\n".to_owned());
            script.program = Program::Script { interpreter, argument: argument.map(str::to_owned), text };
            spec_hash(&names(&["a"]), &script)
        };
        assert_ne!(script(None), script(Some("-eu")));
    }

    #[test]
    fn a_percentage_is_at_least_one_target() {
        assert_eq!(
            [Amount::Percent(25).of(10), Amount::Percent(1).of(10), Amount::Count(7).of(3)],
            [2, 1, 7]
        );
    }
}
