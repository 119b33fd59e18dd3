//! Tasks that are deleted: by a user, after their TTL, and made again under the same name.

use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::Event;
use sentinel_operator::cluster::{Cluster, TaskStore};
use sentinel_operator::resource::marks::ABANDON;
use sentinel_protocol::outcome::Outcome;

use super::HELLO;
use super::agents::Delivered;
use super::kit::{Stage, condition, ended, running, succeeded, task_ref};

#[tokio::test(start_paused = true)]
async fn a_deleted_task_is_cancelled_and_removed_after_its_command() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Cancel(_)))
        })
        .await;
    stage.calm().await;
    assert!(stage.cluster.get(task_ref("t")).await.unwrap().is_some(), "it stays while its command runs");
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    stage.until_gone("t").await;
    stage.until_untracked().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_waits_for_a_node_can_be_abandoned() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.disconnect("a");
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.calm().await;
    assert!(stage.cluster.get(task_ref("t")).await.unwrap().is_some());
    let began = tokio::time::Instant::now();
    stage.cluster.annotate(task_ref("t"), ABANDON, Some("true".into())).await.unwrap();
    stage.until_gone("t").await;
    assert!(began.elapsed() < Duration::from_secs(10), "it did not wait for timeouts.unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_finished_task_is_deleted_after_its_ttl() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, ttlAfterFinished: 10m}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    let began = tokio::time::Instant::now();
    stage.until_gone("t").await;
    let waited = began.elapsed().as_secs();
    assert!((595..=660).contains(&waited), "deleted after {waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_recreated_task_of_the_same_name_is_another() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    let first = stage.starts(1).await.remove(0).0.attempt.task;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until_gone("t").await;
    stage.apply("t", HELLO).await;
    let second = stage.starts(2).await.remove(1).0;
    assert_eq!(second.attempt.run.0, 1);
    assert_ne!(first, second.attempt.task);
}

/// Who deletes a Task and makes it again at once causes one reconcile of the name, which finds the new Task and never sees
/// that the earlier one is gone. Its Runs stayed tracked, and agents never forgot their results.
#[tokio::test(start_paused = true)]
async fn what_is_kept_of_a_task_is_released_if_it_is_made_again_at_once() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    let first = stage.starts(1).await.remove(0).0.attempt.task;
    stage.report("t", 1, "a", running());
    let mut changes = stage.cluster.watch_tasks();
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    while !matches!(changes.next().await.unwrap(), Event::Delete(_)) {}
    stage.apply("t", HELLO).await;
    stage.starts(2).await;
    stage.until_released(&first).await;
}
