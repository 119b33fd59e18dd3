//! The arguments of `get` and `nodes`.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use super::task_name::TaskName;
use crate::candidates::{Wanted, completer};
use crate::output::format::OutputFormat;

const EXAMPLES: &str = "\
Examples:
  sentinel get tasks
  sentinel get tasks -A -o wide
  sentinel get task hello -o yaml
  sentinel get task/hello
  sentinel get executions --task hello --outcome failed
  sentinel get executions --sort-by duration
  sentinel get execution hello/3/web-1
  sentinel get runs --task hello
  sentinel get executions --limit 0 -o name
  sentinel get nodes
  sentinel get node web-1

A warning on standard error marks an incomplete list: more rows exist than --limit allows, or the server cannot read
its History.

Exit codes: 0 listed, also if --limit truncated the list; 1 failed, or rows may be missing; 2 usage error.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    #[command(subcommand)]
    pub(crate) noun: Noun,

    /// List all namespaces.
    #[arg(short = 'A', long, global = true)]
    pub(crate) all_namespaces: bool,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT", global = true)]
    pub(crate) output: OutputFormat,

    /// Sort by a column, or by a field of -o json, ascending. Example: duration, .metadata.name.
    #[arg(long, global = true, value_name = "FIELD")]
    pub(crate) sort_by: Option<String>,

    /// Maximum number of rows; 0 for all. A truncated list has `next` in JSON and YAML, and a warning on standard
    /// error.
    #[arg(long, global = true, default_value_t = 500, value_name = "N")]
    pub(crate) limit: u32,

    /// Continue after an earlier list: its `next`, from -o json or -o yaml.
    #[arg(long, global = true, value_name = "NEXT")]
    pub(crate) page: Option<String>,
}

/// What to list.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// List Tasks, or show one Task with its nodes.
    #[command(visible_alias = "task", aliases = ["stask", "stasks"])]
    Tasks {
        /// The Task: NAME or NAMESPACE/NAME.
        #[arg(add = completer(Wanted::Task))]
        name: Option<TaskName>,
    },
    /// List Runs, newest first.
    #[command(visible_alias = "run")]
    Runs {
        /// Only Runs of this Task.
        #[arg(long, value_name = "NAME", add = completer(Wanted::Task))]
        task: Option<String>,
    },
    /// List Executions (a Run on one node), newest first, or describe one.
    #[command(visible_alias = "execution", aliases = ["exec", "execs"])]
    Executions(ExecutionsArgs),
    /// List nodes with their status and resources, or show one.
    #[command(visible_alias = "node", alias = "no")]
    Nodes {
        /// Only this node.
        #[arg(add = completer(Wanted::Node))]
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExecutionsArgs {
    /// Describe this Execution: TASK/RUN/NODE. TASK is a name or a uid. NODE may be omitted if the Run has only one
    /// node, RUN for the latest.
    #[arg(value_name = "TASK[/RUN[/NODE]]", add = completer(Wanted::Execution))]
    pub(crate) name: Option<String>,

    /// Only of this Task.
    #[arg(long, value_name = "NAME", add = completer(Wanted::Task))]
    pub(crate) task: Option<String>,

    /// Only of the Run with this number.
    #[arg(long, value_name = "N", add = completer(Wanted::Run))]
    pub(crate) run: Option<u32>,

    /// Only on this node.
    #[arg(long, value_name = "NAME", add = completer(Wanted::Node))]
    pub(crate) node: Option<String>,

    /// Only with this outcome.
    #[arg(long, value_name = "OUTCOME", value_parser = PossibleValuesParser::new(OUTCOMES), ignore_case = true)]
    pub(crate) outcome: Option<String>,

    /// Only in this state.
    #[arg(long, value_name = "STATE", ignore_case = true)]
    pub(crate) state: Option<StateFilter>,
}

/// The outcomes of an Execution, as the API spells them.
const OUTCOMES: [&str; 15] = [
    "Succeeded",
    "Failed",
    "Signaled",
    "StartFailed",
    "StartTimedOut",
    "TimedOut",
    "IdleTimedOut",
    "OomKilled",
    "Cancelled",
    "CancelFailed",
    "Refused",
    "Skipped",
    "Interrupted",
    "Lost",
    "NotStarted",
];

impl ExecutionsArgs {
    /// The outcome as the API spells it.
    pub(crate) fn outcome(&self) -> Option<&'static str> {
        let given = self.outcome.as_ref()?;
        OUTCOMES.into_iter().find(|outcome| outcome.eq_ignore_ascii_case(given))
    }
}

/// The state of an Execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateFilter {
    /// Not dispatched yet, or waiting for a retry.
    #[value(name = "pending", alias = "Pending")]
    Pending,
    /// Its node is not connected or busy.
    #[value(name = "waiting-for-node", alias = "WaitingForNode")]
    WaitingForNode,
    /// Sent to its node.
    Dispatched,
    /// The command is running.
    Running,
    /// It has an outcome.
    Ended,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sentinel nodes\n  sentinel nodes -o wide\n  sentinel nodes web-1 -o json"
)]
pub(crate) struct NodesArgs {
    /// Only this node.
    #[arg(add = completer(Wanted::Node))]
    pub(crate) name: Option<String>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
}
