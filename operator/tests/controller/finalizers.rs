//! The finalizer on an API server, where it is a write of its own: beside the first commands, or before them.

use sentinel_operator::cluster::TaskStore;
use sentinel_operator::history::{ExecutionQuery, History, OutcomeName, RunQuery};
use sentinel_operator::resource::Task;
use sentinel_operator::resource::marks::FINALIZER;
use sentinel_protocol::outcome::Outcome;

use super::HELLO;
use super::agents::Delivered;
use super::kit::{Stage, condition, ended, running, succeeded, task_ref};

fn is_held(task: &Task) -> bool {
    task.metadata.finalizers.as_ref().is_some_and(|all| all.iter().any(|text| text == FINALIZER))
}

async fn until_cancelled(stage: &Stage, count: usize) {
    let cancels = |delivered: &[Delivered]| {
        delivered.iter().filter(|delivered| matches!(delivered, Delivered::Cancel(_))).count()
    };
    stage.until_delivered(|delivered| cancels(delivered) == count).await;
}

#[tokio::test(start_paused = true)]
async fn commands_do_not_wait_for_the_finalizer() {
    let (stage, server) = Stage::on_a_server(&["a", "b"]);
    stage.apply("t", HELLO).await;
    for (start, recorded) in stage.starts(2).await {
        let recorded = recorded.unwrap();
        assert!(recorded.status.as_ref().unwrap().run.is_some(), "{} waited for its Run", start.attempt);
        assert!(!is_held(&recorded));
    }
    server.pass_finalizer();
    stage.until("t", is_held).await;
    for node in ["a", "b"] {
        stage.report("t", 1, node, succeeded());
    }
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 2);
}

/// If it went without its Runs in History, one made again would run them again.
#[tokio::test(start_paused = true)]
async fn a_spec_that_runs_once_waits_for_the_finalizer() {
    let (stage, server) = Stage::on_a_server(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, onRecreate: OncePerSpec}").await;
    stage.until("t", |task| task.status.as_ref().unwrap().run.is_some()).await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 0);
    server.pass_finalizer();
    let (_, recorded) = stage.starts(1).await.remove(0);
    assert!(is_held(&recorded.unwrap()));
}

/// A Task is deleted while its finalizer is on its way, and made again at once: what ran is cancelled, what did not run
/// never does, and both are in History beside the Run of the new one.
#[tokio::test(start_paused = true)]
async fn a_task_deleted_before_it_has_its_finalizer_leaves_no_command() {
    for is_made_again in [false, true] {
        let (stage, server) = Stage::on_a_server(&["a", "b", "c"]);
        stage.apply("t", "{targets: {all: true}, run: {command: [x]}, rollout: {maxConcurrent: 2}}").await;
        let first = stage.starts(2).await.remove(0).0;
        stage.report("t", 1, "a", running());
        stage.cluster.delete(task_ref("t")).await.unwrap();
        assert!(stage.cluster.get(task_ref("t")).await.unwrap().is_none(), "nothing held it");
        if is_made_again {
            stage.apply("t", HELLO).await;
        }
        server.pass_finalizer();
        until_cancelled(&stage, 2).await;
        stage.until_released(&first.attempt.task).await;
        stage.calm().await;
        let query =
            ExecutionQuery { task_uid: Some(first.attempt.task.clone()), ..ExecutionQuery::default() };
        let left = stage.history.executions(query).await.unwrap().items;
        let of_c = left.iter().find(|execution| execution.node.as_str() == "c").unwrap();
        assert_eq!(of_c.outcome, Some(OutcomeName::NotStarted));
        let query = RunQuery { task_uid: Some(first.attempt.task.clone()), ..RunQuery::default() };
        let run = stage.history.runs(query).await.unwrap().items.remove(0);
        assert!(run.finished_at.is_some(), "{run:?}");
        if is_made_again {
            let uid = stage.cluster.get(task_ref("t")).await.unwrap().unwrap().metadata.uid;
            let again = stage.starts(5).await;
            let of_new =
                again.iter().filter(|(start, _)| Some(start.attempt.task.as_str()) == uid.as_deref());
            assert_eq!(of_new.count(), 3, "all of the new one, and no more of the first");
        }
    }
}

/// The operator ends between the two writes. The next one holds the Task, and starts nothing again.
#[tokio::test(start_paused = true)]
async fn the_next_operator_sets_a_missing_finalizer() {
    let (mut stage, server) = Stage::on_a_server(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.restart().await;
    stage.connect("a");
    server.pass_finalizer();
    stage.until("t", is_held).await;
    stage.cluster.delete(task_ref("t")).await.unwrap();
    until_cancelled(&stage, 1).await;
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    stage.until_gone("t").await;
    assert_eq!(stage.count_starts(), 1);
}
