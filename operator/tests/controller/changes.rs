//! What a user changes on a Task that exists: its spec, `suspend`, and the annotations that cancel and rerun.

use sentinel_operator::cluster::TaskStore;
use sentinel_operator::resource::marks::{CANCEL, RERUN};
use sentinel_protocol::outcome::Outcome;

use super::HELLO;
use super::agents::Delivered;
use super::kit::{Stage, condition, ended, phase, running, succeeded, task_ref};

#[tokio::test(start_paused = true)]
async fn a_changed_spec_runs_after_active_commands_finish() {
    let stage = Stage::with_nodes(&["a", "b"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [old]}, rollout: {maxConcurrent: 1}}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.apply("t", "{targets: {all: true}, run: {command: [new]}, rollout: {maxConcurrent: 1}}").await;
    stage.until("t", |task| task.status.as_ref().unwrap().run.as_ref().unwrap().stopping.is_some()).await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1, "nothing of either run was started while the old one runs");
    assert!(
        stage.delivered().iter().all(|delivered| !matches!(delivered, Delivered::Cancel(_))),
        "Finish cancels nothing"
    );
    stage.report("t", 1, "a", succeeded());
    let starts = stage.starts(2).await;
    assert_eq!(starts[1].0.attempt.run.0, 2);
    stage.report("t", 2, "a", succeeded());
    stage.starts(3).await;
    stage.report("t", 2, "b", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    let status = task.status.unwrap();
    assert_eq!((status.run.unwrap().number, status.recent_runs.len()), (2, 1));
    assert_eq!(status.recent_runs[0].verdict.as_deref(), Some("Failed"), "b never had its turn in run 1");
}

#[tokio::test(start_paused = true)]
async fn on_change_cancel_cancels_active_commands() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [old]}, onChange: Cancel}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.apply("t", "{targets: {all: true}, run: {command: [new]}, onChange: Cancel}").await;
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Cancel(_)))
        })
        .await;
    assert_eq!(stage.count_starts(), 1);
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    let starts = stage.starts(2).await;
    assert_eq!(starts[1].0.attempt.run.0, 2);
}

#[tokio::test(start_paused = true)]
async fn only_a_hashed_edit_or_a_new_token_runs_again() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    let edited = "{targets: {all: true}, run: {command: [\"true\"], output: {limit: 1Mi}}, timeouts: {run: 9m}, suspend: true, ttlAfterFinished: 9h";
    stage.apply("t", &format!("{edited}}}")).await;
    stage.until("t", |task| condition(task, "Suspended") == "True").await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1);
    stage
        .apply("t", &format!("{}, rerunToken: again}}", edited.replace("suspend: true", "suspend: false")))
        .await;
    let starts = stage.starts(2).await;
    assert_eq!(starts[1].0.deadlines.run_ms, Some(540_000));
    let task = stage.until("t", |task| task.status.as_ref().unwrap().run.as_ref().unwrap().number == 2).await;
    assert_eq!(task.status.unwrap().run.unwrap().trigger, "RerunToken");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_task_starts_nothing_until_it_is_resumed() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, suspend: true}").await;
    let task = stage.until("t", |task| condition(task, "Suspended") == "True").await;
    assert_eq!(phase(&task), "Suspended");
    stage.calm().await;
    assert_eq!(stage.count_starts(), 0);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, suspend: false}").await;
    stage.starts(1).await;
}

#[tokio::test(start_paused = true)]
async fn cancel_and_rerun_annotations_act_once() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.cluster.annotate(task_ref("t"), CANCEL, Some("1".into())).await.unwrap();
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Cancel(_)))
        })
        .await;
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    assert_eq!(phase(&task), "Cancelled");
    stage.cluster.annotate(task_ref("t"), RERUN, Some("x".into())).await.unwrap();
    stage.starts(2).await;
    stage.report("t", 2, "a", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    let handled = task.status.unwrap().handled;
    assert_eq!((handled.cancel, handled.rerun.as_deref()), (Some(1), Some("x")));
    stage.calm().await;
    assert_eq!(stage.count_starts(), 2, "neither acts again");
}
