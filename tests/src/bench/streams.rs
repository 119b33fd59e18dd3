//! Fifty commands on one node that write at once, each to a reader of its own.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;

use super::limits::{self, Flow};
use super::output::Supervisors;
use super::progress::note;
use super::setup::{Setup, task};
use super::table::Table;
use crate::memory::{cpu_seconds, peak_rss};
use crate::wait::until;

const STREAMS: usize = 50;
const BYTES: u64 = 20_000_000;
const ALL: u64 = BYTES * STREAMS as u64;

pub(super) async fn measure(table: &mut Table) {
    note("streams: the floor");
    let together = format!("for n in $(seq {STREAMS}); do yes | head -c {BYTES} & done; wait");
    let floor = limits::copy(&together, ALL).await;
    note("streams: operator and agent");
    let Measured { flow, operator, agent } = ours().await;
    let what = format!("output of {STREAMS} commands at once");
    table.number(&what, flow.megabytes_per_second, Some(floor.megabytes_per_second), "MB/s", "700 MB/s");
    let (work, least) = (flow.cpu_seconds_per_gigabyte, floor.cpu_seconds_per_gigabyte);
    table.number("processor time for it, all processes", work, Some(least), "s/GB", "2 s/GB");
    for (who, bytes) in [("operator", operator), ("agent", agent)] {
        let mib = bytes as f64 / f64::from(1 << 20);
        table.number(&format!("  largest RSS of {who}"), mib, None, "MiB", "64 MiB");
    }
}

struct Measured {
    flow: Flow,
    operator: u64,
    agent: u64,
}

async fn ours() -> Measured {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let agent = setup.agent(&node).await;
    let gate = setup.directory.path().join("gate");
    let command = format!("while [ ! -e '{}' ]; do sleep 0.01; done; yes | head -c {BYTES}", gate.display());
    let mut made = Vec::new();
    for number in 0..STREAMS {
        let mut task = task(&format!("stream-{number}"), &json!({"nodeNames": [node]}), &command);
        task["spec"]["run"]["output"] = json!({"maxBlock": "60s"});
        made.push(setup.api.create(&task).await);
    }
    let mut readers = tokio::task::JoinSet::new();
    for task in &made {
        until("the command runs", Duration::from_secs(20), || running(&setup, &task.uid)).await;
        let mut output = setup.api.follow(task, &node).await.bytes_stream();
        readers.spawn(async move {
            let mut received = 0;
            while let Some(bytes) = output.next().await {
                received += bytes.expect("output").len() as u64;
            }
            received
        });
    }
    let before = [setup.operator.pid(), agent.pid()].map(cpu_seconds);
    let mut supervisors = Supervisors::of(agent.pid());
    supervisors.sample();
    let waited = supervisors.cpu();
    let begun = Instant::now();
    std::fs::write(&gate, "").expect("an open gate");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut received = 0;
    while !readers.is_empty() {
        tokio::select! {
            Some(read) = readers.join_next() => received += read.expect("a reader"),
            _ = ticks.tick() => supervisors.sample(),
        }
    }
    let time = begun.elapsed();
    assert_eq!(received, ALL, "output is missing");
    let after = [setup.operator.pid(), agent.pid()].map(cpu_seconds);
    let cpu = after.iter().sum::<f64>() - before.iter().sum::<f64>() + supervisors.cpu() - waited;
    let measured = Measured {
        flow: Flow::of(ALL, time, cpu),
        operator: peak_rss(setup.operator.pid()),
        agent: peak_rss(agent.pid()),
    };
    for task in &made {
        setup.api.finished(task).await;
    }
    setup.operator.end().await;
    measured
}

async fn running(setup: &Setup, uid: &str) -> Result<(), String> {
    let execution = setup.api.get(&format!("/api/v1/executions/{uid}/1/n")).await?;
    if execution["state"] == "Running" { Ok(()) } else { Err(execution.to_string()) }
}
