//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::Server;
use crate::output::color::ColorChoice;
use crate::output::format::Format;

const EXAMPLES: &str = "\
Examples:
  # Try it: no cluster, no database, nothing to install
  sentinel dev examples/hello.yaml

  # Against a running server
  sentinel run --all -- uname -a
  sentinel get tasks
  sentinel logs -f hello
  sentinel nodes

Exit codes: 0 well, 1 not well, 2 wrong usage, 124 timed out, 130 interrupted by Ctrl-C.";

/// Runs commands on nodes, shows what they write, and keeps what became of them.
#[derive(Debug, Parser)]
#[command(name = "sentinel", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where the server is.
    #[arg(
        long,
        global = true,
        env = "SENTINEL_SERVER",
        default_value = "http://127.0.0.1:7980",
        value_name = "URL"
    )]
    pub(crate) server: Server,

    /// Namespace of the Tasks.
    #[arg(
        short,
        long,
        global = true,
        env = "SENTINEL_NAMESPACE",
        default_value = "default",
        value_name = "NAME"
    )]
    pub(crate) namespace: String,

    /// When to colour.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: ColorChoice,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run everything on this machine: no cluster, no database, no containers.
    Dev(DevArgs),
    /// Run a command on nodes, and show its output.
    Run(RunArgs),
    /// Create Tasks from files, or change them to be as in the files.
    Apply(ApplyArgs),
    /// List Tasks, Runs, executions or nodes.
    Get(GetArgs),
    /// Show the output of a Task, or of one execution.
    Logs(LogsArgs),
    /// List nodes, and how they do.
    Nodes(NodesArgs),
    /// Wait until a Task has ended.
    Wait(WaitArgs),
    /// End the Run of a Task.
    Cancel(CancelArgs),
    /// Run a Task again as it is.
    Rerun(RerunArgs),
    /// Delete Tasks; what runs of them is cancelled.
    Delete(DeleteArgs),
    /// Print the version.
    Version,
    /// Print the completion script of a shell.
    Completion(CompletionArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # A Task from a file; every change of the file is applied
  sentinel dev examples/hello.yaml

  # All files of a directory, and fifty more nodes, simulated
  sentinel dev examples --nodes 50

  # Keep what has run, and go on with it next time
  sentinel dev --state ~/.local/share/sentinel

It ends with Ctrl-C. Exit codes: 0 ended on request, 1 failure, 2 a file is not valid (every problem is listed).")]
pub(crate) struct DevArgs {
    /// Files or directories with Tasks in YAML; they are watched.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Number of simulated nodes beside this machine. They run commands for real, here.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) nodes: u16,

    /// Directory to keep everything in; without it, it is a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Address of the HTTP API; loopback only. Port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:7980", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,

    /// What is logged to standard error, as tracing filters have it. Example: info.
    #[arg(long, env = "SENTINEL_LOG", default_value = "warn", value_name = "FILTER")]
    pub(crate) log: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # On the only node there is (as in dev mode), or on every node
  sentinel run -- uname -a
  sentinel run --all -- uptime

  # On the nodes of a pool, two at a time, ten minutes each at most
  sentinel run -l pool=web --max-concurrent 2 --timeout 10m -- systemctl reload nginx

  # With a shell, on two nodes by name
  sentinel run --node web-1 --node web-2 -- sh -c 'df -h / | tail -1'

  # Start it and leave
  sentinel run --all --detach -- apt-get update

Exit codes: that of the command on one node; the worst on several; 124 timed out; 125 we could not do it;
128+N the command was ended by signal N; 130 detached or cancelled by Ctrl-C.
The first Ctrl-C detaches, the second cancels.")]
pub(crate) struct RunArgs {
    /// On the nodes whose labels match. Example: pool=web,zone!=a,gpu
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["node", "all"])]
    pub(crate) selector: Option<String>,

    /// On this node; may be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub(crate) node: Vec<String>,

    /// On every node but those of the control plane.
    #[arg(long)]
    pub(crate) all: bool,

    /// Not on this node; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) exclude: Vec<String>,

    /// Show output as it comes, until all have ended. This is what happens unless --detach is given.
    #[arg(short, long, conflicts_with = "detach")]
    pub(crate) follow: bool,

    /// Start it and leave.
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// End the command on a node after this time. Example: 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::args::span)]
    pub(crate) timeout: Option<Duration>,

    /// Name of the Task; otherwise one is made up.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Environment variable of the command, as NAME=VALUE; may be given several times.
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,

    /// Run as this user.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Run in this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// Run in the namespaces of the host, not in the agent's container.
    #[arg(long)]
    pub(crate) host: bool,

    /// How many nodes at a time: a number or a percentage. Example: 25%.
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrent: Option<String>,

    /// Delete the Task this long after its end; its Runs and output stay in History. Example: 10m.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::args::span)]
    pub(crate) ttl: Duration,

    /// The command and its arguments, behind `--`. No shell touches them.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel apply -f task.yaml
  sentinel apply -f tasks/ -f more.yaml
  generate-tasks | sentinel apply -f -")]
pub(crate) struct ApplyArgs {
    /// File or directory with Tasks in YAML or JSON, - for standard input; may be given several times.
    #[arg(short, long, required = true, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,

    /// Form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel get tasks
  sentinel get tasks -A -o wide
  sentinel get task hello -o yaml
  sentinel get executions --task hello --outcome Failed
  sentinel get runs --task hello
  sentinel get executions --limit 0 -o name
  sentinel get nodes

A list that is not complete says so on standard error: there are more rows than --limit, or the server cannot read its
History. Exit codes: 0 listed, also when --limit cut it; 1 not listed, or rows may be missing; 2 wrong usage.")]
pub(crate) struct GetArgs {
    #[command(subcommand)]
    pub(crate) what: Noun,

    /// Of every namespace.
    #[arg(short = 'A', long, global = true)]
    pub(crate) all_namespaces: bool,

    /// Form of the result.
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    pub(crate) output: Format,

    /// Most rows to list; 0 lists all. When there are more than are shown, standard error says so and JSON and YAML have
    /// `next`.
    #[arg(long, global = true, default_value_t = 500, value_name = "N")]
    pub(crate) limit: u32,

    /// Go on behind an earlier list: its `next`, which -o json and -o yaml show.
    #[arg(long, global = true, value_name = "NEXT")]
    pub(crate) page: Option<String>,
}

/// What can be listed.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Tasks, or one Task with its nodes.
    #[command(visible_alias = "task", alias = "stask")]
    Tasks {
        /// Name of a Task.
        name: Option<String>,
    },
    /// Runs, newest first.
    #[command(visible_alias = "run")]
    Runs {
        /// Only of this Task.
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
    },
    /// Executions (a Run on one node), newest first.
    #[command(visible_alias = "execution", alias = "exec")]
    Executions(ExecutionsArgs),
    /// Nodes, and how they do.
    #[command(visible_alias = "node")]
    Nodes,
}

#[derive(Debug, Args)]
pub(crate) struct ExecutionsArgs {
    /// One execution: TASK-UID/RUN/NODE.
    pub(crate) id: Option<String>,

    /// Only of this Task.
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<String>,

    /// Only of the Run with this number.
    #[arg(long, value_name = "N")]
    pub(crate) run: Option<u32>,

    /// Only on this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,

    /// Only those that ended so. Example: Failed.
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Option<String>,

    /// Only those that have come so far.
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<StateFilter>,
}

/// How far an execution has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateFilter {
    /// Its turn has not come, or it is tried again.
    #[value(name = "pending", alias = "Pending")]
    Pending,
    /// Its node is not connected.
    #[value(name = "waiting-for-node", alias = "WaitingForNode")]
    WaitingForNode,
    /// Handed to its node.
    Dispatched,
    /// Its command runs.
    Running,
    /// It is over.
    Ended,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # The output of a Task's latest Run, on all its nodes, as it comes
  sentinel logs -f hello

  # Of one node, with times
  sentinel logs hello --node web-1 --timestamps

  # Of an earlier Run
  sentinel logs hello --run 3

  # Of one execution, raw, from a position on
  sentinel logs 0b6c8a1e-5b1c-4b0e-9f3b-3f0b8f1c2d3e/1/web-1 --from 1048576 > rest.log")]
pub(crate) struct LogsArgs {
    /// A Task by name (or NAMESPACE/NAME), or an execution as TASK-UID/RUN/NODE.
    #[arg(value_name = "TASK|EXECUTION")]
    pub(crate) what: String,

    /// Go on until all have ended.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Only of this node; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Vec<String>,

    /// Of the Run with this number, not the latest.
    #[arg(long, value_name = "N")]
    pub(crate) run: Option<u32>,

    /// Of the Attempt with this number, not the latest; of one execution.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "follow")]
    pub(crate) attempt: Option<u32>,

    /// Begin each line with the node's time.
    #[arg(long)]
    pub(crate) timestamps: bool,

    /// Begin at this position (of one node's log).
    #[arg(long, default_value_t = 0, value_name = "POSITION")]
    pub(crate) from: u64,

    /// Only this stream.
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<StreamFilter>,

    /// Do not begin lines with the node's name.
    #[arg(long)]
    pub(crate) no_prefix: bool,
}

/// One stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamFilter {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// One node.
    pub(crate) name: Option<String>,

    /// Form of the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel wait hello
  sentinel wait hello --for complete --timeout 5m
  sentinel wait hello --for deleted

Exit codes: 0 it is so, 1 it ended otherwise, 124 not within --timeout.")]
pub(crate) struct WaitArgs {
    /// Name of the Task.
    pub(crate) task: String,

    /// What to wait for.
    #[arg(long = "for", value_enum, default_value = "ended")]
    pub(crate) until: Until,

    /// How long at most. Example: 5m.
    #[arg(long, value_name = "TIME", value_parser = crate::args::span)]
    pub(crate) timeout: Option<Duration>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// Its Run has ended; exit code 1 if it failed.
    Ended,
    /// Its Run is complete.
    #[value(alias = "condition=Complete")]
    Complete,
    /// Its Run has failed.
    #[value(alias = "condition=Failed")]
    Failed,
    /// It is gone.
    #[value(alias = "delete")]
    Deleted,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sentinel cancel hello\n  sentinel cancel hello --run 3 --wait")]
pub(crate) struct CancelArgs {
    /// Name of the Task.
    pub(crate) task: String,

    /// Only if this is the Run that goes on.
    #[arg(long, value_name = "N")]
    pub(crate) run: Option<u32>,

    /// Wait until nothing of it runs any more.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sentinel rerun hello\n  sentinel rerun hello -f\n  sentinel rerun hello --token after-the-fix"
)]
pub(crate) struct RerunArgs {
    /// Name of the Task.
    pub(crate) task: String,

    /// Any text; a token that was given before runs nothing. Otherwise one is made up.
    #[arg(long, value_name = "TEXT")]
    pub(crate) token: Option<String>,

    /// Show output as it comes, until all have ended; the exit code is then as that of `run`.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sentinel delete hello\n  sentinel delete -f tasks/\n  sentinel delete hello --wait"
)]
pub(crate) struct DeleteArgs {
    /// Names of Tasks.
    #[arg(value_name = "TASK", required_unless_present = "filename")]
    pub(crate) tasks: Vec<String>,

    /// The Tasks of this file or directory, - for standard input; may be given several times.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,

    /// Wait until they are gone.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  source <(sentinel completion bash)\n  sentinel completion zsh > ~/.zfunc/_sentinel"
)]
pub(crate) struct CompletionArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// A span of time, at least a millisecond.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span = sentinel_operator::config::parse_duration(text)?;
    if span.is_zero() {
        Err("0 is no span of time to wait; leave the flag out for no limit".to_owned())
    } else {
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed_and_every_verb_has_a_help_text() {
        let command = Cli::command();
        command.clone().debug_assert();
        for verb in command.get_subcommands() {
            assert!(verb.get_about().is_some(), "{} has no text", verb.get_name());
            for argument in verb.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {} has no text",
                    verb.get_name(),
                    argument.get_id()
                );
            }
        }
    }

    #[test]
    fn run_takes_everything_behind_the_dashes_as_the_command() {
        let cli = Cli::try_parse_from(["sentinel", "run", "--all", "--", "ls", "-l", "--all"]).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("not run") };
        assert_eq!(run.command, ["ls", "-l", "--all"]);
        assert!(Cli::try_parse_from(["sentinel", "run", "--all"]).is_err());
        assert!(Cli::try_parse_from(["sentinel", "run", "--all", "-l", "a=b", "--", "ls"]).is_err());
    }
}
