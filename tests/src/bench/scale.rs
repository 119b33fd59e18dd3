//! As many nodes as the largest cluster has: what the operator uses, idle and with a Task for all of them.

use std::time::Duration;

use sentinel_protocol::limits::HEARTBEAT_MS;

use super::fanout::FanOut;
use super::figures::Times;
use super::progress::note;
use super::setup::{Setup, node_names};
use super::table::Table;
use crate::memory::{cpu_seconds, peak_rss, rss};

/// Nodes of the largest cluster.
pub(super) const NODES: usize = 15_000;

/// How long the operator is watched while it is idle.
const WINDOW: Duration = Duration::from_secs(10);

const ROUNDS: usize = 5;
const MIB: f64 = (1 << 20) as f64;

pub(super) async fn measure(table: &mut Table) {
    note(&format!("scale: {NODES} agents"));
    let setup = Setup::new(&node_names(NODES)).await;
    let pid = setup.operator.pid();
    let mut fanout = FanOut::on(setup).await;
    // Each has sent a Heartbeat.
    tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS + 500)).await;
    let idle = rss(pid) as f64 / MIB;
    let used = used_by(pid, WINDOW).await;
    note("scale: a Task for all of them");
    let ended = Times::of(fanout.times(ROUNDS).await);
    let peak = peak_rss(pid) as f64 / MIB;
    fanout.end().await;
    table.number(&format!("operator with {NODES} idle agents, RSS"), idle, None, "MiB", "1024 MiB");
    table.number("  of one processor", used, None, "%", "");
    table.median(&format!("POST → all of {NODES} ended"), ended, "");
    table.number("  largest RSS of the operator", peak, None, "MiB", "1024 MiB");
}

/// What a process uses of one processor, percent.
pub(super) async fn used_by(pid: u32, window: Duration) -> f64 {
    let before = cpu_seconds(pid);
    tokio::time::sleep(window).await;
    (cpu_seconds(pid) - before) / window.as_secs_f64() * 100.0
}
