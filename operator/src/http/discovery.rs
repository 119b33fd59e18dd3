//! What the API server reads of the aggregated API: which resources the group has.

use sentinel_api::aggregated::{Access, GROUP, ROWS, Scope, VERSION};
use serde_json::{Value, json};

/// The `APIResourceList` of the group. Resources that Kubernetes or `sentinelnode.dev` have under the same name are left out,
/// as far as they have no subresource: `kubectl get tasks` must not mean ours.
pub(super) fn resources() -> Value {
    let mut found: Vec<(String, bool, Vec<&str>)> = Vec::new();
    for (row, access) in ROWS.iter().flat_map(|row| row.access.iter().map(move |access| (row, access))) {
        if access.group != GROUP || is_taken(access) {
            continue;
        }
        let (name, is_namespaced) = (access.path(), row.scope != Scope::Cluster);
        match found.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, _, verbs)) if verbs.contains(&access.verb) => {}
            Some((_, _, verbs)) => verbs.push(access.verb),
            None => found.push((name, is_namespaced, vec![access.verb])),
        }
    }
    let resources: Vec<Value> = found
        .into_iter()
        .map(|(name, namespaced, verbs)| {
            json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind(&name), "verbs": verbs})
        })
        .collect();
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": resources,
    })
}

fn is_taken(access: &Access) -> bool {
    access.subresource.is_none() && matches!(access.resource, "tasks" | "nodes")
}

/// A name for what a resource answers with; its objects are JSON of this API, not of Kubernetes.
fn kind(name: &str) -> &'static str {
    match name {
        "nodes/presence" => "NodePresence",
        "nodes/samples" | "samples" => "NodeSamples",
        "auditheads" => "AuditHead",
        "runs" => "Run",
        "executions" => "Execution",
        "tasks/log" => "Log",
        _ => "Request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_get_tasks_means_the_tasks_of_kubernetes() {
        let list = resources();
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"tasks/log") && names.contains(&"executions"), "{names:?}");
        assert!(!names.contains(&"tasks") && !names.contains(&"nodes"), "{names:?}");
        let log = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "tasks/log").unwrap();
        assert_eq!((log["verbs"].clone(), log["namespaced"].clone()), (json!(["get"]), json!(true)));
    }
}
