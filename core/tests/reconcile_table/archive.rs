//! What History has: what waits for it, and what stays when it has lost a Run.

use sentinel_core::reconcile::conditions::{Archive, ConditionStatus};
use sentinel_core::reconcile::ledger::{Origin, RunLedger};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::{Action, Status};
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::Outcome;

use super::all_running;
use super::world::{ended, forgotten, succeeded, uid};

#[test]
fn nothing_is_forgotten_before_it_is_archived() {
    let mut world = all_running(&["a", "b"]);
    world.report("a", succeeded());
    world.report("b", succeeded());
    let actions = world.settle();
    assert_eq!(forgotten(&actions), [""; 0]);
    assert_eq!(world.condition("Archived"), Some((ConditionStatus::False, "HistoryBehind")));
    world.archive_all();
    assert_eq!(forgotten(&world.settle()), ["a", "b"]);
    assert_eq!(world.condition("Archived"), Some((ConditionStatus::True, "Archived")));
    assert_eq!(world.settle(), []);
}

/// Each flip of one condition used to rewrite the status of every finished Task at once, which kept a new leader from
/// renewing its Lease.
#[test]
fn history_outage_does_not_rewrite_archived_tasks() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.condition("Archived"), Some((ConditionStatus::False, "HistoryBehind")));
    assert!(world.decide().wake_at.is_some(), "nothing else reconciles it when History has caught up");
    world.archive_all();
    world.settle();
    world.archive = Archive::Behind;
    world.settle();
    assert_eq!(world.condition("Archived"), Some((ConditionStatus::True, "Archived")));
    assert_eq!(world.decide().wake_at, None);
}

#[test]
fn new_leader_keeps_archived_until_history_answers() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.settle();
    world.archive_all();
    world.settle();
    let status = world.decide().status;
    let hash = world.run().spec_hash.clone();
    world.ledger = RunLedger::new(uid(), RunNumber(1), hash, Origin::Inherited);
    world.history_lookup = HistoryLookup::Pending;
    world.archive = Archive::Behind;
    world.report("a", succeeded());
    assert_eq!(world.decide().status.conditions, status.conditions);
}

/// An operator that started with an empty History concluded every target of every finished Run again, and so each Task that
/// had succeeded had failed.
#[test]
fn lost_history_does_not_rewrite_finished_tasks() {
    for names in [&["a"][..], &["a", "b"]] {
        let mut world = all_running(names);
        world.report("a", succeeded());
        for name in names.iter().filter(|name| **name != "a") {
            world.report(name, ended(Outcome::Cancelled));
        }
        world.settle();
        world.archive_all();
        world.settle();
        let before = world.decide().status;
        let hash = world.run().spec_hash.clone();
        world.ledger = RunLedger::new(uid(), RunNumber(1), hash, Origin::Inherited);
        for name in names {
            world.owns_nothing(name);
        }
        world.history_lookup = HistoryLookup::Done;
        // All again after a restart that has read the first decision, and long after any wait.
        for _ in 0..2 {
            let actions = world.settle();
            assert!(!actions.iter().any(|action| matches!(action, Action::Conclude { .. })), "{actions:?}");
            world.pass(600_000);
            world.archive_all();
            assert_eq!(world.condition("Archived"), Some((ConditionStatus::False, "HistoryLost")));
        }
        let after = world.decide();
        assert_eq!(after.status.recorded.run, before.recorded.run);
        assert_eq!((after.status.phase, after.status.nodes), (before.phase, None), "the list stays");
        let but_archived = |status: &Status| -> Vec<_> {
            status.conditions.iter().filter(|condition| condition.kind != "Archived").cloned().collect()
        };
        assert_eq!(but_archived(&world.decide().status), but_archived(&before));
        assert_eq!(after.wake_at, None);

        // It is there again, from a backup.
        world.report("a", succeeded());
        for name in names.iter().filter(|name| **name != "a") {
            world.report(name, ended(Outcome::Cancelled));
        }
        world.archive_all();
        world.settle();
        assert_eq!(world.condition("Archived"), Some((ConditionStatus::True, "Archived")));
        assert_eq!(world.run().counts, before.recorded.run.unwrap().counts);
    }
}

/// The status showed at the end of a Run that History had all of it, without the operator's own conclusions.
#[test]
fn conclusions_that_end_a_run_are_archived_before_the_status_shows_it() {
    let mut world = all_running(&["a"]);
    world.disconnect("a");
    world.pass(600_000);
    let mut seen = Vec::new();
    while world.run().finished_at.is_none() {
        world.step();
        seen.push(world.condition("Archived"));
    }
    assert_eq!(seen.last(), Some(&Some((ConditionStatus::False, "HistoryBehind"))), "{seen:?}");
    world.archive_all();
    world.settle();
    assert_eq!(world.condition("Archived"), Some((ConditionStatus::True, "Archived")));
}
