//! What is seen of a change before it is durable.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
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
    let disk = cluster.shared.commits.as_ref().unwrap().hold_disk();
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
        cluster.shared.commits.as_ref().unwrap().writes() <= 2,
        "the second and what followed waited together"
    );
}

#[tokio::test]
async fn nothing_is_answered_after_a_write_that_failed() {
    let (directory, cluster) = in_directory();
    cluster.create(task("a")).await.unwrap();
    cluster.shared.commits.as_ref().unwrap().break_disk();
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

/// A hold that no test waits for, and none.
const FOREVER: Duration = Duration::from_hours(1);
const NONE: Duration = Duration::ZERO;

/// A cluster with a watch that has had the list, whose changes are held for as long as this.
async fn watched(
    hold: Duration,
) -> (tempfile::TempDir, EmbeddedCluster, futures_util::stream::BoxStream<'static, Event<Task>>) {
    let (directory, cluster) = in_directory();
    let mut changes = cluster.watch_tasks();
    for _ in 0..2 {
        changes.next().await.unwrap();
    }
    commits(&cluster).set_hold(hold);
    (directory, cluster, changes)
}

fn commits(cluster: &EmbeddedCluster) -> &Commits {
    cluster.shared.commits.as_ref().unwrap()
}

fn nodes(count: usize) -> Vec<NodeName> {
    (0..count).map(|number| NodeName::new(format!("n-{number}")).unwrap()).collect()
}

#[tokio::test]
async fn a_task_and_its_run_are_one_write_and_neither_is_answered_before_it() {
    let (directory, cluster, mut changes) = watched(FOREVER).await;
    let mut created = Box::pin(cluster.create(task("a")));
    assert!((&mut created).now_or_never().is_none());
    let Some(Event::Apply(seen)) = changes.next().await else { panic!("not seen") };
    cluster.persist_targets(&seen, RunNumber(1), &nodes(200)).await.unwrap();
    let mut read = Box::pin(cluster.unsettled().expect("it is not durable"));
    for _ in 0..10 {
        assert!((&mut read).now_or_never().is_none(), "a reader answers, or writes what is held");
        assert!((&mut created).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(commits(&cluster).writes(), 0);
    cluster.write_status_and_hold(&seen, TaskStatus::default()).await.unwrap();
    created.await.unwrap();
    read.await.unwrap();
    assert_eq!(commits(&cluster).writes(), 1);
    drop(cluster);
    let cluster = EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    let tasks = cluster.list(None).await.unwrap();
    assert_eq!(tasks.len(), 1);
    assert!(tasks[0].metadata.finalizers.is_some(), "the second change is missing");
    assert!(!cluster.state().slices_of(&tasks[0]).is_empty(), "the target list is missing");
}

/// The controller sends nothing after an error, and the POST is not answered.
#[tokio::test]
async fn neither_a_held_task_nor_its_run_is_answered_when_their_write_fails() {
    let (directory, cluster, mut changes) = watched(FOREVER).await;
    commits(&cluster).break_disk();
    let mut created = Box::pin(cluster.create(task("a")));
    assert!((&mut created).now_or_never().is_none());
    let Some(Event::Apply(seen)) = changes.next().await else { panic!("not seen") };
    cluster.write_status_and_hold(&seen, TaskStatus::default()).await.unwrap_err();
    created.await.unwrap_err();
    drop(cluster);
    let cluster = EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    assert!(cluster.list(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_that_nothing_follows_is_written_when_its_hold_is_over() {
    let (_directory, cluster, _changes) = watched(FOREVER).await;
    let mut held = Box::pin(cluster.create(task("a")));
    for _ in 0..10 {
        assert!((&mut held).now_or_never().is_none(), "it is held");
    }
    assert_eq!(commits(&cluster).writes(), 0);
    commits(&cluster).set_hold(NONE);
    held.await.unwrap();
    assert_eq!(commits(&cluster).writes(), 1);
}

#[tokio::test]
async fn a_change_that_no_watch_shows_is_not_held() {
    let (_directory, cluster) = in_directory();
    commits(&cluster).set_hold(FOREVER);
    cluster.create(task("a")).await.unwrap();
}

/// A client that closes its connection ends its request.
#[tokio::test]
async fn a_hold_ends_with_its_request_and_those_that_wait_for_it_write() {
    let (_directory, cluster, _changes) = watched(FOREVER).await;
    let mut held = Box::pin(cluster.create(task("a")));
    assert!((&mut held).now_or_never().is_none());
    let reader = tokio::spawn(cluster.unsettled().expect("it is not durable"));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!reader.is_finished());
    drop(held);
    reader.await.unwrap().unwrap();
    assert!(cluster.unsettled().is_none());
}
