//! What `decide` decides about Executions that are tried again, one rule a test.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use sentinel_core::plan::{Amount, TaskPlan};
use sentinel_core::reconcile::Action;
use sentinel_core::reconcile::ledger::{Origin, RunLedger, Source};
use sentinel_core::reconcile::retry::{Cause, Retry};
use sentinel_core::reconcile::rollout::{ActiveAttempt, HistoryLookup};
use sentinel_core::reconcile::run::Verdict;
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::to_operator::{Report, ReportedState};
use world::{World, ended, forgotten, node, plan, running, started, succeeded, uid};

const LOST: Outcome = Outcome::Lost { reason: LostReason::NodeUnreachable };

/// A Run on these nodes, each tried at most twice more.
fn retrying(causes: &[Cause], names: &[&str]) -> World {
    let retry = Retry { limit: 2, causes: causes.to_vec(), ..Retry::never() };
    let mut world = World::new(TaskPlan { retry, ..plan() }, names);
    world.settle();
    world
}

fn failed() -> ReportedState {
    ended(Outcome::Failed { exit_code: 3 })
}

fn attempts_started(actions: &[Action]) -> Vec<u32> {
    let attempt = |action: &Action| match action {
        Action::Start { attempt, .. } => Some(attempt.attempt),
        _ => None,
    };
    actions.iter().filter_map(attempt).collect()
}

#[test]
fn failed_attempt_is_retried_after_its_backoff() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    world.report("a", failed());
    assert_eq!(attempts_started(&world.settle()), [0; 0], "the backoff comes first");
    let wait = world.decide().wake_at.unwrap().since(world.now);
    assert!((750..=1000).contains(&wait), "{wait} ms");
    world.pass(wait);
    assert_eq!(attempts_started(&world.settle()), [2]);
    world.report("a", failed());
    world.settle();
    let wait = world.decide().wake_at.unwrap().since(world.now);
    assert!((1500..=2000).contains(&wait), "{wait} ms");
    world.pass(wait);
    assert_eq!(attempts_started(&world.settle()), [3]);
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
}

#[test]
fn run_is_not_over_while_a_retry_is_pending() {
    let mut world = retrying(&[Cause::Failed], &["a", "b"]);
    world.report("a", failed());
    world.report("b", succeeded());
    world.settle();
    assert_eq!((world.run().finished_at, world.run().counts.waiting), (None, 1));
    let status = world.decide().status;
    let line = status.nodes.as_ref().unwrap().iter().find(|line| line.node == node("a")).unwrap();
    assert_eq!((line.state, line.attempt), ("Pending", 1));
    assert_eq!(line.message, "attempt 1 ended Failed with exit code 3; attempt 2 of at most 3 follows");
}

#[test]
fn last_attempt_decides_the_outcome() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    for _ in 0..3 {
        world.report("a", failed());
        world.settle();
        world.pass(60_000);
        world.settle();
    }
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.ledger.attempt(&node("a")).attempt, 3);
    assert_eq!(started(&world.log), ["a"; 3]);
}

#[test]
fn unnamed_outcome_is_final() {
    let mut world = retrying(&[Cause::TimedOut], &["a"]);
    world.report("a", failed());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
}

#[test]
fn cancelled_run_retries_nothing() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    world.report("a", failed());
    world.settle();
    world.requests.cancel = Some(RunNumber(1));
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.outcome("a"), Some(Outcome::Failed { exit_code: 3 }));
}

#[test]
fn retry_cancelled_before_dispatch_keeps_the_previous_outcome() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    world.report("a", failed());
    world.settle();
    world.disconnect("a");
    world.pass(2_000);
    world.settle();
    assert_eq!(world.ledger.attempt(&node("a")).attempt, 2, "it waits for its agent");
    world.requests.cancel = Some(RunNumber(1));
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.outcome("a"), Some(Outcome::Failed { exit_code: 3 }));
}

#[test]
fn retry_waits_for_a_slot() {
    let mut world = retrying(&[Cause::Failed], &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    let mut world = World::new(world.plan, &["a", "b"]);
    world.settle();
    world.report("a", failed());
    assert_eq!(started(&world.settle()), ["b"], "a target waiting for its retry delays no other");
    world.pass(2_000);
    assert_eq!(started(&world.settle()), [""; 0]);
    world.report("b", succeeded());
    assert_eq!(started(&world.settle()), ["a"]);
}

#[test]
fn lost_is_retried_only_if_named_and_never_beside_an_active_command() {
    for (causes, again) in [(vec![Cause::Failed], false), (vec![Cause::Lost], true)] {
        let mut world = retrying(&causes, &["a"]);
        world.report("a", running());
        world.settle();
        world.disconnect("a");
        world.pass(10_000_000);
        world.settle();
        assert_eq!(world.outcome("a"), Some(LOST));
        assert_eq!(world.run().finished_at.is_none(), again);
        if !again {
            continue;
        }
        world.archive_all();
        world.pass(2_000);
        world.settle();
        world.connect("a");
        let active = ActiveAttempt { run: RunNumber(1), attempt: 1 };
        world.agents.get_mut(&node("a")).unwrap().active = Some(active);
        assert_eq!(attempts_started(&world.settle()), [0; 0], "the lost command still runs");
        world.agents.get_mut(&node("a")).unwrap().active = None;
        assert_eq!(attempts_started(&world.settle()), [2]);
    }
}

#[test]
fn late_evidence_cancels_a_needless_retry() {
    let mut world = retrying(&[Cause::Lost], &["a"]);
    world.report("a", running());
    world.settle();
    let first = world.ledger.attempt(&node("a"));
    world.disconnect("a");
    world.pass(10_000_000);
    world.settle();
    world.archive_all();
    world.pass(2_000);
    world.settle();
    assert_eq!(world.ledger.attempt(&node("a")).attempt, 2);
    let spec_hash = world.run().spec_hash.clone();
    world.ledger.apply_report(&Report { attempt: first, spec_hash, state: succeeded() });
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
    assert_eq!(attempts_started(&world.log), [1]);
}

#[test]
fn every_attempt_is_archived_and_forgotten() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    world.report("a", failed());
    world.settle();
    world.pass(2_000);
    world.settle();
    world.report("a", succeeded());
    assert_eq!(forgotten(&world.settle()), [""; 0]);
    world.archive_all();
    assert_eq!(forgotten(&world.settle()), ["a", "a"]);
}

#[test]
fn new_leader_continues_with_the_latest_attempt() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    let hash = world.run().spec_hash.clone();
    world.ledger = RunLedger::new(uid(), RunNumber(1), hash, Origin::Inherited);
    world.history_lookup = HistoryLookup::Pending;
    let second = world.ledger.attempt_of(&node("a"), 2);
    world.ledger.recall(&second, &failed(), Source::Agent);
    world.pass(100_000);
    world.settle();
    world.pass(100_000);
    assert_eq!(attempts_started(&world.settle()), [0; 0], "History may know of a third");
    world.history_lookup = HistoryLookup::Done;
    assert_eq!(attempts_started(&world.settle()), [3]);
}

/// The simulation found a second Attempt whose first had no Outcome in History: the operator had died in between.
#[test]
fn conclusion_is_archived_before_the_retry_or_a_minute_passes() {
    for archived in [true, false] {
        let mut world = retrying(&[Cause::Lost], &["a"]);
        world.report("a", running());
        world.settle();
        world.disconnect("a");
        world.pass(10_000_000);
        world.settle();
        world.connect("a");
        world.pass(2_000);
        assert_eq!(attempts_started(&world.settle()), [0; 0]);
        if archived {
            world.archive_all();
        } else {
            world.pass(61_000);
        }
        assert_eq!(attempts_started(&world.settle()), [2]);
    }
}
