//! Tasks one after the other, for as long as is asked for: what grows.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::events::Ends;
use super::progress::note;
use super::setup::{CreatedTask, Setup, task};
use super::table::Table;
use crate::memory::rss;
use crate::programs::Program;

/// How long without `--minutes`.
const SHORT: Duration = Duration::from_secs(20);

/// What each command writes.
const OUTPUT: u64 = 100_000;

/// The part of the time in which caches fill; growth is counted from its end.
const WARM_UP: f64 = 0.25;

/// Tasks that exist at a time.
const KEPT: usize = 20;

const NODE: &str = "n";
const KIB: f64 = 1024.0;

pub(super) async fn measure(table: &mut Table, minutes: Option<u64>) {
    let time = minutes.map_or(SHORT, |minutes| Duration::from_secs(minutes * 60));
    note(&format!("soak: {} s", time.as_secs()));
    let mut soak = Soak::start().await;
    soak.pass(time.mul_f64(WARM_UP)).await;
    let (warm, before) = (soak.tasks, soak.usage().await);
    soak.pass(time.mul_f64(1.0 - WARM_UP)).await;
    let (tasks, after) = (soak.tasks, soak.usage().await);
    soak.end().await;
    report(table, tasks, (tasks - warm) as f64 / 1000.0, before, after);
}

fn report(table: &mut Table, tasks: u64, thousands: f64, before: [Usage; 2], after: [Usage; 2]) {
    let what = format!("{tasks} Tasks of {} KB one after the other", OUTPUT / 1000);
    table.number(&what, tasks as f64, None, "Tasks", "");
    for (at, who) in ["operator", "agent"].into_iter().enumerate() {
        let grown = |of: fn(&Usage) -> u64| of(&after[at]) as f64 - of(&before[at]) as f64;
        let memory = grown(|usage| usage.memory) / KIB / thousands;
        table.growth(&format!("  RSS of {who}, for 1,000 Tasks more"), memory, "KiB", "0");
        let descriptors = grown(|usage| usage.descriptors);
        table.growth(&format!("  descriptors of {who}, more"), descriptors, "", "0");
        let disk = grown(|usage| usage.disk) / KIB / thousands;
        // What the operator keeps is History, until its retention is over.
        let aim = if who == "agent" { "0" } else { "" };
        table.growth(&format!("  disk of {who}, for 1,000 Tasks more"), disk, "KiB", aim);
    }
}

struct Soak {
    setup: Setup,
    agent: Program,
    ends: Ends,
    kept: VecDeque<CreatedTask>,
    tasks: u64,
}

impl Soak {
    async fn start() -> Self {
        let setup = Setup::new(&[NODE.to_owned()]).await;
        let agent = setup.agent(NODE).await;
        let ends = Ends::of(&setup.api).await;
        Self { setup, agent, ends, kept: VecDeque::new(), tasks: 0 }
    }

    /// Tasks one after the other, at least one.
    async fn pass(&mut self, time: Duration) {
        let (begun, mut noted) = (Instant::now(), Instant::now());
        loop {
            self.task().await;
            if begun.elapsed() >= time {
                return;
            }
            if noted.elapsed() > Duration::from_secs(60) {
                noted = Instant::now();
                note(&format!("soak: {} Tasks", self.tasks));
            }
        }
    }

    async fn task(&mut self) {
        self.tasks += 1;
        let name = format!("t-{}", self.tasks);
        let command = format!("yes | head -c {OUTPUT}");
        let made = self.setup.api.create(&task(&name, &json!({"nodeNames": [NODE]}), &command)).await;
        self.ends.of_task(&name).await;
        let output = self.setup.api.follow(&made, NODE).await.bytes().await.expect("output");
        assert_eq!(output.len() as u64, OUTPUT, "output is missing");
        self.kept.push_back(made);
        if self.kept.len() > KEPT {
            let oldest = self.kept.pop_front().expect("a Task");
            self.setup.api.delete(&oldest).await;
        }
    }

    /// What operator and agent hold once all is archived.
    async fn usage(&self) -> [Usage; 2] {
        self.setup.forgotten().await;
        let directory = self.setup.directory.path();
        let agents = allocated(&directory.join("agent-state"));
        [
            Usage::of(self.setup.operator.pid(), allocated(directory) - agents),
            Usage::of(self.agent.pid(), agents),
        ]
    }

    async fn end(self) {
        self.setup.operator.end().await;
        self.agent.kill().await;
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// Resident, bytes.
    memory: u64,
    descriptors: u64,
    /// Allocated to what it keeps, bytes.
    disk: u64,
}

impl Usage {
    fn of(pid: u32, disk: u64) -> Self {
        Self { memory: rss(pid), descriptors: descriptors(pid), disk }
    }
}

fn descriptors(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// Bytes of the disk below a directory; what vanishes meanwhile counts for nothing.
fn allocated(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => allocated(&entry.path()) + about.blocks() * 512,
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_folder_counts_as_it_is_allocated() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let before = allocated(directory.path());
        std::fs::create_dir(directory.path().join("in")).expect("a folder");
        std::fs::write(directory.path().join("in/it"), vec![1; 1 << 20]).expect("a file");
        assert!(allocated(directory.path()) - before >= 1 << 20);
    }
}
