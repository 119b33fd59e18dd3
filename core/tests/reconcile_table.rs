//! What `decide` decides, one rule a test.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "reconcile_table/archive.rs"]
mod archive;
#[path = "reconcile_table/clocks.rs"]
mod clocks;
#[path = "reconcile_table/recreations.rs"]
mod recreations;
#[path = "reconcile_table/refusals.rs"]
mod refusals;
#[path = "reconcile_table/takeovers.rs"]
mod takeovers;
mod world;

use sentinel_core::plan::{Amount, OnChange, OnRecreate, Starts, TaskPlan};
use sentinel_core::reconcile::conditions::ConditionStatus;
use sentinel_core::reconcile::execution::Execution;
use sentinel_core::reconcile::run::{Stopping, Trigger, Verdict};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Action, Earlier, Finalizer, Lifecycle, Write};
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::{LostReason, Outcome};
use sentinel_protocol::to_operator::ReportedState;
use world::{World, cancelled, changed, ended, forgotten, node, plan, running, started, succeeded};

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

/// The sentence for people about the end of a target.
fn message(world: &World, name: &str) -> String {
    world.ledger.execution(&node(name)).and_then(Execution::ended).unwrap().message()
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

/// Commands wait for no write but that of their Run. Those of a spec that may run only once also wait for the finalizer.
#[test]
fn the_finalizer_is_added_beside_the_first_start_or_before_it() {
    for (on_recreate, is_before) in [(OnRecreate::Run, false), (OnRecreate::OncePerSpec, true)] {
        let mut world = World::new(TaskPlan { on_recreate, ..plan() }, &["a"]);
        world.earlier = Earlier::Never;
        let actions = world.settle();
        let finalizer = actions.iter().position(|action| *action == Action::AddFinalizer).unwrap();
        let start = actions.iter().position(|action| matches!(action, Action::Start { .. })).unwrap();
        assert_eq!(finalizer < start, is_before, "{on_recreate:?}: {actions:?}");
        assert_eq!(world.finalizer, Finalizer::Present);
    }
}

/// A new leader finds a Run without it: the one before was killed between the two writes.
#[test]
fn a_missing_finalizer_is_added_while_the_run_lasts() {
    let mut world = all_running(&["a"]);
    world.finalizer = Finalizer::Absent;
    assert_eq!(world.step().last(), Some(&Action::AddFinalizer));
    world.finalizer = Finalizer::Absent;
    world.report("a", succeeded());
    assert!(!world.settle().contains(&Action::AddFinalizer), "nothing of it is left to clean up");
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

/// Nomad sent jobs of the past to nodes that joined.
#[test]
fn a_node_that_joins_later_gets_nothing_of_an_older_run() {
    let mut world = all_running(&["a", "b"]);
    world.nodes.insert(node("c"), NodeFacts::default());
    world.connect("c");
    assert!(world.settle().iter().all(|action| !matches!(action, Action::Start { .. })));
    world.report("a", succeeded());
    world.report("b", succeeded());
    assert!(world.settle().iter().all(|action| !matches!(action, Action::Start { .. })));
    assert_eq!((world.run().verdict, world.run().targets), (Some(Verdict::Complete), 2));
    world.requests.rerun = Some("again".into());
    assert_eq!(started(&world.settle()), ["a", "b", "c"], "the next Run has it");
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
