//! The command line: flags that every verb has, the verbs, and how a command line is parsed.
//!
//! The arguments of each verb are in a file of their own; [`values`] parses durations and times.

mod audit;
mod ceilings;
mod check;
mod dev;
mod get;
mod logs;
mod policy;
mod run;
mod sign;
mod task;
mod task_name;
mod ui;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use audit::{AuditArgs, AuditHeadsArgs, AuditVerb, AuditVerifyArgs};
pub(crate) use ceilings::{ApproveArgs, CeilingsArgs, CeilingsVerb};
pub(crate) use check::{AgentProfile, CheckArgs, CheckFormat, ReportArgs};
pub(crate) use dev::DevArgs;
pub(crate) use get::{ExecutionsArgs, GetArgs, NodesArgs, Noun, StateFilter};
pub(crate) use logs::{LogFormat, LogsArgs, LogsSubject, StreamFilter};
pub(crate) use policy::{ExplainArgs, PolicyArgs, PolicyVerb, RequestArgs};
pub(crate) use run::{Fold, Leftovers, RunArgs, Sandbox};
pub(crate) use sign::SignArgs;
pub(crate) use task::{
    ApplyArgs, CancelArgs, CompletionArgs, DeleteArgs, DryRun, RerunArgs, Until, WaitArgs,
};
pub(crate) use ui::UiArgs;

use crate::candidates::{Wanted, completer};
use crate::client::Server;
use crate::connection::Place;
use crate::output::color::ColorChoice;

const EXAMPLES: &str = "\
Examples:
  # Try it: no cluster, no database, nothing to install
  sentinel dev examples/hello.yaml

  # In a cluster, with the kubeconfig of kubectl
  sentinel check
  sentinel run --all -- uname -a
  sentinel get tasks
  sentinel logs -f hello
  sentinel nodes

Exit codes: 0 success, 1 failure, 2 usage error, 124 timed out, 130 interrupted by Ctrl-C.";

/// Run commands on nodes, follow their output, and show their results.
#[derive(Debug, Parser)]
#[command(name = "sentinel", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// An invalid command line, or a request for help or the version.
#[derive(Debug)]
pub(crate) struct ParseError {
    /// The error of clap.
    pub(crate) error: clap::Error,
    /// What was probably meant.
    pub(crate) hint: Option<String>,
}

impl Cli {
    /// Parses a command line.
    ///
    /// # Errors
    /// [`ParseError`], also when help or the version is requested.
    pub(crate) fn parse_args(words: impl IntoIterator<Item = OsString>) -> Result<Self, Box<ParseError>> {
        let words: Vec<OsString> = words.into_iter().collect();
        let mut command = crate::program::phrased_help(ignore_empty_variables(Self::command()));
        let mut parse = |words: &[OsString]| {
            let matches = command.try_get_matches_from_mut(words)?;
            Self::from_arg_matches(&matches)
        };
        parse(&words)
            .or_else(|error| parted(&words, &error).map_or(Err(error), |words| parse(&words)))
            .map_err(|error| Box::new(ParseError { hint: missing_dashes(&words, &error), error }))
    }
}

/// `get task hello` for `get task/hello`, as `-o name` prints it.
fn parted(words: &[OsString], error: &clap::Error) -> Option<Vec<OsString>> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let (noun, name) = unknown.split_once('/')?;
    let root = Cli::command();
    let noun_takes_name = root.find_subcommand("get")?.find_subcommand(noun)?.get_positionals().next();
    let at = words.iter().position(|word| word == unknown.as_str())?;
    let is_of_get = words[..at].iter().any(|word| word == "get");
    noun_takes_name.filter(|_| is_of_get && !name.is_empty())?;
    let mut parted = words.to_vec();
    parted.splice(at..=at, [noun.into(), name.into()]);
    Some(parted)
}

/// The nouns of `get`, in the plural and the singular.
const NOUNS: [(&str, &str); 4] =
    [("tasks", "task"), ("runs", "run"), ("executions", "execution"), ("nodes", "node")];

/// The command line as shells complete it. Nouns of `get` are offered in the plural, as kubectl does; a shell is offered
/// only one of the names that are shown, and that was the shorter one.
pub(crate) fn command_for_completion() -> clap::Command {
    Cli::command().mut_subcommand("get", |get| {
        NOUNS.into_iter().fold(get, |get, (plural, singular)| {
            get.mut_subcommand(plural, |noun| noun.visible_alias(None::<&'static str>).alias(singular))
        })
    })
}

/// An empty environment variable counts as unset: scripts clear variables that way.
fn ignore_empty_variables(mut command: clap::Command) -> clap::Command {
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
        command = command.mut_subcommand(verb, ignore_empty_variables);
    }
    command
}

/// The corrected form of `sentinel run uname -a`, where the `--` is missing.
fn missing_dashes(words: &[OsString], error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(unexpected)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument || unexpected.starts_with('-') {
        return None;
    }
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    // The verb is the first argument with the name of one: `get run` is another.
    let verb = words.iter().position(|word| Cli::command().find_subcommand(word).is_some())?;
    if words[verb] != "run" {
        return None;
    }
    let at = verb + words[verb..].iter().position(|word| word == unexpected)?;
    let quoted =
        |words: &[String]| words.iter().map(|word| crate::output::quoted(word)).collect::<Vec<_>>().join(" ");
    Some(format!("Put -- before the command: sentinel {} -- {}", quoted(&words[1..at]), quoted(&words[at..])))
}

/// Where help has the flags of every verb: behind those of its own.
const GLOBAL: &str = "Global Options";

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Address of the server: `https://HOST[:PORT][/PATH]`, `http://HOST[:PORT]` or `unix:/PATH`. Without it: your own dev
    /// mode, if it runs on its default port, otherwise the cluster of the kubeconfig.
    #[arg(long, global = true, help_heading = GLOBAL, env = "SENTINEL_SERVER", value_name = "URL")]
    pub(crate) server: Option<Server>,

    /// File with the authorities of the certificate of --server https://…, PEM; without it those of this system.
    #[arg(long, global = true, help_heading = GLOBAL, env = "SENTINEL_CERTIFICATE_AUTHORITY", value_name = "FILE")]
    pub(crate) certificate_authority: Option<PathBuf>,

    /// The kubeconfig; without it as kubectl finds it, or in a pod the service account. Replaces --server.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILE", conflicts_with = "server")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig. Replaces --server.
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "NAME",
        conflicts_with = "server",
        add = completer(Wanted::Context)
    )]
    pub(crate) context: Option<String>,

    /// Act as this user, if the cluster lets you. Replaces --server.
    #[arg(long = "as", global = true, help_heading = GLOBAL, value_name = "USER", conflicts_with = "server")]
    pub(crate) as_user: Option<String>,

    /// Act as a member of this group; may be repeated. Replaces --server.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "GROUP", conflicts_with = "server")]
    pub(crate) as_group: Vec<String>,

    /// File with the bearer token for --server; your own dev mode and a cluster need none.
    #[arg(long, global = true, help_heading = GLOBAL, env = "SENTINEL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Namespace of the Tasks; without it that of the kubeconfig's context, or default.
    #[arg(
        short,
        long,
        global = true,
        help_heading = GLOBAL,
        env = "SENTINEL_NAMESPACE",
        value_name = "NAME",
        add = completer(Wanted::Namespace)
    )]
    pub(crate) namespace: Option<String>,

    /// When to use colors.
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: ColorChoice,
}

impl Global {
    /// Where the requests go.
    pub(crate) fn place(&self) -> Place {
        Place {
            server: self.server.clone(),
            authority: self.certificate_authority.clone(),
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            as_user: self.as_user.clone(),
            as_group: self.as_group.clone(),
            token_file: self.token_file.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run operator and agents on this machine: no cluster, no database, no containers.
    Dev(DevArgs),
    /// Run a command on nodes and show its output.
    Run(Box<RunArgs>),
    /// Create or update Tasks from files.
    Apply(ApplyArgs),
    /// List Tasks, Runs, Executions or nodes.
    Get(GetArgs),
    /// Show the output of a Task, or of one Execution.
    Logs(LogsArgs),
    /// List nodes with their status and resources.
    Nodes(NodesArgs),
    /// Wait until a Task has ended.
    Wait(WaitArgs),
    /// Cancel the Run of a Task.
    Cancel(CancelArgs),
    /// Run a Task again, unchanged.
    Rerun(RerunArgs),
    /// Approve a Run of another person that its ceiling allows only then.
    Approve(ApproveArgs),
    /// Delete Tasks; their Runs are cancelled.
    Delete(DeleteArgs),
    /// Open the web page in a browser, signed in.
    Ui(UiArgs),
    /// Check the policy of a node, and what it decides about a Task.
    Policy(PolicyArgs),
    /// Check the ceilings of Tasks.
    Ceilings(CeilingsArgs),
    /// Sign Tasks with an SSH key, for nodes whose policy asks for that.
    Sign(SignArgs),
    /// Check a cluster before installation, or an installation, with what to do about each problem.
    Check(CheckArgs),
    /// Write a support bundle without secrets.
    Report(ReportArgs),
    /// Verify audit records, and list the heads that History has of them.
    Audit(AuditArgs),
    /// Print the version.
    Version,
    /// Print the completion script of a shell.
    Completion(CompletionArgs),
    /// Print docs/reference/cli.md.
    #[command(hide = true)]
    Reference,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, Box<ParseError>> {
        Cli::parse_args(words.iter().map(|word| OsString::from(*word)))
    }

    #[test]
    fn every_verb_and_argument_has_a_help_text() {
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

    /// The exclusions of `logs --grep` and `--fold` were nowhere to be read.
    #[test]
    fn help_names_what_each_flag_excludes() {
        let flag = |argument: &clap::Arg| argument.get_long().map(|long| format!("--{long}"));
        let names = |argument: &clap::Arg, flag: &str| {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            help.split([',', ' ', '.', ';']).any(|word| word == flag)
        };
        for verb in Cli::command().get_subcommands() {
            for argument in verb.get_arguments() {
                for other in verb.get_arg_conflicts_with(argument) {
                    let (Some(this), Some(that)) = (flag(argument), flag(other)) else { continue };
                    // Each excludes the other, so the help of one is enough.
                    let is_named = names(argument, &that) || names(other, &this);
                    assert!(is_named, "{}: {this} excludes {that}, and no help has it", verb.get_name());
                }
            }
        }
    }

    #[test]
    fn run_takes_everything_after_the_dashes_as_the_command() {
        let cli = Cli::try_parse_from(["sentinel", "run", "--all", "--", "ls", "-l", "--all"]).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("not run") };
        assert_eq!(run.command, ["ls", "-l", "--all"]);
        assert!(Cli::try_parse_from(["sentinel", "run", "--all"]).is_err());
        assert!(Cli::try_parse_from(["sentinel", "run", "--all", "-l", "a=b", "--", "ls"]).is_err());
    }

    #[test]
    fn a_command_without_dashes_is_corrected_in_a_hint() {
        let hint = |words: &[&str]| parse(words).unwrap_err().hint;
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
        assert_eq!(hint(&["sentinel", "get", "run", "a", "b"]), None);
    }

    #[test]
    fn outcomes_and_states_are_matched_in_any_case() {
        let Ok(Cli { verb: Verb::Get(get), .. }) =
            parse(&["sentinel", "get", "executions", "--outcome", "oomkilled", "--state", "ENDED"])
        else {
            panic!("rejected")
        };
        let Noun::Executions(filter) = get.noun else { panic!("not executions") };
        assert_eq!((filter.outcome(), filter.state), (Some("OomKilled"), Some(StateFilter::Ended)));
        assert!(parse(&["sentinel", "get", "executions", "--outcome", "great"]).is_err());
    }

    #[test]
    fn nouns_are_read_in_the_singular_and_plural_and_before_a_name() {
        for nouns in [
            &["task", "tasks", "stask", "stasks"][..],
            &["run", "runs"],
            &["execution", "executions", "exec", "execs"],
            &["node", "nodes", "no"],
        ] {
            for noun in nouns {
                assert!(parse(&["sentinel", "get", noun]).is_ok(), "{noun}");
            }
        }
        for (word, expected) in
            [("task/hello", "hello"), ("tasks/ops/hello", "ops/hello"), ("execution/hello/1/a", "hello/1/a")]
        {
            let cli = parse(&["sentinel", "-n", "a", "get", "-o", "json", word]).unwrap();
            let Verb::Get(get) = cli.verb else { panic!("not get") };
            let name = match get.noun {
                Noun::Tasks { name } => format!("{name:?}"),
                Noun::Executions(executions) => format!("{:?}", executions.name),
                _ => String::new(),
            };
            let expected = expected.rsplit('/').next().unwrap();
            assert!(name.contains(expected), "{word}: {name}");
        }
        for word in ["task/", "run/hello", "weather/hello"] {
            assert!(parse(&["sentinel", "get", word]).is_err(), "{word}");
        }
        assert!(parse(&["sentinel", "run", "task/hello"]).is_err());
        command_for_completion().debug_assert();
    }

    #[test]
    fn a_script_replaces_the_command() {
        assert!(parse(&["sentinel", "run", "--script", "a.sh"]).is_ok());
        assert!(parse(&["sentinel", "run", "--script", "a.sh", "--", "ls"]).is_err());
        assert!(parse(&["sentinel", "run", "--ttl", "0s", "--", "ls"]).is_ok());
        assert!(parse(&["sentinel", "logs", "a", "--since", "yesterday"]).is_err());
    }
}
