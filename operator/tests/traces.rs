//! Traces of Runs as a collector receives them, by OTLP over HTTP, and what commands are given of them.

#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
#[path = "reads/operator.rs"]
mod operator;
mod stores;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use gateway::{ended, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use operator::TestOperator;
use prost::Message as _;
use sentinel_operator::metrics::Registry;
use sentinel_operator::traces::Otlp;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Report, ReportedState, Running, ToOperator};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector: its URL, and what is posted to it.
fn collector() -> (String, mpsc::Receiver<(String, ExportTraceServiceRequest)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (posted, receiver) = mpsc::sync_channel(1_000);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                bytes.extend_from_slice(&buffer[..read]);
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    if read == 0 {
                        break;
                    }
                    continue;
                };
                let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.unwrap().trim().parse().unwrap();
                if bytes.len() < end + 4 + length {
                    assert_ne!(read, 0, "a request that is cut off");
                    continue;
                }
                let request = ExportTraceServiceRequest::decode(&bytes[end + 4..end + 4 + length]).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                bytes.drain(..end + 4 + length);
                if posted.send((head, request)).is_err() {
                    return;
                }
            }
        }
    });
    (url, receiver)
}

/// The spans that arrive until there are as many, by name and node.
fn spans(
    posted: &mpsc::Receiver<(String, ExportTraceServiceRequest)>,
    expected: usize,
) -> BTreeMap<String, Span> {
    let mut spans = BTreeMap::new();
    while spans.len() < expected {
        let (head, request) = posted
            .recv_timeout(Duration::from_mins(1))
            .unwrap_or_else(|error| panic!("{error}: only {:?}", spans.keys()));
        assert!(
            head.starts_with("post /v1/traces http/1.1")
                && head.contains("content-type: application/x-protobuf"),
            "{head}"
        );
        for of_resource in request.resource_spans {
            let service = &of_resource.resource.unwrap().attributes;
            assert!(service.iter().any(|attribute| attribute.key == "service.name"));
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let node =
                    attribute(&span, "sentinel.node").map(|node| format!(" {node}")).unwrap_or_default();
                let known = spans.insert(format!("{}{node}", span.name), span);
                assert!(known.is_none(), "twice: {known:?}");
            }
        }
    }
    spans
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Attribute::StringValue(text) => text.clone(),
        Attribute::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn task(annotations: &serde_json::Value, nodes: &[&str]) -> serde_json::Value {
    json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "t", "namespace": "default", "annotations": annotations},
        "spec": {"targets": {"nodeNames": nodes}, "run": {"command": ["true"]}},
    })
}

fn report(start: &Start, state: ReportedState) -> ToOperator {
    ToOperator::Report(Box::new(Report {
        attempt: start.attempt.clone(),
        spec_hash: start.spec_hash.clone(),
        state,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_one_trace_from_its_caller_to_its_commands() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (url, posted) = collector();
    let metrics = Registry::new();
    let (traces, otlp) = Otlp::new(&url, None, &metrics).unwrap();
    tokio::spawn(otlp.run(CancellationToken::new()));
    let operator = TestOperator::traced(&["a", "b"], metrics.clone(), traces).await;
    let mut agents = [operator.agent("a").await, operator.agent("b").await];
    let caller = json!({"sentinelnode.dev/traceparent": format!("00-{TRACE}-{CALLER}-01"), "sentinelnode.dev/tracestate": "vendor=1"});
    operator.apply(&task(&caller, &["a", "b"])).await;

    let mut given = BTreeMap::new();
    for agent in &mut agents {
        let start = operator.start(agent).await;
        let trace = start.trace.clone().expect("the command joins the trace");
        assert_eq!(hex(&trace.parent.trace_id()), TRACE);
        assert_eq!(trace.state.as_ref().map(sentinel_protocol::trace::TraceState::as_str), Some("vendor=1"));
        given.insert(start.attempt.node.to_string(), hex(&trace.parent.span_id()));
        agent
            .send_json(&report(
                &start,
                ReportedState::Running(Running { started_at: operator.now(), pid: 7 }),
            ))
            .await;
        agent.send_json(&report(&start, ended(0))).await;
    }
    let spans = tokio::task::spawn_blocking(move || spans(&posted, 9)).await.unwrap();

    let run = &spans["sentinel.run"];
    assert_eq!(hex(&run.parent_span_id), CALLER);
    assert_eq!(attribute(run, "sentinel.verdict").as_deref(), Some("Complete"));
    assert_eq!(attribute(run, "sentinel.task.name").as_deref(), Some("t"));
    for (name, span) in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{name}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{name}");
    }
    for node in ["a", "b"] {
        let attempt = &spans[&format!("sentinel.attempt {node}")];
        assert_eq!(attempt.parent_span_id, run.span_id, "{node}");
        assert_eq!(attribute(attempt, "sentinel.outcome").as_deref(), Some("Succeeded"));
        for part in ["queued", "dispatched", "running"] {
            let part = &spans[&format!("sentinel.attempt.{part} {node}")];
            assert_eq!(part.parent_span_id, attempt.span_id, "{node}");
        }
        let running = &spans[&format!("sentinel.attempt.running {node}")];
        assert_eq!(hex(&running.span_id), given[node], "what the command was given");
    }
    // Counted once the collector's answer has been read.
    let sent = "sentinel_trace_spans_total{result=\"sent\"} 9";
    eventually(sent, || metrics.render().contains(sent)).await;
    let scrape = metrics.render();
    assert!(scrape.contains("sentinel_attempts_ended_total{outcome=\"Succeeded\"} 2"), "{scrape}");
    assert!(scrape.contains("sentinel_runs_ended_total{verdict=\"Complete\"} 1"), "{scrape}");
    assert!(scrape.contains("sentinel_start_latency_seconds_count 2"), "{scrape}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_dropped_and_counted_while_no_collector_answers() {
    rustls::crypto::ring::default_provider().install_default().ok();
    // Nothing listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let metrics = Registry::new();
    let (traces, otlp) = Otlp::new(&url, None, &metrics).unwrap();
    tokio::spawn(otlp.run(CancellationToken::new()));
    let operator = TestOperator::traced(&["a"], metrics.clone(), traces).await;
    let mut agent = operator.agent("a").await;
    operator.apply(&task(&json!({}), &["a"])).await;
    let start = operator.start(&mut agent).await;
    assert!(start.trace.is_some_and(|trace| trace.parent.is_sampled()), "a trace of its own");
    let start = Start { trace: None, ..start };
    agent.send_json(&report(&start, ended(0))).await;
    operator.until("/tasks/default/t", |task| task["status"]["phase"] == "Succeeded").await;
    for _ in 0..6000 {
        if metrics.render().contains("sentinel_trace_spans_total{result=\"failed\"} 5") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the spans were not counted:\n{}", metrics.render());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_its_caller_does_not_record_is_passed_on_and_not_sent() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (url, posted) = collector();
    let metrics = Registry::new();
    let (traces, otlp) = Otlp::new(&url, None, &metrics).unwrap();
    let stop = CancellationToken::new();
    let sending = tokio::spawn(otlp.run(stop.clone()));
    let operator = TestOperator::traced(&["a"], metrics.clone(), traces).await;
    let mut agent = operator.agent("a").await;
    let caller = json!({"sentinelnode.dev/traceparent": format!("00-{TRACE}-{CALLER}-00")});
    operator.apply(&task(&caller, &["a"])).await;
    let start = operator.start(&mut agent).await;
    let parent = start.trace.clone().expect("the command joins the trace").parent;
    assert!(hex(&parent.trace_id()) == TRACE && !parent.is_sampled());
    agent.send_json(&report(&start, ended(0))).await;
    operator.until("/tasks/default/t", |task| task["status"]["phase"] == "Succeeded").await;
    stop.cancel();
    sending.await.unwrap();
    assert!(posted.try_recv().is_err(), "a span was sent");
}
