//! The events with which a Run begins and ends.

use super::action::{Level, Notice};
use super::conditions;
use super::run::{RunState, Verdict};

/// A Run begins.
pub(super) fn run_started(run: &RunState) -> Notice {
    Notice {
        reason: "RunStarted",
        note: format!("run {} started on {} ({})", run.number, nodes(run.targets), run.trigger.as_str()),
        level: Level::Normal,
    }
}

fn nodes(count: u32) -> String {
    format!("{count} {}", if count == 1 { "node" } else { "nodes" })
}

/// A Run is over.
pub(super) fn run_ended(run: &RunState) -> Notice {
    let complete = run.verdict == Some(Verdict::Complete);
    Notice {
        reason: if complete { "RunComplete" } else { "RunFailed" },
        note: if run.targets == 0 {
            format!("run {}: no node matches spec.targets, so nothing was run", run.number)
        } else {
            conditions::progress_message(run)
        },
        level: if complete { Level::Normal } else { Level::Warning },
    }
}
