//! Power cuts of an embedded cluster that is kept in a directory: what was answered is there again, and what was not answered
//! is there as a whole or not at all.
//!
//! A cut during a change is made of the directory before and after it: of the blocks of a log that the change wrote, any may
//! have reached the disk, and each file that a checkpoint replaced is the old or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures_util::{FutureExt, StreamExt};
use kube::runtime::watcher::Event;
use sentinel_core::reconcile::Finalizer;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::{Cluster, EmbeddedCluster, TaskKeeper, TaskStore};
use sentinel_operator::resource::marks::CANCEL;
use sentinel_operator::resource::status::{RunStatus, TaskStatus};
use sentinel_operator::resource::{Task, manifest};
use sentinel_protocol::ids::{NodeName, RunNumber, TaskRef};

/// Changes of one history, and histories.
const CHANGES: usize = 60;
const SEEDS: u64 = 6;

/// Bytes of a log, so that there is a checkpoint every few changes.
const CAPACITY: u64 = 8 << 10;

/// Bytes that a disk writes whole, and of the header of a log.
const SECTOR: usize = 512;
const HEADER: usize = 4096;

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// The files of a directory by their paths. The logs are read first: what a checkpoint does meanwhile is in both.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["", "tasks", "targetslices"] {
        for entry in fs::read_dir(directory.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file()
                && !has_extension(&name, "new")
                && let Ok(bytes) = fs::read(entry.path())
            {
                found.insert(Path::new(folder).join(name).to_str().unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

/// A directory as a power cut between these two states leaves it.
fn cut(
    before: &BTreeMap<String, Vec<u8>>,
    after: &BTreeMap<String, Vec<u8>>,
    rng: &mut Rng,
) -> BTreeMap<String, Vec<u8>> {
    let is_log = |name: &str| has_extension(name, "log");
    let is_reset = after.iter().any(|(name, bytes)| {
        is_log(name) && before.get(name).is_some_and(|old| old[..HEADER] != bytes[..HEADER])
    });
    let mut left = after.clone();
    for name in before.keys().chain(after.keys()) {
        let (old, new) = (before.get(name), after.get(name));
        match (old, new) {
            (Some(old), Some(new)) if is_log(name) => {
                let mut torn = new.clone();
                for at in (HEADER..old.len().min(new.len())).step_by(SECTOR) {
                    let sector = at..(at + SECTOR).min(old.len()).min(new.len());
                    if rng.below(2) == 0 {
                        torn[sector.clone()].copy_from_slice(&old[sector]);
                    }
                }
                left.insert(name.clone(), torn);
            }
            // A log that was made empty was made so after its checkpoint.
            _ if is_reset || rng.below(2) == 0 => {}
            (Some(old), _) => drop(left.insert(name.clone(), old.clone())),
            (None, _) => drop(left.remove(name)),
        }
    }
    left
}

/// The Tasks after a start from these files.
fn restored(files: &BTreeMap<String, Vec<u8>>) -> Vec<Task> {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let cluster = EmbeddedCluster::with_logs(directory.path(), CAPACITY, Clock::system()).unwrap();
    let tasks = tasks(&cluster);
    for task in &tasks {
        cluster.load_targets(task).now_or_never().unwrap().expect("a status names no list that is missing");
    }
    drop(cluster);
    let again = EmbeddedCluster::with_logs(directory.path(), CAPACITY, Clock::system()).unwrap();
    assert_eq!(self::tasks(&again), tasks, "a second start changes nothing");
    tasks
}

fn tasks(cluster: &EmbeddedCluster) -> Vec<Task> {
    cluster.list(None).now_or_never().unwrap().unwrap()
}

fn names(count: usize) -> Vec<NodeName> {
    (0..count).map(|n| NodeName::new(format!("node-{n:04}")).unwrap()).collect()
}

/// The list that the next status of a Task records.
type Frozen = Option<(Task, RunStatus)>;

/// One change that waits for the disk once; some are refused.
async fn change(cluster: &EmbeddedCluster, rng: &mut Rng, step: usize, frozen: &mut Frozen) {
    if let Some((task, run)) = frozen.take() {
        let status = TaskStatus { run: Some(run), ..TaskStatus::default() };
        return drop(cluster.write_status_and_hold(&task, status).await.unwrap());
    }
    let name = ["a", "b", "c", "d"][rng.below(4)];
    let reference = TaskRef::new("ns", name).unwrap();
    let Some(current) = cluster.get(reference.clone()).await.unwrap() else {
        let text = format!(
            "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{targets: {{all: true}}, run: {{command: [c{step}]}}}}\n",
        );
        return drop(cluster.create(manifest::read(&text).unwrap().remove(0)).await.unwrap());
    };
    match rng.below(8) {
        0 | 1 => drop(cluster.annotate(reference, CANCEL, Some(step.to_string())).await),
        2 => drop(cluster.delete(reference).await),
        3 => drop(cluster.set_finalizer(&current, Finalizer::Absent).await),
        4 => drop(cluster.set_finalizer(&current, Finalizer::Present).await),
        _ => {
            let (number, count) = (u32::try_from(step).unwrap(), [1, 150][rng.below(2)]);
            let list = cluster.persist_targets(&current, RunNumber(number), &names(count)).await.unwrap();
            let run = RunStatus {
                number: i64::from(number),
                target_count: i64::try_from(count).unwrap(),
                targets: list.targets.iter().map(ToString::to_string).collect(),
                target_slices: i64::from(list.slices),
                targets_digest: list.digest,
                ..RunStatus::default()
            };
            *frozen = Some((current, run));
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut() {
    let mut torn = 0;
    for seed in 0..SEEDS {
        let (mut rng, mut frozen) = (Rng(seed), None);
        let directory = tempfile::tempdir().unwrap();
        let cluster = EmbeddedCluster::with_logs(directory.path(), CAPACITY, Clock::system()).unwrap();
        let (mut before, mut expected) = (files(directory.path()), tasks(&cluster));
        for step in 0..CHANGES {
            change(&cluster, &mut rng, step, &mut frozen).await;
            let (after, answered) = (files(directory.path()), tasks(&cluster));
            assert_eq!(restored(&after), answered, "seed {seed}, change {step}: it was answered");
            let left = restored(&cut(&before, &after, &mut rng));
            assert!(left == expected || left == answered, "seed {seed}, change {step}: {left:#?}");
            torn += usize::from(left != answered);
            (before, expected) = (after, answered);
        }
    }
    assert!(torn > 10, "{torn} changes were cut");
}

/// They wait for the disk together, and a cut leaves the first of them.
#[tokio::test]
async fn a_task_and_its_run_survive_a_power_cut_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::with_logs(directory.path(), CAPACITY, Clock::system()).unwrap();
    let before = files(directory.path());
    let mut changes = cluster.watch_tasks();
    while !matches!(changes.next().await, Some(Event::InitDone)) {}
    let controller = async {
        let task = loop {
            if let Some(Event::Apply(task)) = changes.next().await {
                break task;
            }
        };
        let list = cluster.persist_targets(&task, RunNumber(1), &names(150)).await.unwrap();
        let run = RunStatus {
            number: 1,
            target_count: 150,
            target_slices: i64::from(list.slices),
            targets_digest: list.digest,
            ..RunStatus::default()
        };
        let status = TaskStatus { run: Some(run), ..TaskStatus::default() };
        cluster.write_status_and_hold(&task, status).await.unwrap();
    };
    let text = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: a, namespace: ns}\nspec: {targets: {all: true}, run: {command: [c]}}\n";
    let (made, ()) = tokio::join!(cluster.create(manifest::read(text).unwrap().remove(0)), controller);
    made.unwrap();
    let after = files(directory.path());
    assert!(restored(&after)[0].status.as_ref().unwrap().run.is_some());
    let (mut rng, mut tasks_alone, mut nothing) = (Rng(3), 0, 0);
    for _ in 0..100 {
        // `restored` reads the target list of each Run.
        match restored(&cut(&before, &after, &mut rng)).as_slice() {
            [] => nothing += 1,
            [task] if task.status.as_ref().is_none_or(|status| status.run.is_none()) => tasks_alone += 1,
            _ => {}
        }
    }
    assert!(tasks_alone > 0 && nothing > 0, "{tasks_alone} Tasks without a Run, {nothing} times nothing");
}

/// A directory of an earlier release has no logs.
#[tokio::test]
async fn a_directory_without_logs_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedCluster::in_directory(directory.path(), Clock::system()).unwrap();
    let (mut rng, mut frozen) = (Rng(7), None);
    let cluster = open();
    for step in 0..CHANGES {
        change(&cluster, &mut rng, step, &mut frozen).await;
    }
    let expected = tasks(&cluster);
    drop(cluster);
    drop(open());
    for log in ["changes-0.log", "changes-1.log"] {
        fs::remove_file(directory.path().join(log)).unwrap();
    }
    assert_eq!(tasks(&open()), expected);
}

/// The logs take turns, so that a missing change in between is not a torn end.
#[tokio::test]
async fn a_damaged_older_log_stops_the_start_and_is_named() {
    for seed in 0..20 {
        let (mut rng, mut frozen) = (Rng(seed), None);
        let directory = tempfile::tempdir().unwrap();
        let cluster = EmbeddedCluster::with_logs(directory.path(), CAPACITY, Clock::system()).unwrap();
        let mut before = files(directory.path());
        for step in 0..CHANGES {
            change(&cluster, &mut rng, step, &mut frozen).await;
            let after = files(directory.path());
            let written = |name: &str| before[name][HEADER..] != after[name][HEADER..];
            // The first change in the second log, while the first log is still there.
            if written("changes-1.log")
                && before["changes-0.log"][..HEADER] == after["changes-0.log"][..HEADER]
            {
                let mut damaged = after.clone();
                damaged.get_mut("changes-0.log").unwrap()[HEADER + 100] ^= 1;
                let copy = tempfile::tempdir().unwrap();
                for (name, bytes) in &damaged {
                    let path = copy.path().join(name);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, bytes).unwrap();
                }
                let error = EmbeddedCluster::with_logs(copy.path(), CAPACITY, Clock::system()).unwrap_err();
                assert!(error.to_string().contains("changes-1.log"), "{error}");
                return;
            }
            before = after;
        }
    }
    panic!("no checkpoint took long enough");
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}
