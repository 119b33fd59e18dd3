//! Tasks one after the other, for as long as is asked for: what grows.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::events::Ends;
use super::progress::note;
use super::setup::{Setup, task};
use super::table::Table;
use crate::memory::rss;

/// How long without `--minutes`.
const SHORT: Duration = Duration::from_secs(20);

/// What each command writes.
const OUTPUT: u64 = 100_000;

/// The part of the time in which caches fill; growth is counted from its end.
const WARM_UP: f64 = 0.25;

const KIB: f64 = 1024.0;

pub(super) async fn measure(table: &mut Table, minutes: Option<u64>) {
    let time = minutes.map_or(SHORT, |minutes| Duration::from_secs(minutes * 60));
    note(&format!("soak: {} s", time.as_secs()));
    let node = "n".to_owned();
    let setup = Setup::new(std::slice::from_ref(&node)).await;
    let agent = setup.agent(&node).await;
    let mut ends = Ends::of(&setup.api).await;
    let pids = [setup.operator.pid(), agent.pid()];
    let begun = Instant::now();
    let (mut tasks, mut warm, mut noted) = (0, None, Instant::now());
    while begun.elapsed() < time {
        tasks += 1;
        pass(&setup, &mut ends, &node, tasks).await;
        if warm.is_none() && begun.elapsed() >= time.mul_f64(WARM_UP) {
            warm = Some((tasks, Usage::settled(&setup, pids).await));
        }
        if noted.elapsed() > Duration::from_secs(60) {
            noted = Instant::now();
            note(&format!("soak: {tasks} Tasks in {} s", begun.elapsed().as_secs()));
        }
    }
    let (warm, before) = warm.expect("a Task after the warm-up");
    let after = Usage::settled(&setup, pids).await;
    setup.operator.end().await;
    drop(agent);
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

/// One Task, until it is deleted.
async fn pass(setup: &Setup, ends: &mut Ends, node: &str, number: u64) {
    let name = format!("t-{number}");
    let command = format!("yes | head -c {OUTPUT}");
    let made = setup.api.create(&task(&name, &json!({"nodeNames": [node]}), &command)).await;
    ends.of_task(&name).await;
    let output = setup.api.follow(&made, node).await.bytes().await.expect("output");
    assert_eq!(output.len() as u64, OUTPUT, "output is missing");
    setup.api.delete(&made).await;
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
    /// Of the operator and of the agent, when all is archived.
    async fn settled(setup: &Setup, [operator, agent]: [u32; 2]) -> [Self; 2] {
        setup.forgotten().await;
        let directory = setup.directory.path();
        let agents = allocated(&directory.join("agent-state"));
        let of = |pid, disk| Self { memory: rss(pid), descriptors: descriptors(pid), disk };
        [of(operator, allocated(directory) - agents), of(agent, agents)]
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
