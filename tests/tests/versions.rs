//! Operators and agents of different releases, as they meet during an upgrade or a rollback: programs built from earlier
//! commits beside those of this build. Each pair runs a command with output and a result, cancels another, and replaces
//! the agent while a third one runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_tests::earlier::{self, Earlier};
use sentinel_tests::journal;
use sentinel_tests::programs::binary;
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// A new testbed removes the Nodes that a failed test left, so there is one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const PATIENCE: Duration = Duration::from_secs(40);

async fn apply(testbed: &Testbed, name: &str, script: &str) {
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": { "name": name },
        "spec": {
            "targets": { "nodeNames": [testbed.namespace.node_name("a")] },
            "run": { "command": ["sh", "-c", script] },
            "timeouts": { "grace": "1s" },
        },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
}

/// The Task, once its latest Run satisfies the condition.
async fn task(testbed: &Testbed, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{name} {what}"), PATIENCE, || async {
        let text = testbed.namespace.kubectl(&["get", "tasks.sentinelnode.dev", name, "-o", "json"]).await?;
        let task: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if holds(&task["status"]["run"]) { Ok(task) } else { Err(task["status"].to_string()) }
    })
    .await
}

async fn running(testbed: &Testbed, name: &str) {
    task(testbed, name, "runs", |run| run["counts"]["running"] == 1).await;
}

async fn over(testbed: &Testbed, name: &str) -> Value {
    task(testbed, name, "is over", |run| run["finishedAt"].is_string()).await
}

async fn log(testbed: &Testbed, task: &Value) -> String {
    let uid = task["metadata"]["uid"].as_str().unwrap();
    let url = format!("{}/api/v1/executions/{uid}/1/{}/log", testbed.api, testbed.namespace.node_name("a"));
    testbed.http.get(url).send().await.unwrap().text().await.unwrap()
}

async fn check_result(testbed: &Testbed) {
    apply(testbed, "result", "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i + 1)); done; exit 3").await;
    let task = over(testbed, "result").await;
    let node = &task["status"]["nodes"][0];
    assert_eq!((&node["state"], &node["exitCode"]), (&json!("Failed"), &json!(3)), "{task}");
    let expected: String = (0..200).map(|line| format!("line {line}\n")).collect();
    until("all of the output is readable", PATIENCE, || async {
        let log = log(testbed, &task).await;
        if log == expected { Ok(()) } else { Err(log) }
    })
    .await;
}

async fn check_cancel(testbed: &Testbed) {
    apply(testbed, "cancelled", "sleep 600").await;
    running(testbed, "cancelled").await;
    let cancel = "sentinelnode.dev/cancel=1";
    testbed.namespace.kubectl(&["annotate", "tasks.sentinelnode.dev", "cancelled", cancel]).await.unwrap();
    let task = over(testbed, "cancelled").await;
    assert_eq!(task["status"]["nodes"][0]["state"], "Cancelled", "{task}");
}

/// The next agent of the node, of the other build, adopts what the previous one has started.
async fn check_replacement(
    testbed: &mut Testbed,
    next_agent: PathBuf,
    agent: sentinel_tests::programs::Program,
) {
    let release = testbed.path().join("release");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.1; done; echo ended", release.display());
    apply(testbed, "adopted", &script).await;
    running(testbed, "adopted").await;
    agent.stop(PATIENCE).await;
    testbed.options.agent = next_agent;
    let _agent = testbed.start_agent("a");
    testbed.reachable("a").await;
    fs::write(&release, "").unwrap();
    let task = over(testbed, "adopted").await;
    assert_eq!(task["status"]["nodes"][0]["state"], "Succeeded", "{task}");
    until("all of the output is readable", PATIENCE, || async {
        let log = log(testbed, &task).await;
        if log == "begun\nended\n" { Ok(()) } else { Err(log) }
    })
    .await;
    // Acknowledged and forgotten too: the last messages of the protocol.
    until("the agent has forgotten every Attempt", PATIENCE, || async {
        let left = journal::attempts(&testbed.path().join("a.state"));
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

async fn check(test: &str, operator: PathBuf, agent: PathBuf, next_agent: PathBuf) {
    let _guard = ONE_AT_A_TIME.lock().await;
    let mut testbed = Testbed::with(test, Options { operator, agent, ..Options::default() }).await;
    let agent = testbed.agent("a", &[]).await;
    check_result(&testbed).await;
    check_cancel(&testbed).await;
    check_replacement(&mut testbed, next_agent, agent).await;
    testbed.close().await;
}

/// Both directions: the operator upgraded first, and the agent upgraded first.
async fn check_with(earlier: Earlier) {
    println!("with operator and agent of {}", earlier.commit);
    let Earlier { operator, agent, .. } = earlier;
    check("old-agent", binary("operator"), agent.clone(), binary("node-agent")).await;
    check("old-operator", operator, binary("node-agent"), agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn works_with_last_release_of_another_protocol_version() {
    check_with(earlier::build("other-protocol")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn works_with_previous_commit() {
    check_with(earlier::build("previous")).await;
}
