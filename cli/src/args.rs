//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::client::{Server, Since};
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

/// A command line that is wrong, or asks for help.
#[derive(Debug)]
pub(crate) struct Refused {
    /// As clap has it.
    pub(crate) error: clap::Error,
    /// What was probably meant.
    pub(crate) hint: Option<String>,
}

impl Cli {
    /// Reads a command line.
    ///
    /// # Errors
    /// [`Refused`]; also where help or the version is asked for.
    pub(crate) fn of(words: impl IntoIterator<Item = OsString>) -> Result<Self, Box<Refused>> {
        let words: Vec<OsString> = words.into_iter().collect();
        let mut command = without_empty_variables(Self::command());
        command
            .try_get_matches_from_mut(&words)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| Box::new(Refused { hint: dashes_hint(&words, &error), error }))
    }
}

/// A variable that is set to nothing is as good as one that is not set: scripts clear variables that way.
fn without_empty_variables(mut command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let empty: Vec<clap::Id> =
        command.get_arguments().filter(|argument| is_empty(argument)).map(|a| a.get_id().clone()).collect();
    for id in empty {
        command = command.mut_arg(id, |argument| argument.env(None::<&'static str>));
    }
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for verb in verbs {
        command = command.mut_subcommand(verb, without_empty_variables);
    }
    command
}

/// What to write in place of `sentinel run uname -a`.
fn dashes_hint(words: &[OsString], error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(stray)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument || stray.starts_with('-') {
        return None;
    }
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let verb = words.iter().position(|word| word == "run")?;
    let at = verb + words[verb..].iter().position(|word| word == stray)?;
    let quoted =
        |words: &[String]| words.iter().map(|word| crate::output::quoted(word)).collect::<Vec<_>>().join(" ");
    Some(format!("Put -- before the command: sentinel {} -- {}", quoted(&words[1..at]), quoted(&words[at..])))
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where the server is: `http://HOST[:PORT]` or `unix:/PATH`. A dev mode of this user is found by itself.
    #[arg(
        long,
        global = true,
        env = "SENTINEL_SERVER",
        default_value = "http://127.0.0.1:7980",
        value_name = "URL"
    )]
    pub(crate) server: Server,

    /// File with the token that the server asks for; a dev mode of this user needs none.
    #[arg(long, global = true, env = "SENTINEL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

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
    Run(Box<RunArgs>),
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

It answers its own user alone: over a Unix socket that every verb of this user finds by itself, and on --listen to
those who have the token of the file that it names at its start. Root may use the socket too, with curl.

It ends with Ctrl-C, SIGTERM, SIGHUP or SIGQUIT. Exit codes: 0 ended on request, 1 failure, 2 a file is not valid (every problem is listed).")]
pub(crate) struct DevArgs {
    /// Files or directories with Tasks in YAML; they are watched.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Number of simulated nodes beside this machine. They run commands for real, here.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) nodes: u16,

    /// Commands that run at once on each node, at most; further ones wait for their turn.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_attempts: u32,

    /// Room that must be free on the disk of --state for a command to be started, as 64Mi or 1Gi.
    #[arg(long, env = "SENTINEL_MIN_FREE", default_value = "64Mi", value_name = "SIZE",
          value_parser = sentinel_node_agent::config::parse_size)]
    pub(crate) min_free: u64,

    /// Directory to keep everything in; without it, it is a temporary one that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Address of the HTTP API beside its socket; loopback only. Port 0 takes any free one.
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

  # A script from a file, input from a pipe
  sentinel run --all --script check.sh
  generate-list | sentinel run --all --stdin -- sort

  # One JSON object a line, for programs
  sentinel run --all -o json -- uptime

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
    #[arg(long, value_name = "TIME", value_parser = crate::args::span, help_heading = "Clocks and retries")]
    pub(crate) timeout: Option<Duration>,

    /// Name of the Task; otherwise one is made up.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Environment variable of the command, as NAME=VALUE; may be given several times.
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,

    /// Hand our standard input to the command on each node; at most 64 KiB of UTF-8 text.
    #[arg(long)]
    pub(crate) stdin: bool,

    /// Run this file as a script in place of a command; - is standard input. Its first line may name the interpreter.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) script: Option<PathBuf>,

    /// Run as this user.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Run as this group; otherwise as the user's own.
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,

    /// Run in this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// Run in the namespaces of the host, not in the agent's container.
    #[arg(long)]
    pub(crate) host: bool,

    /// How many nodes at a time: a number or a percentage. Example: 25%.
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrent: Option<String>,

    /// Delete the Task this long after its end, with 0s as soon as it has ended; its Runs and output stay in History.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::args::span_or_none)]
    pub(crate) ttl: Duration,

    /// End the command when it writes nothing for this long. Example: 2m.
    #[arg(long, value_name = "TIME", value_parser = crate::args::span, help_heading = "Clocks and retries")]
    pub(crate) idle: Option<Duration>,

    /// How long a command that is to end may take from SIGTERM to SIGKILL. Example: 30s.
    #[arg(long, value_name = "TIME", value_parser = crate::args::span_or_none, help_heading = "Clocks and retries")]
    pub(crate) grace: Option<Duration>,

    /// Try again this often on a node where it failed.
    #[arg(long, value_name = "N", help_heading = "Clocks and retries")]
    pub(crate) retry: Option<u32>,

    /// CPU time it may use: 500m is half a CPU.
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) cpu: Option<String>,

    /// Memory it may use. Example: 256Mi.
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) memory: Option<String>,

    /// Processes and threads it may have.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) pids: Option<u32>,

    /// File descriptors that each of its processes may have open.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) nofile: Option<u64>,

    /// Size of a core file that it may leave. Example: 1Gi.
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) core: Option<String>,

    /// Do not begin lines with the node's name.
    #[arg(long, help_heading = "Output")]
    pub(crate) no_prefix: bool,

    /// Begin each line with the node's time.
    #[arg(long, help_heading = "Output")]
    pub(crate) timestamps: bool,

    /// Write standard error to standard output, in the order in which the command writes.
    #[arg(long, help_heading = "Output")]
    pub(crate) merge: bool,

    /// What becomes of processes that the command leaves behind when it ends.
    #[arg(long, value_enum, ignore_case = true, value_name = "RULE", help_heading = "Output")]
    pub(crate) leftovers: Option<Leftovers>,

    /// Form of what is shown: the output of the command, or one JSON object a line (docs/cli.md lists them).
    #[arg(
        short,
        long,
        value_enum,
        default_value = "text",
        value_name = "FORM",
        help_heading = "Output",
        conflicts_with_all = ["no_prefix", "timestamps"]
    )]
    pub(crate) output: RunForm,

    /// The command and its arguments, behind `--`. No shell touches them.
    #[arg(last = true, required_unless_present = "script", value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What becomes of processes that a command leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leftovers {
    /// They are ended.
    End,
    /// They go on.
    Keep,
}

/// What `run` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunForm {
    /// The output of the command.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sentinel apply task.yaml
  sentinel apply tasks/ more.yaml
  sentinel apply -f task.yaml
  generate-tasks | sentinel apply -")]
pub(crate) struct ApplyArgs {
    /// Files or directories with Tasks in YAML or JSON, - for standard input.
    #[arg(value_name = "FILE", required_unless_present = "filename")]
    pub(crate) files: Vec<PathBuf>,

    /// The same as a flag, as kubectl has it; may be given several times.
    #[arg(short, long, value_name = "FILE")]
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
  sentinel get executions --task hello --outcome failed
  sentinel get executions --sort-by duration
  sentinel get execution hello/3/web-1
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

    /// Sort by a column, or by a field as -o json has it, smallest first. Example: duration, .metadata.name.
    #[arg(long, global = true, value_name = "FIELD")]
    pub(crate) sort_by: Option<String>,

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
    /// Describe one execution: TASK/RUN/NODE, where TASK is a name or a uid. NODE may be left out where there is only
    /// one, RUN for the latest.
    #[arg(value_name = "TASK[/RUN[/NODE]]")]
    pub(crate) name: Option<String>,

    /// Only of this Task.
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<String>,

    /// Only of the Run with this number.
    #[arg(long, value_name = "N")]
    pub(crate) run: Option<u32>,

    /// Only on this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,

    /// Only those that ended so.
    #[arg(long, value_name = "OUTCOME", value_parser = PossibleValuesParser::new(OUTCOMES), ignore_case = true)]
    pub(crate) outcome: Option<String>,

    /// Only those that have come so far.
    #[arg(long, value_name = "STATE", ignore_case = true)]
    pub(crate) state: Option<StateFilter>,
}

/// How an execution can end.
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

  # The last ten lines of each node; what was written in the last five minutes
  sentinel logs hello --tail 10
  sentinel logs hello --since 5m

  # Of an earlier Run
  sentinel logs hello --run 3

  # Of one execution, raw, from a position on
  sentinel logs hello/1/web-1 --from 1048576 > rest.log")]
pub(crate) struct LogsArgs {
    /// A Task by name (or NAMESPACE/NAME), or an execution as TASK/RUN/NODE, where TASK is a name or a uid.
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
    #[arg(long, default_value_t = 0, value_name = "POSITION", conflicts_with_all = ["tail", "since"])]
    pub(crate) from: u64,

    /// Only the last lines of each node, so many of them.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) tail: Option<u32>,

    /// Only what was written since: a time such as 2026-11-28T03:00:00Z, or how long ago, such as 5m.
    #[arg(long, value_name = "TIME", value_parser = crate::args::since)]
    pub(crate) since: Option<Since>,

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
        Err("must be longer than 0; leave the flag out to wait without a limit".to_owned())
    } else {
        Ok(span)
    }
}

/// A span of time, none at all too.
pub(crate) fn span_or_none(text: &str) -> Result<Duration, String> {
    sentinel_operator::config::parse_duration(text)
}

/// A moment: one by the calendar, or so long ago.
pub(crate) fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::At(time));
    }
    span_or_none(text).map(Since::Ago).map_err(|_| {
        "expected a time such as 2026-11-28T03:00:00Z, or how long ago, such as 5m or 1h30m".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_command_without_dashes_is_shown_with_them() {
        let hint = |words: &[&str]| Cli::of(words.iter().map(|word| OsString::from(*word))).unwrap_err().hint;
        assert_eq!(
            hint(&["sentinel", "run", "--all", "uname", "-a"]).unwrap(),
            "Put -- before the command: sentinel run --all -- uname -a"
        );
        assert_eq!(
            hint(&["sentinel", "-n", "ops", "run", "echo", "a b"]).unwrap(),
            "Put -- before the command: sentinel -n ops run -- echo 'a b'"
        );
        assert_eq!(hint(&["sentinel", "run", "--no-such-flag", "--", "ls"]), None);
        assert_eq!(hint(&["sentinel", "get", "tasks", "a", "b"]), None);
    }

    #[test]
    fn an_outcome_is_known_in_any_case_and_a_script_needs_no_command() {
        let cli = |words: &[&str]| Cli::of(words.iter().map(|word| OsString::from(*word)));
        let Ok(Cli { verb: Verb::Get(get), .. }) =
            cli(&["sentinel", "get", "executions", "--outcome", "oomkilled", "--state", "ENDED"])
        else {
            panic!("not taken")
        };
        let Noun::Executions(wanted) = get.what else { panic!("not executions") };
        assert_eq!((wanted.outcome(), wanted.state), (Some("OomKilled"), Some(StateFilter::Ended)));
        assert!(cli(&["sentinel", "get", "executions", "--outcome", "great"]).is_err());
        assert!(cli(&["sentinel", "run", "--script", "a.sh"]).is_ok());
        assert!(cli(&["sentinel", "run", "--script", "a.sh", "--", "ls"]).is_err());
        assert!(cli(&["sentinel", "run", "--ttl", "0s", "--", "ls"]).is_ok());
        assert!(cli(&["sentinel", "logs", "a", "--since", "yesterday"]).is_err());
    }
}
