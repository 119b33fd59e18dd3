//! What readers cost the command that they watch: 200 that never read, and 500 that do.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::crowd::{Crowd, Manner, Taken};
use super::figures::median;
use super::progress::note;
use super::setup::{CreatedTask, Setup, task};
use super::table::Table;
use crate::attacks::kit::Sampler;
use crate::memory::peak_rss;
use crate::wait::until;

/// What the command writes before the readers come, so that each of them has more than it takes without reading.
const BEFORE: u64 = 16_000_000;

/// What it then writes against the clock, beside readers that stall.
const BYTES: u64 = 500_000_000;

/// The same beside readers that read: each of them receives all of it.
const SHARED: u64 = 16_000_000;

const STALLED: usize = 200;
const READING: usize = 500;
const ROUNDS: usize = 3;
const MIB: f64 = (1 << 20) as f64;

const LINE: &str = "a line of output as a program writes it when all goes well";

pub(super) async fn measure(table: &mut Table) {
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    // In turn, so that what else happens on the machine concerns both.
    for round in 1..=ROUNDS {
        note(&format!("readers: round {round}, none and {STALLED} that stall"));
        alone.push(stalled(0).await);
        watched.push(stalled(STALLED).await);
    }
    let speed = |of: &[Seen]| median(of.iter().map(|seen| seen.speed).collect());
    let peak = |of: &[Seen]| of.iter().map(|seen| seen.peak).max().unwrap_or(0) as f64 / MIB;
    let what = format!("command beside {STALLED} stalled readers (limit: without them)");
    table.number(&what, speed(&watched), Some(speed(&alone)), "MB/s", "");
    table.number("  largest RSS of the operator", peak(&watched), Some(peak(&alone)), "MiB", "");
    table.number("  the difference", peak(&watched) - peak(&alone), None, "MiB", "96 MiB");
    let late = watched.iter().map(|seen| seen.late).max().unwrap_or(0) as f64 / MIB;
    table.number(&format!("{STALLED} stalled readers of an archived log, RSS"), late, None, "MiB", "64 MiB");
    note(&format!("readers: {READING} that read"));
    reading(table).await;
}

/// A command and the operator that sends its output.
#[derive(Debug)]
struct Seen {
    /// Of the command, MB/s.
    speed: f64,
    /// Largest RSS of the operator while the command ran, bytes.
    peak: u64,
    /// By how much its RSS grew when as many readers of the archived log stalled, bytes.
    late: u64,
}

async fn stalled(readers: usize) -> Seen {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let _agent = setup.agent(&node).await;
    let gate = Gate::begin(&setup, BYTES).await;
    let address = setup.addresses.api.to_string();
    let crowd = Crowd::gather(&address, paths(&gate.task, &node, readers), Manner::Stall).await;
    let speed = gate.pass(&setup).await;
    let peak = peak_rss(setup.operator.pid());
    crowd.disperse().await;
    let sampler = Sampler::start(setup.operator.pid());
    let crowd = Crowd::gather(&address, paths(&gate.task, &node, readers), Manner::Stall).await;
    // What the operator reads ahead for them, it has read within this time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let memory = sampler.finish();
    let late = memory.peak - memory.before;
    crowd.disperse().await;
    setup.operator.end().await;
    Seen { speed, peak, late }
}

async fn reading(table: &mut Table) {
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let _agent = setup.agent(&node).await;
    let gate = Gate::begin(&setup, SHARED).await;
    let path = format!("/api/v1/executions/{}/1/{node}/log?follow=true&from={BEFORE}", gate.task.uid);
    let address = setup.addresses.api.to_string();
    let mut crowd = Crowd::gather(&address, vec![path; READING], Manner::Read).await;
    let sampler = Sampler::start(setup.operator.pid());
    let speed = gate.pass(&setup).await;
    let Taken { bytes, time } = crowd.taken().await;
    let all = SHARED * READING as u64;
    assert!(bytes >= all, "the readers miss {} bytes", all - bytes);
    let memory = sampler.finish();
    let grown = (memory.peak - memory.before) as f64 / MIB;
    crowd.disperse().await;
    setup.operator.end().await;
    table.number(&format!("command beside {READING} that read"), speed, None, "MB/s", "");
    table.number("  all of them together", bytes as f64 / 1e6 / time.as_secs_f64(), None, "MB/s", "");
    table.number("  RSS of the operator, more than before", grown, None, "MiB", "64 MiB");
}

/// Two in eight read the log, two its lines, one what a search finds in it; the others read the logs of the Run.
fn paths(task: &CreatedTask, node: &str, count: usize) -> Vec<String> {
    let log = format!("/api/v1/executions/{}/1/{node}", task.uid);
    let run = format!("/api/v1/runs/{}/1", task.uid);
    let manners = [
        format!("{log}/log?follow=true"),
        format!("{log}/lines/events?from=0"),
        format!("{log}/search?pattern=line&limit=10000"),
        format!("{log}/log?follow=true&format=json"),
        format!("{log}/lines/events?from=0&stream=stdout"),
        format!("{run}/lines/events"),
        format!("{run}/log"),
        format!("{run}/search?pattern=line&limit=10000"),
    ];
    manners.iter().cycle().take(count).cloned().collect()
}

/// A command that has written something, and writes the rest when it may.
struct Gate {
    task: CreatedTask,
    bytes: u64,
}

impl Gate {
    async fn begin(setup: &Setup, bytes: u64) -> Self {
        let path = |name: &str| setup.directory.path().join(name).display().to_string();
        let write = |bytes| format!("yes '{LINE}' | head -c {bytes}");
        let wait = format!("while [ ! -e '{}' ]; do sleep 0.01; done", path("gate"));
        let clock = |name| format!("date +%s%N >'{}'", path(name));
        let command = [write(BEFORE), wait, clock("begun"), write(bytes), clock("ended")].join("\n");
        let mut task = task("watched", &json!({"nodeNames": ["n"]}), &command);
        task["spec"]["run"]["output"] = json!({"limit": "2Gi", "maxBlock": "60s"});
        let task = setup.api.create(&task).await;
        let lines = format!("/api/v1/executions/{}/1/n/lines?tail=1", task.uid);
        until("the first output has come", Duration::from_secs(20), || async {
            let window = setup.api.get(&lines).await?;
            if window["end"] == BEFORE { Ok(()) } else { Err(window.to_string()) }
        })
        .await;
        Self { task, bytes }
    }

    /// Lets the command continue; its speed by its own clock, MB/s.
    async fn pass(&self, setup: &Setup) -> f64 {
        std::fs::write(setup.directory.path().join("gate"), "").expect("an open gate");
        setup.api.finished(&self.task).await;
        let [begun, ended] = ["begun", "ended"].map(|name| time(&setup.directory.path().join(name)));
        self.bytes as f64 / 1e6 / ((ended - begun) as f64 / 1e9)
    }
}

fn time(path: &Path) -> u128 {
    let text = std::fs::read_to_string(path).expect("a time that the command wrote");
    text.trim().parse().expect("a time")
}
