//! Each state of a Task, as the operator wrote it, is the same to every tool.

use std::collections::BTreeMap;

use sentinel_tests::gitops::{argocd_cm, ask, flux_checks};
use serde_json::{Value, json};

use crate::fixtures;
use crate::kit::Cluster;

/// What each tool must conclude: kstatus (that of Helm and Flux too), Flux with the expressions, Argo CD with the health check.
const STATES: &[(&str, &str, &str, &str)] = &[
    ("created", "InProgress", "InProgress", "Progressing"),
    ("waiting", "InProgress", "InProgress", "Progressing"),
    ("running", "InProgress", "InProgress", "Progressing"),
    ("succeeded", "Current", "Current", "Healthy"),
    // The annotation changes no generation, so that kstatus cannot see it; docs/status.md states that.
    ("rerun-requested", "Current", "InProgress", "Progressing"),
    ("edited", "InProgress", "InProgress", "Progressing"),
    ("superseded", "InProgress", "InProgress", "Progressing"),
    ("failed", "Failed", "Failed", "Degraded"),
    ("cancelling", "InProgress", "InProgress", "Progressing"),
    ("cancelled", "Failed", "Failed", "Degraded"),
    ("no-nodes", "Failed", "Failed", "Degraded"),
    ("unreachable", "Failed", "Failed", "Degraded"),
    ("rejected", "Failed", "Failed", "Degraded"),
    ("suspended", "InProgress", "InProgress", "Suspended"),
    ("suspended-after-success", "Current", "Current", "Healthy"),
    ("suspended-rerun", "InProgress", "InProgress", "Suspended"),
    ("deleting", "Terminating", "InProgress", "Progressing"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_state_is_the_same_to_kstatus_flux_and_argo_cd() {
    let cluster = Cluster::new("states").await;
    cluster.testbed.add_node("silent", &[]).await;
    let mut states = BTreeMap::new();
    life_of_a_success(&cluster, &mut states).await;
    life_of_a_cancelled_one(&cluster, &mut states).await;
    those_that_never_run(&cluster, &mut states).await;

    let inputs: Vec<Value> = STATES.iter().map(|(name, ..)| question(&states[name])).collect();
    let answers = ask("health", &inputs).await;
    let mut wrong = Vec::new();
    for ((name, kstatus, expressions, argo), answer) in STATES.iter().zip(&answers) {
        let status = |tool: &str| answer[tool]["status"].as_str().unwrap_or("no answer").to_owned();
        let seen = [status("kstatus"), status("flux"), status("fluxExpressions"), status("argo")];
        if seen != [*kstatus, *kstatus, *expressions, *argo] {
            wrong.push(format!("{name}: {seen:?}: {answer}\n{}", states[name]["status"]));
        }
        // Argo CD without the health check: no health, which it takes for a success, unless the object is being deleted.
        let without = if *name == "deleting" { "Progressing" } else { "" };
        assert_eq!(answer["argoWithout"]["status"], without, "{name}");
        if *argo != "Progressing" || states[name]["status"]["conditions"].is_array() {
            assert_ne!(answer["argo"]["message"], "", "{name}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(states.len(), STATES.len());
    fixtures::compare(&cluster, &states);
    cluster.close().await;
}

pub fn question(task: &Value) -> Value {
    json!({"object": task, "configMap": argocd_cm(), "kustomization": flux_checks()})
}

type States = BTreeMap<&'static str, Value>;

async fn life_of_a_success(cluster: &Cluster, states: &mut States) {
    let task = cluster.gated("good", 0);
    states.insert("created", cluster.create(&task).await);
    states.insert("running", cluster.until_reason("good", "Running").await);
    cluster.open("good");
    states.insert("succeeded", cluster.wait("good", "Complete").await);
    let suspend = |on: bool| format!("{{\"spec\": {{\"suspend\": {on}}}}}");
    cluster.written(&["patch", "stask", "good", "--type=merge", "-p", &suspend(true)], None).await;
    states.insert("suspended-after-success", cluster.wait("good", "Suspended").await);
    let annotate = ["annotate", "stask", "good", "sentinelnode.dev/rerun=one"];
    cluster.written(&annotate, None).await;
    states.insert("suspended-rerun", cluster.wait("good", "Reconciling").await);
    cluster.written(&["patch", "stask", "good", "--type=merge", "-p", &suspend(false)], None).await;
    cluster.until_task("good", "run 2", |task| task["status"]["run"]["number"] == 2).await;
    cluster.wait("good", "Complete").await;
    let annotate = ["annotate", "--overwrite", "stask", "good", "sentinelnode.dev/rerun=two"];
    states.insert("rerun-requested", cluster.written(&annotate, None).await);
    cluster.until_task("good", "run 3", |task| task["status"]["run"]["number"] == 3).await;
    cluster.wait("good", "Complete").await;

    std::fs::remove_file(cluster.gates().join("good")).unwrap();
    let edit = r#"{"spec": {"run": {"env": [{"name": "A", "value": "1"}]}}}"#;
    states.insert(
        "edited",
        cluster.written(&["patch", "stask", "good", "--type=merge", "-p", edit], None).await,
    );
    cluster.until_reason("good", "Running").await;
    let edit = r#"{"spec": {"run": {"env": [{"name": "A", "value": "2"}]}}}"#;
    cluster.written(&["patch", "stask", "good", "--type=merge", "-p", edit], None).await;
    states.insert("superseded", cluster.until_reason("good", "Superseded").await);
    cluster.open("good");
    cluster.wait("good", "Complete").await;
}

async fn life_of_a_cancelled_one(cluster: &Cluster, states: &mut States) {
    let mut task = cluster.gated("bad", 3);
    task["spec"]["timeouts"]["grace"] = json!("5m");
    cluster.create(&task).await;
    cluster.until_reason("bad", "Running").await;
    cluster.written(&["annotate", "stask", "bad", "sentinelnode.dev/cancel=1"], None).await;
    states.insert("cancelling", cluster.until_reason("bad", "Cancelling").await);
    cluster.open("bad");
    states.insert("cancelled", cluster.wait("bad", "Failed").await);

    std::fs::remove_file(cluster.gates().join("bad")).unwrap();
    cluster.written(&["annotate", "stask", "bad", "sentinelnode.dev/rerun=one"], None).await;
    cluster.until_reason("bad", "Running").await;
    cluster.kubectl(&["delete", "--wait=false", "stask", "bad"]).await.unwrap();
    states.insert("deleting", cluster.until_reason("bad", "Terminating").await);
    cluster.open("bad");
    cluster.kubectl(&["wait", "--for=delete", "--timeout=60s", "stask", "bad"]).await.unwrap();
}

async fn those_that_never_run(cluster: &Cluster, states: &mut States) {
    cluster.create(&cluster.task("failing", "exit 3")).await;
    states.insert("failed", cluster.wait("failing", "Failed").await);

    let silent = json!([cluster.testbed.namespace.node_name("silent")]);
    let mut task = cluster.task("waiting", "true");
    task["spec"]["targets"]["nodeNames"] = silent.clone();
    cluster.create(&task).await;
    states.insert("waiting", cluster.until_reason("waiting", "WaitingForNodes").await);

    task["metadata"]["name"] = json!("unreachable");
    task["spec"]["timeouts"] = json!({"start": "1s"});
    cluster.create(&task).await;
    states.insert("unreachable", cluster.wait("unreachable", "Failed").await);

    let mut task = cluster.task("no-nodes", "true");
    task["spec"]["targets"] = json!({"nodeSelector": {"matchLabels": {"no": "node"}}});
    cluster.create(&task).await;
    states.insert("no-nodes", cluster.wait("no-nodes", "Failed").await);

    let mut task = cluster.task("suspended", "true");
    task["spec"]["suspend"] = json!(true);
    cluster.create(&task).await;
    states.insert("suspended", cluster.wait("suspended", "Suspended").await);

    // The API server counts characters and cannot refuse it: docs/refusals.md.
    cluster.create(&cluster.task("rejected", &"é".repeat(100_000))).await;
    states.insert("rejected", cluster.wait("rejected", "Stalled").await);
}
