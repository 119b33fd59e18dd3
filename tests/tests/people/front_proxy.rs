//! The authority of the API server's front proxy changes while requests run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use sentinel_tests::certificates::{Ca, ServerCertificate};
use sentinel_tests::ports::free_port;
use sentinel_tests::requests::{ClientIdentity, Request, Stream, encrypted};
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;
use tokio_util::sync::CancellationToken;

/// The operator reads what the cluster publishes every 30 s (docs/access.md).
const COUNTS_WITHIN: Duration = Duration::from_secs(35);

const CA_KEY: &str = "requestheader-client-ca-file";

fn identity(of: &ServerCertificate) -> ClientIdentity {
    ClientIdentity { certificate: of.certificate.clone(), key: of.key.clone() }
}

fn by_admin(path: &str) -> Request {
    let path = format!("{}{path}", sentinel_api::aggregated::PREFIX);
    Request::new("GET", &path).with("X-Remote-User", "admin").with("X-Remote-Group", "system:masters")
}

/// Asks again and again as the front proxy that stays the cluster's; counts answers, and ends with what went wrong.
async fn asks(port: u16, ca: Arc<Path>, client: ClientIdentity, asked: Arc<AtomicUsize>) -> String {
    loop {
        match encrypted(port, &ca, Some(&client), &by_admin("/tasks")).await {
            Ok(answered) if answered.status == 200 => asked.fetch_add(1, Ordering::Relaxed),
            other => return format!("{other:?}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_of_the_front_proxy_counts_in_time_and_nothing_is_dropped() {
    let files = tempfile::tempdir().unwrap();
    let (ours, extra) = (Ca::new(files.path(), "operator-ca"), Ca::new(files.path(), "extra-ca"));
    let client = identity(&extra.issue(files.path(), "front", "front-proxy-client"));
    let port = free_port();
    let flags = vec!["--api-auth=kubernetes".to_owned(), format!("--aggregated-listen=127.0.0.1:{port}")];
    let tls = Some(ours.issue(files.path(), "operator", "localhost"));
    let testbed = Testbed::with("front", Options { tls, flags, ..Options::default() }).await;
    let ca: Arc<Path> = ours.certificate.clone().into();
    let ask = async || encrypted(port, &ca, Some(&client), &by_admin("/tasks")).await;
    // Until it leads, it closes what it cannot pass on to a leader.
    until("an unknown authority is refused", COUNTS_WITHIN, || async {
        match ask().await {
            Err(refused) if refused.contains("alert") => Ok(()),
            other => Err(other),
        }
    })
    .await;

    let pki = |file: &str| testbed.namespace.parts.pki(file);
    let lasting =
        ClientIdentity { certificate: pki("front-proxy-client.crt"), key: pki("front-proxy-client.key") };
    let (asked, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let asking =
        tokio::spawn(stop.clone().run_until_cancelled_owned(asks(port, ca.clone(), lasting, asked.clone())));

    let maps: Api<ConfigMap> = Api::namespaced(testbed.namespace.client.clone(), "kube-system");
    let publish = async |pem: &str| {
        let patch = Patch::Merge(serde_json::json!({"data": {CA_KEY: pem}}));
        let params = PatchParams::default();
        maps.patch("extension-apiserver-authentication", &params, &patch).await.unwrap();
    };
    let map = maps.get("extension-apiserver-authentication").await.unwrap();
    let before = map.data.unwrap()[CA_KEY].clone();
    let added = std::fs::read_to_string(&extra.certificate).unwrap();
    publish(&format!("{before}{added}")).await;
    until("the new authority counts", COUNTS_WITHIN, || async {
        ask().await.and_then(|answered| if answered.status == 200 { Ok(()) } else { Err(answered.text) })
    })
    .await;
    let watch = by_admin(&format!("/namespaces/{}/tasks?watch=true", testbed.namespace.name));
    let mut watching = Stream::open(port, &ca, Some(&client), &watch).await.unwrap();

    publish(&before).await;
    until("the old authority counts no more", COUNTS_WITHIN, || async {
        ask().await.map_or(Ok(()), |answered| Err(answered.text))
    })
    .await;
    // What began under it continues.
    let task = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "seen"},
        "spec": {"targets": {"nodeNames": ["none"]}, "run": {"command": ["true"]}},
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
    let seen = async {
        while !watching.text.contains("\"seen\"") {
            watching.read().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the stream continues");
    stop.cancel();
    assert_eq!(asking.await.unwrap(), None, "a request of the lasting front proxy failed");
    assert!(asked.load(Ordering::Relaxed) > 100, "{asked:?} requests");
    testbed.close().await;
}
