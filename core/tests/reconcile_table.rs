//! What `decide` decides, one rule a test.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use sentinel_core::plan::{Amount, OnChange, Starts};
use sentinel_core::reconcile::conditions::{Archive, ConditionStatus};
use sentinel_core::reconcile::execution::Execution;
use sentinel_core::reconcile::ledger::{Applied, Origin, RunLedger, Source};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{Stopping, Trigger, Verdict};
use sentinel_core::reconcile::{Action, Finalizer, Lifecycle, Write};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, ReportedState};
use world::{World, cancelled, changed, ended, forgotten, node, plan, running, started, succeeded, uid};

const LOST: Outcome = Outcome::Lost { reason: LostReason::NodeUnreachable };

/// A Run on these nodes whose commands all run.
fn all_running(names: &[&str]) -> World {
    let mut world = World::new(plan(), names);
    world.settle();
    for name in names {
        world.report(name, running());
    }
    world.step();
    world
}

#[test]
fn new_task_starts_nothing_before_its_targets_are_persisted() {
    let mut world = World::new(plan(), &["a", "b"]);
    let decision = world.decide();
    assert_eq!(decision.freeze, Some(vec![node("a"), node("b")]));
    assert_eq!(decision.write, Write::Intent);
    assert_eq!(started(&decision.actions), [""; 0]);
    world.step();
    assert_eq!((world.run().number, world.run().trigger), (RunNumber(1), Trigger::SpecChange));
    assert_eq!(started(&world.step()), ["a", "b"]);
}

#[test]
fn finalizer_is_added_before_the_first_start() {
    let mut world = World::new(plan(), &["a"]);
    let actions = world.settle();
    let finalizer = actions.iter().position(|action| *action == Action::AddFinalizer).unwrap();
    let start = actions.iter().position(|action| matches!(action, Action::Start { .. })).unwrap();
    assert!(finalizer < start);
}

#[test]
fn run_without_targets_fails_at_once() {
    let mut world = World::new(plan(), &[]);
    world.step();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "NoMatchingNodes")));
    assert_eq!(world.condition("Reconciling"), None);
}

#[test]
fn run_is_complete_if_all_targets_succeed() {
    let mut world = all_running(&["a", "b"]);
    assert_eq!(world.condition("Reconciling"), Some((ConditionStatus::True, "Running")));
    assert_eq!(world.condition("Ready"), Some((ConditionStatus::Unknown, "Running")));
    world.report("a", succeeded());
    world.report("b", succeeded());
    world.step();
    assert_eq!(world.condition("Complete"), Some((ConditionStatus::True, "Complete")));
    assert_eq!(world.condition("Ready"), Some((ConditionStatus::True, "Complete")));
    assert_eq!((world.condition("Reconciling"), world.condition("Stalled")), (None, None));
}

#[test]
fn run_fails_if_a_target_fails() {
    let mut world = all_running(&["a", "b"]);
    world.report("a", succeeded());
    world.report("b", ended(Outcome::Failed { exit_code: 3 }));
    world.step();
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "NodesFailed")));
    assert_eq!(world.condition("Stalled"), Some((ConditionStatus::True, "NodesFailed")));
    assert_eq!(world.condition("Ready"), Some((ConditionStatus::False, "NodesFailed")));
    assert_eq!(world.condition("Reconciling"), None);
    let nodes = world.status.as_ref().unwrap().nodes.clone().unwrap();
    assert_eq!((nodes[0].state, nodes[0].exit_code), ("Failed", Some(3)), "failures come first");
}

#[test]
fn active_targets_are_limited_by_max_concurrent() {
    let mut world = World::new(plan(), &["a", "b", "c"]);
    world.plan.max_concurrent = Amount::Count(1);
    assert_eq!(started(&world.settle()), ["a"]);
    world.report("a", running());
    assert_eq!(started(&world.settle()), [""; 0]);
    world.report("a", succeeded());
    assert_eq!(started(&world.settle()), ["b"]);
}

#[test]
fn node_without_agent_does_not_delay_others() {
    let mut world = World::new(plan(), &["a", "b", "c"]);
    world.plan.max_concurrent = Amount::Count(1);
    world.disconnect("a");
    assert_eq!(started(&world.settle()), ["b"]);
}

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

/// The sentence for people about the end of a target.
fn message(world: &World, name: &str) -> String {
    world.ledger.execution(&node(name)).and_then(Execution::ended).unwrap().message()
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
fn late_evidence_corrects_only_lost_outcomes() {
    let mut world = all_running(&["a"]);
    world.disconnect("a");
    world.pass(120_000);
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    world.connect("a");
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
    world.report("a", ended(Outcome::Failed { exit_code: 1 }));
    world.settle();
    assert_eq!(world.outcome("a"), Some(Outcome::Succeeded { exit_code: 0 }));
}

#[test]
fn start_is_resent_in_a_new_session() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.connect("a");
    world.owns_nothing("a");
    assert_eq!(started(&world.settle()), ["a"]);
}

#[test]
fn unanswered_start_is_resent_after_ten_seconds() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.pass(9_999);
    assert_eq!(started(&world.step()), [""; 0]);
    world.pass(1);
    assert_eq!(started(&world.step()), ["a"]);
}

#[test]
fn running_attempt_missing_from_an_inventory_is_lost() {
    let mut world = all_running(&["a"]);
    world.connect("a");
    world.owns_nothing("a");
    world.step();
    assert_eq!(world.outcome("a"), Some(Outcome::Lost { reason: LostReason::StateLost }));
}

#[test]
fn cancel_annotation_cancels_its_run_once() {
    let mut world = all_running(&["a"]);
    world.requests.cancel = Some(RunNumber(1));
    assert_eq!(cancelled(&world.step()), ["a"]);
    assert_eq!(world.run().stopping, Some(Stopping::Cancelled));
    world.report("a", ended(Outcome::Cancelled));
    world.step();
    assert_eq!(world.condition("Failed"), Some((ConditionStatus::True, "Cancelled")));
    assert_eq!(world.status.as_ref().unwrap().phase, "Cancelled");
    // The same annotation does not touch the next Run.
    world.plan.rerun_token = "again".into();
    world.settle();
    assert_eq!((world.run().number, world.run().stopping), (RunNumber(2), None));
}

#[test]
fn cancel_of_another_run_does_nothing() {
    let mut world = all_running(&["a"]);
    for number in [0, 2] {
        world.requests.cancel = Some(RunNumber(number));
        assert_eq!(cancelled(&world.settle()), [""; 0]);
        assert_eq!(world.run().stopping, None);
    }
}

#[test]
fn cancelled_run_starts_nothing_more() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.report("a", running());
    world.requests.cancel = Some(RunNumber(1));
    world.settle();
    assert_eq!(world.outcome("b"), Some(Outcome::NotStarted));
    world.report("a", ended(Outcome::Cancelled));
    assert_eq!(started(&world.settle()), [""; 0]);
}

#[test]
fn spec_change_lets_commands_finish_before_the_new_run() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.report("a", running());
    world.plan = changed(&world.plan, "new");
    assert_eq!(cancelled(&world.settle()), [""; 0]);
    assert_eq!(world.outcome("b"), Some(Outcome::NotStarted));
    assert_eq!(world.run().number, RunNumber(1), "two runs never overlap");
    world.report("a", succeeded());
    world.archive_all();
    world.settle();
    assert_eq!((world.run().number, world.run().trigger), (RunNumber(2), Trigger::SpecChange));
    assert_eq!(world.recorded.recent[0].number, RunNumber(1));
}

#[test]
fn spec_change_cancels_commands_if_on_change_is_cancel() {
    let mut world = all_running(&["a"]);
    world.plan.on_change = OnChange::Cancel;
    world.plan = changed(&world.plan, "new");
    assert_eq!(cancelled(&world.step()), ["a"]);
    world.report("a", ended(Outcome::Cancelled));
    assert_eq!(started(&world.settle()), ["a"]);
    assert_eq!(world.run().number, RunNumber(2));
}

#[test]
fn spec_changed_back_runs_again() {
    let mut world = all_running(&["a"]);
    let original = world.plan.clone();
    world.plan = changed(&world.plan, "new");
    world.step();
    world.plan = original;
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().number, RunNumber(2));
}

#[test]
fn other_edits_start_no_run() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.settle();
    world.plan.timeouts.run_ms = Some(1);
    world.plan.max_concurrent = Amount::Count(3);
    world.plan.ttl_after_finished_ms = Some(1 << 40);
    world.settle();
    assert_eq!(world.run().number, RunNumber(1));
}

#[test]
fn rerun_token_or_annotation_reruns_once() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.settle();
    world.plan.rerun_token = "2".into();
    world.settle();
    assert_eq!((world.run().number, world.run().trigger), (RunNumber(2), Trigger::RerunToken));
    world.report("a", succeeded());
    world.requests.rerun = Some("x".into());
    world.settle();
    assert_eq!((world.run().number, world.run().trigger), (RunNumber(3), Trigger::RerunToken));
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().number, RunNumber(3));
}

#[test]
fn suspended_task_starts_nothing_and_keeps_commands_running() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.starts = Starts::Suspended;
    world.step();
    assert_eq!(world.recorded.run, None);
    assert_eq!(world.condition("Suspended"), Some((ConditionStatus::True, "Suspended")));
    world.plan.starts = Starts::Allowed;
    world.plan.max_concurrent = Amount::Count(1);
    world.settle();
    world.report("a", running());
    world.plan.starts = Starts::Suspended;
    world.step();
    assert_eq!(world.condition("Reconciling"), Some((ConditionStatus::True, "Suspended")));
    world.report("a", succeeded());
    assert_eq!(started(&world.settle()), [""; 0]);
    world.plan.starts = Starts::Allowed;
    assert_eq!(started(&world.settle()), ["b"]);
}

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

#[test]
fn node_that_disconnects_later_does_not_rewrite_a_finished_task() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.settle();
    world.archive_all();
    world.settle();
    let nodes = world.decide().status.nodes;
    world.disconnect("a");
    assert_eq!(world.decide().status.nodes, nodes);
}

#[test]
fn lost_forget_is_resent() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.settle();
    world.archive_all();
    world.settle();
    world.report("a", succeeded());
    assert_eq!(forgotten(&world.settle()), ["a"]);
}

#[test]
fn superseded_ledger_is_settled_beside_the_new_run() {
    let mut world = all_running(&["a"]);
    world.report("a", succeeded());
    world.plan.rerun_token = "2".into();
    world.settle();
    assert_eq!(world.run().number, RunNumber(2));
    world.archive_all();
    let actions = world.settle();
    assert!(actions.iter().any(|action| matches!(action, Action::Forget(id) if id.run == RunNumber(1))));
}

#[test]
fn deleted_task_is_released_once_its_commands_ended() {
    let mut world = all_running(&["a"]);
    world.lifecycle = Lifecycle::Deleting;
    assert_eq!(cancelled(&world.step()), ["a"]);
    assert_eq!((world.finalizer, world.deleted), (Finalizer::Present, false));
    world.report("a", ended(Outcome::Cancelled));
    world.settle();
    assert!(world.deleted);
}

#[test]
fn deletion_does_not_wait_forever_for_a_lost_node() {
    let mut world = all_running(&["a"]);
    world.disconnect("a");
    world.lifecycle = Lifecycle::Deleting;
    world.settle();
    assert!(!world.deleted);
    world.pass(120_000);
    world.settle();
    assert!(world.deleted);
}

#[test]
fn abandoned_task_is_released_at_once() {
    let mut world = all_running(&["a"]);
    world.disconnect("a");
    world.lifecycle = Lifecycle::Deleting;
    world.requests.abandon = true;
    world.settle();
    assert!(world.deleted);
}

#[test]
fn ttl_deletes_a_finished_task_once_archived() {
    let mut world = all_running(&["a"]);
    world.plan.ttl_after_finished_ms = Some(5_000);
    world.report("a", succeeded());
    world.settle();
    world.pass(5_000);
    world.settle();
    assert_eq!(world.lifecycle, Lifecycle::Live, "History does not hold it yet");
    world.archive_all();
    world.settle();
    assert_eq!(world.lifecycle, Lifecycle::Deleting);
}

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

/// Found by the convergence simulation: after a backup was restored, History recalled an Attempt of another spec under
/// the same number, and the agent's refusal was asked for again without end.
#[test]
fn refusal_ends_an_attempt_that_seemed_accepted() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.report("a", ReportedState::Accepted);
    let refused = Refused {
        attempt: world.ledger.attempt(&node("a")),
        spec_hash: world.run().spec_hash.clone(),
        refusal: Refusal::SpecHashMismatch,
        offer: 0,
    };
    world.ledger.apply_refusal(&refused, UnixMillis(1));
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Failed));
    assert_eq!(world.outcome("a"), Some(Outcome::Refused { refusal: Refusal::SpecHashMismatch }));
}

fn busy(world: &World, name: &str, offer: u32) -> Refused {
    Refused {
        attempt: world.ledger.attempt(&node(name)),
        spec_hash: world.run().spec_hash.clone(),
        refusal: Refusal::TooManyAttempts { limit: 64 },
        offer,
    }
}

#[test]
fn busy_node_is_offered_again_with_backoff() {
    let mut world = World::new(plan(), &["a"]);
    assert_eq!(started(&world.settle()), ["a"]);
    for (offer, wait) in [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000), (5, 5_000), (6, 5_000)] {
        assert_eq!(world.ledger.apply_refusal(&busy(&world, "a", offer), UnixMillis(1)), Applied::Changed);
        let decision = world.decide();
        assert_eq!(decision.wake_at, Some(world.now.plus(wait)));
        world.step();
        let line = &world.status.as_ref().unwrap().nodes.as_ref().unwrap()[0];
        assert_eq!(line.state, "WaitingForNode");
        assert!(line.message.contains("busy: 64 of 64 commands"), "{}", line.message);
        world.pass(wait);
        assert_eq!(started(&world.settle()), ["a"], "offer {}", offer + 1);
    }
    world.report("a", succeeded());
    world.settle();
    assert_eq!(world.run().verdict, Some(Verdict::Complete));
}

#[test]
fn busy_node_times_out_with_its_reason() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1));
    world.pass(60_000);
    world.settle();
    let Some(Outcome::StartTimedOut { why: Some(why) }) = world.outcome("a") else {
        panic!("{:?}", world.outcome("a"))
    };
    assert!(why.contains("busy: 64 of 64 commands"), "{why}");
    assert!(message(&world, "a").starts_with("not started within 1m (timeouts.start): "));
}

#[test]
fn busy_node_does_not_delay_others() {
    let mut world = World::new(plan(), &["a", "b"]);
    world.plan.max_concurrent = Amount::Count(1);
    assert_eq!(started(&world.settle()), ["a"]);
    world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1));
    assert_eq!(started(&world.settle()), ["b"]);
    world.requests.cancel = Some(world.run().number);
    world.settle();
    assert_eq!(world.outcome("a"), Some(Outcome::NotStarted));
}

#[test]
fn late_refusal_of_an_earlier_offer_is_ignored() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1));
    world.pass(500);
    assert_eq!(started(&world.settle()), ["a"]);
    assert_eq!(world.ledger.apply_refusal(&busy(&world, "a", 1), UnixMillis(1)), Applied::Unchanged);
    assert!(world.ledger.execution(&node("a")).unwrap().is_active());
}

#[test]
fn permanent_refusal_is_final_whatever_its_reason() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.ledger.apply_refusal(&busy(&world, "a", 0), UnixMillis(1));
    assert_eq!(
        world.outcome("a"),
        Some(Outcome::Refused { refusal: Refusal::TooManyAttempts { limit: 64 } })
    );
}

#[test]
fn runs_are_numbered_above_inventories_and_history() {
    let mut world = World::new(plan(), &["a"]);
    world.highest_run = RunNumber(41);
    world.settle();
    assert_eq!(world.run().number, RunNumber(42));
}

#[test]
fn status_lists_a_hundred_nodes_and_counts_all() {
    let names: Vec<String> = (0..150).map(|n| format!("n{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = all_running(&names);
    world.report("n149", ended(Outcome::Failed { exit_code: 1 }));
    world.step();
    let status = world.status.clone().unwrap();
    let nodes = status.nodes.unwrap();
    assert_eq!((nodes.len(), nodes[0].node.as_str()), (100, "n149"));
    assert_eq!((world.run().counts.running, world.run().counts.failed), (149, 1));
}

#[test]
fn no_actions_without_changes() {
    let mut world = all_running(&["a", "b"]);
    world.archive_all();
    world.settle();
    let before = world.status.clone();
    assert_eq!(world.step(), []);
    assert_eq!(world.status, before);
}

#[test]
fn start_of_an_accepted_attempt_is_resent_for_rebooted_nodes() {
    let mut world = World::new(plan(), &["a"]);
    world.settle();
    world.report("a", ReportedState::Accepted);
    world.pass(9_999);
    assert_eq!(started(&world.settle()), [""; 0]);
    world.pass(1);
    assert_eq!(started(&world.settle()), ["a"]);
    world.report("a", running());
    world.pass(60_000);
    assert_eq!(started(&world.settle()), [""; 0]);
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
