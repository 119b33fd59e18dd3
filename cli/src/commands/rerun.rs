//! `rerun`: runs a Task again, unchanged; or its latest Run on the nodes that did not succeed, as a Task of its own, because
//! a Run has every node that its targets select.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use sentinel_api::reason::Reason;
use sentinel_api::view::ExecutionView;
use serde_json::{Value, json};

use super::flags::context_flags;
use super::once::{self, Started};
use super::run;
use crate::args::RerunArgs;
use crate::client::{Client, ClientError, Query};
use crate::exit::{ExitResult, Failure, OK};
use crate::follow::RunSelector;
use crate::output::counted;
use crate::output::format::{note, print};
use crate::output::text::Text;
use crate::view::Task;

/// Most nodes that a Task can name.
const MAX_NODES: usize = 1000;

/// Longest name of a Task, as of every custom resource.
const MAX_NAME: usize = 253;

/// Most Tasks for the failed nodes of one Run; further ones need a name.
const MAX_RERUNS: u32 = 100;

pub(super) fn execute<'a>(
    client: &'a Client,
    namespace: &'a str,
    args: &'a RerunArgs,
) -> LocalBoxFuture<'a, ExitResult> {
    executed(client, namespace, args).boxed_local()
}

async fn executed(client: &Client, namespace: &str, args: &RerunArgs) -> ExitResult {
    let (namespace, name) = args.task.within(namespace);
    if args.failed {
        return rerun_failed(client, namespace, name, args).await;
    }
    if args.follow {
        once::ask_first(client, namespace, name).await?;
    }
    // Made here, so that it is known where the answer is lost.
    let token = args.token.clone().unwrap_or_else(generate_token);
    let token = client
        .rerun_task(namespace, name, Some(&token))
        .await
        .map_err(|error| not_requested(client, namespace, name, &token, error))?;
    if args.follow {
        let run = RunSelector::OfToken(token.clone());
        let followed = run::watch(client, namespace, name, run, run::Display::default()).await;
        let started = Started::Rerun(&token);
        return followed.map_err(|failure| once::not_followed(client, namespace, name, started, failure));
    }
    print(&format!("task/{name} rerun requested (token {token})\n"))?;
    Ok(OK)
}

/// A token that was not used before.
fn generate_token() -> String {
    format!("{:.3}-{}", jiff::Timestamp::now(), run::random_letters())
}

/// The failure of a request for a rerun, which may have been accepted if the answer was lost.
fn not_requested(client: &Client, namespace: &str, name: &str, token: &str, error: ClientError) -> Failure {
    let is_known = once::is_not_done(&error);
    let failure = Failure::from(error);
    if is_known {
        return failure;
    }
    let flags = context_flags(client, namespace);
    failure.hint(format!(
        "The rerun may have been requested. Repeated with this token, it runs once: sentinel rerun {name} --token {token}{flags}"
    ))
}

async fn rerun_failed(client: &Client, namespace: &str, name: &str, args: &RerunArgs) -> ExitResult {
    let value = client.get(&crate::client::task_path(namespace, name)).await?;
    let task: Task = client.read("a Task", &value)?;
    let Some(run) = &task.status.run else {
        return Err(Failure::new(format!("task {namespace}/{name} has no Run yet")));
    };
    if run.verdict.is_none() {
        let flags = context_flags(client, namespace);
        return Err(Failure::new(format!("run {} of task {namespace}/{name} has not ended", run.number))
            .hint(format!("Wait for it with: sentinel wait {name}{flags}")));
    }
    let mut query = Query::default();
    query.add("taskUid", &task.metadata.uid);
    query.add("run", run.number);
    let nodes = unsuccessful(client.executions(query).await?);
    if nodes.is_empty() {
        print(&format!("task/{name} run {}: every node succeeded; nothing to rerun\n", run.number))?;
        return Ok(OK);
    }
    if nodes.len() > MAX_NODES {
        let count = counted(nodes.len() as u64, "node");
        let message = format!("{count} did not succeed; a Task can name at most {MAX_NODES}");
        return Err(
            Failure::new(message).hint(format!("Run it on all nodes again with: sentinel rerun {name}"))
        );
    }
    if args.follow {
        once::ask_first(client, namespace, name).await?;
    }
    let new = create(client, &value, args.name.as_deref(), (name, run.number), &nodes).await?;
    let count = counted(nodes.len() as u64, "node");
    if args.follow {
        note(Text::message().plain(format!("task {namespace}/{new} on {count}")));
        let followed =
            run::watch(client, namespace, &new, RunSelector::Latest, run::Display::default()).await;
        return followed
            .map_err(|failure| once::not_followed(client, namespace, &new, Started::Task, failure));
    }
    print(&format!("task/{new} created for {count} that did not succeed in run {}\n", run.number))?;
    Ok(OK)
}

/// Creates a Task with the spec of this one, on these nodes; returns its name: the given one, or the first that is free.
async fn create(
    client: &Client,
    task: &Value,
    given: Option<&str>,
    (name, run): (&str, u32),
    nodes: &[String],
) -> Result<String, Failure> {
    let namespace = task["metadata"]["namespace"].as_str().unwrap_or("default");
    let most = if given.is_some() { 1 } else { MAX_RERUNS };
    for number in 1..=most {
        let new = given.map_or_else(|| name_of(name, run, number), str::to_owned);
        match client.create_task(&on_nodes(task, &new, nodes)).await {
            Ok(_) => return Ok(new),
            Err(error) if error.reason() == Some(Reason::AlreadyExists) => {}
            Err(error) => return Err(once::not_created(client, namespace, &new, error)),
        }
    }
    let flags = context_flags(client, namespace);
    let message = match given {
        Some(given) => format!("Task {namespace}/{given} exists already"),
        None => {
            format!("{most} Tasks for the nodes that did not succeed in run {run} of {name} exist already")
        }
    };
    Err(Failure::new(message)
        .hint(format!("Choose another name: sentinel rerun {name} --failed --name NAME{flags}")))
}

/// The nodes that ended otherwise than with success.
fn unsuccessful(executions: Vec<ExecutionView>) -> Vec<String> {
    let failed = |item: &ExecutionView| item.outcome.as_deref().is_some_and(|outcome| outcome != "Succeeded");
    executions.into_iter().filter(failed).map(|item| item.node).collect()
}

/// `web-rerun-3` for the failed nodes of Run 3 of `web`, then `web-rerun-3-2` and so on. A name that is too long is cut, and
/// gets a digest of all of it, so that Tasks whose names begin the same have different ones.
fn name_of(name: &str, run: u32, number: u32) -> String {
    let again = if number == 1 { String::new() } else { format!("-{number}") };
    let suffix = format!("-rerun-{run}{again}");
    if name.len() + suffix.len() <= MAX_NAME {
        return format!("{name}{suffix}");
    }
    // FNV-1a.
    let digest = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let suffix = format!("-{:08x}{suffix}", (digest ^ (digest >> 32)) as u32);
    let kept: String = name.chars().take(MAX_NAME - suffix.len()).collect();
    format!("{}{suffix}", kept.trim_end_matches(['-', '.']))
}

/// A new Task with the spec of this one, on these nodes.
fn on_nodes(task: &Value, name: &str, nodes: &[String]) -> Value {
    let mut spec = task["spec"].clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.insert("targets".to_owned(), json!({"nodeNames": nodes}));
        // A held back Task has no Run; and a token would only repeat that of the other Task.
        fields.remove("suspend");
        fields.remove("rerunToken");
    }
    json!({
        "apiVersion": task["apiVersion"],
        "kind": task["kind"],
        "metadata": {"name": name, "namespace": task["metadata"]["namespace"], "labels": task["metadata"]["labels"]},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names were cut to 63 characters, though a Task may have 253, and two that began the same got the same.
    #[test]
    fn a_long_name_is_cut_at_the_limit_of_tasks_and_remains_its_own() {
        assert_eq!(
            (name_of("web", 3, 1), name_of("web", 3, 2)),
            ("web-rerun-3".into(), "web-rerun-3-2".into())
        );
        let fits = "a".repeat(MAX_NAME - "-rerun-3".len());
        assert_eq!(name_of(&fits, 3, 1), format!("{fits}-rerun-3"));
        let long = |end: &str| format!("{}.{end}", "a".repeat(MAX_NAME - 2));
        let names = [("b", 3, 1), ("c", 3, 1), ("b", 3, 2), ("b", 4, 1)]
            .map(|(end, run, number)| name_of(&long(end), run, number));
        for name in &names {
            assert!(name.parse::<sentinel_protocol::ids::TaskName>().is_ok(), "{name}");
            assert!(name.len() <= MAX_NAME, "{name}");
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn the_new_task_differs_in_its_targets_and_is_not_held_back() {
        let task = json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
            "metadata": {"name": "web", "namespace": "ops", "uid": "u", "labels": {"a": "b"}},
            "spec": {"targets": {"all": true}, "run": {"command": ["true"]}, "suspend": true, "rerunToken": "x"},
            "status": {"phase": "Failed"},
        });
        let new = on_nodes(&task, "web-rerun-1", &["a".to_owned()]);
        assert_eq!(new["metadata"], json!({"name": "web-rerun-1", "namespace": "ops", "labels": {"a": "b"}}));
        assert_eq!(new["spec"], json!({"targets": {"nodeNames": ["a"]}, "run": {"command": ["true"]}}));
        assert_eq!(new.get("status"), None);
    }
}
