//! The chart from a pipeline: rendered and applied, in whatever order the pipeline has, and left alone afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_tests::cluster::repository;
use sentinel_tests::gitops::{argo_cd_finds_no_difference, installed, program};
use sentinel_tests::parts::Parts;
use sentinel_tests::wait::until;
use serde_json::{Value, json};

use crate::kit::{ONE_AT_A_TIME, define};

const MANAGER: &str = "--field-manager=argocd-controller";

/// What the operator fills at run time, as a merge patch.
const FILLED: [(&str, &str, &str); 3] = [
    (
        "secret",
        "-tls",
        r#"{"data": {"tls.crt": "YQ==", "tls.key": "YQ==", "ca.crt": "YQ==", "ca.key": "YQ=="}}"#,
    ),
    ("configmap", "-ca", r#"{"data": {"ca.crt": "a certificate"}}"#),
    (
        "apiservice",
        "",
        r#"{"spec": {"caBundle": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkE9PQotLS0tLUVORCBDRVJUSUZJQ0FURS0tLS0tCg=="}}"#,
    ),
];

async fn rendered(release: &str, more: &[&str]) -> Vec<Value> {
    let chart = repository().join("charts/sentinel-node");
    let values = chart.join("ci/gitops-values.yaml");
    let mut helm = program("charts", "helm4");
    helm.args(["template", release, "--namespace", release, "--values"]).arg(values).arg(chart).args(more);
    let output = helm.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = serde_saphyr::from_multiple::<Value>(&text).unwrap();
    objects.into_iter().filter(Value::is_object).collect()
}

/// A linear congruential generator; the seed is printed by a failure.
fn shuffled(mut objects: Vec<Value>, seed: u64) -> Vec<Value> {
    let mut state = seed;
    for end in (1..objects.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        objects.swap(end, (state >> 33) as usize % (end + 1));
    }
    objects
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

async fn kubectl(parts: &Parts, arguments: &[&str]) -> Result<String, String> {
    parts.kubectl(arguments).await
}

/// Applies the objects one after the other, and again until the API server has accepted each.
async fn apply_in_order(parts: &Parts, objects: &[Value]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    std::fs::write(file.path(), text.join("\n---\n")).unwrap();
    until("every object is accepted", Duration::from_secs(60), || async {
        kubectl(parts, &["apply", "--server-side", MANAGER, "-f", file.path().to_str().unwrap()]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_is_applied_in_any_order_and_nothing_drifts() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let parts = Parts::find();
    // The kinds of monitoring that the values ask for.
    define(&parts, &installed("charts", "helm4").await.with_file_name("definitions")).await;
    for (release, seed) in [("order-a", 1), ("order-b", 20_261_124)] {
        let objects = shuffled(rendered(release, &[]).await, seed);
        assert!(objects.len() > 20, "{}", objects.len());
        let kinds: BTreeMap<&str, usize> =
            objects.iter().enumerate().map(|(n, object)| (kind(object), n)).collect();
        println!("seed {seed}: {kinds:?}");
        apply_in_order(&parts, &objects).await;
        let full = objects.iter().find(|object| kind(object) == "DaemonSet").unwrap();
        let full = full["metadata"]["name"].as_str().unwrap().trim_end_matches("-agent");
        for (kind, suffix, patch) in FILLED {
            let name = if kind == "apiservice" {
                "v1alpha1.ops.sentinelnode.dev".into()
            } else {
                format!("{full}{suffix}")
            };
            let patch = ["patch", kind, &name, "-n", release, "--type=merge", "-p", patch];
            let manager = ["--field-manager=sentinel-operator"];
            kubectl(&parts, &[&patch[..], &manager].concat()).await.unwrap();
        }
        let inputs: Vec<Value> = objects
            .iter()
            .map(|object| {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                json!({
                    "object": object, "kubeconfig": parts.kubeconfig, "namespace": namespace, "application": "",
                })
            })
            .collect();
        argo_cd_finds_no_difference(&inputs).await;
        // What a pipeline does each time: no conflict with the operator, and its data stays.
        apply_in_order(&parts, &objects).await;
        let secret = kubectl(&parts, &["get", "secret", &format!("{full}-tls"), "-n", release, "-o", "json"])
            .await
            .unwrap();
        let secret: Value = serde_json::from_str(&secret).unwrap();
        assert_eq!(secret["data"]["tls.key"], "YQ==", "{secret}");
        remove(&parts, &objects).await;
    }
}

/// Removes what was applied, but the definitions, which other tests have too: they must not find an installation.
async fn remove(parts: &Parts, objects: &[Value]) {
    let items: Vec<&Value> =
        objects.iter().filter(|object| kind(object) != "CustomResourceDefinition").collect();
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(file.path(), list.to_string()).unwrap();
    let path = file.path().to_string_lossy();
    kubectl(parts, &["delete", "--ignore-not-found", "--wait=false", "-f", &path]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_has_no_hooks_but_its_test() {
    for object in rendered("hooks", &["--set", "tests.enabled=true"]).await {
        let hook = &object["metadata"]["annotations"]["helm.sh/hook"];
        assert!(hook.is_null() || hook == "test", "{object}");
    }
}
