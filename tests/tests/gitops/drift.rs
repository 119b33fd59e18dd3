//! No tool finds a difference between a Task in Git and the live one, by any way of applying it: the operator never owns a field of
//! the spec, and defaults do not count as differences.

use std::collections::BTreeSet;
use std::time::Duration;

use sentinel_tests::cluster::repository;
use sentinel_tests::gitops::{argo_cd_finds_no_difference, ask_one};
use sentinel_tests::wait::until;
use serde_json::{Value, json};

use crate::kit::{Cluster, version};

/// Field managers of an apply by hand: with the name of a tool, on the server's side, or without one, on the client's.
const MANAGERS: [&str; 3] = ["argocd-controller", "helm", CLIENT_SIDE];

const CLIENT_SIDE: &str = "kubectl-client-side-apply";

/// A Task that has every field, none with its default; `every_field_is_in_the_task` keeps it so.
const EVERY_FIELD: &str = r#"
apiVersion: sentinelnode.dev/v1alpha1
kind: Task
metadata: {name: every-field, labels: {team: platform}, annotations: {note: "as in Git"}}
spec:
  targets:
    nodeSelector:
      matchLabels: {pool: none}
      matchExpressions:
        - {key: zone, operator: NotIn, values: [z, a]}
        - {key: gpu, operator: DoesNotExist}
    exclude: {nodeNames: [z, a]}
    controlPlane: Include
  run:
    script: {interpreter: /bin/sh, text: "true\n"}
    env:
      - {name: Z, value: "1"}
      - {name: A}
      - {name: S, valueFrom: {secretKeyRef: {name: db, key: password, optional: true}}}
    environment: Host
    sandbox: Baseline
    readOnlyRootFilesystem: true
    user: "65534"
    group: "65534"
    umask: "0077"
    workingDir: /tmp
    stdinFrom: {secretKeyRef: {name: db, key: key.pem, optional: false}}
    leftovers: Keep
    successExitCodes: [3, 0]
    limits: {cpu: 1, memory: 256Mi, pids: 64, nofile: 2048, core: "0"}
    output: {limit: 2Gi, spool: 128Mi, maxBlock: 90s, merge: true, mask: false}
  timeouts: {start: 90s, run: 90m, idle: 60s, total: 24h, unreachable: 600s, grace: 500ms}
  retry: {limit: 2, backoff: {initial: 1000ms, factor: 3, max: 120s}, causes: [TimedOut, Failed]}
  rollout: {maxConcurrent: 3}
  onChange: Cancel
  onRecreate: OncePerSpec
  suspend: true
  rerunToken: "2026-11-24"
  ttlAfterFinished: 48h
"#;

/// The alternatives to what it has.
const ALTERNATIVES: [&str; 4] = ["targets.nodeNames", "targets.all", "run.command", "run.stdin"];

fn every_field() -> Value {
    serde_saphyr::from_str(EVERY_FIELD).unwrap()
}

fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let under = if schema["items"]["properties"].is_object() { &schema["items"] } else { schema };
    let Some(fields) = under["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    for (name, field) in fields {
        leaves(field, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
    }
}

fn has(value: &Value, path: &[&str]) -> bool {
    match (path, value) {
        ([], _) => true,
        (_, Value::Array(items)) => items.iter().any(|item| has(item, path)),
        ([first, rest @ ..], _) => value.get(first).is_some_and(|field| has(field, rest)),
    }
}

#[test]
fn every_field_is_in_the_task() {
    let crd = std::fs::read_to_string(repository().join("crds/task.yaml")).unwrap();
    let crd: Value = serde_saphyr::from_str(&crd).unwrap();
    let mut fields = BTreeSet::new();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    leaves(schema, "", &mut fields);
    assert!(fields.len() > 30, "{fields:?}");
    let task = every_field();
    let missing: Vec<&String> = fields
        .iter()
        .filter(|path| !has(&task["spec"], &path.split('.').collect::<Vec<_>>()))
        .filter(|path| !ALTERNATIVES.contains(&path.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}: add them to the Task of this test");
}

/// The examples and the Task with every field, under names of their own.
fn tasks(prefix: &str) -> Vec<Value> {
    let mut tasks = vec![every_field()];
    for entry in std::fs::read_dir(repository().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            tasks.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
        }
    }
    assert!(tasks.len() > 15);
    for task in &mut tasks {
        task["metadata"]["name"] = json!(format!("{prefix}-{}", task["metadata"]["name"].as_str().unwrap()));
    }
    tasks
}

/// All Tasks of the namespace with this prefix, once the operator has observed each and begun its Run, if it has one.
async fn observed(cluster: &Cluster, prefix: &str) -> Vec<Value> {
    until("the Tasks are observed", Duration::from_secs(90), || async {
        let list = cluster.written(&["get", "tasks.sentinelnode.dev", "--show-managed-fields"], None).await;
        let ours = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|task| task["metadata"]["name"].as_str().unwrap().starts_with(prefix));
        let ours: Vec<Value> = ours.cloned().collect();
        let is_observed = |task: &Value| {
            let status = &task["status"];
            task["metadata"]["generation"] == status["observedGeneration"]
                && (status["run"]["number"] == 1 || status["phase"] == "Suspended")
        };
        match ours.iter().find(|task| !is_observed(task)) {
            Some(task) => Err(task.to_string()),
            None => Ok(ours),
        }
    })
    .await
}

/// What a re-apply must leave as it is. A late result or the archive may write the status again.
fn intent(tasks: &[Value]) -> Vec<Value> {
    let of = |task: &Value| {
        let (metadata, status) = (&task["metadata"], &task["status"]);
        json!([
            metadata["name"],
            metadata["uid"],
            metadata["generation"],
            task["spec"],
            status["run"]["number"]
        ])
    };
    tasks.iter().map(of).collect()
}

/// The operator owns its finalizer and the status, and nothing else.
fn owns_no_spec(tasks: &[Value], appliers: &[&str]) {
    for task in tasks {
        let entries = task["metadata"]["managedFields"].as_array().expect("managed fields");
        let operator: Vec<&Value> =
            entries.iter().filter(|entry| !appliers.contains(&entry["manager"].as_str().unwrap())).collect();
        assert!(!operator.is_empty(), "the operator has written nothing: {task}");
        for entry in operator {
            assert_eq!(entry["manager"], "sentinel-operator", "{task}");
            let fields = entry["fieldsV1"].as_object().unwrap();
            let metadata: Vec<&String> = fields
                .get("f:metadata")
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(|f| f.keys())
                .collect();
            assert!(metadata.iter().all(|field| *field == "f:finalizers"), "{entry}");
            assert!(
                fields.keys().all(|field| ["f:metadata", "f:status"].contains(&field.as_str())),
                "{entry}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_finds_no_drift_and_applies_nothing_twice() {
    let cluster = Cluster::new("drift-flux").await;
    for manager in ["kustomize-controller", "helm-controller"] {
        let prefix = &manager[..4];
        let request = json!({
            "objects": tasks(prefix), "kubeconfig": cluster.kubeconfig(), "namespace": cluster.namespace(),
            "name": "apps", "manager": manager,
        });
        let first = ask_one("flux-apply", request.clone()).await;
        let applied = first["applied"].as_object().unwrap_or_else(|| panic!("{first}"));
        assert!(applied.values().all(|action| action == "created"), "{first}");
        let before = observed(&cluster, prefix).await;
        let second = ask_one("flux-apply", request).await;
        let applied = second["applied"].as_object().unwrap_or_else(|| panic!("{second}"));
        assert!(applied.values().all(|action| action == "unchanged"), "{second}");
        assert_eq!(second["drift"], json!({}), "{manager}");
        let after = observed(&cluster, prefix).await;
        assert_eq!(intent(&before), intent(&after), "{manager}");
        owns_no_spec(&after, &[manager]);
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_finds_no_difference_after_either_kind_of_apply() {
    let cluster = Cluster::new("drift-argo").await;
    for (prefix, server_side) in [("client", false), ("server", true)] {
        let tasks = tasks(prefix);
        let sync = json!({
            "objects": tasks, "kubeconfig": cluster.kubeconfig(), "namespace": cluster.namespace(),
            "application": prefix, "configMap": "", "serverSideApply": server_side, "prune": false, "seconds": 60,
        });
        let synced = ask_one("argo-sync", sync.clone()).await;
        assert_eq!(synced["results"].as_array().map(Vec::len), Some(tasks.len()), "{synced}");
        let before = observed(&cluster, prefix).await;
        let inputs: Vec<Value> = tasks
            .iter()
            .map(|task| {
                json!({
                    "object": task, "kubeconfig": cluster.kubeconfig(), "namespace": cluster.namespace(),
                    "application": prefix,
                })
            })
            .collect();
        argo_cd_finds_no_difference(&inputs).await;
        let again = ask_one("argo-sync", sync).await;
        assert!(again["error"].is_null(), "{again}");
        let after = observed(&cluster, prefix).await;
        assert_eq!(intent(&before), intent(&after), "{prefix}");
        owns_no_spec(&after, &["argocd-controller", CLIENT_SIDE]);
    }
    cluster.close().await;
}

/// As people check it by hand, with each tool's field manager and without `--force-conflicts`.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_again_without_conflict_or_change() {
    let cluster = Cluster::new("drift-kubectl").await;
    for (n, manager) in MANAGERS.into_iter().enumerate() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let prefix = format!("n{n}");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": tasks(&prefix)});
        std::fs::write(file.path(), list.to_string()).unwrap();
        let field_manager = format!("--field-manager={manager}");
        let how: &[&str] = match manager {
            CLIENT_SIDE => &[],
            _ => &["--server-side", &field_manager],
        };
        let run = |verb: &'static str| {
            let arguments = [&[verb, "-f", file.path().to_str().unwrap()], how].concat();
            let cluster = &cluster;
            async move { cluster.kubectl(&arguments).await }
        };
        run("apply").await.unwrap();
        let before = observed(&cluster, &prefix).await;
        // It exits with 1 and prints the differences when there are any: a status that is written between its two reads is one
        // too, and is not there again.
        let what = format!("{manager}: no difference");
        until(&what, Duration::from_secs(60), || async { run("diff").await }).await;
        run("apply").await.unwrap_or_else(|printed| panic!("{manager}: {printed}"));
        let after = observed(&cluster, &prefix).await;
        assert_eq!(intent(&before), intent(&after), "{manager}");
        owns_no_spec(&after, &[manager]);
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_apply_of_a_finished_task_writes_nothing() {
    let cluster = Cluster::new("drift-version").await;
    let apply = ["apply", "--server-side", "--field-manager=argocd-controller"];
    let task = cluster.task("t", "true");
    cluster.written(&apply, Some(&task)).await;
    cluster.wait("t", "Complete").await;
    // The last write of the operator: that History has all of it.
    let before = cluster.wait("t", "Archived").await;
    let after = cluster.written(&apply, Some(&task)).await;
    assert_eq!(version(&before), version(&after), "{after}");
    cluster.close().await;
}

/// Argo CD's tracking annotation and Flux's labels are set and removed on live objects: no Run begins by them.
#[tokio::test(flavor = "multi_thread")]
async fn labels_and_annotations_of_the_tools_begin_no_run() {
    let cluster = Cluster::new("tracking").await;
    let task = cluster.task("t", "true");
    cluster.create(&task).await;
    cluster.wait("t", "Complete").await;
    for marks in [
        &[
            "label",
            "kustomize.toolkit.fluxcd.io/name=apps",
            "kustomize.toolkit.fluxcd.io/namespace=flux-system",
        ][..],
        &["label", "app.kubernetes.io/instance=apps", "helm.toolkit.fluxcd.io/name=apps"],
        &["annotate", "argocd.argoproj.io/tracking-id=apps:sentinelnode.dev/Task:ops/t"],
        &[
            "annotate",
            "argocd.argoproj.io/sync-wave=3",
            "reconcile.fluxcd.io/requestedAt=2026-11-24T03:00:00Z",
        ],
        &["annotate", "argocd.argoproj.io/tracking-id-", "argocd.argoproj.io/refresh=hard"],
        &["label", "kustomize.toolkit.fluxcd.io/name-"],
    ] {
        let arguments = [&[marks[0], "--overwrite", "stask", "t"], &marks[1..]].concat();
        cluster.written(&arguments, None).await;
    }
    // A request that changes nothing else shows that the operator has reconciled all of that.
    cluster.written(&["annotate", "stask", "t", "sentinelnode.dev/cancel=1"], None).await;
    let task = cluster.until_task("t", "reconciled", |task| task["status"]["handled"]["cancel"] == 1).await;
    assert_eq!(task["status"]["run"]["number"], 1, "{task}");
    assert_eq!(task["metadata"]["generation"], 1, "{task}");
    cluster.close().await;
}
