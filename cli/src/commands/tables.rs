//! The tables of `get`.

use sentinel_api::fold::fold_names;
use sentinel_protocol::human::human_duration;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Failure;
use crate::output::table::{Cell, Table};
use crate::output::time;
use crate::view::{Node, Task};

/// Where it is not known who asked.
const UNKNOWN: &str = "unknown";

/// The table of `get tasks`.
///
/// # Errors
/// An item is not a Task.
pub(super) fn tasks(
    client: &Client,
    items: &[Value],
    wide: bool,
    with_namespace: bool,
) -> Result<Table, Failure> {
    let mut headers =
        vec!["NAME", "PHASE", "NODES", "OK", "FAILED", "UNREACHABLE", "RUNNING", "WAITING", "AGE"];
    if with_namespace {
        headers.insert(0, "NAMESPACE");
    }
    if wide {
        headers.extend(["RUN", "TRIGGER", "PROGRESS", "REQUESTED BY", "TARGET", "COMMAND", "REASON"]);
    }
    let mut table = Table::new(&headers);
    for item in items {
        let task: Task = client.read("a Task", item)?;
        let run = task.status.run.clone().unwrap_or_default();
        let mut row = vec![
            Cell::new(&task.metadata.name),
            Cell::state(&task.status.phase),
            run.target_count.to_string().into(),
            run.counts.succeeded.to_string().into(),
            run.counts.failed.to_string().into(),
            run.counts.unreachable.to_string().into(),
            run.counts.running.to_string().into(),
            run.counts.waiting.to_string().into(),
            time::age(task.metadata.creation_timestamp.as_deref()).into(),
        ];
        if with_namespace {
            row.insert(0, Cell::new(&task.metadata.namespace));
        }
        if wide {
            let reason = ["Stalled", "Reconciling", "Ready"].iter().find_map(|kind| task.condition(kind));
            row.extend([
                run.number.to_string().into(),
                Cell::new(&run.trigger),
                Cell::new(&run.progress),
                Cell::new(run.requested_by.map_or_else(|| UNKNOWN.to_owned(), |by| by.names())).truncated(60),
                Cell::new(task.target()).truncated(40),
                Cell::new(task.command()).truncated(60),
                Cell::new(reason.map(|condition| condition.reason.clone()).unwrap_or_default()),
            ]);
        }
        table.row(row);
    }
    Ok(table)
}

/// The table of `get runs`.
pub(super) fn runs(items: &[Value], wide: bool, with_namespace: bool) -> Table {
    let mut headers = vec!["TASK", "RUN", "VERDICT", "TRIGGER", "NODES", "ENDED", "STARTED"];
    if with_namespace {
        headers.insert(0, "NAMESPACE");
    }
    if wide {
        headers.extend(["REQUESTED BY", "APPROVED BY", "CANCELLED BY", "OUTCOMES", "COMMAND", "REASON"]);
    }
    let mut table = Table::new(&headers);
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or("");
        let outcomes: Vec<(&String, u64)> = item["outcomes"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k, v.as_u64().unwrap_or(0)))
            .collect();
        let mut row = vec![
            Cell::new(text("task")),
            item["run"].to_string().into(),
            Cell::state(item["verdict"].as_str().unwrap_or("Running")),
            Cell::new(text("trigger")),
            item["targets"].to_string().into(),
            outcomes.iter().map(|(_, n)| n).sum::<u64>().to_string().into(),
            time::age(item["startedAt"].as_str()).into(),
        ];
        if with_namespace {
            row.insert(0, Cell::new(text("namespace")));
        }
        if wide {
            let counts: Vec<String> = outcomes.iter().map(|(name, n)| format!("{name}={n}")).collect();
            row.extend([
                Cell::new(requested_by(item)).truncated(60),
                Cell::new(item["approvedBy"]["user"].as_str().unwrap_or("")).truncated(40),
                Cell::new(item["cancelledBy"]["user"].as_str().unwrap_or("")).truncated(40),
                Cell::new(counts.join(",")),
                Cell::new(text("command")).truncated(60),
                Cell::new(text("reason")),
            ]);
        }
        table.row(row);
    }
    table
}

/// Who asked for a Run: who asked for it again, and whose spec it is.
fn requested_by(run: &Value) -> String {
    let user = |role: &str| run["requestedBy"][role]["user"].as_str();
    match (user("rerun"), user("author")) {
        (Some(rerun), Some(author)) => format!("{rerun} (spec of {author})"),
        (_, author) => author.unwrap_or(UNKNOWN).to_owned(),
    }
}

/// The table of `get executions`.
pub(super) fn executions(items: &[Value], wide: bool, with_namespace: bool) -> Table {
    let mut headers = vec!["TASK", "RUN", "NODE", "STATE", "CODE", "DURATION", "STARTED"];
    if with_namespace {
        headers.insert(0, "NAMESPACE");
    }
    if wide {
        headers.extend(["ATTEMPT", "MESSAGE", "COMMAND", "ID"]);
    }
    let mut table = Table::new(&headers);
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or("");
        let mut row = vec![
            Cell::new(text("task")),
            item["run"].to_string().into(),
            Cell::node(text("node")),
            Cell::state(text("state")),
            Cell::new(item["exitCode"].as_u64().map(|code| code.to_string()).unwrap_or_default()),
            Cell::new(item["durationMs"].as_u64().map(human_duration).unwrap_or_default()),
            time::age(item["startedAt"].as_str()).into(),
        ];
        if with_namespace {
            row.insert(0, Cell::new(text("namespace")));
        }
        if wide {
            row.extend([
                item["attempt"].to_string().into(),
                Cell::new(text("message")),
                Cell::new(text("command")).truncated(60),
                Cell::new(text("id")),
            ]);
        }
        table.row(row);
    }
    table
}

/// More nodes than this with the same state and message are one row.
const MANY: usize = 8;

/// The nodes in the status of a Task; many with the same result as one row.
pub(super) fn nodes_of(task: &Task) -> Table {
    let mut table = Table::new(&["NODE", "STATE", "CODE", "STARTED", "MESSAGE"]);
    let mut groups: Vec<Vec<&Node>> = Vec::new();
    for node in &task.status.nodes {
        let same = |other: &Node| {
            (&other.state, other.exit_code, &other.message) == (&node.state, node.exit_code, &node.message)
        };
        match groups.iter_mut().find(|group| same(group[0])) {
            Some(group) => group.push(node),
            None => groups.push(vec![node]),
        }
    }
    for group in groups {
        let is_one = group.len() > MANY;
        for node in group.iter().take(if is_one { 1 } else { group.len() }) {
            let name = if is_one {
                Cell::new(fold_names(group.iter().map(|node| node.name.as_str()))).truncated(80)
            } else {
                Cell::node(&node.name)
            };
            table.row(vec![
                name,
                Cell::state(&node.state),
                Cell::new(node.exit_code.map(|code| code.to_string()).unwrap_or_default()),
                time::age(node.started_at.as_deref()).into(),
                Cell::new(&node.message),
            ]);
        }
    }
    table
}
