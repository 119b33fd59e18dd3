//! `logs`: the output of a Task, or of one Execution.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use std::collections::BTreeSet;

use sentinel_api::view::ExecutionView;
use sentinel_protocol::log::Stream;
use unicode_width::UnicodeWidthStr as _;

use super::flags::context_flags;
use super::grep::Searched;
use super::{execution, fold, grep, log_lines};
use crate::args::{LogFormat, LogsArgs, LogsSubject, StreamFilter};
use crate::client::{Client, LineSource, Query};
use crate::exit::{ExitResult, FAILED, Failure, INTERRUPTED, OK};
use crate::follow::{
    AttemptSelector, FollowEnd, FollowRequest, LogOptions, NodeLog, RunSelector, follow, log_path, summarize,
    with_run, with_server_watch,
};
use crate::interrupt::{Interruptible, Interrupts};
use crate::output::format::{StreamFormat, note};
use crate::output::printer::Prefix;
use crate::output::text::Text;
use crate::view::Task;

pub(super) fn execute<'a>(
    client: &'a Client,
    namespace: &'a str,
    args: &'a LogsArgs,
) -> LocalBoxFuture<'a, ExitResult> {
    executed(client, namespace, args).boxed_local()
}

async fn executed(client: &Client, namespace: &str, args: &LogsArgs) -> ExitResult {
    check_format(args)?;
    let options = LogOptions {
        timestamps: args.timestamps,
        stream: args.stream.map(|stream| match stream {
            StreamFilter::Stdout => Stream::Stdout,
            StreamFilter::Stderr => Stream::Stderr,
        }),
        from: args.from,
        tail: args.tail,
        since: args.since,
        follow: args.follow,
        format: match args.output {
            LogFormat::Text => StreamFormat::Text,
            LogFormat::Raw => StreamFormat::Raw,
            LogFormat::Json => StreamFormat::Json,
        },
    };
    let work = async {
        match &args.subject {
            LogsSubject::Task(task) => {
                let (namespace, name) = task.within(namespace);
                let logs = TaskLogs::new(client, namespace, name, args, options)?;
                match &args.grep {
                    Some(pattern) => logs.grep(pattern).await,
                    None if args.fold => logs.print_folded().await,
                    None if args.output == LogFormat::Json => logs.print_lines().await,
                    None => logs.print().await,
                }
            }
            LogsSubject::Execution(_) if args.fold => {
                Err(Failure::usage("--fold compares the nodes of a Run: name a Task"))
            }
            LogsSubject::Execution(execution) => {
                of_execution(client, namespace, execution, args, options).await
            }
        }
    };
    match Interrupts::listen()?.until(Box::pin(work)).await {
        Interruptible::Done(result) => result,
        Interruptible::Interrupted => Ok(INTERRUPTED),
    }
}

/// Refuses flags that a format has no use for.
fn check_format(args: &LogsArgs) -> Result<(), Failure> {
    let (format, instead) = match args.output {
        LogFormat::Text => return Ok(()),
        LogFormat::Raw => ("raw", "Without -o, logs are text"),
        LogFormat::Json => ("json", "In JSON, each line has its node and its time (atMicros)"),
    };
    let is_task = matches!(args.subject, LogsSubject::Task(_));
    let is_json = args.output == LogFormat::Json;
    let conflicts = [
        ("--fold", args.fold, "Without -o, logs are text"),
        ("--grep", args.grep.is_some(), "Filter the lines with another program, such as jq or grep"),
        ("--timestamps", args.timestamps, instead),
        ("--no-prefix", args.no_prefix && is_json, instead),
        ("--tail", args.tail.is_some() && is_json && is_task, PER_NODE),
        ("--from", args.from > 0 && is_json && is_task, PER_NODE),
    ];
    match conflicts.into_iter().find(|(_, is_given, _)| *is_given) {
        None => Ok(()),
        Some((flag, _, hint)) => {
            Err(Failure::usage(format!("{flag} cannot be used with -o {format}")).hint(hint))
        }
    }
}

/// Why the merged log of a Run has no such flag.
const PER_NODE: &str = "It applies to the log of one node: name an Execution, TASK/RUN/NODE, or use --since";

async fn of_execution(
    client: &Client,
    namespace: &str,
    name: &str,
    args: &LogsArgs,
    options: LogOptions,
) -> ExitResult {
    let path = execution::path_of(client, namespace, name).await?;
    if let Some(pattern) = &args.grep {
        let searched = Searched { path, prefix: None, attempt: args.attempt };
        return grep::execute(client, &[searched], pattern, options.stream).await;
    }
    if args.output == LogFormat::Json {
        return log_lines::of_execution(client, &path, args.attempt, options).await;
    }
    let path = format!("{path}/log");
    let log = NodeLog {
        client: client.clone(),
        path,
        node: String::new(),
        prefix: Prefix::None,
        options,
        attempts: args.attempt.map_or(AttemptSelector::Latest, AttemptSelector::Number),
        permits: None,
    };
    let print = log.print_beside();
    if options.follow {
        with_server_watch(client, print).await?;
    } else {
        print.await?;
    }
    Ok(OK)
}

/// The logs of a Task: those of its current Run, or of an earlier one from History.
struct TaskLogs<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    run: Option<u32>,
    nodes: BTreeSet<String>,
    options: LogOptions,
    /// Whether lines have a prefix; `None`: with more than one node.
    prefixed: Option<bool>,
}

impl<'a> TaskLogs<'a> {
    fn new(
        client: &'a Client,
        namespace: &'a str,
        name: &'a str,
        args: &LogsArgs,
        options: LogOptions,
    ) -> Result<Self, Failure> {
        let nodes: BTreeSet<String> = args.node.iter().cloned().collect();
        if args.attempt.is_some() {
            return Err(Failure::usage("--attempt requires an execution")
                .hint(format!("Name it: sentinel logs {name}/RUN/NODE --attempt N")));
        }
        if args.from > 0 && nodes.len() != 1 {
            return Err(Failure::usage("--from is a position in the log of one node")
                .hint("Choose the node with --node, or name an execution"));
        }
        let prefixed = args.no_prefix.then_some(false);
        Ok(Self { client, namespace, name, run: args.run, nodes, options, prefixed })
    }

    async fn print(self) -> ExitResult {
        let (namespace, name) = (self.namespace, self.name);
        let task = match self.client.task(namespace, name).await {
            Ok(task) => Some(task),
            // The output of a deleted Task is still in History.
            Err(error) if error.is_absence() && self.run.is_some() => None,
            Err(error) if error.is_absence() => return self.print_archived(None, error.into()).await,
            Err(error) => return Err(error.into()),
        };
        let latest = task.as_ref().and_then(|task| task.status.run.as_ref()).map(|run| run.number);
        if task.is_some() && self.run.is_none() {
            if self.options.follow {
                return self.follow(latest.map_or(RunSelector::Latest, RunSelector::Number)).await;
            }
            if latest.is_none() {
                self.note_without_run(task.as_ref());
                return Ok(OK);
            }
        }
        let run = self.run.or(latest);
        let missing = self.missing(run);
        self.print_archived(run, missing).await
    }

    /// Why there is no output.
    fn note_without_run(&self, task: Option<&Task>) {
        let why = task.and_then(Task::already_executed).map(|condition| condition.message.as_str());
        let name = format!("{}/{}", self.namespace, self.name);
        match why {
            Some(why) => note(Text::message().plain(format!(
                "Task {name} runs nothing: {why}. Output of earlier Tasks: sentinel logs {} --run NUMBER",
                self.name
            ))),
            None => note(&format!("Task {name} has not run yet.")),
        }
    }

    /// Lines that match, of each node of a Run: of the newest without a number.
    async fn grep(&self, pattern: &str) -> ExitResult {
        let logs = self.archived(self.run).await?;
        if logs.is_empty() {
            return Err(self.missing(self.run));
        }
        let prefixed = self.prefixed.unwrap_or(logs.len() > 1);
        let of = |(path, node): (String, String)| Searched {
            path: path.trim_end_matches("/log").to_owned(),
            prefix: prefixed.then_some(node),
            attempt: None,
        };
        let searched: Vec<Searched> = logs.into_iter().map(of).collect();
        grep::execute(self.client, &searched, pattern, self.options.stream).await
    }

    /// The groups of equal output of a Run: of the newest without a number.
    async fn print_folded(&self) -> ExitResult {
        let (task_uid, run) = self.newest().await?;
        fold::print(self.client, &task_uid, run, self.options).await
    }

    /// Uid of the Task and number of the Run: of the newest without a number.
    async fn newest(&self) -> Result<(String, u32), Failure> {
        let mut query = Query::default();
        query.add("namespace", self.namespace);
        query.add("task", self.name);
        query.maybe("run", self.run);
        let listed = self.client.list("/api/v1/executions", query, 1, None).await?;
        let Some(newest) = listed.items.first() else { return Err(self.missing(self.run)) };
        let newest: ExecutionView = self.client.read("an Execution", newest)?;
        Ok((newest.task_uid, newest.run))
    }

    /// The lines of the nodes by time, as JSON.
    async fn print_lines(&self) -> ExitResult {
        let task = match self.client.task(self.namespace, self.name).await {
            Ok(task) => Some(task),
            Err(error) if error.is_absence() => None,
            Err(error) => return Err(error.into()),
        };
        let (task_uid, run) = match (task, self.run) {
            (Some(task), None) if task.status.run.is_some() || self.options.follow => {
                let task = with_run(self.client, self.namespace, self.name).await?;
                let run = task.status.run.as_ref().map_or(0, |run| run.number);
                (task.metadata.uid.clone(), run)
            }
            (Some(task), None) => {
                self.note_without_run(Some(&task));
                return Ok(OK);
            }
            _ => self.newest().await?,
        };
        let nodes: Vec<String> = self.nodes.iter().cloned().collect();
        let source = LineSource { task_uid: &task_uid, run, nodes: &nodes, stream: self.options.stream };
        log_lines::of_run(self.client, source, self.options).await.map_err(|failure| match failure.status {
            Some(404) => self.missing(Some(run)),
            Some(400) => failure.hint(format!(
                "Choose nodes with --node NAME, or name an Execution: sentinel logs {}/{run}/NODE -o json",
                self.name
            )),
            _ => failure,
        })
    }

    /// The failure when no Execution matches.
    fn missing(&self, run: Option<u32>) -> Failure {
        let (namespace, name) = (self.namespace, self.name);
        let run = run.map_or(String::new(), |run| format!(" of run {run}"));
        let nodes: Vec<&str> = self.nodes.iter().map(String::as_str).collect();
        let nodes = if nodes.is_empty() { String::new() } else { format!(" on node {}", nodes.join(" or ")) };
        Failure::new(format!("task {namespace}/{name} has no execution{run}{nodes}")).hint(format!(
            "List its Runs with: sentinel get runs --task {name}{}",
            context_flags(self.client, namespace)
        ))
    }

    async fn follow(self, run: RunSelector) -> ExitResult {
        let followed = follow(FollowRequest {
            client: self.client.clone(),
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            run,
            nodes: self.nodes,
            options: self.options,
            prefixed: self.prefixed,
            show_task: false,
            output_only: true,
        })
        .await?;
        if followed.end == FollowEnd::AlreadyExecuted {
            summarize(&followed);
        }
        Ok(OK)
    }

    /// Prints the logs of a Run node by node; of the newest without a number. Fails with `missing` without any.
    async fn print_archived(self, run: Option<u32>, missing: Failure) -> ExitResult {
        let logs = self.archived(run).await?;
        if logs.is_empty() {
            return Err(missing);
        }
        let width = logs.iter().map(|(_, node)| node.width()).max().unwrap_or(0);
        let many = logs.len() > 1;
        let mut code = OK;
        for (path, node) in logs {
            let prefix = if self.prefixed.unwrap_or(many) {
                Prefix::Node { name: node.clone(), task: None, width }
            } else {
                Prefix::None
            };
            let log = NodeLog {
                client: self.client.clone(),
                path,
                node: node.clone(),
                prefix,
                options: self.options,
                attempts: AttemptSelector::Latest,
                permits: None,
            };
            match log.print_beside().await {
                Ok(()) => {}
                // A missing log of one node must not hide those of the others.
                Err(failure) if many && failure.code == FAILED && !failure.is_refusal() => {
                    note(Text::message().plain(format!("{node}: {failure}")));
                    code = FAILED;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(code)
    }

    /// Path of the log, and node, of each Execution of the Run; of the newest Run without a number.
    async fn archived(&self, run: Option<u32>) -> Result<Vec<(String, String)>, Failure> {
        let mut query = Query::default();
        query.add("namespace", self.namespace);
        query.add("task", self.name);
        query.maybe("run", run);
        let items = self.client.executions(query).await?;
        let newest = items.first().map(|item| (item.task_uid.clone(), item.run));
        Ok(items
            .into_iter()
            .filter(|item| {
                newest.as_ref().is_some_and(|(uid, run)| item.task_uid == *uid && item.run == *run)
            })
            .filter(|item| self.nodes.is_empty() || self.nodes.contains(&item.node))
            .map(|item| (log_path(&item.task_uid, item.run, &item.node), item.node))
            .collect())
    }
}
