//! A real Task on one node, from its creation to its deletion.

use std::time::Duration;

use sentinel_api::client::{LogItem, LogQuery};
use sentinel_api::path;
use sentinel_api::view::ExecutionView;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::findings::Findings;
use crate::args::CheckArgs;
use crate::client::{Client, Query};
use crate::commands::once;
use crate::commands::run::random_name;
use crate::commands::wait::{Condition, wait_for};
use crate::connection::Connection;
use crate::exit::Failure;

/// What every image of an agent has.
const IN_IMAGE: [&str; 2] = ["/bin/node-agent", "--version"];

/// What every machine has.
const ON_MACHINE: [&str; 2] = ["echo", "hello"];

/// Pause between reads of a record that is not complete yet.
const PAUSE: Duration = Duration::from_millis(200);

/// Label of the Tasks of this check.
const LABEL: &str = "sentinelnode.dev/check";

pub(super) async fn check(
    connection: &Connection,
    args: &CheckArgs,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let client = &connection.client;
    let node = match node(client, args.node.as_deref()).await? {
        Runner::Node(node) => node,
        Runner::Observed(node) => {
            let message = format!(
                "the agent of node {node} has the profile observe and runs no commands, so no Task was tried"
            );
            return findings.ok("task", message);
        }
        Runner::None => {
            let advice = "See the lines about agents above";
            return findings.fail("task", "no node is reachable to run a Task on", advice);
        }
    };
    let command: Vec<String> = match (&args.command[..], &connection.cluster) {
        ([], Some(_)) => IN_IMAGE.map(str::to_owned).to_vec(),
        ([], None) => ON_MACHINE.map(str::to_owned).to_vec(),
        (given, _) => given.to_vec(),
    };
    let name = format!("check-{}", random_name());
    let namespace = connection.namespace.as_str();
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "true"}},
        "spec": {
            "targets": {"nodeNames": [node], "controlPlane": "Include"},
            "run": {"command": command},
            "timeouts": {"run": sentinel_protocol::duration::format(args.timeout)},
            // Should this program be ended before it deletes the Task.
            "ttlAfterFinished": "10m",
        },
    });
    if let Err(failure) = once::ask_first(client, namespace, &name).await {
        let advice = failure.hint.unwrap_or_else(|| "See the lines above".to_owned());
        return findings.fail("task", format!("no Task was created: {}", failure.message), advice);
    }
    let created = match client.create_task(&task).await {
        Ok(created) => created,
        Err(error) => {
            let failure = once::not_created(client, namespace, &name, error);
            let advice = failure.hint.unwrap_or_else(|| "See the lines above".to_owned());
            return findings.fail("task", format!("no Task could be created: {}", failure.message), advice);
        }
    };
    let deadline = Instant::now() + args.timeout;
    let at = Subject { client, namespace, name: &name, uid: &created.metadata.uid, node: &node };
    let ran = timeout_at(deadline, at.run(findings)).await;
    let ran = ran.unwrap_or_else(|_| {
        let message = format!("Task {namespace}/{name} on node {node} did not end in time");
        findings.fail("task", message, format!("See why: sentinel get task {name} -n {namespace}"))
    });
    // Deleted in any case.
    at.delete(findings).await?;
    ran
}

/// Where the Task runs.
enum Runner {
    Node(String),
    /// Only agents that run no commands are reachable.
    Observed(String),
    None,
}

/// The node that is named, or the first that is reachable, of those that run commands if there are any.
async fn node(client: &Client, named: Option<&str>) -> Result<Runner, Failure> {
    let nodes = match (client.nodes().await, named) {
        (Ok(nodes), _) => nodes,
        // A caller who may not list nodes may run a Task on one all the same.
        (Err(_), Some(named)) => return Ok(Runner::Node(named.to_owned())),
        (Err(error), None) => return Err(error.into()),
    };
    let mut reachable: Vec<_> = nodes.into_iter().filter(|node| node.reachable).collect();
    if let Some(named) = named {
        reachable.retain(|node| node.name == named);
    }
    let runs = reachable.iter().find(|node| !node.environments.is_empty());
    Ok(match (runs.or(reachable.first()), named) {
        (Some(node), _) if node.environments.is_empty() => Runner::Observed(node.name.clone()),
        (Some(node), _) => Runner::Node(node.name.clone()),
        (None, Some(named)) => Runner::Node(named.to_owned()),
        (None, None) => Runner::None,
    })
}

/// The Task, and where it runs.
struct Subject<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    node: &'a str,
}

impl Subject<'_> {
    async fn run(&self, findings: &mut Findings) -> Result<(), Failure> {
        let Self { client, namespace, name, node, .. } = self;
        wait_for(client, namespace, name, Condition::Ended, None).await?;
        let execution = self.recorded().await?;
        let outcome = execution.outcome.as_deref().unwrap_or("no Outcome");
        if outcome != "Succeeded" {
            let message = format!("Task {namespace}/{name} on node {node}: {outcome}: {}", execution.message);
            let advice = "Does the agent's profile allow commands in this environment? Another command: sentinel check --task -- COMMAND";
            return findings.fail("task", message, advice);
        }
        findings.ok("task", format!("Task {namespace}/{name} on node {node}: {outcome}"))?;
        match self.first_line(&execution).await {
            Ok(Some(line)) => findings.ok("output", format!("its output is kept: {line}"))?,
            Ok(None) => findings.fail(
                "output",
                "its output is empty",
                "Did the command write anything? If it did, see the agent's log",
            )?,
            Err(failure) => {
                let advice = failure.hint.unwrap_or_else(|| "See the operator's log".to_owned());
                findings.fail("output", format!("its output cannot be read: {}", failure.message), advice)?;
            }
        }
        findings.ok("history", format!("the History has Run {} of it", execution.run))
    }

    /// The record of its Execution, once it has an Outcome: the wait ends with the status, which the History may follow.
    async fn recorded(&self) -> Result<ExecutionView, Failure> {
        loop {
            let mut query = Query::default();
            query.add("namespace", self.namespace);
            query.add("taskUid", self.uid);
            let found = self.client.executions(query).await?;
            if let Some(ended) = found.into_iter().find(|execution| execution.outcome.is_some()) {
                return Ok(ended);
            }
            sleep(PAUSE).await;
        }
    }

    /// The first line of its output, once the log is complete.
    async fn first_line(&self, execution: &ExecutionView) -> Result<Option<String>, Failure> {
        let path = path::log(self.uid, execution.run, self.node);
        let mut log = self.client.log(&path, LogQuery { follow: true, ..LogQuery::default() }).await?;
        let mut text = Vec::new();
        let mut is_open = true;
        while is_open {
            let items = log.next().await?;
            is_open = !items.is_empty();
            for item in items {
                match item {
                    LogItem::Bytes { data, .. } => text.extend_from_slice(&data),
                    LogItem::End | LogItem::Pause { .. } => is_open = false,
                    LogItem::Hole { .. } => {}
                }
            }
        }
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().map(str::to_owned).filter(|line| !line.is_empty()))
    }

    async fn delete(&self, findings: &mut Findings) -> Result<(), Failure> {
        let Self { client, namespace, name, .. } = self;
        match client.delete_task(namespace, name).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let message = format!("Task {namespace}/{name} could not be deleted: {error}");
                findings.warn("task", message, format!("sentinel delete {name} -n {namespace}; otherwise it is deleted 10 minutes after its end"))
            }
        }
    }
}
