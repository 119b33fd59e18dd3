//! A Task that was made again, with `onRecreate: OncePerSpec`: when it runs, when it shows the Run of an earlier Task, and
//! when it waits for History.

use sentinel_core::plan::{OnRecreate, Starts, TaskPlan};
use sentinel_core::reconcile::conditions::{Archive, ConditionStatus, kind};
use sentinel_core::reconcile::ledger::{Origin, RunLedger, RunStage};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{EarlierRun, Trigger, Verdict};
use sentinel_core::reconcile::{Action, Earlier, Finalizer, Level, Lifecycle, Write, recreation};
use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::time::UnixMillis;

use super::world::{World, changed, node, plan, started, succeeded, uid};

fn once() -> TaskPlan {
    TaskPlan { on_recreate: OnRecreate::OncePerSpec, ttl_after_finished_ms: Some(60_000), ..plan() }
}

/// A Run of an earlier Task that ran this plan.
fn ran(plan: &TaskPlan, verdict: Option<Verdict>) -> EarlierRun {
    EarlierRun {
        task: TaskUid::new("uid-0").unwrap(),
        number: RunNumber(3),
        spec_hash: plan.spec_hash.clone(),
        rerun_token: plan.rerun_token.clone(),
        finished_at: Some(UnixMillis(1)),
        verdict,
    }
}

fn world(plan: TaskPlan, earlier: Earlier) -> World {
    let mut world = World::new(plan, &["a"]);
    world.earlier = earlier;
    world
}

/// A Task made again, and what History answers.
fn recreated(earlier: Earlier) -> World {
    world(once(), earlier)
}

fn executed(verdict: Option<Verdict>) -> World {
    recreated(Earlier::Ran { run: ran(&once(), verdict), rerun: None })
}

fn reason(world: &World, kind: &str) -> Option<&'static str> {
    world.condition(kind).map(|(_, reason)| reason)
}

#[test]
fn nothing_runs_if_an_earlier_task_has_run_the_same() {
    let mut world = executed(Some(Verdict::Complete));
    let actions = world.settle();
    assert!(matches!(&actions[..], [Action::Publish(notice)]
        if notice.reason == "AlreadyExecuted" && notice.level == Level::Normal));
    assert_eq!((world.recorded.run.clone(), world.finalizer), (None, Finalizer::Absent));
    assert_eq!(world.recorded.earlier, Some(ran(&once(), Some(Verdict::Complete))));
    for kind in [kind::READY, kind::COMPLETE] {
        assert_eq!(world.condition(kind), Some((ConditionStatus::True, "AlreadyExecuted")));
    }
    assert_eq!(world.condition(kind::RECONCILING), None);
    let message = &world.status.as_ref().unwrap().conditions[1].message;
    assert!(
        message.contains("(uid uid-0) ran this spec in its run 3 with the verdict Complete"),
        "{message}"
    );
}

#[test]
fn a_failed_or_unknown_end_is_a_failure_again() {
    for (verdict, end) in [(Some(Verdict::Failed), "the verdict Failed"), (None, "is not known")] {
        let mut world = executed(verdict);
        world.settle();
        assert_eq!(world.condition(kind::READY), Some((ConditionStatus::False, "AlreadyExecuted")));
        assert_eq!(
            (reason(&world, kind::STALLED), reason(&world, kind::FAILED)),
            (Some("AlreadyExecuted"), Some("AlreadyExecuted"))
        );
        assert!(world.status.as_ref().unwrap().conditions[1].message.contains(end));
        assert_eq!(world.recorded.run, None);
    }
}

#[test]
fn the_answer_is_recorded_before_it_is_published_and_then_lasts() {
    let mut world = executed(Some(Verdict::Complete));
    assert_eq!(world.decide().write, Write::Intent);
    world.settle();
    let status = world.status.clone();
    // History forgets after its retention, or is down; other operators lead. The TTL is that of a Run, and there is none.
    world.earlier = Earlier::Unknown;
    world.archive = Archive::Behind;
    world.pass(365 * 86_400_000);
    assert!(!recreation::asks(&world.plan, &world.recorded));
    assert_eq!((world.settle(), &world.status), (vec![], &status));
}

#[test]
fn nothing_runs_before_history_has_answered() {
    for earlier in [Earlier::Unknown, Earlier::NotAsked] {
        let mut world = recreated(earlier);
        world.archive = Archive::Behind;
        assert_eq!(world.settle(), []);
        assert_eq!(world.condition(kind::RECONCILING), Some((ConditionStatus::True, "WaitingForHistory")));
        assert_eq!(world.condition(kind::READY), Some((ConditionStatus::Unknown, "WaitingForHistory")));
        assert!(world.decide().wake_at.is_some());
        world.pass(86_400_000);
        assert_eq!(world.settle(), []);
        world.earlier = Earlier::Never;
        assert_eq!(started(&world.settle()), ["a"]);
    }
    let mut world = recreated(Earlier::Unknown);
    world.settle();
    world.plan.on_recreate = OnRecreate::Run;
    assert_eq!(started(&world.settle()), ["a"], "a person need not wait");
}

#[test]
fn by_default_history_decides_nothing() {
    let earlier = Earlier::Ran { run: ran(&plan(), Some(Verdict::Complete)), rerun: None };
    let mut world = world(plan(), earlier);
    assert!(!recreation::asks(&world.plan, &world.recorded));
    assert_eq!(started(&world.settle()), ["a"]);
}

#[test]
fn a_suspended_task_does_not_ask() {
    let mut world = executed(Some(Verdict::Complete));
    world.plan.starts = Starts::Suspended;
    assert!(!recreation::asks(&world.plan, &world.recorded));
    assert_eq!(world.settle(), []);
    assert_eq!(reason(&world, kind::READY), Some("Suspended"));
    world.plan.starts = Starts::Allowed;
    world.settle();
    assert_eq!(reason(&world, kind::READY), Some("AlreadyExecuted"));
    world.plan.starts = Starts::Suspended;
    world.settle();
    assert_eq!(
        (reason(&world, kind::READY), reason(&world, kind::SUSPENDED)),
        (Some("AlreadyExecuted"), Some("Suspended"))
    );
}

#[test]
fn another_spec_token_or_annotation_runs() {
    let begun = |world: &mut World, trigger: Trigger| {
        assert_eq!(started(&world.settle()), ["a"]);
        assert_eq!((world.run().number, world.run().trigger), (RunNumber(1), trigger));
        assert_eq!(world.recorded.earlier, None, "the Run is the fact now");
    };
    let mut world = executed(Some(Verdict::Failed));
    world.settle();
    world.plan = changed(&world.plan, "b");
    assert!(recreation::asks(&world.plan, &world.recorded), "an earlier Task may have run that too");
    world.earlier = Earlier::Never;
    begun(&mut world, Trigger::SpecChange);

    let mut world = executed(Some(Verdict::Failed));
    world.settle();
    world.plan.rerun_token = "2".into();
    world.earlier = Earlier::Never;
    begun(&mut world, Trigger::RerunToken);

    let mut world = executed(Some(Verdict::Failed));
    world.settle();
    world.requests.rerun = Some("now".into());
    world.earlier = Earlier::Unknown;
    begun(&mut world, Trigger::RerunToken);
}

/// A manifest with the annotation would otherwise run each time that it is made again.
#[test]
fn an_annotation_that_an_earlier_run_began_with_is_handled() {
    let with = |asked: Option<&str>, began: Option<&str>| {
        let rerun = began.map(str::to_owned);
        let mut world = recreated(Earlier::Ran { run: ran(&once(), Some(Verdict::Complete)), rerun });
        world.requests.rerun = asked.map(str::to_owned);
        let starts = started(&world.settle()).len();
        assert_eq!(world.recorded.handled.rerun.as_deref(), asked);
        starts
    };
    assert_eq!((with(Some("x"), Some("x")), with(None, Some("x"))), (0, 0));
    assert_eq!((with(Some("y"), Some("x")), with(Some("x"), None)), (1, 1));
}

/// The first Run of a Task, over on every node, and the Task is being deleted.
fn deleted_after_its_run(plan: TaskPlan) -> World {
    let mut world = world(plan, Earlier::Never);
    world.settle();
    world.report("a", succeeded());
    world.settle();
    world.lifecycle = Lifecycle::Deleting;
    world
}

#[test]
fn a_deletion_waits_until_history_has_the_runs() {
    let mut world = deleted_after_its_run(once());
    world.step();
    assert_eq!(world.condition(kind::RECONCILING), Some((ConditionStatus::True, "WaitingForHistory")));
    assert!(world.decide().wake_at.is_some());
    world.pass(86_400_000);
    assert!(!world.settle().contains(&Action::RemoveFinalizer));
    // The begin of the Run is not its end.
    world.ledger.note_run_archived(RunStage::Begun);
    assert!(!world.settle().contains(&Action::RemoveFinalizer));
    world.ledger.note_run_archived(RunStage::Finished);
    assert!(world.settle().contains(&Action::RemoveFinalizer));

    let mut world = deleted_after_its_run(plan());
    assert!(world.settle().contains(&Action::RemoveFinalizer), "without OncePerSpec it waits for nothing");
}

#[test]
fn an_abandoned_deletion_does_not_wait_for_history() {
    let mut world = deleted_after_its_run(once());
    world.requests.abandon = true;
    assert!(world.settle().contains(&Action::RemoveFinalizer));
}

#[test]
fn a_task_without_a_run_is_deleted_at_once() {
    for earlier in [Earlier::Unknown, Earlier::Ran { run: ran(&once(), None), rerun: None }] {
        let mut world = recreated(earlier);
        world.settle();
        world.finalizer = Finalizer::Present;
        world.lifecycle = Lifecycle::Deleting;
        assert_eq!(world.settle(), [Action::RemoveFinalizer]);
    }
}

/// The previous leader ended the Run, and crashed before History had its record.
#[test]
fn a_new_leader_archives_the_run_and_then_releases_the_task() {
    let mut world = deleted_after_its_run(once());
    let record = world.run().clone();
    world.ledger = RunLedger::new(uid(), RunNumber(1), record.spec_hash.clone(), Origin::Inherited);
    world.history_lookup = HistoryLookup::Pending;
    assert_eq!(world.step(), [], "History may have it");
    world.history_lookup = HistoryLookup::Done;
    assert_eq!(world.step(), [Action::ArchiveRun(Box::new(record))]);
    world.archive_all();
    assert!(world.settle().contains(&Action::RemoveFinalizer));
}

#[test]
fn the_next_run_waits_until_history_has_the_last() {
    let mut world = world(once(), Earlier::Never);
    world.plan.ttl_after_finished_ms = None;
    world.settle();
    world.report("a", succeeded());
    world.settle();
    world.plan = changed(&world.plan, "b");
    world.pass(86_400_000);
    assert_eq!(started(&world.settle()), [""; 0]);
    assert_eq!(world.condition(kind::RECONCILING), Some((ConditionStatus::True, "WaitingForHistory")));
    world.archive_all();
    assert_eq!(started(&world.settle()), ["a"]);
    assert_eq!((world.run().number, world.ledger.execution(&node("a")).is_some()), (RunNumber(2), true));
}
