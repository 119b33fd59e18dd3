//! The crate `sentinel-api` reads what this operator writes: every field that a client knows of a Task has the name and
//! the type of the custom resource.

#![allow(clippy::unwrap_used, reason = "it is a test")]

use sentinel_api::{decode, task};
use sentinel_operator::resource::Task;
use serde_json::{Value, json};

/// A Task in which every field that a client reads is set.
fn full() -> Value {
    let condition = json!({
        "type": "Failed", "status": "True", "reason": "NodesFailed", "message": "1 of 2 nodes failed",
        "lastTransitionTime": "2026-11-24T03:00:07Z", "observedGeneration": 3,
    });
    json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {
            "name": "web", "namespace": "ops", "uid": "u-1", "generation": 3,
            "creationTimestamp": "2026-11-24T03:00:00Z", "deletionTimestamp": "2026-11-24T04:00:00Z",
        },
        "spec": {"targets": {"nodeNames": ["a", "b"]}, "run": {"command": ["df", "-h"]}},
        "status": {
            "observedGeneration": 3, "phase": "Failed", "conditions": [condition],
            "run": {
                "number": 2, "trigger": "SpecChange", "specHash": "0", "rerunToken": "t",
                "startedAt": "2026-11-24T03:00:00.000000Z", "finishedAt": "2026-11-24T03:00:07.000000Z",
                "verdict": "Failed", "stopping": "Cancelled", "progress": "2/2", "targets": ["a", "b"],
                "counts": {"waiting": 1, "running": 2, "succeeded": 3, "failed": 4, "unreachable": 5},
                "targetCount": 2, "targetSlices": 0,
                "requestedBy": {"author": {"user": "alice"}, "rerun": {"user": "bob"}, "unknown": "Signature"},
                "cancelledBy": {"user": "carol"}, "approvedBy": {"user": "dave"},
            },
            "nodes": [{
                "node": "a", "state": "Failed", "attempt": 2, "message": "exited with code 3", "exitCode": 3,
                "startedAt": "2026-11-24T03:00:00.000000Z", "finishedAt": "2026-11-24T03:00:07.000000Z",
                "reach": "Reachable",
            }],
            "recentRuns": [], "handled": {"cancel": 1, "rerun": "again"},
        },
    })
}

/// Every leaf of a value with its path.
fn leaves(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| leaves(value, &format!("{path}/{index}"), found));
        }
        other => found.push((path.to_owned(), other.clone())),
    }
}

#[test]
fn client_reads_every_field_of_a_task_as_the_operator_writes_it() {
    let written = serde_json::to_value(serde_json::from_value::<Task>(full()).unwrap()).unwrap();
    let read: task::Task = decode::value(&written).unwrap();
    let mut found = Vec::new();
    leaves(&serde_json::to_value(&read).unwrap(), "", &mut found);
    assert!(found.len() > 40, "{found:?}");
    for (path, value) in found {
        assert_ne!(value, Value::Null, "{path} is not set by this test, or has another name in the operator");
        assert_eq!(Some(&value), written.pointer(&path), "{path}");
    }
    assert_eq!(read.standing(), task::Standing::Failed("1 of 2 nodes failed".to_owned()));
    assert_eq!((read.command(), read.target()), ("df -h".to_owned(), "a,b".to_owned()));
}

/// The status that an API server fills in before the operator has observed a Task.
#[test]
fn unobserved_task_is_under_way() {
    let mut task = full();
    task["status"] = json!({"observedGeneration": -1});
    let read: task::Task = decode::value(&task).unwrap();
    assert_eq!(read.standing(), task::Standing::UnderWay);
}
