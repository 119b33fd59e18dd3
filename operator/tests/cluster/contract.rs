//! One contract for every cluster: the embedded one, and a real API server where there is one.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::{Finalizer, Level, Notice};
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{Change, Cluster, ClusterError, EmbeddedCluster};
use sentinel_operator::resource::marks::{CANCEL, FINALIZER};
use sentinel_operator::resource::status::{RunStatus, TaskStatus};
use sentinel_operator::resource::{Task, manifest};
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef};

use crate::kit::Piece;

/// A cluster under the contract, and a namespace of this test's own in it.
struct Subject<'a> {
    cluster: &'a dyn Cluster,
    namespace: &'a str,
}

impl Subject<'_> {
    fn name(&self, name: &str) -> TaskRef {
        TaskRef::new(self.namespace, name).unwrap()
    }

    fn task(&self, name: &str, command: &str) -> Task {
        let text = format!(
            "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: {}, labels: {{a: b}}}}\nspec: {{targets: {{all: true}}, run: {{command: [{command}]}}}}\n",
            self.namespace
        );
        manifest::read(&text).unwrap().remove(0)
    }

    async fn made(&self, name: &str) -> Task {
        self.cluster.create(self.task(name, "x")).await.unwrap()
    }
}

/// Runs a part of the contract on every cluster.
macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $test() {
                let cluster = super::EmbeddedCluster::in_memory(super::Clock::system());
                super::$test(super::Subject { cluster: &cluster, namespace: "here" }).await;
            })+
        }

        mod embedded_on_disk {
            $(#[tokio::test]
            async fn $test() {
                let directory = tempfile::tempdir().unwrap();
                let cluster =
                    super::EmbeddedCluster::in_directory(directory.path(), super::Clock::system()).unwrap();
                super::$test(super::Subject { cluster: &cluster, namespace: "here" }).await;
            })+
        }

        mod real {
            $(#[tokio::test]
            async fn $test() {
                let Some(piece) = super::Piece::new("contract").await else { return };
                super::$test(super::Subject { cluster: &piece.cluster, namespace: &piece.namespace }).await;
                piece.close().await;
            })+
        }
    };
}

contract!(
    a_new_task_has_an_identity_and_no_observed_generation,
    a_name_can_be_used_once,
    a_bad_task_is_refused_naming_the_field,
    a_name_can_be_left_to_the_cluster,
    a_dry_run_checks_everything_and_stores_nothing,
    only_a_changed_spec_is_a_new_generation,
    a_status_or_annotation_keeps_the_generation,
    a_write_to_a_changed_task_is_a_conflict,
    an_equal_status_changes_nothing,
    a_status_changes_nothing_but_the_status,
    a_held_task_stays_until_it_is_released,
    status_and_finalizer_are_one_write_where_possible,
    a_task_without_finalizer_is_deleted_at_once,
    a_task_in_deletion_takes_no_finalizer,
    a_short_target_list_needs_no_slices,
    the_longest_names_fill_slices_to_their_limit,
    a_long_target_list_is_persisted_idempotently,
    a_target_list_without_a_slice_is_damaged,
    only_old_target_lists_are_deleted,
    a_watch_yields_everything_and_then_every_change,
    a_missing_task_is_gone,
    tasks_are_listed_by_namespace_and_name,
    an_event_can_be_published,
);

async fn a_new_task_has_an_identity_and_no_observed_generation(subject: Subject<'_>) {
    let task = subject.made("t").await;
    assert_eq!(task.metadata.generation, Some(1));
    assert!(task.metadata.uid.as_ref().is_some_and(|uid| uid.len() > 10));
    assert!(task.metadata.creation_timestamp.is_some() && task.metadata.resource_version.is_some());
    assert_eq!(task.status.as_ref().map(|status| status.observed_generation), Some(-1));
    assert_eq!(task.spec.run.working_dir, "/");
    assert_eq!(
        subject.cluster.get(subject.name("t")).await.unwrap().unwrap().metadata.uid,
        task.metadata.uid
    );
}

async fn a_name_can_be_used_once(subject: Subject<'_>) {
    subject.made("t").await;
    let again = subject.cluster.create(subject.task("t", "other")).await;
    assert!(matches!(again, Err(ClusterError::Exists { .. })), "{again:?}");
}

async fn a_bad_task_is_refused_naming_the_field(subject: Subject<'_>) {
    let mut task = subject.task("t", "x");
    task.spec.run.command = Some(vec![String::new()]);
    let refused = subject.cluster.create(task).await;
    let Err(ClusterError::Refused { code: 422, message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("spec.run.command"), "{message}");
    assert_eq!(subject.cluster.get(subject.name("t")).await.unwrap(), None);
}

async fn a_name_can_be_left_to_the_cluster(subject: Subject<'_>) {
    let mut task = subject.task("t", "x");
    task.metadata.name = None;
    task.metadata.generate_name = Some("run-".into());
    let first = subject.cluster.create(task.clone()).await.unwrap().metadata.name.unwrap();
    let second = subject.cluster.create(task).await.unwrap().metadata.name.unwrap();
    assert!(first.starts_with("run-") && second.starts_with("run-") && first != second);
}

async fn a_dry_run_checks_everything_and_stores_nothing(subject: Subject<'_>) {
    let cluster = subject.cluster;
    let tried = cluster.dry_run(Change::Create, subject.task("t", "x")).await.unwrap();
    assert_eq!((tried.metadata.name.as_deref(), tried.spec.run.working_dir.as_str()), (Some("t"), "/"));
    assert_eq!(cluster.get(subject.name("t")).await.unwrap(), None);
    let stored = subject.made("t").await;
    let again = cluster.dry_run(Change::Create, subject.task("t", "x")).await.unwrap_err();
    assert!(matches!(again, ClusterError::Exists { .. }), "{again}");
    let tried = cluster.dry_run(Change::Apply, subject.task("t", "z")).await.unwrap();
    assert_eq!((tried.metadata.uid, tried.metadata.generation), (stored.metadata.uid.clone(), Some(2)));
    assert_eq!(cluster.get(subject.name("t")).await.unwrap(), Some(stored));
    for change in [Change::Create, Change::Apply] {
        let mut bad = subject.task("bad", "x");
        bad.spec.targets.node_names = Some(vec!["a".to_owned()]);
        let refused = cluster.dry_run(change, bad).await.unwrap_err();
        assert!(matches!(refused, ClusterError::Refused { .. }), "{refused}");
    }
}

async fn only_a_changed_spec_is_a_new_generation(subject: Subject<'_>) {
    let first = subject.cluster.apply(subject.task("t", "x")).await.unwrap();
    assert_eq!(first.metadata.generation, Some(1));
    let same = subject.cluster.apply(subject.task("t", "x")).await.unwrap();
    assert_eq!((same.metadata.generation, &same.spec), (Some(1), &first.spec));
    let other = subject.cluster.apply(subject.task("t", "other")).await.unwrap();
    assert_eq!((other.metadata.generation, &other.metadata.uid), (Some(2), &first.metadata.uid));
    assert_eq!(other.spec.run.command.as_deref(), Some(&["other".to_owned()][..]));
}

async fn a_status_or_annotation_keeps_the_generation(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let status =
        TaskStatus { observed_generation: 1, phase: Some("Pending".into()), ..TaskStatus::default() };
    let written = subject.cluster.write_status(&task, status.clone()).await.unwrap();
    assert_eq!((written.metadata.generation, written.status), (Some(1), Some(status)));
    let annotated = subject.cluster.annotate(subject.name("t"), CANCEL, Some("1".into())).await.unwrap();
    assert_eq!(annotated.metadata.generation, Some(1));
    assert_eq!(annotated.metadata.annotations.unwrap()[CANCEL], "1");
    let cleared = subject.cluster.annotate(subject.name("t"), CANCEL, None).await.unwrap();
    assert!(cleared.metadata.annotations.is_none_or(|annotations| !annotations.contains_key(CANCEL)));
}

async fn a_write_to_a_changed_task_is_a_conflict(subject: Subject<'_>) {
    let seen = subject.made("t").await;
    subject.cluster.annotate(subject.name("t"), CANCEL, Some("1".into())).await.unwrap();
    let status = TaskStatus { observed_generation: 1, ..TaskStatus::default() };
    let written = subject.cluster.write_status(&seen, status.clone()).await;
    assert!(matches!(written, Err(ClusterError::Conflict { .. })), "{written:?}");
    let written = subject.cluster.write_status_and_hold(&seen, status).await;
    assert!(matches!(written, Err(ClusterError::Conflict { .. })), "{written:?}");
    let held = subject.cluster.set_finalizer(&seen, Finalizer::Present).await;
    assert!(matches!(held, Err(ClusterError::Conflict { .. })), "{held:?}");
    let now = subject.cluster.get(subject.name("t")).await.unwrap().unwrap();
    assert_eq!(now.status.unwrap().observed_generation, -1, "nothing was written");
}

async fn an_equal_status_changes_nothing(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let status = TaskStatus { observed_generation: 1, ..TaskStatus::default() };
    let first = subject.cluster.write_status(&task, status.clone()).await.unwrap();
    let second = subject.cluster.write_status(&first, status).await.unwrap();
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
}

async fn a_status_changes_nothing_but_the_status(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let mut seen = task.clone();
    seen.metadata.annotations = Some(BTreeMap::from([("example.com/only".into(), "in our copy".into())]));
    seen.spec.run.command = Some(vec!["another".into()]);
    let status = TaskStatus { observed_generation: 1, ..TaskStatus::default() };
    let written = subject.cluster.write_status(&seen, status).await.unwrap();
    assert_eq!((written.metadata.annotations, written.spec), (task.metadata.annotations, task.spec));
}

async fn a_held_task_stays_until_it_is_released(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let held = subject.cluster.set_finalizer(&task, Finalizer::Present).await.unwrap();
    assert_eq!(held.metadata.finalizers.as_deref(), Some(&[FINALIZER.to_owned()][..]));
    subject.cluster.delete(subject.name("t")).await.unwrap();
    subject.cluster.delete(subject.name("t")).await.unwrap();
    let going = subject.cluster.get(subject.name("t")).await.unwrap().unwrap();
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(going.metadata.generation, Some(2));
    subject.cluster.set_finalizer(&going, Finalizer::Absent).await.unwrap();
    assert_eq!(subject.cluster.get(subject.name("t")).await.unwrap(), None);
}

async fn status_and_finalizer_are_one_write_where_possible(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let status = TaskStatus { observed_generation: 1, ..TaskStatus::default() };
    let written = subject.cluster.write_status_and_hold(&task, status.clone()).await.unwrap();
    assert_eq!(written.status, Some(status.clone()));
    let held = subject.cluster.set_finalizer(&written, Finalizer::Present).await.unwrap();
    assert_eq!(held.metadata.finalizers.as_deref(), Some(&[FINALIZER.to_owned()][..]));
    let again = subject.cluster.write_status_and_hold(&held, status).await.unwrap();
    assert_eq!(again.metadata.finalizers, held.metadata.finalizers, "once is enough");
}

async fn a_task_without_finalizer_is_deleted_at_once(subject: Subject<'_>) {
    let task = subject.made("t").await;
    subject.cluster.delete(subject.name("t")).await.unwrap();
    assert_eq!(subject.cluster.get(subject.name("t")).await.unwrap(), None);
    let again = subject.made("t").await;
    assert_ne!(again.metadata.uid, task.metadata.uid);
}

async fn a_task_in_deletion_takes_no_finalizer(subject: Subject<'_>) {
    let mut task = subject.task("t", "x");
    task.metadata.finalizers = Some(vec!["example.com/other".into()]);
    subject.cluster.create(task).await.unwrap();
    subject.cluster.delete(subject.name("t")).await.unwrap();
    let going = subject.cluster.get(subject.name("t")).await.unwrap().unwrap();
    let held = subject.cluster.set_finalizer(&going, Finalizer::Present).await;
    assert!(matches!(held, Err(ClusterError::Refused { .. })), "{held:?}");
}

fn names(count: usize) -> Vec<NodeName> {
    names_of(count, 11)
}

/// Names of this many bytes.
fn names_of(count: usize, length: usize) -> Vec<NodeName> {
    let rest = "a".repeat(length - 11);
    (0..count).map(|n| NodeName::new(format!("node-{n:06}{rest}")).unwrap()).collect()
}

/// The Task with a status that records a frozen list of this length.
async fn frozen(subject: &Subject<'_>, task: &Task, run: u32, count: usize) -> Task {
    let frozen = subject.cluster.persist_targets(task, RunNumber(run), &names(count)).await.unwrap();
    let run = RunStatus {
        number: i64::from(run),
        target_count: i64::try_from(count).unwrap(),
        targets: frozen.targets.iter().map(ToString::to_string).collect(),
        target_slices: i64::from(frozen.slices),
        targets_digest: frozen.digest,
        ..RunStatus::default()
    };
    subject.cluster.write_status(task, TaskStatus { run: Some(run), ..TaskStatus::default() }).await.unwrap()
}

async fn a_short_target_list_needs_no_slices(subject: Subject<'_>) {
    let task = subject.made("t").await;
    assert!(subject.cluster.load_targets(&task).await.unwrap().is_empty(), "no run has no targets");
    let task = frozen(&subject, &task, 1, 100).await;
    let run = task.status.as_ref().unwrap().run.as_ref().unwrap();
    assert_eq!((run.targets.len(), run.target_slices), (100, 0));
    assert_eq!(subject.cluster.load_targets(&task).await.unwrap(), names(100));
}

async fn a_long_target_list_is_persisted_idempotently(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let once = subject.cluster.persist_targets(&task, RunNumber(1), &names(2001)).await.unwrap();
    let twice = subject.cluster.persist_targets(&task, RunNumber(1), &names(2001)).await.unwrap();
    assert_eq!(once, twice, "freezing again after a crash is harmless");
    // An operator that crashed here, and one that then saw another Node.
    let other = subject.cluster.persist_targets(&task, RunNumber(1), &names(2002)).await.unwrap();
    assert_ne!(once.digest, other.digest);
    let task = frozen(&subject, &task, 1, 2001).await;
    assert_eq!(subject.cluster.load_targets(&task).await.unwrap(), names(2001));
    assert!(serde_json::to_vec(&task).unwrap().len() < 32 << 10);
}

async fn the_longest_names_fill_slices_to_their_limit(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let list = names_of(6000, 253);
    let frozen = subject.cluster.persist_targets(&task, RunNumber(1), &list).await.unwrap();
    assert_eq!(frozen.slices, 2);
    let run = RunStatus {
        number: 1,
        target_count: 6000,
        target_slices: 2,
        targets_digest: frozen.digest,
        ..RunStatus::default()
    };
    let status = TaskStatus { run: Some(run), ..TaskStatus::default() };
    let task = subject.cluster.write_status(&task, status).await.unwrap();
    assert_eq!(subject.cluster.load_targets(&task).await.unwrap(), list);
}

async fn a_target_list_without_a_slice_is_damaged(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let mut task = frozen(&subject, &task, 1, 1500).await;
    task.status.as_mut().unwrap().run.as_mut().unwrap().targets_digest = "0123456789abcdef".into();
    let damaged = subject.cluster.load_targets(&task).await;
    let Err(ClusterError::TargetsDamaged { wrong, .. }) = damaged else { panic!("{damaged:?}") };
    assert!(wrong.contains("is missing"), "{wrong}");
}

async fn only_old_target_lists_are_deleted(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let old = frozen(&subject, &task, 1, 1200).await;
    let new = frozen(&subject, &old, 2, 1300).await;
    subject.cluster.delete_old_targets(&new).await.unwrap();
    assert_eq!(subject.cluster.load_targets(&new).await.unwrap().len(), 1300);
    let gone = subject.cluster.load_targets(&old).await;
    assert!(matches!(gone, Err(ClusterError::TargetsDamaged { .. })), "{gone:?}");
}

async fn a_watch_yields_everything_and_then_every_change(subject: Subject<'_>) {
    subject.made("before").await;
    // Of this namespace only: a real cluster has others.
    let mut stream = subject.cluster.watch_tasks();
    let within = Duration::from_secs(20);
    let mut story: Vec<String> = Vec::new();
    let mut event;
    let ours = subject.namespace.to_owned();
    while story.last().is_none_or(|event| event != "InitDone") {
        (stream, event) = tokio::time::timeout(within, next_event(stream, &ours)).await.unwrap();
        story.push(event);
    }
    let after = subject.made("after").await;
    (stream, event) = tokio::time::timeout(within, next_event(stream, &ours)).await.unwrap();
    story.push(event);
    let status = TaskStatus { observed_generation: 1, ..TaskStatus::default() };
    subject.cluster.write_status(&after, status).await.unwrap();
    (stream, event) = tokio::time::timeout(within, next_event(stream, &ours)).await.unwrap();
    story.push(event);
    subject.cluster.delete(subject.name("after")).await.unwrap();
    (_, event) = tokio::time::timeout(within, next_event(stream, &ours)).await.unwrap();
    story.push(event);
    assert_eq!(story, ["Init", "InitApply before", "InitDone", "Apply after", "Apply after", "Delete after"]);
}

type Tasks = futures_util::stream::BoxStream<'static, Event<Task>>;

/// The next event about this namespace, as text.
async fn next_event(mut stream: Tasks, namespace: &str) -> (Tasks, String) {
    loop {
        let (event, task) = match stream.next().await.expect("a watch never ends") {
            Event::Init => return (stream, "Init".to_owned()),
            Event::InitDone => return (stream, "InitDone".to_owned()),
            Event::InitApply(task) => ("InitApply", task),
            Event::Apply(task) => ("Apply", task),
            Event::Delete(task) => ("Delete", task),
        };
        if task.metadata.namespace.as_deref() == Some(namespace) {
            return (stream, format!("{event} {}", task.metadata.name.unwrap()));
        }
    }
}

async fn a_missing_task_is_gone(subject: Subject<'_>) {
    assert_eq!(subject.cluster.get(subject.name("none")).await.unwrap(), None);
    let deleted = subject.cluster.delete(subject.name("none")).await;
    assert!(matches!(deleted, Err(ClusterError::Gone { .. })), "{deleted:?}");
    let annotated = subject.cluster.annotate(subject.name("none"), CANCEL, Some("1".into())).await;
    assert!(matches!(annotated, Err(ClusterError::Gone { .. })), "{annotated:?}");
    let task = subject.made("t").await;
    subject.cluster.delete(subject.name("t")).await.unwrap();
    let written = subject.cluster.write_status(&task, TaskStatus::default()).await;
    assert!(matches!(written, Err(ClusterError::Gone { .. })), "{written:?}");
}

async fn tasks_are_listed_by_namespace_and_name(subject: Subject<'_>) {
    for name in ["c", "a", "b"] {
        subject.made(name).await;
    }
    let listed = subject.cluster.list(Some(subject.namespace.to_owned())).await.unwrap();
    let names: Vec<&str> = listed.iter().filter_map(|task| task.metadata.name.as_deref()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(subject.cluster.list(None).await.unwrap().len() >= 3);
}

async fn an_event_can_be_published(subject: Subject<'_>) {
    let task = subject.made("t").await;
    let notice = Notice { reason: "RunStarted", note: "run 1 begins".repeat(200), level: Level::Normal };
    subject.cluster.publish(&task, &notice).await.unwrap();
}

#[tokio::test]
async fn an_embedded_cluster_is_restored_from_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    let cluster = open();
    let subject = Subject { cluster: &cluster, namespace: "here" };
    let task = subject.made("t").await;
    let task = frozen(&subject, &task, 1, 1500).await;
    subject.made("u").await;
    let cluster = open();
    let subject = Subject { cluster: &cluster, namespace: "here" };
    assert_eq!(subject.cluster.get(subject.name("t")).await.unwrap().as_ref(), Some(&task));
    assert_eq!(subject.cluster.load_targets(&task).await.unwrap(), names(1500));
    subject.cluster.delete(subject.name("t")).await.unwrap();
    assert_eq!(open().list_names(), ["u"]);
    assert_eq!(std::fs::read_dir(directory.path().join("targetslices")).unwrap().count(), 0);
}

/// Their files had longer names than Linux has.
#[tokio::test]
async fn tasks_with_the_longest_names_are_restored() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    let cluster = open();
    let namespace = "s".repeat(63);
    let subject = Subject { cluster: &cluster, namespace: &namespace };
    let names = ["a", "b"].map(|end| "n".repeat(252) + end);
    for name in &names {
        subject.made(name).await;
    }
    let cluster = open();
    let subject = Subject { cluster: &cluster, namespace: &namespace };
    assert_eq!(cluster.list_names(), names);
    subject.cluster.delete(subject.name(&names[0])).await.unwrap();
    assert_eq!(open().list_names(), names[1..]);
}

trait ListNames {
    fn list_names(&self) -> Vec<String>;
}

impl ListNames for EmbeddedCluster {
    fn list_names(&self) -> Vec<String> {
        use futures_util::FutureExt;
        use sentinel_operator::cluster::TaskStore;
        let tasks = self.list(None).now_or_never().unwrap().unwrap();
        tasks.into_iter().filter_map(|task| task.metadata.name).collect()
    }
}

#[tokio::test]
async fn an_invalid_file_stops_the_start_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("tasks")).unwrap();
    std::fs::write(directory.path().join("tasks/x.json"), "{").unwrap();
    let error = EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap_err();
    assert!(error.to_string().contains("x.json"), "{error}");
}

#[tokio::test]
async fn nodes_of_the_embedded_cluster_are_listed_whole() {
    let cluster = EmbeddedCluster::in_memory(Clock::system());
    let mut stream = cluster.watch_nodes();
    let node = |name: &str| (NodeName::new(name).unwrap(), NodeFacts::default());
    cluster.set_nodes(BTreeMap::from([node("a"), node("b")]));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match stream.next().await.unwrap() {
            Event::InitApply((name, _)) => name.to_string(),
            Event::Init => "Init".into(),
            Event::InitDone => "InitDone".into(),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["Init", "a", "b", "InitDone"]);
}
