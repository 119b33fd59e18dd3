//! A new leader: what it waits for, and what it concludes, starts and archives.

use sentinel_core::plan::Amount;
use sentinel_core::reconcile::conditions::ConditionStatus;
use sentinel_core::reconcile::ledger::{Origin, RunLedger, Source};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::Verdict;
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::Outcome;

use super::world::{World, changed, node, plan, running, started, succeeded, uid};
use super::{LOST, all_running};

/// An operator that took a Run over and has received nothing yet.
fn taken_over() -> World {
    let mut world = World::new(plan(), &["a", "b"]);
    world.settle();
    world.disconnect("a");
    world.disconnect("b");
    for agent in world.agents.values_mut() {
        agent.last_seen = None;
    }
    world.pass(1_000_000);
    world.leading_since = world.now;
    let hash = world.run().spec_hash.clone();
    world.ledger = RunLedger::new(uid(), RunNumber(1), hash, Origin::Inherited);
    world.history_lookup = HistoryLookup::Pending;
    world
}

#[test]
fn new_leader_waits_before_concluding_lost() {
    let mut world = taken_over();
    world.history_lookup = HistoryLookup::Done;
    world.settle();
    world.pass(119_999);
    world.settle();
    assert_eq!(world.outcome("a"), None);
    world.pass(1);
    world.settle();
    assert_eq!(world.outcome("a"), Some(LOST), "and it never concludes NotStarted there");
}

#[test]
fn new_leader_reports_unarchived_conclusions_as_behind() {
    let mut world = all_running(&["a", "b"]);
    world.report("a", succeeded());
    world.report("b", succeeded());
    world.settle();
    let hash = world.run().spec_hash.clone();
    world.ledger = RunLedger::new(uid(), RunNumber(1), hash, Origin::Inherited);
    world.disconnect("b");
    world.ledger.recall(&world.ledger.attempt(&node("a")), &succeeded(), Source::Agent);
    world.step();
    assert_eq!(world.condition("Archived"), Some((ConditionStatus::False, "HistoryBehind")));
    assert!(world.decide().wake_at.is_some());
}

#[test]
fn new_leader_concludes_nothing_before_history_answers() {
    let mut world = taken_over();
    world.pass(10_000_000);
    world.settle();
    assert_eq!(world.outcome("a"), None);
    world.ledger.recall(&world.ledger.attempt(&node("a")), &succeeded(), Source::Agent);
    world.ledger.recall(&world.ledger.attempt(&node("b")), &succeeded(), Source::Agent);
    world.history_lookup = HistoryLookup::Done;
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
}

#[test]
fn new_leader_starts_only_what_does_not_run() {
    let mut world = taken_over();
    world.connect("a");
    world.report("a", running());
    world.connect("b");
    world.owns_nothing("b");
    assert_eq!(
        started(&world.settle()),
        [""; 0],
        "History may know that it ran on b, whose agent lost its memory"
    );
    world.history_lookup = HistoryLookup::Done;
    assert_eq!(started(&world.settle()), ["b"]);
}

#[test]
fn runs_are_numbered_above_inventories_and_history() {
    let mut world = World::new(plan(), &["a"]);
    world.highest_run = RunNumber(41);
    world.settle();
    assert_eq!(world.run().number, RunNumber(42));
}

/// A Run with a target that was never started because the next Run is due.
fn superseded() -> World {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.report("a", running());
    world.settle();
    world.plan = changed(&world.plan, "2");
    world.settle();
    world.report("a", succeeded());
    world.settle();
    world
}

#[test]
fn conclusions_are_archived_before_the_next_run() {
    let mut world = superseded();
    assert_eq!((world.run().number, world.outcome("b")), (RunNumber(1), Some(Outcome::NotStarted)));
    assert!(world.run().finished_at.is_some());
    assert_eq!(world.condition("Complete"), None, "the new spec has not been carried out");
    assert_eq!(world.condition("Reconciling"), Some((ConditionStatus::True, "RunDue")));
    world.archive_all();
    world.settle();
    assert_eq!(world.run().number, RunNumber(2));
}

#[test]
fn history_outage_delays_the_next_run_by_a_minute_at_most() {
    let mut world = superseded();
    world.pass(59_000);
    world.settle();
    assert_eq!(world.run().number, RunNumber(1));
    assert!(world.decide().wake_at.is_some_and(|at| at <= world.now.plus(60_000)));
    world.pass(1_000);
    world.settle();
    assert_eq!(world.run().number, RunNumber(2));
}

/// Leaders that crashed one after the other left no Outcome in History, as the minute was counted from the Run's end.
#[test]
fn each_leader_waits_a_minute_for_the_archive() {
    let mut world = superseded();
    world.pass(300_000);
    world.leading_since = world.now;
    world.settle();
    assert_eq!(world.run().number, RunNumber(1));
    world.pass(60_000);
    world.settle();
    assert_eq!(world.run().number, RunNumber(2));
}

#[test]
fn new_leader_archives_the_last_run_before_the_next() {
    let mut world = superseded();
    let hash = world.run().spec_hash.clone();
    world.ledger = RunLedger::new(uid(), RunNumber(1), hash, Origin::Inherited);
    world.history_lookup = HistoryLookup::Pending;
    world.settle();
    assert_eq!(world.run().number, RunNumber(1));
    world.history_lookup = HistoryLookup::Done;
    world.ledger.recall(&world.ledger.attempt(&node("a")), &succeeded(), Source::Agent);
    world.settle();
    assert_eq!((world.run().number, world.outcome("b")), (RunNumber(1), Some(Outcome::NotStarted)));
    world.archive_all();
    world.settle();
    assert_eq!(world.run().number, RunNumber(2));
}
