//! Argo CD's own engine syncs Tasks: as hooks, in waves, pruned.

use std::time::Duration;

use sentinel_tests::gitops::{argo_cd_finds_no_difference, argocd_cm, ask_one};
use sentinel_tests::wait::until;
use serde_json::{Value, json};

use crate::kit::Cluster;

const HOOK: &str = "argocd.argoproj.io/hook";
const POLICY: &str = "argocd.argoproj.io/hook-delete-policy";
const WAVE: &str = "argocd.argoproj.io/sync-wave";

enum HealthCheck {
    Installed,
    Missing,
}

fn annotated(mut object: Value, annotations: &[(&str, &str)]) -> Value {
    for (key, value) in annotations {
        object["metadata"]["annotations"][*key] = json!(value);
    }
    object
}

fn config_map(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}})
}

fn request(cluster: &Cluster, objects: &[Value], health: HealthCheck) -> Value {
    let config_map = match health {
        HealthCheck::Installed => argocd_cm().display().to_string(),
        HealthCheck::Missing => String::new(),
    };
    json!({
        "objects": objects, "kubeconfig": cluster.kubeconfig(), "namespace": cluster.namespace(),
        "application": "apps", "configMap": config_map, "serverSideApply": false, "prune": true, "seconds": 90,
    })
}

async fn sync(cluster: &Cluster, objects: &[Value], health: HealthCheck) -> Value {
    ask_one("argo-sync", request(cluster, objects, health)).await
}

/// What the engine reports about an object.
fn result<'a>(synced: &'a Value, name: &str) -> &'a Value {
    let results = synced["results"].as_array().unwrap_or_else(|| panic!("{synced}"));
    let mut found = results.iter().filter(|result| result["Name"].as_str().unwrap().starts_with(name));
    found.next().unwrap_or_else(|| panic!("no {name} in {synced}"))
}

/// Syncs a Task and a ConfigMap that must come after it. The Task ends once the engine has found it in progress twice.
async fn syncs_in_order(cluster: &Cluster, task: &Value, after: &str) {
    let name = task["metadata"]["name"].as_str().unwrap();
    let mut request = request(cluster, &[task.clone(), config_map(after, "1")], HealthCheck::Installed);
    request["gate"] = json!(cluster.gates().join(name));
    let synced = ask_one("argo-sync", request).await;
    assert!(synced["error"].is_null(), "{synced}");
    assert_eq!(result(&synced, name)["Phase"], "Succeeded", "{synced}");
    let after = cluster.written(&["get", "configmap", after], None).await;
    let task = cluster.get(name).await;
    let made = after["metadata"]["creationTimestamp"].as_str().unwrap();
    let ended = task["status"]["run"]["finishedAt"].as_str().unwrap();
    // One has seconds, the other microseconds.
    assert!(made >= &ended[..19], "made at {made}, but {name} ended at {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_waits_for_hooks_and_waves() {
    let cluster = Cluster::new("argo-waits").await;
    let hook = annotated(cluster.gated("hook", 0), &[(HOOK, "PreSync")]);
    syncs_in_order(&cluster, &hook, "after-hook").await;
    let wave = annotated(cluster.gated("wave", 0), &[(WAVE, "-1")]);
    syncs_in_order(&cluster, &wave, "after-wave").await;
    cluster.close().await;
}

/// docs/gitops.md warns of it: without the health check Argo CD takes each Task for a success when it is created.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_health_check_a_hook_passes_before_it_has_run() {
    let cluster = Cluster::new("argo-blind").await;
    let hook = annotated(cluster.gated("hook", 3), &[(HOOK, "PreSync")]);
    let synced = sync(&cluster, &[hook, config_map("after", "1")], HealthCheck::Missing).await;
    assert_eq!(result(&synced, "hook")["Phase"], "Succeeded", "{synced}");
    cluster.kubectl(&["get", "configmap", "after"]).await.unwrap();
    cluster.open("hook");
    cluster.wait("hook", "Failed").await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_hook_stops_the_sync() {
    let cluster = Cluster::new("argo-fails").await;
    let hook = annotated(cluster.task("hook", "exit 3"), &[(HOOK, "PreSync"), (POLICY, "HookSucceeded")]);
    let on_failure = annotated(cluster.task("on-failure", "true"), &[(HOOK, "SyncFail")]);
    let synced = sync(&cluster, &[hook, on_failure, config_map("after", "1")], HealthCheck::Installed).await;
    let failed = result(&synced, "hook");
    assert_eq!(failed["Phase"], "Failed", "{synced}");
    assert_eq!(failed["Message"], "run 1: 1/1 done, 1 failed", "{synced}");
    assert_eq!(result(&synced, "on-failure")["Phase"], "Succeeded", "{synced}");
    cluster.kubectl(&["get", "configmap", "after"]).await.unwrap_err();
    // It stays, to be read.
    assert_eq!(cluster.get("hook").await["status"]["phase"], "Failed");
    cluster.close().await;
}

/// The three policies: made anew by each sync, deleted after a success, and named anew by each sync.
#[tokio::test(flavor = "multi_thread")]
async fn each_sync_runs_its_hooks_again() {
    let cluster = Cluster::new("argo-hooks").await;
    let marks = tempfile::tempdir().unwrap();
    let hook = |name: &str, policy: &str| {
        let line = marks.path().join(name);
        let task = cluster.task(name, &format!("echo started >> {}", line.display()));
        annotated(task, &[(HOOK, "PreSync"), (POLICY, policy)])
    };
    let mut named_anew = hook("anew", "HookSucceeded");
    let name = named_anew["metadata"].as_object_mut().unwrap().remove("name").unwrap();
    named_anew["metadata"]["generateName"] = json!(format!("{}-", name.as_str().unwrap()));
    for n in 1..=2 {
        let objects = [
            hook("before", "BeforeHookCreation"),
            hook("succeeded", "HookSucceeded"),
            named_anew.clone(),
            config_map("after", &n.to_string()),
        ];
        let synced = sync(&cluster, &objects, HealthCheck::Installed).await;
        assert!(synced["error"].is_null(), "{synced}");
        for name in ["before", "succeeded", "anew"] {
            assert_eq!(result(&synced, name)["Phase"], "Succeeded", "{synced}");
            let lines = std::fs::read_to_string(marks.path().join(name)).unwrap();
            assert_eq!(lines.lines().count(), n, "{name} after sync {n}");
        }
    }
    until("one is left", Duration::from_secs(30), || async {
        let left = cluster.written(&["get", "tasks.sentinelnode.dev"], None).await;
        let names = left["items"].as_array().unwrap().iter().map(|task| task["metadata"]["name"].to_string());
        let names: Vec<String> = names.collect();
        if names == ["\"before\""] { Ok(()) } else { Err(names) }
    })
    .await;
    cluster.close().await;
}

/// Pruning deletes the Task: its Run is cancelled, and the Task is gone once its commands have ended.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_ends_a_running_task() {
    let cluster = Cluster::new("argo-prunes").await;
    let task = cluster.task("t", "exec sleep 605");
    sync(&cluster, &[task, config_map("c", "1")], HealthCheck::Missing).await;
    cluster.until_reason("t", "Running").await;
    let synced = sync(&cluster, &[config_map("c", "2")], HealthCheck::Installed).await;
    assert_eq!(result(&synced, "t")["Status"], "Pruned", "{synced}");
    cluster.kubectl(&["wait", "--for=delete", "--timeout=60s", "stask", "t"]).await.unwrap();
    let left = std::process::Command::new("pgrep").args(["-f", "^sleep 605$"]).output().unwrap();
    assert!(left.stdout.is_empty(), "the command still runs");
    cluster.close().await;
}

/// Uses an action as Argo CD does: its script changes the live object, and the change is patched.
async fn act(cluster: &Cluster, name: &str, action: &str) {
    let live = cluster.get(name).await;
    let answer =
        ask_one("argo-action", json!({"object": live, "configMap": argocd_cm(), "action": action})).await;
    let offered = answer["offered"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert!(offered.iter().any(|offer| offer["name"] == action), "{action} is not offered: {answer}");
    let after = &answer["object"];
    let patch = json!({
        "metadata": {"annotations": after["metadata"]["annotations"]},
        "spec": {"suspend": after["spec"]["suspend"]},
    });
    cluster.written(&["patch", "stask", name, "--type=merge", "-p", &patch.to_string()], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actions_do_what_they_are_named_and_leave_no_difference() {
    let cluster = Cluster::new("argo-actions").await;
    let task = cluster.task("t", "exec sleep 606");
    sync(&cluster, std::slice::from_ref(&task), HealthCheck::Missing).await;
    cluster.until_reason("t", "Running").await;
    act(&cluster, "t", "cancel").await;
    let cancelled = cluster.wait("t", "Failed").await;
    assert_eq!(cancelled["status"]["phase"], "Cancelled", "{cancelled}");
    act(&cluster, "t", "rerun").await;
    cluster.until_task("t", "run 2", |task| task["status"]["run"]["number"] == 2).await;
    cluster.until_reason("t", "Running").await;
    act(&cluster, "t", "cancel").await;
    cluster.wait("t", "Failed").await;
    act(&cluster, "t", "suspend").await;
    cluster.wait("t", "Suspended").await;
    act(&cluster, "t", "rerun").await;
    cluster.wait("t", "Reconciling").await;
    let diff = json!({
        "object": task, "kubeconfig": cluster.kubeconfig(), "namespace": cluster.namespace(), "application": "apps",
    });
    argo_cd_finds_no_difference(&[diff]).await;
    act(&cluster, "t", "resume").await;
    cluster.until_task("t", "run 3", |task| task["status"]["run"]["number"] == 3).await;
    act(&cluster, "t", "cancel").await;
    cluster.close().await;
}
