//! Flux waits for Tasks, by kstatus and by the expressions, and fails as soon as one does.

use sentinel_tests::gitops::{ask_one, flux_checks};
use serde_json::{Value, json};

use crate::kit::{Cluster, condition};

async fn apply(cluster: &Cluster, task: &Value, kustomization: &str) -> Value {
    ask_one(
        "flux-apply",
        json!({
            "objects": [task], "kubeconfig": cluster.kubeconfig(), "namespace": cluster.namespace(), "name": "apps",
            "manager": "kustomize-controller", "kustomization": kustomization, "seconds": 90,
        }),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_waits_for_the_end_and_fails_at_once() {
    let cluster = Cluster::new("flux").await;
    let checks = flux_checks().display().to_string();
    for (how, kustomization) in [("kstatus", ""), ("expressions", checks.as_str())] {
        let good = format!("good-{how}");
        let task = cluster.gated(&good, 0);
        let open = async {
            cluster.until_reason(&good, "Running").await;
            cluster.open(&good);
        };
        let (applied, ()) = tokio::join!(apply(&cluster, &task, kustomization), open);
        assert!(applied["wait"].is_null(), "{how}: {applied}");
        let task = cluster.get(&good).await;
        assert_eq!(condition(&task, "Complete")["status"], "True", "{how}: it did not wait: {task}");

        let bad = format!("bad-{how}");
        let applied = apply(&cluster, &cluster.task(&bad, "exit 3"), kustomization).await;
        let wait = applied["wait"].as_str().unwrap_or_else(|| panic!("{how}: {applied}"));
        // And not `timeout waiting for`.
        assert!(wait.contains(&format!("{bad} status: 'Failed'")), "{how}: {wait}");
        assert!(wait.starts_with("failed early"), "{how}: {wait}");
    }
    cluster.close().await;
}
