//! State that comes back: a cluster restored from an older backup, recreated Tasks, a cloned state directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use sentinel_operator::resource::Task;
use sentinel_tests::chaos::check::executions;
use sentinel_tests::chaos::fleet::Node;
use sentinel_tests::chaos::harness::System;
use sentinel_tests::chaos::recording;
use sentinel_tests::journal;
use sentinel_tests::programs::binary;
use sentinel_tests::wait::until;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Each starts servers of its own, all of one kind.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const PATIENCE: Duration = Duration::from_mins(1);

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

/// The Task's latest Run, once it is so.
async fn run_is(api: &Api<Task>, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    until(what, PATIENCE, || async {
        let task = api.get("t").await.map_err(|error| error.to_string())?;
        let status = serde_json::to_value(task.status).unwrap();
        if so(&status["run"]) { Ok(status["run"].clone()) } else { Err(status.to_string()) }
    })
    .await
}

fn is_over(number: u64) -> impl Fn(&Value) -> bool {
    move |run| run["number"] == number && run["finishedAt"].is_string()
}

fn is_running(number: u64, nodes: u64) -> impl Fn(&Value) -> bool {
    move |run| run["number"] == number && run["counts"]["running"] == nodes
}

async fn apply(api: &Api<Task>, system: &System, token: &str, hold: &Path) {
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "t"},
        "spec": {
            "targets": {"nodeNames": system.fleet.nodes.iter().map(|node| &node.name).collect::<Vec<_>>()},
            "run": {"command": [binary("recorder"), system.recording(), "50", hold], "sandbox": "Privileged"},
            "rerunToken": token,
        },
    });
    let parameters = PatchParams::apply("gitops").force();
    until("the API server takes it", PATIENCE, || async {
        api.patch("t", &parameters, &Patch::Apply(&task)).await.map(drop)
    })
    .await;
}

/// Checks that every recorded Attempt was started once, and that its exit code is in History.
async fn check(system: &System) -> BTreeSet<String> {
    let seen = recording::read(&system.recording());
    until("History has how each ended", PATIENCE, || async {
        let known = executions(&system.fleet).await?;
        for (attempt, recorded) in &seen {
            let (execution, _) = attempt.rsplit_once('/').unwrap();
            let Some(found) = known.get(execution) else { return Err(format!("{attempt} is missing")) };
            if found["exitCode"] != json!(recorded.exits.first()) {
                return Err(format!("{attempt}: {recorded:?} and {found:?}"));
            }
        }
        Ok(())
    })
    .await;
    for (attempt, recorded) in &seen {
        assert_eq!(recorded.starts.len(), 1, "{attempt} was started more than once: {recorded:?}");
    }
    seen.into_keys().collect()
}

fn runs(attempts: &BTreeSet<String>) -> Vec<(String, u32)> {
    let run = |attempt: &String| {
        let parts: Vec<&str> = attempt.split('/').collect();
        (parts[0].to_owned(), parts[1].parse().unwrap())
    };
    attempts.iter().map(run).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The agents have forgotten everything.
async fn nothing_is_left(nodes: &[Node]) {
    until("nothing is left on the nodes", PATIENCE, || async {
        let left: Vec<_> = nodes.iter().flat_map(|node| journal::attempts(&node.state)).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// As the Kubernetes documentation wants it: what reads the API server is started anew after a restore.
async fn restore(system: &System, backup: &Path) {
    let data = system.directory.join("etcd");
    system.fleet.operator.end().await;
    system.servers.apiserver.end().await;
    system.servers.etcd.end().await;
    fs::remove_dir_all(&data).unwrap();
    copy(backup, &data);
    system.servers.etcd.start().await;
    system.servers.apiserver.start().await;
    system.servers.answer().await;
    system.fleet.operator.start().await;
    system.fleet.ready(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_restore_numbers_runs_above_and_runs_nothing_twice() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("restored", 2).await;
    let api: Api<Task> = Api::namespaced(system.fleet.namespace.client.clone(), &system.fleet.namespace.name);
    let hold = system.directory.join("hold");
    fs::write(&hold, "").unwrap();
    apply(&api, &system, "1", &hold).await;
    run_is(&api, "run 1 is over", is_over(1)).await;

    let backup = system.directory.join("backup");
    system.servers.apiserver.end().await;
    system.servers.etcd.end().await;
    copy(&system.directory.join("etcd"), &backup);
    system.servers.etcd.start().await;
    system.servers.apiserver.start().await;
    system.servers.answer().await;

    apply(&api, &system, "2", &hold).await;
    run_is(&api, "run 2 is over", is_over(2)).await;
    fs::remove_file(&hold).unwrap();
    apply(&api, &system, "3", &hold).await;
    run_is(&api, "run 3 runs", is_running(3, 2)).await;

    restore(&system, &backup).await;
    let run = run_is(&api, "the Task is at run 1", is_over(1)).await;
    assert_eq!(run["rerunToken"], "1");
    apply(&api, &system, "again", &hold).await;
    run_is(&api, "a new run begins above all that was", |run| run["number"] == 4).await;
    assert_eq!(
        recording::read(&system.recording()).keys().filter(|attempt| attempt.contains("/4/")).count(),
        0,
        "the commands of run 3 are still there"
    );
    fs::write(&hold, "").unwrap();
    run_is(&api, "run 4 is over", is_over(4)).await;
    let numbers: Vec<u32> = runs(&check(&system).await).into_iter().map(|(_, run)| run).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    system.end(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_task_is_a_new_task() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("again", 2).await;
    let api: Api<Task> = Api::namespaced(system.fleet.namespace.client.clone(), &system.fleet.namespace.name);
    let hold = system.directory.join("hold");
    apply(&api, &system, "", &hold).await;
    run_is(&api, "it runs", is_running(1, 2)).await;
    // What runs of it is cancelled; the new one begins where nothing of the old one is left.
    api.delete("t", &DeleteParams::default()).await.unwrap();
    until("it is gone", PATIENCE, || async {
        match api.get_opt("t").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    fs::write(&hold, "").unwrap();
    apply(&api, &system, "", &hold).await;
    run_is(&api, "the new one is over", is_over(1)).await;
    let seen = runs(&check(&system).await);
    assert_eq!(seen.iter().map(|(_, run)| *run).collect::<Vec<_>>(), [1, 1], "{seen:?}");
    nothing_is_left(&system.fleet.nodes).await;
    system.end(true).await;
}

/// A supervisor that waited for its agent may still write there for a moment.
async fn remove(state: &Path) {
    until("the state directory is removed", PATIENCE, || async {
        fs::remove_dir_all(state).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_on_cloned_state_is_refused_and_runs_nothing() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("cloned", 2).await;
    let [first, second] = &system.fleet.nodes[..] else { panic!("two nodes") };
    let api: Api<Task> = Api::namespaced(system.fleet.namespace.client.clone(), &system.fleet.namespace.name);
    let hold = system.directory.join("hold");
    second.agent.end().await;
    apply(&api, &system, "", &hold).await;
    run_is(&api, "the first node runs it", is_running(1, 1)).await;

    remove(&second.state).await;
    copy(&first.state, &second.state);
    let boot_id = system.directory.join("boot_id");
    fs::write(&boot_id, "00000000-0000-4000-8000-000000000001\n").unwrap();
    let clone = second.agent.elsewhere(&boot_id);
    clone.start().await;
    until("it is refused, with the reason", PATIENCE, || async {
        let log = clone.log();
        let why = format!("is of another node than this agent's, {}", second.name);
        if log.contains(&why) { Ok(()) } else { Err(log) }
    })
    .await;
    // Its Session has ended at the agent, and a moment later at the operator.
    until("the node is not reachable by its clone", PATIENCE, || async {
        let view = system.fleet.get(&format!("/api/v1/nodes/{}", second.name)).await.unwrap();
        if view["reachable"] == false { Ok(()) } else { Err(view) }
    })
    .await;
    let of_second = |attempt: &&String| attempt.contains(&second.name);
    assert_eq!(recording::read(&system.recording()).keys().filter(of_second).count(), 0, "the clone ran it");

    // With a state directory of its own the node takes part.
    clone.end().await;
    remove(&second.state).await;
    second.agent.start().await;
    fs::write(&hold, "").unwrap();
    run_is(&api, "both have run it", is_over(1)).await;
    assert_eq!(check(&system).await.len(), 2);
    nothing_is_left(&system.fleet.nodes).await;
    system.end(true).await;
}
