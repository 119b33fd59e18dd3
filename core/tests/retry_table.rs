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
fn a_failed_attempt_is_followed_by_another_after_its_backoff() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    world.report("a", failed());
    assert_eq!(attempts_started(&world.settle()), [0; 0], "the backoff comes first");
    let wait = world.look().wake_at.unwrap().since(world.now);
    assert!((750..=1000).contains(&wait), "{wait} ms");
    world.pass(wait);
    assert_eq!(attempts_started(&world.settle()), [2]);
    world.report("a", failed());
    world.settle();
    let wait = world.look().wake_at.unwrap().since(world.now);
    assert!((1500..=2000).contains(&wait), "{wait} ms");
    world.pass(wait);
    assert_eq!(attempts_started(&world.settle()), [3]);
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
}

#[test]
fn a_run_is_not_over_while_an_attempt_follows_and_says_so() {
    let mut world = retrying(&[Cause::Failed], &["a", "b"]);
    world.report("a", failed());
    world.report("b", succeeded());
    world.settle();
    assert_eq!((world.run().finished_at, world.run().counts.waiting), (None, 1));
    let status = world.look().status;
    let line = status.nodes.as_ref().unwrap().iter().find(|line| line.node == node("a")).unwrap();
    assert_eq!((line.state, line.attempt), ("Pending", 1));
    assert_eq!(line.message, "attempt 1 ended Failed with exit code 3; attempt 2 of at most 3 follows");
}

#[test]
fn after_the_last_attempt_the_execution_ended_as_that_one_did() {
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
fn an_outcome_that_is_not_named_is_final() {
    let mut world = retrying(&[Cause::TimedOut], &["a"]);
    world.report("a", failed());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
}

#[test]
fn nothing_is_tried_again_once_the_run_is_cancelled_and_the_last_outcome_stands() {
    let mut world = retrying(&[Cause::Failed], &["a"]);
    world.report("a", failed());
    world.settle();
    world.requests.cancel = Some(RunNumber(1));
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.outcome("a"), Some(Outcome::Failed { exit_code: 3 }));
}

#[test]
fn a_further_attempt_that_the_cancellation_came_before_leaves_the_outcome_of_the_one_before() {
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
fn a_further_attempt_waits_for_its_place_in_the_rollout() {
    let mut world = retrying(&[Cause::Failed], &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    let mut world = World::new(world.plan, &["a", "b"]);
    world.settle();
    world.report("a", failed());
    assert_eq!(started(&world.settle()), ["b"], "who waits to be tried again holds nobody up");
    world.pass(2_000);
    assert_eq!(started(&world.settle()), [""; 0]);
    world.report("b", succeeded());
    assert_eq!(started(&world.settle()), ["a"]);
}

#[test]
fn lost_is_tried_again_only_when_named_and_never_beside_a_command_that_lives() {
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
        let living = ActiveAttempt { run: RunNumber(1), attempt: 1 };
        world.agents.get_mut(&node("a")).unwrap().living = Some(living);
        assert_eq!(attempts_started(&world.settle()), [0; 0], "the lost command still runs");
        world.agents.get_mut(&node("a")).unwrap().living = None;
        assert_eq!(attempts_started(&world.settle()), [2]);
    }
}

#[test]
fn evidence_of_a_lost_attempt_makes_the_one_after_it_needless() {
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
fn every_attempt_of_an_execution_is_archived_and_forgotten() {
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
fn a_new_leader_goes_on_with_the_attempt_that_history_and_the_agent_show() {
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
fn what_was_concluded_about_an_attempt_is_archived_before_the_next_one_or_a_minute_has_passed() {
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
