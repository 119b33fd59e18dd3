//! Candidates for the completion of a command line, from its server: Tasks, nodes, namespaces, Runs and Executions. Where
//! the server does not answer in time, there are none, and no message: a shell waits for them with each key.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use serde_json::Value;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};

use crate::client::{Client, ClientError, Query};
use crate::cluster::settings::contexts;
use crate::connection::{Connection, Place, Target, connect};

/// The environment variable by which a shell asks for candidates.
pub(crate) const VARIABLE: &str = "SENTINEL_COMPLETE";

/// How long a shell waits.
const DEADLINE: Duration = Duration::from_millis(250);

/// The same with a cluster, which may be far, and whose credentials may be from a plugin.
const CLUSTER_DEADLINE: Duration = Duration::from_millis(1500);

/// Most rows of a list that are read.
const MOST: usize = 1000;

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A Task: NAME or NAMESPACE/NAME.
    Task,
    /// An Execution: TASK/RUN/NODE, or a beginning of it.
    Execution,
    /// A Task or an Execution.
    Subject,
    /// The number of a Run of the Task that the command line names.
    Run,
    /// A node.
    Node,
    /// A namespace: of the cluster, or one that has a Task.
    Namespace,
    /// A context of the kubeconfig.
    Context,
}

/// Completes an argument that names this.
pub(crate) fn completer(wanted: Wanted) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let Some(current) = current.to_str() else { return Vec::new() };
        let line = CommandLine::of(std::env::args_os(), |name| std::env::var(name).ok());
        let (kind, wanted, rest) = parted(wanted, current);
        let found = candidates(&line, wanted, rest);
        let fits = |text: &String| text.starts_with(current) && is_plain(text);
        found
            .into_iter()
            .map(|name| format!("{kind}{name}"))
            .filter(fits)
            .map(CompletionCandidate::new)
            .collect()
    })
}

/// What is typed without its kind, `task/` or `execution/`, which is kept.
fn parted(wanted: Wanted, current: &str) -> (&'static str, Wanted, &str) {
    let kinds = [("task/", Wanted::Task), ("execution/", Wanted::Execution)];
    for (kind, of) in kinds {
        if let Some(rest) = current.strip_prefix(kind)
            && (wanted == of || wanted == Wanted::Subject)
        {
            return (kind, of, rest);
        }
    }
    ("", wanted, current)
}

/// Only characters that no shell interprets: a server must not be able to put others on a command line.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./_".contains(&byte))
}

fn candidates(line: &CommandLine, wanted: Wanted, current: &str) -> Vec<String> {
    if wanted == Wanted::Context {
        return contexts(line.place.kubeconfig.as_ref());
    }
    if !line.is_usable {
        return Vec::new();
    }
    let deadline = match line.place.target() {
        Target::Direct(_) => DEADLINE,
        Target::Cluster(_) => CLUSTER_DEADLINE,
    };
    // A plugin for credentials blocks its thread.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let (line, current) = (line.clone(), current.to_owned());
    let asked = runtime.spawn(async move {
        let connection = connect(&line.place, false).await.ok()?;
        from_server(&connection, &line, wanted, &current).await.ok()
    });
    let found = runtime.block_on(async { tokio::time::timeout(deadline, asked).await });
    // Resolving a name must not delay the shell.
    runtime.shutdown_background();
    found.ok().and_then(Result::ok).flatten().unwrap_or_default()
}

async fn from_server(
    connection: &Connection,
    line: &CommandLine,
    wanted: Wanted,
    current: &str,
) -> Result<Vec<String>, ClientError> {
    let (client, namespace) = (&connection.client, connection.namespace.as_str());
    // A warning would be among the candidates.
    let client = &client.clone().on_warning(|_| {});
    match wanted {
        Wanted::Context => Ok(Vec::new()),
        Wanted::Node => Ok(client.nodes().await?.into_iter().map(|node| node.name).collect()),
        Wanted::Namespace => {
            if let Some(all) = namespaces(connection).await {
                return Ok(all);
            }
            let tasks = list(client, "/api/v1/tasks", &[]).await?;
            let all: BTreeSet<String> =
                tasks.iter().map(|task| text(&task["metadata"]["namespace"])).collect();
            Ok(all.into_iter().collect())
        }
        Wanted::Task => tasks(client, namespace, current).await,
        Wanted::Run => match &line.task {
            None => Ok(Vec::new()),
            Some(task) => {
                let (namespace, task) = task.split_once('/').unwrap_or((namespace, task));
                let runs = list(client, "/api/v1/runs", &[("namespace", namespace), ("task", task)]).await?;
                Ok(runs.iter().map(|run| run["run"].to_string()).collect())
            }
        },
        Wanted::Execution => executions(client, namespace, current).await,
        Wanted::Subject => {
            let mut found = tasks(client, namespace, current).await?;
            if current.contains('/') {
                found.extend(executions(client, namespace, current).await?);
            }
            Ok(found)
        }
    }
}

/// The namespaces of a cluster, where the caller may list them.
async fn namespaces(connection: &Connection) -> Option<Vec<String>> {
    let (cluster, _) = connection.cluster.as_ref()?;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let listed = namespaces.list_metadata(&ListParams::default().limit(MOST as u32)).await.ok()?;
    Some(listed.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
}

/// `NAME`, or `NAMESPACE/NAME` once a namespace is written.
async fn tasks(client: &Client, namespace: &str, current: &str) -> Result<Vec<String>, ClientError> {
    let written = current.split_once('/').map(|(namespace, _)| namespace);
    let found = list(client, "/api/v1/tasks", &[("namespace", written.unwrap_or(namespace))]).await?;
    let name = |task: &Value| match written {
        None => text(&task["metadata"]["name"]),
        Some(namespace) => format!("{namespace}/{}", text(&task["metadata"]["name"])),
    };
    Ok(found.iter().map(name).collect())
}

/// `TASK`, then `TASK/RUN`, then `TASK/RUN/NODE`.
async fn executions(client: &Client, namespace: &str, current: &str) -> Result<Vec<String>, ClientError> {
    let parts: Vec<&str> = current.split('/').collect();
    match parts[..] {
        [task, _] => {
            let runs = list(client, "/api/v1/runs", &[("namespace", namespace), ("task", task)]).await?;
            Ok(runs.iter().map(|run| format!("{task}/{}", run["run"])).collect())
        }
        [task, run, _] => {
            let query = [("namespace", namespace), ("task", task), ("run", run)];
            let found = list(client, "/api/v1/executions", &query).await?;
            Ok(found.iter().map(|one| format!("{task}/{run}/{}", text(&one["node"]))).collect())
        }
        [_] => tasks(client, namespace, current).await,
        _ => Ok(Vec::new()),
    }
}

async fn list(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, ClientError> {
    let mut parameters = Query::default();
    for (name, value) in query {
        parameters.add(name, value);
    }
    Ok(client.list(path, parameters, MOST, None).await?.items)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What is known of the command line that is being completed.
#[derive(Debug, Clone)]
struct CommandLine {
    /// The flags by which the server is found.
    place: Place,
    /// The Task that it names: that of `--task`, or its first argument after the verb.
    task: Option<String>,
    /// Whether the server that it names can be one.
    is_usable: bool,
}

/// Flags whose value is the next word.
const WITH_VALUE: [&str; 22] = [
    "--attempt",
    "--color",
    "--exclude",
    "--for",
    "--from",
    "--grep",
    "--limit",
    "--name",
    "--node",
    "--outcome",
    "--output",
    "-o",
    "--page",
    "--run",
    "--since",
    "--sort-by",
    "--state",
    "--stream",
    "--tail",
    "--timeout",
    "--token",
    "--filename",
];

impl CommandLine {
    /// Reads the words that a shell hands over, behind `--`; `variable` reads the environment.
    fn of(words: impl IntoIterator<Item = OsString>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut server = set("SENTINEL_SERVER");
        let mut place = Place {
            token_file: set("SENTINEL_TOKEN_FILE").map(PathBuf::from),
            authority: set("SENTINEL_CERTIFICATE_AUTHORITY").map(PathBuf::from),
            namespace: set("SENTINEL_NAMESPACE"),
            ..Place::default()
        };
        let words = words.into_iter().map(|word| word.to_string_lossy().into_owned());
        // Behind the `--` of the shell is the name of the program.
        let mut words = words.skip_while(|word| word != "--").skip(2);
        let mut named: Option<String> = None;
        let mut arguments: Vec<String> = Vec::new();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
                _ => (word, None),
            };
            let mut value = || value.clone().or_else(|| words.next()).unwrap_or_default();
            match flag.as_str() {
                "--server" => server = Some(value()),
                "--kubeconfig" => place.kubeconfig = Some(value().into()),
                "--context" => place.context = Some(value()),
                "--as" => place.as_user = Some(value()),
                "--as-group" => place.as_group.push(value()),
                "--token-file" => place.token_file = Some(value().into()),
                "--certificate-authority" => place.authority = Some(value().into()),
                "-n" | "--namespace" => place.namespace = Some(value()),
                "--task" => named = Some(value()),
                flag if WITH_VALUE.contains(&flag) => drop(value()),
                flag if flag.starts_with('-') => {}
                _ => arguments.push(flag),
            }
        }
        // `get` has a noun between its name and the Task.
        let at = if arguments.first().is_some_and(|verb| verb == "get") { 2 } else { 1 };
        let first = arguments.into_iter().nth(at).filter(|text| !text.is_empty());
        let task = named.or(first).map(|task| task.strip_prefix("task/").unwrap_or(&task).to_owned());
        // One that is being typed names no server.
        let is_absent = server.is_none();
        place.server = server.and_then(|text| text.parse().ok());
        let is_usable = is_absent || place.server.is_some();
        Self { place, task, is_usable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str], variables: &[(&str, &str)]) -> CommandLine {
        let words = ["sentinel", "--", "sentinel"].iter().chain(words).map(OsString::from);
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        CommandLine::of(words, variable)
    }

    #[test]
    fn server_namespace_and_task_come_from_the_words_and_the_environment() {
        let server = |line: &CommandLine| line.place.server.as_ref().map(ToString::to_string);
        let plain = line(&["logs", "--tail", "5", "task/web", "--run", ""], &[]);
        assert_eq!((server(&plain), plain.place.namespace), (None, None));
        assert_eq!(plain.task.as_deref(), Some("web"));
        let set =
            [("SENTINEL_SERVER", "unix:/s"), ("SENTINEL_NAMESPACE", "ops"), ("SENTINEL_TOKEN_FILE", "")];
        let full = line(&["-n", "db", "get", "executions", "--task=a", "--run", ""], &set);
        assert_eq!(server(&full).as_deref(), Some("unix:/s"));
        assert_eq!(full.place.namespace.as_deref(), Some("db"));
        assert_eq!((full.task.as_deref(), full.place.token_file), (Some("a"), None));
        assert_eq!(line(&["get", "task", "web", ""], &[]).task.as_deref(), Some("web"));
        let command = line(&["run", "--all", "--", "ls", "--server", "http://evil"], &[]);
        assert_eq!((server(&command), command.task), (None, None));
        let cluster = line(&["--context", "prod", "logs", "--as=jane", ""], &[]);
        assert_eq!(cluster.place.context.as_deref(), Some("prod"));
        assert_eq!(cluster.place.as_user.as_deref(), Some("jane"));
        assert!(!line(&["--server", "ftp://x", "logs", ""], &[]).is_usable);
    }

    #[test]
    fn the_kind_before_a_name_is_kept() {
        assert_eq!(parted(Wanted::Task, "task/w"), ("task/", Wanted::Task, "w"));
        assert_eq!(parted(Wanted::Subject, "task/ops/w"), ("task/", Wanted::Task, "ops/w"));
        assert_eq!(parted(Wanted::Subject, "execution/w/1"), ("execution/", Wanted::Execution, "w/1"));
        assert_eq!(parted(Wanted::Task, "execution/w"), ("", Wanted::Task, "execution/w"));
        assert_eq!(parted(Wanted::Subject, "w"), ("", Wanted::Subject, "w"));
    }

    #[test]
    fn only_plain_names_are_candidates() {
        assert!(
            is_plain("ops/web-1.example/3") && !is_plain("$(reboot)") && !is_plain("a b") && !is_plain("a;b")
        );
    }
}
