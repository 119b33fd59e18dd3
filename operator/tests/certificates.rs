//! Certificates that the operator makes itself, kept in a Secret of a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod real_cluster;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use real_cluster::{cluster, cluster_as};
use sentinel_operator::certificates::issue::is_signed_by;
use sentinel_operator::certificates::keeper::Keeper;
use sentinel_operator::certificates::publisher::Publisher;
use sentinel_operator::clock::Clock;
use sentinel_operator::config::GeneratedCertificate;
use sentinel_operator::expiry::of_chain;
use sentinel_operator::metrics::Registry as Metrics;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A namespace with an empty Secret and an empty `ConfigMap`, as the chart makes them.
struct Piece {
    client: Client,
    namespace: String,
}

impl Piece {
    async fn new(client: Client) -> Self {
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let namespace = format!("certificates-{}", &suffix[..8]);
        let named = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let made = PostParams::default();
        let space = Namespace { metadata: named(&namespace), ..Namespace::default() };
        Api::all(client.clone()).create(&made, &space).await.unwrap();
        let piece = Self { client, namespace };
        let secret = Secret { metadata: named("tls"), ..Secret::default() };
        piece.secrets().create(&made, &secret).await.unwrap();
        let map = ConfigMap { metadata: named("ca"), ..ConfigMap::default() };
        piece.maps().create(&made, &map).await.unwrap();
        piece
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn keeper(&self) -> Keeper {
        self.keeper_in(&Metrics::new())
    }

    fn keeper_in(&self, metrics: &Metrics) -> Keeper {
        let what = GeneratedCertificate {
            secret: "tls".to_owned(),
            names: vec!["operator.test.svc".to_owned(), "localhost".to_owned()],
            config_map: Some("ca".to_owned()),
            webhook: None,
            api_service: None,
            lifetime: Duration::from_hours(24),
            authority_lifetime: Duration::from_hours(240),
        };
        Keeper::new(self.client.clone(), self.namespace.clone(), what, Clock::system(), metrics)
    }

    async fn text(&self, key: &str) -> String {
        let secret = self.secrets().get("tls").await.unwrap();
        let bytes = secret.data.unwrap_or_default().remove(key).map(|bytes| bytes.0).unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }

    async fn close(self) {
        let namespaces: Api<Namespace> = Api::all(self.client);
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not so within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_present_one_certificate_of_the_published_authority() {
    let Some(client) = cluster("certificates").await else { return };
    let piece = Piece::new(client).await;
    let mut keepers: Vec<Keeper> = (0..4).map(|_| piece.keeper()).collect();
    let made = futures_util::future::join_all(keepers.iter_mut().map(|keeper| keeper.first(PATIENCE))).await;
    for certificate in made {
        certificate.unwrap();
    }
    let (certificate, authority) = (piece.text("tls.crt").await, piece.text("ca.crt").await);
    assert!(is_signed_by(&certificate, &authority));
    let published = piece.maps().get("ca").await.unwrap().data.unwrap()["ca.crt"].clone();
    assert_eq!(published.trim(), authority.trim());
    piece.keeper().first(PATIENCE).await.unwrap();
    assert_eq!(piece.text("tls.crt").await, certificate, "a later replica makes no other");
    piece.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_taken_out_is_made_again_and_what_others_wrote_is_restored() {
    let Some(client) = cluster("certificates").await else { return };
    let piece = Piece::new(client).await;
    let metrics = Metrics::new();
    let mut keeper = piece.keeper_in(&metrics);
    keeper.first(PATIENCE).await.unwrap();
    let (before, authority) = (piece.text("tls.crt").await, piece.text("ca.crt").await);
    for (certificate, pem) in [("server", &before), ("server-authority", &authority)] {
        let ends = of_chain(pem.as_bytes()).unwrap().not_after;
        let line = format!(
            "sentinel_certificate_not_after_timestamp_seconds{{certificate=\"{certificate}\"}} {ends}"
        );
        assert!(metrics.render().lines().any(|rendered| rendered == line), "{line}");
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.run(Duration::from_millis(50), stop.clone()));

    let params = PatchParams::default();
    let without = Patch::Merge(json!({"data": {"tls.crt": null, "tls.key": null}}));
    piece.secrets().patch("tls", &params, &without).await.unwrap();
    until("another certificate", || async {
        let now = piece.text("tls.crt").await;
        !now.is_empty() && now != before
    })
    .await;
    assert!(is_signed_by(&piece.text("tls.crt").await, &authority), "of the same authority");

    piece.maps().patch("ca", &params, &Patch::Merge(json!({"data": {"ca.crt": "x"}}))).await.unwrap();
    until("the published authority is restored", || async {
        let data = piece.maps().get("ca").await.unwrap().data.unwrap_or_default();
        data.get("ca.crt").is_some_and(|text| text.trim() == authority.trim())
    })
    .await;

    let broken = Patch::Merge(json!({"stringData": {"ca.crt": "no certificate"}}));
    piece.secrets().patch("tls", &params, &broken).await.unwrap();
    until("another authority, published, with a certificate of its own", || async {
        let (certificate, authority) = (piece.text("tls.crt").await, piece.text("ca.crt").await);
        let data = piece.maps().get("ca").await.unwrap().data.unwrap_or_default();
        let is_published = data.get("ca.crt").is_some_and(|text| text.trim() == authority.trim());
        is_published && is_signed_by(&certificate, &authority)
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    piece.close().await;
}

/// It was reported as "failed to write Secret", again and again, without a reason or a remedy.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_or_config_map_is_reported_with_what_brings_it_back() {
    let Some(client) = cluster("certificates").await else { return };
    let mut piece = Piece::new(client.clone()).await;
    let user = format!("operator-of-{}", piece.namespace);
    // The rights that the chart gives: to change the two objects, and to make none.
    let rules = json!([
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tls"], "verbs": ["get", "update"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["ca"], "verbs": ["get", "patch"]},
    ]);
    let role: Role =
        serde_json::from_value(json!({"metadata": {"name": "operator"}, "rules": rules})).unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }))
    .unwrap();
    let made = PostParams::default();
    Api::namespaced(client.clone(), &piece.namespace).create(&made, &role).await.unwrap();
    Api::namespaced(client.clone(), &piece.namespace).create(&made, &binding).await.unwrap();
    piece.client = cluster_as(&user, "certificates").await.unwrap();
    piece.keeper().first(PATIENCE).await.unwrap();
    piece.client = client.clone();

    let deleted = DeleteParams::default();
    piece.maps().delete("ca", &deleted).await.unwrap();
    piece.client = cluster_as(&user, "certificates").await.unwrap();
    let metrics = Metrics::new();
    let mut keeper = piece.keeper_in(&metrics);
    let counted = |count: usize| {
        let line = format!("sentinel_server_certificate_reloads_total{{result=\"Absent\"}} {count}\n");
        assert!(metrics.render().contains(&line), "no {line:?} in\n{}", metrics.render());
    };
    counted(0);
    // Long enough for a second round: the first one that failed is counted.
    let error = keeper.first(Duration::from_secs(3)).await.unwrap_err();
    counted(1);
    let map = "ConfigMap ca does not exist, and the operator may not make it: helm upgrade brings it back";
    assert_eq!(error.to_string(), map);
    piece.client = client.clone();
    piece.secrets().delete("tls", &deleted).await.unwrap();
    piece.client = cluster_as(&user, "certificates").await.unwrap();
    let error = piece.keeper().first(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.to_string(), map.replace("ConfigMap ca", "Secret tls"));
    piece.client = client;
    piece.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_a_certificate_in_files_is_published_and_never_a_key() {
    let Some(client) = cluster("certificates").await else { return };
    let piece = Piece::new(client.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let put = |text: &str| {
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    let made = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let ((old, _), (new, key)) = (made("old.example"), made("new.example"));
    put(&old);
    let publisher = Publisher::new(client, &piece.namespace, "ca".to_owned(), file.clone());
    let published = async || {
        piece.maps().get("ca").await.unwrap().data.unwrap_or_default().remove("ca.crt").unwrap_or_default()
    };
    assert!(publisher.publish().await.unwrap() && !publisher.publish().await.unwrap());
    assert_eq!(published().await, old);
    // A file with a key, and one without a certificate, change nothing.
    for unusable in [format!("{new}{key}"), format!("{key}{new}"), String::new(), "no certificate".to_owned()]
    {
        put(&unusable);
        let refused = publisher.publish().await.unwrap_err();
        assert_eq!(refused.category(), "Content");
        assert_eq!(published().await, old);
    }
    put(&new);
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run(Duration::from_millis(50), stop.clone()));
    until("the next one is published", || async { published().await == new }).await;
    let others = Patch::Merge(json!({"data": {"ca.crt": "x"}}));
    piece.maps().patch("ca", &PatchParams::default(), &others).await.unwrap();
    until("what others wrote is restored", || async { published().await == new }).await;
    stop.cancel();
    running.await.unwrap();
    piece.close().await;
}
