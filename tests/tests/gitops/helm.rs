//! `helm install --wait` of a chart with a Task: it waits for the Run, and fails as soon as the Run has failed. This is the wait
//! of Helm 4; that of Helm 3 knows its own list of kinds.

use std::path::Path;
use std::process::Output;

use sentinel_tests::gitops::program;
use serde_json::Value;

use crate::kit::{Cluster, condition};

fn chart(folder: &Path, task: &Value) -> String {
    let chart = folder.join(task["metadata"]["name"].as_str().unwrap());
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: report\nversion: 1.0.0\n").unwrap();
    std::fs::write(chart.join("templates/task.yaml"), task.to_string()).unwrap();
    chart.display().to_string()
}

async fn helm(cluster: &Cluster, verb: &str, chart: &str) -> Output {
    let name = Path::new(chart).file_name().unwrap().to_str().unwrap();
    let mut helm = program("charts", "helm4");
    helm.args([verb, name, chart, "--wait", "--timeout=90s", "--namespace", cluster.namespace()]);
    helm.args(["--kubeconfig", &cluster.kubeconfig()]).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_waits_for_the_end_and_fails_at_once() {
    let cluster = Cluster::new("helm").await;
    let charts = tempfile::tempdir().unwrap();

    let good = chart(charts.path(), &cluster.gated("good", 0));
    let open = async {
        cluster.until_reason("good", "Running").await;
        cluster.open("good");
    };
    let (installed, ()) = tokio::join!(helm(&cluster, "install", &good), open);
    assert!(installed.status.success(), "{installed:?}");
    let first = cluster.get("good").await;
    assert_eq!(condition(&first, "Complete")["status"], "True", "it did not wait: {first}");
    let upgraded = helm(&cluster, "upgrade", &good).await;
    assert!(upgraded.status.success(), "{upgraded:?}");
    let second = cluster.get("good").await;
    assert_eq!(second["status"]["run"]["number"], 1, "an upgrade that changes nothing: {second}");

    let failed = helm(&cluster, "install", &chart(charts.path(), &cluster.task("bad", "exit 3"))).await;
    let printed = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success(), "{printed}");
    assert!(printed.contains("run 1: 1/1 done, 1 failed"), "{printed}");
    assert!(!printed.contains("deadline exceeded"), "{printed}");
    cluster.close().await;
}
