//! `logs`: the output of a Task, or of one execution.

use std::collections::BTreeSet;

use sentinel_protocol::log::Stream;

use super::execution;
use crate::args::{LogsArgs, StreamFilter};
use crate::client::{Client, Query, task_path};
use crate::exit::{Ended, FAILED, Failure, INTERRUPTED, OK};
use crate::follow::{Attempts, Form, Look, NodeLog, Subject, Which, follow, log_path, while_watching};
use crate::interrupt::{Came, or_interrupt};
use crate::output::format::note;
use crate::output::printer::Prefix;
use crate::output::text::Text;
use crate::view::Task;

pub(super) async fn perform(client: &Client, namespace: &str, args: &LogsArgs) -> Ended {
    let look = Look {
        timestamps: args.timestamps,
        stream: args.stream.map(|stream| match stream {
            StreamFilter::Stdout => Stream::Stdout,
            StreamFilter::Stderr => Stream::Stderr,
        }),
        from: args.from,
        tail: args.tail,
        since: args.since,
        follow: args.follow,
        form: Form::Text,
    };
    let work = async {
        match args.what.matches('/').count() {
            0 => of_task(client, namespace, &args.what, args, look).await,
            1 => {
                let (namespace, name) = args.what.split_once('/').unwrap_or((namespace, &args.what));
                of_task(client, namespace, name, args, look).await
            }
            _ => of_execution(client, namespace, args, look).await,
        }
    };
    match or_interrupt(Box::pin(work)).await? {
        Came::Through(ended) => ended,
        Came::Interrupted => Ok(INTERRUPTED),
    }
}

async fn of_execution(client: &Client, namespace: &str, args: &LogsArgs, look: Look) -> Ended {
    let path = format!("{}/log", execution::path_of(client, namespace, &args.what).await?);
    let attempts = args.attempt.map_or(Attempts::Latest, Attempts::Only);
    let (node, prefix, client) = (String::new(), Prefix::None, client.clone());
    let log = NodeLog { client: client.clone(), path, node, prefix, look, attempts, places: None };
    let printed = Box::pin(log.print());
    if look.follow {
        while_watching(&client, printed).await?;
    } else {
        printed.await?;
    }
    Ok(OK)
}

async fn of_task(client: &Client, namespace: &str, name: &str, args: &LogsArgs, look: Look) -> Ended {
    let only: BTreeSet<String> = args.node.iter().cloned().collect();
    if args.attempt.is_some() {
        return Err(Failure::usage("--attempt is of one execution")
            .hint(format!("Name it: sentinel logs {name}/RUN/NODE --attempt N")));
    }
    if args.from > 0 && only.len() != 1 {
        return Err(Failure::usage("--from is a position in the log of one node")
            .hint("Say which with --node, or name an execution"));
    }
    let prefixed = if args.no_prefix { Some(false) } else { None };
    let current = match client.get(&task_path(namespace, name)).await {
        Ok(value) => Some(Task::of(&value)),
        // The Task may be gone and its output still be kept.
        Err(failure) if args.run.is_some() && failure.message.contains("no Task") => None,
        Err(failure) if failure.message.contains("no Task") => {
            return of_past(client, namespace, name, None, &only, prefixed, look, failure).await;
        }
        Err(failure) => return Err(failure),
    };
    let latest = current.as_ref().and_then(|task| task.status.run.as_ref()).map(|run| run.number);
    match (current, args.run) {
        (Some(_), None) if args.follow => {
            let subject = Subject {
                client: client.clone(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                which: latest.map_or(Which::Latest, Which::Number),
                only,
                look,
                prefixed,
                origin: None,
            };
            follow(subject).await?;
            Ok(OK)
        }
        (Some(_), None) if latest.is_none() => {
            note(&format!("Task {namespace}/{name} has not run yet."));
            Ok(OK)
        }
        (_, run) => {
            let missing = Failure::new(format!("no output of {namespace}/{name} is kept"))
                .hint(format!("See: sentinel get runs --task {name}"));
            of_past(client, namespace, name, run.or(latest), &only, prefixed, look, missing).await
        }
    }
}

/// The output of a Run that History knows, node after node.
#[expect(clippy::too_many_arguments, reason = "one call site's worth of flags")]
async fn of_past(
    client: &Client,
    namespace: &str,
    name: &str,
    run: Option<u32>,
    only: &BTreeSet<String>,
    prefixed: Option<bool>,
    look: Look,
    missing: Failure,
) -> Ended {
    let mut query = Query::default();
    query.add("namespace", namespace);
    query.add("task", name);
    query.maybe("run", run);
    let mut items = client.list_all("/api/v1/executions", query).await?;
    // Those of one Task and one Run: the newest, where none was named.
    let newest = items.first().map(|item| (item["taskUid"].clone(), item["run"].clone()));
    items.retain(|item| {
        newest.as_ref().is_some_and(|(uid, run)| item["taskUid"] == *uid && item["run"] == *run)
    });
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    let nodes: Vec<(String, String)> = items
        .iter()
        .map(|item| {
            let node = text(&item["node"]);
            let run = item["run"].as_u64().unwrap_or(0) as u32;
            (log_path(&text(&item["taskUid"]), run, &node), node)
        })
        .filter(|(_, node)| only.is_empty() || only.contains(node))
        .collect();
    if nodes.is_empty() {
        return Err(missing);
    }
    let width = nodes.iter().map(|(_, node)| node.len()).max().unwrap_or(0);
    let many = nodes.len() > 1;
    let mut ended = OK;
    for (path, node) in nodes {
        let prefix = if prefixed.unwrap_or(many) {
            Prefix::Node { name: node.clone(), origin: None, width }
        } else {
            Prefix::None
        };
        let attempts = Attempts::Latest;
        let log = NodeLog {
            client: client.clone(),
            path,
            node: node.clone(),
            prefix,
            look,
            attempts,
            places: None,
        };
        match Box::pin(log.print()).await {
            Ok(()) => {}
            // The output of one node that cannot be had hides none of the others'.
            Err(failure) if many && failure.code == FAILED => {
                note(Text::sentinel().then(format!("{node}: {failure}")));
                ended = FAILED;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(ended)
}
