//! How much of the machine other processes use: on busy processors every figure is worse.

use std::time::{Duration, Instant};

use super::progress::note;

/// How long processor use is sampled.
const SAMPLE: Duration = Duration::from_millis(500);

/// Others use less than this share on a quiet machine.
const QUIET: f64 = 0.10;

/// The longest wait for a quiet machine, before each section.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether to wait until others leave the machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Wait, for some minutes.
    Some,
    /// Begin at once.
    None,
}

/// Share of the processors that is used now, while we do nothing; with patience, once it is low.
pub(super) async fn others(patience: Patience) -> f64 {
    let begun = Instant::now();
    loop {
        let (busy, all) = ticks();
        tokio::time::sleep(SAMPLE).await;
        let (busy_now, all_now) = ticks();
        let share = (busy_now - busy) as f64 / (all_now - all).max(1) as f64;
        if share < QUIET || patience == Patience::None {
            return share;
        }
        if begun.elapsed() > PATIENCE {
            note("the machine does not become quiet; measuring all the same");
            return share;
        }
    }
}

/// Ticks of all processors since the boot: those in use (by us, by others, by the host), and all.
fn ticks() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}
