//! A gigabyte of output, from the command to an HTTP reader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;

use super::limits::{self, Flow};
use super::progress::note;
use super::setup::{Setup, task};
use super::table::Table;
use crate::memory::{children, cpu_seconds, peak_rss};

/// Output of the command.
pub(super) const BYTES: u64 = 1_000_000_000;

pub(super) async fn measure(table: &mut Table) {
    let command = format!("yes | head -c {BYTES}");
    note("output: the floor");
    let floor = limits::copy(&command, BYTES).await;
    note("output: operator and agent");
    let Measured { flow, cpu, peaks } = ours(&command).await;
    let (rate, work) = (flow.megabytes_per_second, flow.cpu_seconds_per_gigabyte);
    table.number("output, command → HTTP reader", rate, Some(floor.megabytes_per_second), "MB/s", "700 MB/s");
    let floor = floor.cpu_seconds_per_gigabyte;
    table.number("processor time for it, all three", work, Some(floor), "s/GB", "2 s/GB");
    for (who, seconds) in cpu {
        table.number(&format!("  of it {who}"), seconds / (BYTES as f64 / 1e9), None, "s/GB", "");
    }
    for (who, bytes) in peaks {
        table.number(
            &format!("  largest RSS of {who}"),
            bytes as f64 / f64::from(1 << 20),
            None,
            "MiB",
            "64 MiB",
        );
    }
}

pub(super) struct Measured {
    pub(super) flow: Flow,
    cpu: Vec<(&'static str, f64)>,
    peaks: Vec<(&'static str, u64)>,
}

/// An operator, an agent, and the command on it.
pub(super) async fn ours(command: &str) -> Measured {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let agent = setup.agent(&node).await;
    let mut task = task("gigabyte", &json!({"nodeNames": [node]}), command);
    task["spec"]["run"]["output"] = json!({"limit": "2Gi", "maxBlock": "60s"});
    let (operator, agent) = (setup.operator.pid(), agent.pid());
    let before = [operator, agent].map(cpu_seconds);
    let mut supervisors = Supervisors::of(agent);
    let begun = Instant::now();
    let made = setup.api.create(&task).await;
    let mut output = setup.api.follow(&made, &node).await.bytes_stream();
    let mut received = 0;
    while let Some(bytes) = output.next().await {
        received += bytes.expect("output").len() as u64;
        supervisors.sample();
    }
    let time = begun.elapsed();
    assert_eq!(received, BYTES, "output is missing");
    let after = [operator, agent].map(cpu_seconds);
    setup.api.finished(&made).await;
    let [operator_cpu, agent_cpu] = [0, 1].map(|at| after[at] - before[at]);
    let supervisor_cpu: f64 = supervisors.cpu();
    let supervisor_peak = supervisors.seen.values().map(|(_, peak)| *peak).max().unwrap_or(0);
    let measured = Measured {
        flow: Flow::of(BYTES, time, operator_cpu + agent_cpu + supervisor_cpu),
        cpu: vec![("operator", operator_cpu), ("agent", agent_cpu), ("supervisor", supervisor_cpu)],
        peaks: vec![
            ("operator", peak_rss(operator)),
            ("agent", peak_rss(agent)),
            ("supervisor", supervisor_peak),
        ],
    };
    setup.operator.end().await;
    measured
}

/// What the supervisors of an agent use; they are gone when the command is.
pub(super) struct Supervisors {
    agent: u32,
    sampled: Instant,
    seen: BTreeMap<u32, (f64, u64)>,
}

impl Supervisors {
    pub(super) fn of(agent: u32) -> Self {
        Self { agent, sampled: Instant::now(), seen: BTreeMap::new() }
    }

    /// Their processor time so far, seconds.
    pub(super) fn cpu(&self) -> f64 {
        self.seen.values().map(|(cpu, _)| cpu).sum()
    }

    pub(super) fn sample(&mut self) {
        if self.sampled.elapsed() < Duration::from_millis(20) {
            return;
        }
        self.sampled = Instant::now();
        for pid in children(self.agent) {
            let (cpu, peak) = (cpu_seconds(pid), peak_rss(pid));
            // One that has just ended shows zeros.
            let (known_cpu, known_peak) = self.seen.entry(pid).or_default();
            *known_cpu = known_cpu.max(cpu);
            *known_peak = (*known_peak).max(peak);
        }
    }
}
