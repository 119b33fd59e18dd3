//! The events with which a Run begins and ends.

use std::collections::BTreeMap;

use sentinel_protocol::ids::NodeName;
use sentinel_protocol::outcome::Outcome;

use super::action::{Level, Notice};
use super::conditions;
use super::ledger::RunLedger;
use super::run::{RunState, Verdict};
use super::words::{examples, nodes};

/// Refusals in an event.
const REFUSALS: usize = 3;

/// A Run begins.
pub(super) fn run_started(run: &RunState) -> Notice {
    Notice {
        reason: "RunStarted",
        note: format!(
            "run {} started on {} ({})",
            run.number,
            nodes(run.targets as usize),
            run.trigger.as_str()
        ),
        level: Level::Normal,
    }
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

/// What nodes refused to run, and why: by which rule, if it is their policy. `None` when none did.
pub(super) fn command_refused(run: &RunState, ledger: &RunLedger) -> Option<Notice> {
    let mut refusing: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
    for (node, execution) in ledger.executions() {
        if let Some(Outcome::Refused { refusal }) = execution.ended().map(|ended| &ended.outcome) {
            refusing.entry(refusal.to_string()).or_default().push(node);
        }
    }
    let count: usize = refusing.values().map(Vec::len).sum();
    let mut refusing: Vec<(String, Vec<&NodeName>)> = refusing.into_iter().collect();
    refusing.sort_by_key(|(_, by)| std::cmp::Reverse(by.len()));
    let reasons = refusing.iter().take(REFUSALS).map(|(why, by)| format!("{}: {why}", examples(by)));
    let mut reasons: Vec<String> = reasons.collect();
    if let more @ 1.. = refusing.len().saturating_sub(REFUSALS) {
        reasons.push(format!("{more} other reasons"));
    }
    (count > 0).then(|| Notice {
        reason: "CommandRefused",
        note: format!(
            "run {}: {} of {} refused the command; {}",
            run.number,
            count,
            nodes(run.targets as usize),
            reasons.join("; ")
        ),
        level: Level::Warning,
    })
}
