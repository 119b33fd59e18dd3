//! How the operator identifies itself to a real API server: field managers, `User-Agent`, cluster events.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DynamicObject, ListParams, ObjectMeta, PostParams};
use kube::core::ApiResource;
use sentinel_core::lease::{Candidate, Role, Timing};
use sentinel_core::reconcile::{Finalizer, Level, Notice};
use sentinel_core::time::Monotonic;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::client::{API_MANAGER, OPERATOR_MANAGER};
use sentinel_operator::cluster::{Cluster, EmbeddedCluster, KubeCluster, Publication, TaskKeeper, TaskStore};
use sentinel_operator::leader::{Campaign, ElectionStatus};
use sentinel_operator::metrics::Registry;
use sentinel_operator::resource::marks::RERUN;
use sentinel_operator::resource::status::TaskStatus;
use sentinel_operator::resource::{TargetSlice, Task, manifest};
use sentinel_protocol::ids::{Epoch, NodeName, RunNumber, TaskRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kit::Piece;

fn task(namespace: &str, name: &str) -> Task {
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targets: {{all: true}}, run: {{command: [x]}}}}\n"
    );
    manifest::read(&text).unwrap().remove(0)
}

/// The managers of all objects of a kind in the namespace, each with the subresource and operation it wrote by.
async fn managers<K: kube::Resource<DynamicType = ()>>(piece: &Piece) -> BTreeSet<String> {
    let resource = ApiResource::erase::<K>(&());
    let api = Api::<DynamicObject>::namespaced_with(piece.client.clone(), &piece.namespace, &resource);
    let objects = api.list(&ListParams::default()).await.unwrap().items;
    assert!(!objects.is_empty(), "there is no {}", K::kind(&()));
    let entries = objects.into_iter().flat_map(|object| object.metadata.managed_fields.unwrap_or_default());
    entries
        .map(|entry| {
            let part = entry.subresource.unwrap_or_default();
            let operation = entry.operation.unwrap_or_default();
            format!("{} {operation} {part}", entry.manager.unwrap_or_default()).trim_end().to_owned()
        })
        .collect()
}

fn set(managers: &[String]) -> BTreeSet<String> {
    managers.iter().cloned().collect()
}

#[tokio::test]
async fn every_write_to_an_api_server_names_its_writer() {
    let Some(piece) = Piece::new("managers").await else { return };
    let (cluster, namespace) = (&piece.cluster, piece.namespace.as_str());
    let name = |name: &str| TaskRef::new(namespace, name).unwrap();
    cluster.create(task(namespace, "created")).await.unwrap();
    cluster.apply(task(namespace, "applied")).await.unwrap();
    let seen = cluster.annotate(name("created"), RERUN, Some("again".into())).await.unwrap();
    let seen = cluster.set_finalizer(&seen, Finalizer::Present).await.unwrap();
    let status = TaskStatus { observed_generation: 1, ..TaskStatus::default() };
    let seen = cluster.write_status(&seen, status).await.unwrap();
    assert_eq!(
        managers::<Task>(&piece).await,
        set(&[
            format!("{API_MANAGER} Update"),
            format!("{API_MANAGER} Apply"),
            format!("{OPERATOR_MANAGER} Update"),
            format!("{OPERATOR_MANAGER} Update status"),
        ])
    );
    let nodes: Vec<NodeName> = (0..101).map(|n| NodeName::new(format!("n{n}")).unwrap()).collect();
    cluster.persist_targets(&seen, RunNumber(1), &nodes).await.unwrap();
    assert_eq!(managers::<TargetSlice>(&piece).await, set(&[format!("{OPERATOR_MANAGER} Update")]));
    let notice = Notice { reason: "RunStarted", note: "run 1 begins".into(), level: Level::Normal };
    for _ in 0..2 {
        cluster.publish(&seen, &notice).await.unwrap();
    }
    assert_eq!(managers::<Event>(&piece).await, set(&[format!("{OPERATOR_MANAGER} Update")]));
    lead_and_resign(&piece).await;
    assert_eq!(managers::<Lease>(&piece).await, set(&[format!("{OPERATOR_MANAGER} Update")]));
    cluster.set_finalizer(&seen, Finalizer::Absent).await.unwrap();
    piece.close().await;
}

/// Acquires a Lease in the test's namespace and releases it.
async fn lead_and_resign(piece: &Piece) {
    let began = std::time::Instant::now();
    let clock = move || Monotonic(u64::try_from(began.elapsed().as_millis()).unwrap());
    let candidate = Candidate::new("a-test".into(), None, Timing::DEFAULT);
    let api = Api::<Lease>::namespaced(piece.client.clone(), &piece.namespace);
    let (status, mut changes) = watch::channel(ElectionStatus::UNKNOWN);
    let (_epochs_in, epochs) = watch::channel(Epoch::ZERO);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let campaign = Campaign { api, name: "lead".to_owned(), candidate, clock, status };
    let campaign = tokio::spawn(campaign.run(epochs, stopped));
    let leads = changes.wait_for(|status| matches!(status.role, Role::Leading(_)));
    drop(tokio::time::timeout(Duration::from_secs(30), leads).await.unwrap().unwrap());
    stop.cancel();
    campaign.await.unwrap();
}

/// For a write without a field manager, an API server uses the part of `User-Agent` before `/`.
#[tokio::test]
async fn an_api_server_knows_the_operator_by_its_user_agent() {
    let Some(piece) = Piece::new("agent").await else { return };
    let metadata = ObjectMeta { name: Some("from-the-client".into()), ..ObjectMeta::default() };
    let map = ConfigMap { metadata, ..ConfigMap::default() };
    let api = Api::<ConfigMap>::namespaced(piece.client.clone(), &piece.namespace);
    let data = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = api.create(&PostParams::default(), &ConfigMap { data: Some(data), ..map }).await.unwrap();
    let managers: Vec<_> =
        made.metadata.managed_fields.unwrap().into_iter().map(|entry| entry.manager).collect();
    assert_eq!(managers, [Some(OPERATOR_MANAGER.to_owned())]);
    piece.close().await;
}

#[tokio::test]
async fn requests_name_program_version_and_platform() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(head).unwrap()
    });
    let cluster = KubeCluster::new(kube::Config::new(url), None, &Registry::new()).unwrap();
    let _ = cluster.get(TaskRef::new("ns", "t").unwrap()).await;
    let head = server.await.unwrap();
    let agents: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("user-agent: ")).collect();
    assert_eq!(agents, [sentinel_protocol::product::user_agent("sentinel-operator")]);
}

/// Publishes notices to any cluster.
async fn publish_notices(cluster: &dyn Cluster, namespace: &str) {
    let task = cluster.create(task(namespace, "busy")).await.unwrap();
    let publish = async |reason: &'static str, note: &str| {
        let notice = Notice { reason, note: note.to_owned(), level: Level::Normal };
        assert_eq!(cluster.publish(&task, &notice).await.unwrap(), Publication::Published);
    };
    for run in 1..=3 {
        publish("RunStarted", &format!("run {run} begins on 2 nodes")).await;
    }
    for _ in 0..3 {
        publish("RunComplete", "run 3: all 2 nodes succeeded").await;
    }
}

const EXPECTED: [(&str, i32); 4] = [
    ("run 1 begins on 2 nodes", 1),
    ("run 2 begins on 2 nodes", 1),
    ("run 3 begins on 2 nodes", 1),
    ("run 3: all 2 nodes succeeded", 3),
];

#[tokio::test]
async fn embedded_events_are_per_run_and_repeats_are_counted() {
    let cluster = EmbeddedCluster::in_memory(Clock::system());
    publish_notices(&cluster, "here").await;
    let mut found: Vec<_> =
        cluster.published().into_iter().map(|event| (event.notice.note, event.count)).collect();
    found.sort();
    assert_eq!(found, EXPECTED.map(|(note, count)| (note.to_owned(), count.unsigned_abs())));
}

#[tokio::test]
async fn real_events_are_per_run_and_repeats_are_a_series() {
    let Some(piece) = Piece::new("events").await else { return };
    publish_notices(&piece.cluster, &piece.namespace).await;
    let api = Api::<Event>::namespaced(piece.client.clone(), &piece.namespace);
    let events = api.list(&ListParams::default()).await.unwrap().items;
    let count = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
    let mut found: Vec<_> = events.iter().map(|event| (event.note.clone().unwrap(), count(event))).collect();
    found.sort();
    assert_eq!(found, EXPECTED.map(|(note, count)| (note.to_owned(), count)));
    for event in &events {
        assert_eq!(event.reporting_controller.as_deref(), Some(OPERATOR_MANAGER));
        assert_eq!(event.reporting_instance.as_deref(), Some("a-test"));
        assert!(matches!(event.action.as_deref(), Some("StartRun" | "FinishRun")), "{:?}", event.action);
    }
    let described = piece.kubectl(&["describe", "stask", "busy"]).unwrap();
    for (note, count) in EXPECTED {
        let line = described.lines().find(|line| line.contains(note));
        let line = line.unwrap_or_else(|| panic!("{note}: {described}"));
        assert!(line.contains(OPERATOR_MANAGER), "{line}");
        assert_eq!(line.contains(&format!("(x{count} over")), count > 1, "{line}");
    }
    let listed = piece.kubectl(&["get", "events", "-o", "wide"]).unwrap();
    let series = listed.lines().find(|line| line.contains("run 3: all 2 nodes")).unwrap();
    for column in ["Normal", "RunComplete", "task/busy", OPERATOR_MANAGER, "3"] {
        assert!(series.contains(column), "{column}: {series}");
    }
    piece.close().await;
}

/// A new leader does not know what the previous one has published.
#[tokio::test]
async fn a_second_operator_adds_to_the_series_of_the_first() {
    let Some(piece) = Piece::new("second").await else { return };
    let task = piece.cluster.create(task(&piece.namespace, "t")).await.unwrap();
    let second = KubeCluster::with_client(piece.client.clone(), Some("another".into()));
    let notice = Notice { reason: "RunFailed", note: "run 1 failed".into(), level: Level::Warning };
    let clusters: [&KubeCluster; 2] = [&piece.cluster, &second];
    let publications = (0..6).map(|n| clusters[n % 2].publish(&task, &notice));
    let published = futures_util::future::join_all(publications).await;
    let done = published.iter().filter(|published| matches!(published, Ok(Publication::Published))).count();
    assert!(done >= 2, "{published:?}");
    let api = Api::<Event>::namespaced(piece.client.clone(), &piece.namespace);
    let events = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(events.len(), 1);
    let series = events[0].series.as_ref().unwrap();
    assert_eq!(usize::try_from(series.count).unwrap(), done);
    piece.close().await;
}
