//! `rerun`: runs a Task again, unchanged; or its latest Run on the nodes that did not succeed, as a Task of its own, because
//! a Run has every node that its targets select.

use sentinel_api::view::ExecutionView;
use serde_json::{Value, json};

use super::flags::context_flags;
use super::run;
use crate::args::RerunArgs;
use crate::client::{Client, Query};
use crate::exit::{ExitResult, Failure, OK};
use crate::follow::RunSelector;
use crate::output::format::{note, print};
use crate::output::text::Text;
use crate::view::Task;

/// Most nodes that a Task can name.
const MAX_NODES: usize = 1000;

/// Longest name of a Task that is made here, as the operator counts it for labels.
const MAX_NAME: usize = 63;

pub(super) async fn execute(client: &Client, namespace: &str, args: &RerunArgs) -> ExitResult {
    let (namespace, name) = args.task.within(namespace);
    if args.failed {
        return rerun_failed(client, namespace, name, args).await;
    }
    let token = client.rerun_task(namespace, name, args.token.as_deref()).await?;
    if args.follow {
        let run = RunSelector::OfToken(token);
        return run::watch(client, namespace, name, run, run::Display::default()).await;
    }
    print(&format!("task/{name} rerun requested (token {token})\n"))?;
    Ok(OK)
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
        let message = format!("{} nodes did not succeed; a Task can name at most {MAX_NODES}", nodes.len());
        return Err(
            Failure::new(message).hint(format!("Run it on all nodes again with: sentinel rerun {name}"))
        );
    }
    let suffix = format!("-rerun-{}", run.number);
    let new = args.name.clone().unwrap_or_else(|| shortened(name, &suffix));
    let body = on_nodes(&value, &new, &nodes);
    client.create_task(&body).await.map_err(Failure::from).map_err(|failure| {
        if !failure.is_conflict() {
            return failure;
        }
        let flags = context_flags(client, namespace);
        failure.hint(format!(
            "Run that one again with: sentinel rerun {new}{flags}\nOr choose another name: sentinel rerun {name} --failed --name NAME{flags}"
        ))
    })?;
    if args.follow {
        note(Text::message().plain(format!("task {namespace}/{new} on {} nodes", nodes.len())));
        return run::watch(client, namespace, &new, RunSelector::Latest, run::Display::default()).await;
    }
    print(&format!(
        "task/{new} created for {} nodes that did not succeed in run {}\n",
        nodes.len(),
        run.number
    ))?;
    Ok(OK)
}

/// The nodes that ended otherwise than with success.
fn unsuccessful(executions: Vec<ExecutionView>) -> Vec<String> {
    let failed = |item: &ExecutionView| item.outcome.as_deref().is_some_and(|outcome| outcome != "Succeeded");
    executions.into_iter().filter(failed).map(|item| item.node).collect()
}

/// The name with the suffix, cut to fit.
fn shortened(name: &str, suffix: &str) -> String {
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

    #[test]
    fn a_long_name_is_cut_for_its_suffix() {
        assert_eq!(shortened("web", "-rerun-3"), "web-rerun-3");
        let long = shortened(&format!("{}-{}", "a".repeat(54), "b".repeat(20)), "-rerun-3");
        assert_eq!(long, format!("{}-rerun-3", "a".repeat(54)));
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
