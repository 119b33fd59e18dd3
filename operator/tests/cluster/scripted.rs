//! Rare behaviour of an API server. The server is a script; time is paused.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Ready;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use http::{Method, Request, Response};
use kube::client::Body;
use kube::runtime::watcher::Event;
use sentinel_operator::cluster::{Cluster, ClusterError, KubeCluster, TaskKeeper, TaskStore};
use sentinel_operator::health::Health;
use sentinel_operator::metrics::Registry;
use sentinel_operator::resource::marks::UNREADABLE;
use sentinel_operator::resource::status::TaskStatus;
use sentinel_operator::resource::{Task, manifest, recorded, validate};
use sentinel_protocol::ids::TaskRef;
use serde_json::{Value, json};
use tokio::time::Instant;

/// One answer: a status code and a body, for a request that is a list, a watch or anything else.
#[derive(Debug, Clone)]
struct Line {
    code: u16,
    body: String,
}

/// An API server that plays its lines in order, then repeats the last one, and records its requests.
#[derive(Clone)]
struct Script {
    lists: Arc<Mutex<VecDeque<Line>>>,
    watches: Arc<Mutex<VecDeque<Line>>>,
    others: Arc<Mutex<VecDeque<Line>>>,
    requests: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Script {
    fn new(lists: Vec<Line>, watches: Vec<Line>, others: Vec<Line>) -> Self {
        let lines = |lines: Vec<Line>| Arc::new(Mutex::new(lines.into()));
        Self { lists: lines(lists), watches: lines(watches), others: lines(others), requests: Arc::default() }
    }

    fn cluster(&self) -> KubeCluster {
        KubeCluster::with_client(kube::Client::new(self.clone(), "default"), None)
    }

    /// When it received these requests.
    fn requests(&self, what: &str) -> Vec<Instant> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, request)| request == what)
            .map(|(at, _)| *at)
            .collect()
    }
}

impl tower_service::Service<Request<Body>> for Script {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let (what, lines) = if query.contains("watch=true") {
            ("watch", &self.watches)
        } else if request.method() == Method::GET && request.uri().path().ends_with("/tasks") {
            ("list", &self.lists)
        } else {
            (request.method().as_str(), &self.others)
        };
        self.requests.lock().unwrap().push((Instant::now(), what.to_owned()));
        let mut lines = lines.lock().unwrap();
        let line = if lines.len() > 1 { lines.pop_front() } else { lines.front().cloned() };
        let line = line.unwrap_or_else(|| panic!("the script has no answer to a {what}"));
        std::future::ready(Ok(Response::builder()
            .status(line.code)
            .body(Body::from(line.body.into_bytes()))
            .unwrap()))
    }
}

fn ok(body: &Value) -> Line {
    Line { code: 200, body: body.to_string() }
}

fn fail(code: u16, reason: &str) -> Line {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "as in the script",
        "reason": reason, "code": code});
    Line { code, body: body.to_string() }
}

fn object(name: &str, command: &Value) -> Value {
    json!({"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "5", "generation": 3},
        "spec": {"targets": {"all": true}, "run": {"command": command}},
        "status": {"observedGeneration": 2, "run": {"number": 4, "specHash": "a".repeat(64), "startedAt": "2026-11-24T03:00:00.000000Z"}}})
}

fn list(items: &[Value]) -> Line {
    ok(
        &json!({"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "TaskList", "metadata": {"resourceVersion": "10"}, "items": items}),
    )
}

fn events(events: &[Value]) -> Line {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    Line { code: 200, body: lines.join("\n") + "\n" }
}

fn gone_event() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410}})
}

/// The first events as text, and the Tasks in them.
async fn story(cluster: &KubeCluster, events: usize) -> (Vec<String>, Vec<Task>) {
    let mut stream = cluster.watch_tasks();
    let (mut texts, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..events {
        let event = tokio::time::timeout(Duration::from_mins(10), stream.next()).await.unwrap().unwrap();
        let (kind, task) = match event {
            Event::Init => ("Init", None),
            Event::InitDone => ("InitDone", None),
            Event::InitApply(task) => ("InitApply", Some(task)),
            Event::Apply(task) => ("Apply", Some(task)),
            Event::Delete(task) => ("Delete", Some(task)),
        };
        let name = task.as_ref().and_then(|task| task.metadata.name.clone()).unwrap_or_default();
        texts.push(format!("{kind} {name}").trim_end().to_owned());
        tasks.extend(task);
    }
    (texts, tasks)
}

fn apart(times: &[Instant]) -> Vec<f64> {
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_refused_as_gone_lists_again_at_bounded_rate() {
    let script = Script::new(vec![list(&[])], vec![fail(410, "Expired")], vec![]);
    story(&script.cluster(), 8).await;
    let lists = script.requests("list");
    assert_eq!(lists.len(), 4);
    assert!(apart(&lists).iter().all(|seconds| (5.0..6.1).contains(seconds)), "{:?}", apart(&lists));
    assert!(script.requests("watch").len() <= 4, "each list is followed by one watch");
}

#[tokio::test(start_paused = true)]
async fn gone_inside_a_watch_lists_again_at_bounded_rate() {
    let script = Script::new(vec![list(&[])], vec![events(&[gone_event()])], vec![]);
    story(&script.cluster(), 8).await;
    let lists = script.requests("list");
    assert!(apart(&lists).iter().all(|seconds| (5.0..6.1).contains(seconds)), "{:?}", apart(&lists));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_continues_without_a_list() {
    let added = json!({"type": "ADDED", "object": object("a", &json!(["x"]))});
    let ends = vec![events(&[]), events(&[]), events(&[added])];
    let script = Script::new(vec![list(&[])], ends, vec![]);
    let (story, _) = story(&script.cluster(), 3).await;
    assert_eq!(story, ["Init", "InitDone", "Apply a"]);
    assert_eq!(script.requests("list").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_repeatedly_lists_again() {
    let script = Script::new(vec![list(&[])], vec![fail(500, "InternalError")], vec![]);
    story(&script.cluster(), 4).await;
    assert_eq!(script.requests("watch").len(), 3);
    assert_eq!(script.requests("list").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_list_is_retried_with_backoff() {
    let script = Script::new(vec![fail(503, "ServiceUnavailable"); 6], vec![], vec![]);
    let cluster = script.cluster();
    let mut stream = cluster.watch_tasks();
    let waited = tokio::time::timeout(Duration::from_mins(1), stream.next()).await;
    assert!(waited.is_err(), "no event without a list");
    let lists = script.requests("list");
    assert!((5..=12).contains(&lists.len()), "{} lists in a minute", lists.len());
    let watch = &cluster.watches()[0];
    assert!(watch.failures() >= 5);
    assert!(watch.silence() >= Duration::from_mins(1), "the server has never answered");
}

/// It was seen by nothing but a test: readiness stayed green while no change of a Task arrived.
#[tokio::test(start_paused = true)]
async fn a_dead_watch_fails_readiness_and_shows_in_metrics() {
    let down = fail(503, "ServiceUnavailable");
    let script = Script::new(vec![list(&[]), down.clone()], vec![fail(500, "InternalError")], vec![]);
    let cluster = script.cluster();
    let (health, metrics) = (Health::new(), Registry::new());
    cluster.watches()[0].publish(&health, &metrics);
    let mut stream = cluster.watch_tasks();
    let mut follow = async |time| {
        let all = async { while stream.next().await.is_some() {} };
        assert!(tokio::time::timeout(time, all).await.is_err());
    };
    follow(Duration::from_mins(2)).await;
    assert!(health.ready().ok, "one quiet watch is not a dead one: {:?}", health.ready());
    follow(Duration::from_secs(10)).await;
    let reason = health.ready().reasons["the watch of tasks"].clone();
    assert!(reason.contains("has received nothing from the API server for 1"), "{reason}");
    assert!(health.alive().ok, "a restart does not cure it");
    let text = metrics.render();
    let silence =
        text.lines().find_map(|line| line.strip_prefix("sentinel_watch_silence_seconds{what=\"tasks\"} "));
    assert!(silence.unwrap().parse::<f64>().unwrap() > 120.0, "{text}");
    script.lists.lock().unwrap().push_back(list(&[]));
    follow(Duration::from_mins(1)).await;
    assert!(health.ready().ok, "{:?}", health.ready());
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_task_is_kept_and_hides_no_other() {
    let poison = object("poison", &json!({"from": "the future"}));
    let script = Script::new(vec![list(&[poison, object("good", &json!(["x"]))])], vec![events(&[])], vec![]);
    let (story, tasks) = story(&script.cluster(), 4).await;
    assert_eq!(story, ["Init", "InitApply poison", "InitApply good", "InitDone"]);
    let poison = &tasks[0];
    assert!(poison.metadata.annotations.as_ref().unwrap()[UNREADABLE].contains("invalid type"));
    let problems = validate::validate(poison).unwrap_err();
    assert!(
        problems[0].to_string().starts_with("spec must be one that this operator can read"),
        "{problems:?}"
    );
    assert_eq!(
        recorded::read(poison).unwrap().run.unwrap().number.0,
        4,
        "what is known of its Run is not lost"
    );
    assert!(validate::validate(&tasks[1]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_status_is_not_an_empty_one() {
    let mut strange = object("strange", &json!(["x"]));
    strange["status"]["run"]["number"] = json!("four");
    let script = Script::new(vec![list(&[strange])], vec![events(&[])], vec![]);
    let (_, tasks) = story(&script.cluster(), 3).await;
    let error = recorded::read(&tasks[0]).unwrap_err().to_string();
    assert!(error.starts_with("status must be one that this operator can read"), "{error}");
}

fn task() -> Task {
    let text = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: t, namespace: ns}\nspec: {targets: {all: true}, run: {command: [x]}}\n";
    manifest::read(text).unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_post_that_may_have_succeeded_is_not_repeated() {
    let script = Script::new(vec![], vec![], vec![fail(503, "ServiceUnavailable")]);
    let made = script.cluster().create(task()).await;
    assert!(matches!(made, Err(ClusterError::Unavailable { .. })), "{made:?}");
    assert_eq!(script.requests("POST").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_throttled_is_repeated() {
    let busy = fail(429, "TooManyRequests");
    let script = Script::new(vec![], vec![], vec![busy.clone(), busy, ok(&object("t", &json!(["x"])))]);
    script.cluster().create(task()).await.unwrap();
    assert_eq!(script.requests("POST").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_call_is_retried_for_ten_seconds() {
    let script = Script::new(vec![], vec![], vec![fail(503, "ServiceUnavailable")]);
    let began = Instant::now();
    let read = script.cluster().get(TaskRef::new("ns", "t").unwrap()).await;
    assert!(matches!(read, Err(ClusterError::Unavailable { .. })), "{read:?}");
    assert!((7.0..10.1).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert!((5..20).contains(&script.requests("GET").len()), "{} times", script.requests("GET").len());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_returned_and_not_retried() {
    let script = Script::new(vec![], vec![], vec![fail(409, "Conflict")]);
    let mut seen = task();
    seen.metadata.resource_version = Some("5".into());
    let written = script.cluster().write_status(&seen, TaskStatus::default()).await;
    assert!(matches!(written, Err(ClusterError::Conflict { .. })), "{written:?}");
    assert_eq!(script.requests("PUT").len(), 1, "the caller reads the object again");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_namespace_requests_no_other() {
    let script = Script::new(vec![list(&[])], vec![], vec![ok(&object("t", &json!(["true"])))]);
    let cluster = script.cluster().within(Some("ns".parse().unwrap()));
    let theirs = TaskRef::new("theirs", "t").unwrap();
    let mut task: Task = serde_json::from_value(object("t", &json!(["true"]))).unwrap();
    task.metadata.namespace = Some("theirs".to_owned());
    let refused = [
        cluster.get(theirs.clone()).await.map(drop),
        cluster.list(Some("theirs".to_owned())).await.map(drop),
        cluster.create(task.clone()).await.map(drop),
        cluster.apply(task).await.map(drop),
        cluster.annotate(theirs.clone(), "a", None).await.map(drop),
        cluster.delete(theirs).await,
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(matches!(error, ClusterError::Refused { code: 403, .. }), "{error}");
        assert!(error.to_string().contains("namespace ns alone"), "{error}");
    }
    assert!(script.requests.lock().unwrap().is_empty(), "the API server received a request");
    cluster.list(None).await.unwrap();
    cluster.get(TaskRef::new("ns", "t").unwrap()).await.unwrap();
}
