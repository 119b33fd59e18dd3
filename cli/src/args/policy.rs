//! The arguments of `policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) what: PolicyVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Show what a policy allows implicitly, such as any command by way of a shell.
    #[command(after_help = "\
Examples:
  sentinel policy lint policy.yaml
  sentinel policy lint --strict policy.yaml

Exit codes: 0 the policy can be used, 1 something was found with --strict, 2 the policy cannot be used.")]
    Lint {
        /// The policy, as it is mounted on nodes.
        #[arg(value_name = "POLICY")]
        policy: PathBuf,

        /// Exit with 1 if anything is found.
        #[arg(long)]
        strict: bool,
    },
    /// Show what a policy decides about a Task, rule by rule.
    #[command(after_help = "\
Examples:
  sentinel policy explain policy.yaml task.yaml
  sentinel policy explain policy.yaml task.yaml --user alice --group sre
  sentinel policy explain --here policy.yaml task.yaml

Without --here, programs and users are not looked up: a program must have an absolute path and counts as no symbolic link, and a
user of a name counts as an ordinary one. On a node itself: sentinel policy request task.yaml | node-agent policy test policy.yaml -

Exit codes: 0 every Task is allowed, 1 one is refused, 2 a file is invalid.")]
    Explain(ExplainArgs),
    /// Print the request that nodes get for a Task, for `node-agent policy test`.
    #[command(after_help = "\
Examples:
  sentinel policy request task.yaml > request.json
  sentinel policy request task.yaml --user alice | kubectl exec -i -n sentinel-system POD -- node-agent policy test /etc/sentinel/policy/policy.yaml -")]
    Request(RequestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The policy, as it is mounted on nodes.
    #[arg(value_name = "POLICY")]
    pub(crate) policy: PathBuf,

    #[command(flatten)]
    pub(crate) request: RequestArgs,

    /// Find programs and users on this machine.
    #[arg(long)]
    pub(crate) here: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// A file with Tasks in YAML or JSON; - for standard input.
    #[arg(value_name = "TASK")]
    pub(crate) task: PathBuf,

    /// Who asks; without it that is not known.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// A group of --user; may be repeated.
    #[arg(long, value_name = "GROUP", requires = "user")]
    pub(crate) group: Vec<String>,

    /// The node that is asked; without it the first that the signature is for, or that the Task names, or else a node called node.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
}
