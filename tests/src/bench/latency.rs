//! From a command's write to its receipt by a reader, by the clock that the command writes.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::figures::{Times, clock};
use super::limits;
use super::progress::note;
use super::setup::{Setup, task};
use super::table::Table;

/// Lines that are written, and those at the start that do not count.
const LINES: usize = 520;
const WARM_UP: usize = 20;

/// Bash's own clock: no process is started for a line.
fn command() -> String {
    let line = "echo ${EPOCHREALTIME/[.,]/}; sleep 0.01";
    format!("exec bash -c 'for ((n = 0; n < {LINES}; n++)); do {line}; done'")
}

pub(super) async fn measure(table: &mut Table) {
    note("latency: the floor");
    let mut floor = Received::default();
    limits::lines(&command(), |line| floor.line(line)).await;
    let floor = floor.times();
    for (what, path) in [("log", "log?follow=true"), ("lines as events", "lines/events?from=0")] {
        note(&format!("latency: {what}"));
        let ours = ours(path).await;
        table.times(&format!("a command's write → HTTP reader, {what}"), ours, floor, "2.2 ms");
    }
}

async fn ours(path: &str) -> Times {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let _agent = setup.agent(&node).await;
    let made = setup.api.create(&task("clock", &json!({"nodeNames": [node]}), &command())).await;
    let answer = setup.api.follow_path(&made, &node, path).await;
    let (mut chunks, mut rest, mut received) = (answer.bytes_stream(), Vec::new(), Received::default());
    while let Some(chunk) = chunks.next().await {
        rest.extend_from_slice(&chunk.expect("output"));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest.drain(..=end);
            received.piece(&line);
        }
    }
    setup.api.finished(&made).await;
    setup.operator.end().await;
    received.times()
}

/// How long each line was on its way.
#[derive(Debug, Default)]
struct Received(Vec<Duration>);

impl Received {
    /// A line of the log, or of its events.
    fn piece(&mut self, line: &str) {
        let Some(data) = line.strip_prefix("data: ") else {
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                self.line(line);
            }
            return;
        };
        let event: Value = serde_json::from_str(data).expect("JSON");
        for line in event["lines"].as_array().into_iter().flatten() {
            self.line(line["text"].as_str().expect("a text"));
        }
    }

    fn line(&mut self, line: &str) {
        let micros: u128 = line.trim().parse().unwrap_or_else(|_| panic!("{line:?} is not a time"));
        let time = clock().saturating_sub(micros * 1000);
        self.0.push(Duration::from_nanos(time.try_into().expect("a short time")));
    }

    fn times(mut self) -> Times {
        assert_eq!(self.0.len(), LINES, "lines are missing or repeated");
        Times::of(self.0.split_off(WARM_UP))
    }
}
