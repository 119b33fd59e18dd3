//! Names of Executions on the command line: `TASK/RUN/NODE`.
//!
//! TASK is the name of a Task, or its uid as in the `id` of an Execution. NODE may be omitted if the Run has one node,
//! and RUN too for the latest. A name means the newest Task that has had it; an older one that was deleted has its uid.

use serde_json::Value;

use crate::client::{Client, Query, escape};
use crate::exit::Failure;
use crate::output::counted;

/// Maximum number of Executions that an ambiguity lists.
const CHOICES: usize = 5;

/// The API path of the Execution with this name.
///
/// # Errors
/// The name is invalid, or no Execution or several match; several are listed.
pub(super) async fn path_of(client: &Client, namespace: &str, name: &str) -> Result<String, Failure> {
    let name = name.strip_prefix("execution/").unwrap_or(name);
    let parts: Vec<&str> = name.split('/').collect();
    let (task, run, node) = match parts[..] {
        [task] => (task, None, None),
        [task, run] => (task, Some(run), None),
        [task, run, node] => (task, Some(run), Some(node)),
        _ => return Err(invalid_name(name)),
    };
    if task.is_empty() || node.is_some_and(str::is_empty) {
        return Err(invalid_name(name));
    }
    let run = run.map(|run| run.parse::<u32>().map_err(|_| invalid_name(name))).transpose()?;
    if let (true, Some(run), Some(node)) = (is_uid(task), run, node) {
        return Ok(path(task, run, node));
    }
    let mut query = Query::default();
    query.add("namespace", namespace);
    query.add(if is_uid(task) { "taskUid" } else { "task" }, task);
    query.maybe("run", run);
    query.maybe("node", node);
    let listed = client.list("/api/v1/executions", query, 500, None).await?;
    only(&listed.items, namespace, name)
}

/// The API path of an Execution.
pub(super) fn path(uid: &str, run: u32, node: &str) -> String {
    format!("/api/v1/executions/{}/{run}/{}", escape(uid), escape(node))
}

fn invalid_name(name: &str) -> Failure {
    Failure::usage(format!("invalid execution {name:?}: expected TASK/RUN/NODE, for example hello/3/web-1"))
        .hint("List executions with: sentinel get executions")
}

/// The path of the only Execution of the newest Run among these, newest first.
fn only(items: &[Value], namespace: &str, name: &str) -> Result<String, Failure> {
    let Some(first) = items.first() else {
        return Err(Failure::new(format!("no execution {name} in namespace {namespace}"))
            .hint("List executions with: sentinel get executions"));
    };
    let newest: Vec<&Value> = items
        .iter()
        .filter(|item| item["taskUid"] == first["taskUid"] && item["run"] == first["run"])
        .collect();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    if newest.len() > 1 {
        let named =
            |item: &&Value| format!("\n  {}/{}/{}", text(item, "task"), item["run"], text(item, "node"));
        let mut list: Vec<String> = newest.iter().take(CHOICES).map(named).collect();
        if newest.len() > CHOICES {
            list.push(format!("\n  and {} more", newest.len() - CHOICES));
        }
        let list = list.concat();
        let count = counted(newest.len() as u64, "execution");
        return Err(Failure::usage(format!("{name} matches {count}; choose one:{list}")));
    }
    let run = first["run"].as_u64().and_then(|run| u32::try_from(run).ok()).unwrap_or_default();
    Ok(path(&text(first, "taskUid"), run, &text(first, "node")))
}

/// Whether the text has the form of a uid, as API servers generate them.
fn is_uid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selects_the_newest_run_and_lists_several_nodes() {
        let item = |run: u32, node: &str| json!({"task": "web", "taskUid": "u", "run": run, "node": node});
        let path = only(&[item(3, "a"), item(2, "a"), item(2, "b")], "default", "web").unwrap();
        assert_eq!(path, "/api/v1/executions/u/3/a");
        let several = only(&[item(2, "a"), item(2, "b")], "default", "web").unwrap_err();
        assert_eq!(several.message, "web matches 2 executions; choose one:\n  web/2/a\n  web/2/b");
        assert!(only(&[], "ops", "web/9").unwrap_err().message.contains("web/9 in namespace ops"));
    }

    #[test]
    fn tells_uids_from_names() {
        assert!(is_uid("0b6c8a1e-5b1c-4b0e-9f3b-3f0b8f1c2d3e"));
        for name in ["web", "run-abcdefgh", "a-b-c-d-e", "0b6c8a1e-5b1c-4b0e-9f3b-3f0b8f1c2d3z"] {
            assert!(!is_uid(name), "{name}");
        }
    }
}
