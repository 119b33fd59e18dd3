//! What is seen of a change before it is durable.

use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::Event;

use super::*;
use crate::resource::TaskSpec;

fn task(name: &str) -> Task {
    let mut task = Task::new(name, TaskSpec::stand_in());
    task.metadata.namespace = Some("ns".into());
    task
}

fn in_directory() -> (tempfile::TempDir, EmbeddedCluster) {
    let directory = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    (directory, cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
#[expect(clippy::await_holding_lock, reason = "the test holds up the disk while others wait for it")]
async fn a_watch_shows_a_change_at_once_and_its_answer_waits_for_the_disk() {
    let (_directory, cluster) = in_directory();
    let mut changes = cluster.watch_tasks();
    for _ in 0..2 {
        changes.next().await.unwrap();
    }
    let disk = cluster.0.commits.as_ref().unwrap().hold_disk();
    let create = |name| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.create(task(name)).await })
    };
    let first = create("a");
    let Some(Event::Apply(seen)) = changes.next().await else { panic!("not seen") };
    let second = create("b");
    assert!(matches!(changes.next().await, Some(Event::Apply(_))));
    let settled = cluster.unsettled().expect("it is not durable");
    let mut settling = tokio::spawn(settled);
    let mut settling_one = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.settle(&seen).await }
    });
    for waiting in [&mut settling, &mut settling_one] {
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    }
    assert!(!first.is_finished() && !second.is_finished());
    drop(disk);
    for done in [settling, settling_one] {
        done.await.unwrap().unwrap();
    }
    let made = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
    assert_eq!(made.map(|task| task.metadata.resource_version), [Some("1".into()), Some("2".into())]);
    assert!(cluster.unsettled().is_none());
    assert!(
        cluster.0.commits.as_ref().unwrap().writes() <= 2,
        "the second and what followed waited together"
    );
}

#[tokio::test]
async fn nothing_is_answered_after_a_write_that_failed() {
    let (directory, cluster) = in_directory();
    cluster.create(task("a")).await.unwrap();
    cluster.0.commits.as_ref().unwrap().break_disk();
    let error = cluster.create(task("b")).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(cluster.unsettled().expect("it is not durable").await.is_err());
    assert!(cluster.create(task("c")).await.is_err());
    drop(cluster);
    let cluster = EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    assert_eq!(cluster.list(None).await.unwrap().len(), 1);
}

/// It was seen before it was refused, so that a later attempt found that it existed, and every answer waited for it.
#[tokio::test]
async fn a_change_without_room_is_refused_before_it_is_seen_and_can_be_made_later() {
    let (directory, cluster) = in_directory();
    cluster.create(task("a")).await.unwrap();
    let no_room = directory.path().join("no-room");
    std::fs::write(&no_room, "").unwrap();
    assert!(cluster.create(task("b")).await.unwrap_err().is_retryable());
    assert!(cluster.unsettled().is_none());
    assert_eq!(cluster.list(None).await.unwrap().len(), 1);
    std::fs::remove_file(&no_room).unwrap();
    cluster.create(task("b")).await.unwrap();
    drop(cluster);
    let cluster = EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    assert_eq!(cluster.list(None).await.unwrap().len(), 2);
}
