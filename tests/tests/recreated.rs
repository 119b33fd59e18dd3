//! A Task with `onRecreate: OncePerSpec` on a real API server, as GitOps makes it again: deleted by its TTL, applied on the
//! server's side, with History available and not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::path::Path;
use std::time::Duration;

use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// The manifest in Git: a command that leaves a line behind each time that it runs, when the gate is open.
fn manifest(testbed: &Testbed, name: &str, directory: &Path, ttl: &str) -> String {
    let node = testbed.namespace.node_name("a");
    let (gate, ran) = (directory.join("gate"), directory.join(name));
    let script =
        format!("while [ ! -e {} ]; do sleep 0.05; done; echo ran >> {}", gate.display(), ran.display());
    format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec:\n  targets: {{nodeNames: [{node}]}}\n  run: {{command: [sh, -c, {script:?}], sandbox: Privileged}}\n  onRecreate: OncePerSpec\n{ttl}"
    )
}

fn count_runs(name: &str, directory: &Path) -> usize {
    std::fs::read_to_string(directory.join(name)).unwrap_or_default().lines().count()
}

/// As the tools do: on the server's side.
async fn sync(testbed: &Testbed, yaml: &str) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), yaml).unwrap();
    let path = file.path().to_string_lossy();
    testbed.namespace.kubectl(&["apply", "--server-side", "-f", &path]).await.unwrap();
}

async fn get(testbed: &Testbed, name: &str) -> Option<Value> {
    let printed =
        testbed.namespace.kubectl(&["get", "stask", name, "--ignore-not-found", "-o", "json"]).await;
    let printed = printed.unwrap();
    (!printed.trim().is_empty()).then(|| serde_json::from_str(&printed).unwrap())
}

/// Waits until a condition has this reason.
async fn until_reason(testbed: &Testbed, name: &str, kind: &str, reason: &str) -> Value {
    until(&format!("{name} has {kind} with the reason {reason}"), PATIENCE, || async {
        let task = get(testbed, name).await.unwrap_or_default();
        let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let holds = conditions.iter().any(|one| one["type"] == kind && one["reason"] == reason);
        if holds { Ok(task) } else { Err(task) }
    })
    .await
}

async fn until_gone(testbed: &Testbed, name: &str) {
    until(&format!("{name} is gone"), PATIENCE, || async {
        match get(testbed, name).await {
            None => Ok(()),
            Some(task) => Err(task),
        }
    })
    .await;
}

/// The operator ends, and another begins with this MongoDB.
async fn restart(testbed: &mut Testbed, mongodb: &str) {
    testbed.operator.take().unwrap().kill().await;
    mongodb.clone_into(&mut testbed.namespace.parts.mongodb_uri);
    testbed.start_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_made_again_runs_once() {
    let testbed = Testbed::new("recreated").await;
    let _agent = testbed.agent("a", &[]).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("gate"), "").unwrap();
    let yaml = manifest(&testbed, "t", directory.path(), "  ttlAfterFinished: 1s\n");
    sync(&testbed, &yaml).await;
    // It is deleted a second after its end at the earliest.
    let first = get(&testbed, "t").await.unwrap();
    until("it has run", PATIENCE, || async {
        let runs = count_runs("t", directory.path());
        if runs == 1 { Ok(()) } else { Err(format!("{runs} runs")) }
    })
    .await;
    until_gone(&testbed, "t").await;

    sync(&testbed, &yaml).await;
    let second = until_reason(&testbed, "t", "Ready", "AlreadyExecuted").await;
    let wait = ["wait", "--for=condition=Complete", "--timeout=20s", "stask", "t"];
    testbed.namespace.kubectl(&wait).await.unwrap();
    let earlier = &second["status"]["earlierRun"];
    assert_eq!(earlier["taskUid"], first["metadata"]["uid"]);
    assert_eq!((&earlier["number"], &earlier["verdict"]), (&1.into(), &"Complete".into()));
    assert!(second["status"]["run"].is_null(), "{second}");
    // The next syncs change nothing, and the TTL does not delete it.
    for _ in 0..3 {
        sync(&testbed, &yaml).await;
    }
    let third = get(&testbed, "t").await.unwrap();
    assert_eq!(third["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(third["metadata"]["generation"], 1, "no default is drift");
    assert_eq!(count_runs("t", directory.path()), 1);

    sync(&testbed, &format!("{yaml}  rerunToken: again\n")).await;
    until("it has run again", PATIENCE, || async {
        let runs = count_runs("t", directory.path());
        if runs == 2 { Ok(()) } else { Err(format!("{runs} runs, {:?}", get(&testbed, "t").await)) }
    })
    .await;
    testbed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_twice_while_history_is_down() {
    let mut testbed = Testbed::new("recreated-down").await;
    let there = testbed.namespace.parts.mongodb_uri.clone();
    let nowhere = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500";
    let _agent = testbed.agent("a", &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let yaml = manifest(&testbed, "t", directory.path(), "");
    sync(&testbed, &yaml).await;
    until_reason(&testbed, "t", "Reconciling", "Running").await;

    // The Run ends and its Task is deleted while no operator can reach History: it stays.
    restart(&mut testbed, nowhere).await;
    std::fs::write(directory.path().join("gate"), "").unwrap();
    until_reason(&testbed, "t", "Complete", "Complete").await;
    testbed.namespace.kubectl(&["delete", "stask", "t", "--wait=false"]).await.unwrap();
    let held = until_reason(&testbed, "t", "Reconciling", "WaitingForHistory").await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    restart(&mut testbed, &there).await;
    until_gone(&testbed, "t").await;

    // It is made again while History is down: it waits, and runs nothing then either.
    restart(&mut testbed, nowhere).await;
    sync(&testbed, &yaml).await;
    until_reason(&testbed, "t", "Ready", "WaitingForHistory").await;
    restart(&mut testbed, &there).await;
    until_reason(&testbed, "t", "Complete", "AlreadyExecuted").await;
    assert_eq!(count_runs("t", directory.path()), 1);
    testbed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_the_field() {
    let testbed = Testbed::new("explained").await;
    // The API server publishes a new definition after a moment.
    let explained = until("kubectl explains the field", PATIENCE, || async {
        testbed.namespace.kubectl(&["explain", "stask.spec.onRecreate"]).await
    })
    .await;
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["OncePerSpec", "AlreadyExecuted", "as long as History keeps Runs", "Example"] {
        assert!(explained.contains(part), "{part:?} is not in {explained}");
    }
    testbed.close().await;
}
