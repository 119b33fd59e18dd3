//! The arguments of `check` and `report`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::duration;
use crate::candidates::{Wanted, completer};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # Before Sentinel Node is installed: is the cluster fit for it, and may you install it?
  sentinel check --pre
  sentinel check --pre --install-namespace ops --profile observe

  # After that: is everything up, of one release, and what may you do?
  sentinel check
  sentinel check -o json | jq '.checks[] | select(.result != \"ok\")'

  # Run a Task to its end on one node, and delete it
  sentinel check --task
  sentinel check --task --node worker-1 -- /bin/true

Exit codes: 0 nothing failed (warnings may be shown), 1 a check failed. Each failed line states what to do.")]
pub(crate) struct CheckArgs {
    /// Check a cluster in which Sentinel Node is not installed yet.
    #[arg(long)]
    pub(crate) pre: bool,

    /// With --pre: the value agent.profile of the installation, on which it depends what its namespace must admit.
    #[arg(long, value_enum, default_value = "container", value_name = "PROFILE", requires = "pre")]
    pub(crate) profile: AgentProfile,

    /// Also run a Task on one node, and check its Outcome, its output and its record in the History. Not with --pre.
    #[arg(long, conflicts_with = "pre")]
    pub(crate) task: bool,

    /// The node of --task; without it one that is reachable.
    #[arg(long, value_name = "NODE", requires = "task", add = completer(Wanted::Node))]
    pub(crate) node: Option<String>,

    /// The namespace of the installation; without it that of the operator's Service, or sentinel-system.
    #[arg(long, value_name = "NAME")]
    pub(crate) install_namespace: Option<String>,

    /// How long --task may take.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: CheckFormat,

    /// The command of --task; without it one that every agent's image has.
    #[arg(last = true, value_name = "COMMAND", requires = "task")]
    pub(crate) command: Vec<String>,
}

/// The profile of agents: what commands they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AgentProfile {
    /// None: they report their nodes.
    Observe,
    /// Commands in the agent's container.
    Container,
    /// Commands on the node, too.
    Host,
}

/// Format of the result of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// A line for each check.
    Text,
    /// JSON.
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel report
  sentinel report -f /tmp/sentinel.tar.gz --logs 500
  tar -xzOf sentinel-report.tar.gz sentinel-report/MANIFEST.md

The file is for an issue or a support case: versions, the result of check, Tasks, nodes, the objects of the installation, its \
pods and their logs, and events. What may be secret is not in it: no Secret is read; values of environment variables, \
standard input, scripts and arguments of commands are replaced. MANIFEST.md lists what is in it and what was replaced. Output of \
commands is never in it.")]
pub(crate) struct ReportArgs {
    /// The file; - for standard output.
    #[arg(short, long, default_value = "sentinel-report.tar.gz", value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Most lines of the log of each container.
    #[arg(long, default_value = "2000", value_name = "N")]
    pub(crate) logs: u32,

    /// The namespace of the installation; without it that of the operator's Service, or sentinel-system.
    #[arg(long, value_name = "NAME")]
    pub(crate) install_namespace: Option<String>,
}
