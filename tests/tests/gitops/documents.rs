//! Every manifest in the documentation about GitOps, and the files that it names, are accepted by the API server: the kinds of
//! Argo CD and Flux by their own definitions.

use sentinel_tests::cluster::{TestNamespace, repository};
use sentinel_tests::gitops::{ask_one, flux_checks, installed};
use serde_json::{Value, json};

use crate::kit::{ONE_AT_A_TIME, define};

/// The manifests between the fences of a page.
fn manifests(page: &str) -> Vec<Value> {
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(|block| serde_saphyr::from_multiple::<Value>(block).unwrap()).collect()
}

async fn dry_run(namespace: &TestNamespace, object: &Value) -> Result<String, String> {
    // `apply` needs a name, and Argo CD makes one.
    let verb: &[&str] = if object["metadata"]["name"].is_null() {
        &["create"]
    } else {
        &["apply", "--server-side", "--validate=strict"]
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), object.to_string()).unwrap();
    let file = file.path().to_str().unwrap();
    namespace.parts.kubectl(&[verb, &["--dry-run=server", "-f", file]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_of_the_page_is_valid() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let namespace = TestNamespace::new("documents").await;
    define(&namespace.parts, &installed("gitops", "gitops").await.with_file_name("definitions")).await;
    let page = std::fs::read_to_string(repository().join("docs/gitops.md")).unwrap();
    let mut objects = manifests(&page);
    let checks = std::fs::read_to_string(flux_checks()).unwrap();
    let mut checks: Value = serde_saphyr::from_str(&checks).unwrap();
    // A patch: what it leaves out is the Kustomization's own.
    checks["spec"]["interval"] = json!("10m");
    checks["spec"]["prune"] = json!(true);
    checks["spec"]["sourceRef"] = json!({"kind": "GitRepository", "name": "apps"});
    objects.push(checks);
    let config_map = std::fs::read_to_string(sentinel_tests::gitops::argocd_cm()).unwrap();
    objects.push(serde_saphyr::from_str(&config_map).unwrap());

    let mut kinds: Vec<&str> = Vec::new();
    for object in &objects {
        kinds.push(object["kind"].as_str().unwrap());
        let name = format!("{} {}", kinds.last().unwrap(), object["metadata"]);
        if object["kind"] == "HelmRelease" {
            let answer = ask_one("decode", object.clone()).await;
            assert_eq!(answer, json!({"chart": "charts/sentinel-node"}), "{name}");
            continue;
        }
        let wanted = object["metadata"]["namespace"].as_str().unwrap_or("default");
        let made = namespace.parts.kubectl(&["create", "namespace", wanted]).await;
        assert!(
            made.is_ok() || made.as_ref().is_err_and(|printed| printed.contains("AlreadyExists")),
            "{made:?}"
        );
        dry_run(&namespace, object).await.unwrap_or_else(|printed| panic!("{name}: {printed}"));
    }
    for kind in ["Application", "ConfigMap", "GitRepository", "HelmRelease", "Kustomization", "Task"] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    namespace.close().await;
}
