//! A command on a node that a test writes the output of.

use bytes::Bytes;
use sentinel_protocol::log::{DropReason, LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Report, ToOperator};
use serde_json::{Value, json};

use crate::gateway::{Agent, ServicedAgent, ended};
use crate::operator::TestOperator;

/// A node whose command writes.
pub(crate) struct Writer {
    pub(crate) agent: ServicedAgent,
    pub(crate) socket: Agent,
    pub(crate) start: Start,
    pub(crate) position: u64,
    /// The position that it may write to.
    granted: u64,
}

impl Writer {
    pub(crate) async fn new(operator: &TestOperator, node: &str) -> Self {
        let mut agent = operator.agent(node).await;
        let start = operator.start(&mut agent).await;
        let mut socket = operator.log_socket(&agent, node).await;
        socket.send_json(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
        Self { agent: ServicedAgent::new(agent), socket, start, position: 0, granted: 0 }
    }

    pub(crate) async fn write(&mut self, stream: Stream, at_micros: i64, text: &str) {
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.record(stream, at_micros, None, data.len() as u64, data).await;
    }

    pub(crate) async fn record(
        &mut self,
        stream: Stream,
        at_micros: i64,
        dropped: Option<DropReason>,
        len: u64,
        data: Bytes,
    ) {
        while self.granted < self.position + len {
            if let LogControl::Credit { granted, .. } = self.socket.receive_log().await {
                self.granted = granted;
            }
        }
        let head = RecordHead { stream, position: self.position, offset: 0, len, at_micros, dropped };
        self.socket.record(&self.start.attempt, &LogRecord { head, data }).await;
        self.position += len;
    }

    pub(crate) async fn end(&mut self) {
        let report = Report {
            attempt: self.start.attempt.clone(),
            spec_hash: self.start.spec_hash.clone(),
            state: ended(self.position),
        };
        self.agent.send_json(&ToOperator::Report(Box::new(report))).await;
    }
}

/// A Run on these nodes, with a writer on each; the path of its lines.
pub(crate) async fn run_on(operator: &TestOperator, nodes: &[&str]) -> (Vec<Writer>, String) {
    let body = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "t", "namespace": "default"},
        "spec": {"targets": {"nodeNames": nodes}, "run": {"command": ["true"]}},
    });
    operator.apply(&body).await;
    let mut writers = Vec::new();
    for node in nodes {
        writers.push(Writer::new(operator, node).await);
    }
    let path = format!("/runs/{}/1/lines", writers[0].start.attempt.task);
    (writers, path)
}

/// The lines of an answer, each behind the name of its node.
pub(crate) fn texts(answer: &Value) -> Vec<String> {
    let of = |item: &Value| {
        let what = item["text"].as_str().map_or_else(|| format!("-{}", item["dropped"]), str::to_owned);
        format!("{} {what}", item["node"].as_str().unwrap())
    };
    answer["lines"].as_array().unwrap().iter().map(of).collect()
}

/// Waits for so many lines.
pub(crate) async fn until_lines(operator: &TestOperator, path: &str, count: usize) -> Value {
    operator
        .until(&format!("{path}?tail=1000"), |answer| answer["lines"].as_array().unwrap().len() == count)
        .await
}
