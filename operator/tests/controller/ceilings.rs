//! Ceilings in the reconcile loop: what is beyond them does not begin, what needs an approval waits for one, and the file counts as
//! it is now.

use std::path::{Path, PathBuf};

use sentinel_core::reconcile::ceiling::approval::Approval;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_operator::cluster::TaskStore;
use sentinel_operator::controller::CurrentCeilings;
use sentinel_operator::resource::marks::{APPROVAL, RERUN};
use sentinel_operator::resource::stamp::{KEY_BYTES, Key, Stamps};
use sentinel_operator::resource::status::AwaitingApproval;
use sentinel_operator::resource::{Task, approval, manifest};
use sentinel_protocol::ids::{RunNumber, SpecHash};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;

use super::HELLO;
use super::kit::{Stage, condition, node, phase, running, succeeded, task_ref};

pub(crate) fn person(name: &str) -> Requester {
    Requester { user: name.into(), uid: None, groups: vec![] }
}

pub(crate) fn stamps() -> Stamps {
    Stamps::of(Key::from([7; KEY_BYTES]))
}

/// A file of ceilings.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl File {
    pub(crate) fn new(ceilings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = Self { path: directory.path().join("ceilings.yaml"), _directory: directory };
        file.write(ceilings);
        file
    }

    /// As the kubelet does: a reader sees the old one or the new one.
    pub(crate) fn write(&self, ceilings: &str) {
        let next = self.path.with_extension("next");
        let text = format!("apiVersion: sentinelnode.dev/v1alpha1\nkind: Ceilings\n{ceilings}\n");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &self.path).unwrap();
    }

    fn stage(&self, names: &[&str]) -> Stage {
        Stage::within(CurrentCeilings::of_file(self.path.clone()).unwrap(), stamps(), names)
    }
}

pub(crate) fn one(fields: &str) -> String {
    format!("ceilings: [{{name: team, namespaces: [default], {fields}}}]")
}

pub(crate) const ABOVE_ONE: &str = "approval: {above: {count: 1}, validFor: 1h}";

async fn apply(stage: &Stage, who: &str, spec: &str) {
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: t, namespace: default}}\nspec: {spec}\n"
    );
    let store = stage.cluster.asked_by(Some(person(who)));
    store.apply(manifest::read(&text).unwrap().remove(0)).await.unwrap();
}

pub(crate) fn awaiting(task: &Task) -> Option<AwaitingApproval> {
    task.status.as_ref()?.awaiting_approval.clone()
}

fn message(task: &Task, kind: &str) -> String {
    let conditions = &task.status.as_ref().unwrap().conditions;
    conditions.iter().find(|one| one.type_ == kind).map(|one| one.message.clone()).unwrap_or_default()
}

/// The approval that an operator writes for `who`, who was shown this.
pub(crate) fn approved(task: &Task, shown: &AwaitingApproval, who: &str, at: UnixMillis) -> String {
    let given = Approval {
        approver: person(who),
        run: RunNumber(u32::try_from(shown.run).unwrap()),
        spec_hash: SpecHash::new(shown.spec_hash.as_str()).unwrap(),
        targets_digest: shown.targets_digest.clone(),
        at,
        expires_at: at.plus(u64::try_from(shown.valid_for_seconds).unwrap() * 1_000),
    };
    approval::write(&stamps(), task, &given).unwrap()
}

async fn approve(stage: &Stage, who: &str) {
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    let text = approved(&task, &awaiting(&task).unwrap(), who, stage.at());
    annotate(stage, text).await;
}

async fn annotate(stage: &Stage, text: String) {
    stage.cluster.annotate(task_ref("t"), APPROVAL, Some(text)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_beyond_its_ceiling_begins_when_the_ceiling_is_raised() {
    let file = File::new(&one("maxTargets: {count: 1}"));
    let stage = file.stage(&["a", "b"]);
    apply(&stage, "alice", HELLO).await;
    let task = stage.until("t", |task| condition(task, "Accepted") == "False").await;
    assert_eq!((phase(&task), condition(&task, "Stalled")), ("Rejected", "True"));
    let shown = message(&task, "Accepted");
    assert!(shown.contains("it would run on 2 nodes, and maxTargets.count allows 1"), "{shown}");
    stage.until_event("t", "CeilingExceeded").await;
    assert_eq!(stage.count_starts(), 0);
    file.write(&one("maxTargets: {count: 2}"));
    stage.starts(2).await;
    let task = stage.until("t", |task| condition(task, "Accepted") == "True").await;
    assert_eq!(task.status.unwrap().run.unwrap().ceiling.unwrap().name, "team");
}

#[tokio::test(start_paused = true)]
async fn a_task_beyond_its_ceiling_begins_when_a_node_leaves() {
    let file = File::new(&one("maxTargets: {count: 1}"));
    let stage = file.stage(&["a", "b"]);
    apply(&stage, "alice", HELLO).await;
    stage.until("t", |task| condition(task, "Accepted") == "False").await;
    stage.cluster.set_nodes([(node("a"), NodeFacts::default())].into());
    assert_eq!(stage.starts(1).await[0].0.attempt.node, node("a"));
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_the_file_cannot_be_used() {
    let file = File::new(&one("maxTargets: {count: 2}"));
    let stage = file.stage(&["a", "b"]);
    apply(&stage, "alice", HELLO).await;
    stage.starts(2).await;
    let bad: [&dyn Fn(&Path); 3] = [
        &|path| std::fs::write(path, "ceilings: {").unwrap(),
        &|path| std::fs::write(path, "").unwrap(),
        &|path| std::fs::remove_file(path).unwrap(),
    ];
    for (number, spoil) in bad.into_iter().enumerate() {
        spoil(&file.path);
        stage.calm().await;
        // What runs does so to its end.
        let run = u32::try_from(number).unwrap() + 1;
        for name in ["a", "b"] {
            stage.report("t", run, name, succeeded());
        }
        stage.until("t", |task| condition(task, "Complete") == "True").await;
        let again = format!("again-{number}");
        let store = stage.cluster.asked_by(Some(person("alice")));
        store.annotate(task_ref("t"), RERUN, Some(again)).await.unwrap();
        let task = stage.until("t", |task| message(task, "Ready").contains("eilings")).await;
        assert_eq!((phase(&task), condition(&task, "Reconciling")), ("Pending", "True"));
        stage.calm().await;
        assert_eq!(stage.count_starts(), 2 * (number + 1));
        file.write(&one("maxTargets: {count: 2}"));
        stage.starts(2 * (number + 2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_needs_it_begins_with_the_approval_of_another_and_names_them() {
    let file = File::new(&one(ABOVE_ONE));
    let mut stage = file.stage(&["a", "b"]);
    apply(&stage, "alice", HELLO).await;
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    assert_eq!((phase(&task), condition(&task, "Suspended")), ("Suspended", "True"));
    assert_eq!(awaiting(&task).unwrap().requested_by, ["alice"]);
    stage.until_event("t", "AwaitingApproval").await;
    approve(&stage, "alice").await;
    stage.until("t", |task| message(task, "Suspended").contains("alice is behind it")).await;
    assert_eq!(stage.count_starts(), 0);
    stage.restart().await;
    for name in ["a", "b"] {
        stage.connect(name);
    }
    approve(&stage, "bob").await;
    stage.starts(2).await;
    let task = stage.until("t", |task| awaiting(task).is_none()).await;
    assert_eq!(task.status.unwrap().run.unwrap().approved_by.unwrap().user, "bob");
    stage.until_event("t", "RunApproved").await;
    assert!(stage.notes("t").contains(&"run 1 began, as bob approved".to_owned()), "{:?}", stage.notes("t"));
    for name in ["a", "b"] {
        stage.report("t", 1, name, running());
        stage.report("t", 1, name, succeeded());
    }
    stage
        .until("t", |task| condition(task, "Archived") == "True" && condition(task, "Complete") == "True")
        .await;
    // It was for that Run alone.
    let store = stage.cluster.asked_by(Some(person("carol")));
    store.annotate(task_ref("t"), RERUN, Some("again".to_owned())).await.unwrap();
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    assert_eq!(awaiting(&task).unwrap().requested_by, ["alice", "carol"]);
    stage.calm().await;
    assert_eq!(stage.count_starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_no_operator_has_written_or_of_something_else_approves_nothing() {
    let file = File::new(&one(ABOVE_ONE));
    let stage = file.stage(&["a", "b"]);
    apply(&stage, "alice", HELLO).await;
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    let shown = awaiting(&task).unwrap();
    let good = approved(&task, &shown, "bob", stage.at());
    // Mallory signs with a key of their own, or changes what was signed.
    let forged = Stamps::of(Key::from([9; KEY_BYTES]));
    let given = approval::read(&stamps(), &with(&task, &good)).unwrap().unwrap();
    for text in
        [approval::write(&forged, &task, &given).unwrap(), good.replace("bob", "eve"), "yes".to_owned()]
    {
        annotate(&stage, text).await;
        stage.calm().await;
        assert_eq!(stage.count_starts(), 0);
    }
    // Of another spec.
    apply(&stage, "alice", "{targets: {all: true}, run: {command: [\"false\"]}}").await;
    annotate(&stage, good).await;
    stage.until("t", |task| message(task, "Suspended").contains("spec has changed since bob approved")).await;
    // Of other nodes.
    approve_before(&stage, |stage| {
        let three = ["a", "b", "c"].map(|name| (node(name), NodeFacts::default()));
        stage.cluster.set_nodes(three.into());
    })
    .await;
    stage
        .until("t", |task| message(task, "Suspended").contains("nodes have changed since bob approved"))
        .await;
    // One that has expired.
    let task = stage.until("t", |task| awaiting(task).is_some_and(|shown| shown.target_count == 3)).await;
    let text = approved(&task, &awaiting(&task).unwrap(), "bob", stage.at());
    tokio::time::sleep(std::time::Duration::from_secs(3_601)).await;
    annotate(&stage, text).await;
    stage.until("t", |task| message(task, "Suspended").contains("approval by bob has expired")).await;
    assert_eq!(stage.count_starts(), 0);
}

/// Bob approves what he is shown, and something changes before that is stored.
async fn approve_before(stage: &Stage, change: impl FnOnce(&Stage)) {
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    let text = approved(&task, &awaiting(&task).unwrap(), "bob", stage.at());
    change(stage);
    stage.until("t", |task| awaiting(task).is_some_and(|shown| shown.target_count == 3)).await;
    annotate(stage, text).await;
}

fn with(task: &Task, text: &str) -> Task {
    let mut task = task.clone();
    task.metadata.annotations.get_or_insert_default().insert(APPROVAL.to_owned(), text.to_owned());
    task
}

#[tokio::test(start_paused = true)]
async fn the_ceiling_of_a_run_holds_until_its_end_under_every_leader() {
    let file = File::new(&one("maxConcurrency: 1"));
    let mut stage = file.stage(&["a", "b", "c"]);
    apply(&stage, "alice", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    file.write(&one("maxConcurrency: 3"));
    stage.calm().await;
    stage.restart().await;
    for name in ["a", "b", "c"] {
        stage.connect(name);
    }
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1);
    stage.report("t", 1, "a", succeeded());
    stage.starts(2).await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 2);
}
