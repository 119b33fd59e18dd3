//! The arguments of `logs`.

use std::convert::Infallible;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::task_name::TaskName;
use super::values::since;
use crate::candidates::{Wanted, completer};
use crate::client::Since;

const EXAMPLES: &str = "\
Examples:
  # Follow the output of a Task's latest Run on all its nodes
  sentinel logs -f hello

  # One node, with timestamps
  sentinel logs hello --node web-1 --timestamps

  # The last ten lines of each node; the last five minutes
  sentinel logs hello --tail 10
  sentinel logs hello --since 5m

  # An earlier Run
  sentinel logs hello --run 3

  # Lines that match, on all nodes
  sentinel logs hello --grep '(?i)error|fatal'

  # Equal outputs of many nodes as one
  sentinel logs hello --fold

  # The lines of all nodes by time, one JSON object per line
  sentinel logs hello -o json
  sentinel logs -f hello --node web-1 --node web-2 -o json | jq -r '.text // empty'

  # The bytes of one node, unchanged; those of an Execution, from a position
  sentinel logs hello --node web-1 --stream stdout -o raw > backup.tar
  sentinel logs hello/1/web-1 -o raw --from 1048576 > rest.log";

/// What to show the output of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogsSubject {
    /// A Task.
    Task(TaskName),
    /// The Execution with this name.
    Execution(String),
}

impl FromStr for LogsSubject {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_execution = text.starts_with("execution/")
            || text.strip_prefix("task/").unwrap_or(text).matches('/').count() > 1;
        if is_execution { Ok(Self::Execution(text.to_owned())) } else { text.parse().map(Self::Task) }
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// A Task as NAME or NAMESPACE/NAME, or an Execution as TASK/RUN/NODE. TASK is a name or a uid.
    #[arg(value_name = "TASK|EXECUTION", add = completer(Wanted::Subject))]
    pub(crate) subject: LogsSubject,

    /// Follow the output until the Run has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Only this node; may be repeated.
    #[arg(long, value_name = "NAME", add = completer(Wanted::Node))]
    pub(crate) node: Vec<String>,

    /// Number of the Run; the latest by default.
    #[arg(long, value_name = "N", add = completer(Wanted::Run))]
    pub(crate) run: Option<u32>,

    /// Number of the Attempt; the latest by default. Requires an Execution. Not with --follow.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "follow")]
    pub(crate) attempt: Option<u32>,

    /// Prefix each line with its time on the node.
    #[arg(long)]
    pub(crate) timestamps: bool,

    /// Start at this byte position in the log of one node. Not with --tail, --since.
    #[arg(long, default_value_t = 0, value_name = "POSITION", conflicts_with_all = ["tail", "since"])]
    pub(crate) from: u64,

    /// Show at most this many last lines of each node.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) tail: Option<u32>,

    /// Only output since a time such as 2026-11-28T03:00:00Z, or a duration such as 5m ago.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Since>,

    /// Show only lines that match this regular expression, found by the server; exit code 1 if none does. Not with
    /// --follow, --from, --tail, --since, --timestamps, --fold.
    #[arg(long, value_name = "REGEX", conflicts_with_all = ["follow", "from", "tail", "since", "timestamps", "fold"])]
    pub(crate) grep: Option<String>,

    /// Only this stream.
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<StreamFilter>,

    /// Show nodes with the same outcome, exit code and output as one, those that did not succeed first. Not with --follow,
    /// --from, --attempt, --node, --stream, --since.
    #[arg(long, conflicts_with_all = ["follow", "from", "attempt", "node", "stream", "since"])]
    pub(crate) fold: bool,

    /// Do not prefix lines with the name of the node.
    #[arg(long)]
    pub(crate) no_prefix: bool,

    /// Output format: text; the bytes of the commands; or the lines of all nodes by time, one JSON object per line (see
    /// docs/cli.md).
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: LogFormat,
}

/// Format of logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines, with the name of their node if there are several; control characters are escaped on a terminal.
    #[default]
    Text,
    /// The bytes of both streams on standard output, unchanged, node after node.
    Raw,
    /// One JSON object per line, of all nodes by time.
    Json,
}

/// One of the two output streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamFilter {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
