//! Clocks: what ends when, and what a node has left of its time.

use sentinel_core::plan::{Amount, Starts};
use sentinel_core::reconcile::Action;
use sentinel_core::reconcile::conditions::ConditionStatus;
use sentinel_core::reconcile::ledger::{Origin, RunLedger};
use sentinel_core::time::Monotonic;
use sentinel_protocol::outcome::{LostReason, Outcome};

use super::world::{World, cancelled, ended, node, plan, running, started, succeeded, uid};
use super::{LOST, all_running, message};

#[test]
fn target_that_cannot_start_times_out() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.disconnect("a");
    world.settle();
    world.report("b", succeeded());
    world.pass(60_000);
    world.step();
    assert!(matches!(world.outcome("a"), Some(Outcome::StartTimedOut { .. })));
    assert_eq!(
        message(&world, "a"),
        "not started within 1m (timeouts.start): no agent of this node is connected"
    );
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "NodesUnreachable")));
}

/// AWS SSM reported success for such a Run.
#[test]
fn a_run_that_reached_one_of_five_nodes_has_failed() {
    let mut world = World::new(plan(), &["a", "b", "c", "d", "e"]);
    for name in ["b", "c", "d", "e"] {
        world.disconnect(name);
    }
    world.settle();
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().verdict, None, "four are still waited for");
    world.pass(60_000);
    world.settle();
    let counts = world.run().counts;
    assert_eq!((counts.succeeded, counts.unreachable, counts.failed), (1, 4, 0));
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "NodesUnreachable")));
    assert_eq!(world.condition("Complete"), None);
}

#[test]
fn start_timeout_names_clock_and_blocker() {
    // A node that is not in the cluster.
    let mut world = World::new(plan(), &["a"]);
    world.disconnect("a");
    world.settle();
    world.nodes.clear();
    world.pass(60_000);
    world.settle();
    let expected = "not started within 1m (timeouts.start): \
                    the node is not in the cluster, and no agent of it is connected";
    assert_eq!(message(&world, "a"), expected);

    // The time of the Run is over before there is an agent.
    let mut world = World::new(plan(), &["a"]);
    world.plan.timeouts.total_ms = Some(30_000);
    world.disconnect("a");
    world.settle();
    world.pass(30_000);
    world.settle();
    let expected = "not started: timeouts.total expired after 30s, before this node was admitted";
    assert_eq!(message(&world, "a"), expected);
}

/// What the `Start`s among the actions leave on the start clock and on the Run's.
fn clocks(actions: &[Action]) -> Vec<(u64, Option<u64>)> {
    let clocks = |action: &Action| match action {
        Action::Start { start_ms, total_ms, .. } => Some((*start_ms, *total_ms)),
        _ => None,
    };
    actions.iter().filter_map(clocks).collect()
}

#[test]
fn start_carries_the_remaining_run_time() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.timeouts.total_ms = Some(90_000);
    world.plan.max_concurrent = Amount::Count(1);
    assert_eq!(clocks(&world.settle()), [(60_000, Some(90_000))]);
    world.report("a", running());
    world.pass(50_000);
    world.report("a", succeeded());
    assert_eq!(clocks(&world.settle()), [(40_000, Some(40_000))]);
}

#[test]
fn total_timeout_starts_nothing_more_and_lets_agents_end_commands() {
    let mut world = World::new(plan(), &["a", "b", "c"]);
    world.plan.timeouts.total_ms = Some(30_000);
    world.plan.max_concurrent = Amount::Count(1);
    world.disconnect("c");
    world.settle();
    world.report("a", running());
    let woken = world.decide().wake_at.unwrap();
    assert!(woken <= Monotonic(31_000), "{woken:?}");
    world.pass(30_000);
    let actions = world.settle();
    assert_eq!((started(&actions), cancelled(&actions)), (vec![], vec![]));
    assert_eq!(world.outcome("b"), Some(Outcome::NotStarted));
    // This operator began the Run and sent nothing to it.
    assert_eq!(world.outcome("c"), Some(Outcome::NotStarted));
    world.report("a", ended(Outcome::TimedOut));
    world.settle();
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "NodesFailed")));
}

#[test]
fn agent_that_misses_the_total_timeout_is_sent_a_cancel() {
    let mut world = all_running(&["a"]);
    world.plan.timeouts.total_ms = Some(30_000);
    world.pass(30_000 + 10_000);
    assert_eq!(cancelled(&world.settle()), [""; 0], "it has its grace, and time to report");
    let due = world.decide().wake_at.unwrap();
    world.pass(due.since(world.now));
    assert_eq!(cancelled(&world.settle()), ["a"]);
}

#[test]
fn suspended_run_ends_at_its_total_timeout() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.timeouts.total_ms = Some(30_000);
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.plan.starts = Starts::Suspended;
    world.report("a", succeeded());
    world.settle();
    world.pass(world.decide().wake_at.unwrap().since(world.now));
    world.settle();
    assert_eq!(world.outcome("b"), Some(Outcome::NotStarted));
}

#[test]
fn new_leader_counts_the_total_timeout_from_the_runs_start() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.timeouts.total_ms = Some(90_000);
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.pass(20_000);
    world.ledger = RunLedger::new(uid(), world.ledger.run(), world.plan.spec_hash.clone(), Origin::Inherited);
    world.leading_since = world.now;
    world.report("a", succeeded());
    assert_eq!(clocks(&world.settle()), [(60_000, Some(70_000))]);
}

#[test]
fn start_clock_begins_at_admission() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.report("a", running());
    world.pass(600_000);
    world.step();
    assert_eq!(world.outcome("b"), None);
    world.report("a", succeeded());
    assert_eq!(started(&world.settle()), ["b"]);
}

#[test]
fn command_on_an_unreachable_node_is_lost_after_the_timeout() {
    let mut world = all_running(&["a"]);
    world.disconnect("a");
    world.pass(119_999);
    world.step();
    assert_eq!(world.outcome("a"), None);
    world.pass(1);
    world.step();
    assert_eq!(world.outcome("a"), Some(LOST));
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "NodesUnreachable")));
}

#[test]
fn command_on_a_deleted_node_is_lost_after_the_timeout() {
    let mut world = all_running(&["a", "b"]);
    for name in ["a", "b"] {
        world.disconnect(name);
    }
    world.nodes.remove(&node("a"));
    world.pass(119_000);
    world.settle();
    assert_eq!(world.outcome("a"), None, "it may register again");
    world.pass(1_000);
    world.settle();
    assert_eq!(world.outcome("a"), Some(Outcome::Lost { reason: LostReason::NodeDeleted }));
    assert_eq!(world.outcome("b"), Some(LOST));
}
