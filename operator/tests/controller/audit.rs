//! The operator's audit records: each kind is written by the code that has the reason to, once, and names who asked.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::Path;

use sentinel_audit::Record;
use sentinel_audit::export::Export;
use sentinel_audit::verify::verify;
use sentinel_operator::audit::{Audit, AuditOptions};
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::TaskStore;
use sentinel_operator::controller::CurrentCeilings;
use sentinel_operator::metrics::Registry;
use sentinel_operator::resource::marks::{APPROVAL, CANCEL, RERUN};
use sentinel_operator::resource::{Task, manifest};
use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::requester::Requester;

use super::HELLO;
use super::agents::Delivered;
use super::ceilings::{ABOVE_ONE, File, approved, awaiting, one, person, stamps};
use super::kit::{Stage, condition, ended, running, task_ref};

/// Where it is proven that a kind is written.
enum Proof {
    /// By `each_kind_is_written_by_the_code_that_has_the_reason_to`: the controller writes it.
    Here,
    /// By this test of this file of the repository.
    By(&'static str, &'static str),
}

const OF_NODE: Proof =
    Proof::By("node-agent/tests/audit.rs", "what_is_asked_and_done_is_recorded_once_and_in_order");
const OF_SYSTEM: Proof =
    Proof::By("cli/tests/audit.rs", "operator_and_nodes_record_a_run_and_each_others_heads");
const OF_PEOPLE: Proof =
    Proof::By("tests/tests/approvals.rs", "a_run_begins_when_another_than_its_author_has_approved_it");
const OF_QUEUE: Proof = Proof::By(
    "operator/tests/audit.rs",
    "what_comes_faster_than_it_can_be_written_is_counted_and_recorded_as_lost",
);

const OF_BOUNDS: Proof =
    Proof::By("operator/tests/audit.rs", "what_a_party_causes_beyond_its_allowance_is_left_out_and_counted");

/// The proof of each kind.
const PROOFS: &[(&str, Proof)] = &[
    ("Began", OF_SYSTEM),
    ("Accepted", OF_NODE),
    ("Refused", OF_NODE),
    ("Started", OF_NODE),
    ("CancelRequested", OF_NODE),
    ("Ended", OF_NODE),
    ("SpecRejected", Proof::Here),
    ("RunBegan", Proof::Here),
    ("Approved", OF_PEOPLE),
    ("ApprovalRefused", Proof::Here),
    ("RunHeld", Proof::Here),
    ("CancelAsked", Proof::Here),
    ("TaskDeleted", Proof::Here),
    ("Dispatched", Proof::Here),
    ("CancelSent", Proof::Here),
    ("NodeRefused", Proof::Here),
    ("AttemptEnded", Proof::Here),
    ("RunEnded", Proof::Here),
    ("OutputRead", OF_SYSTEM),
    ("AccessDenied", OF_SYSTEM),
    ("HeadSeen", OF_SYSTEM),
    ("Omitted", OF_BOUNDS),
    ("Gap", OF_QUEUE),
];

/// All kinds that there are, as the decoder of records lists them.
fn all_kinds() -> Vec<String> {
    let error = serde_json::from_str::<Record>("{\"kind\":\"?\"}").unwrap_err().to_string();
    let (_, list) = error.split_once("expected one of ").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn read(text: &str) -> Task {
    manifest::read(text).unwrap().remove(0)
}

fn records(directory: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    let export = BufReader::new(Export::open(directory).unwrap());
    verify(export, |_, line| records.push(line.record.clone().unwrap())).unwrap();
    records
}

/// A stage with people, ceilings and audit records.
struct Audited {
    stage: Stage,
    ceilings: File,
    audit: Audit,
    directory: tempfile::TempDir,
    _cluster: tempfile::TempDir,
}

impl Audited {
    fn new(ceilings: &str, nodes: &[&str]) -> Self {
        Self::holding(&[], ceilings, nodes)
    }

    /// The same over a cluster that has these Tasks.
    fn holding(tasks: &[(&str, &str)], ceilings: &str, nodes: &[&str]) -> Self {
        let (directory, cluster) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(cluster.path().join("tasks")).unwrap();
        for (name, task) in tasks {
            std::fs::write(cluster.path().join(format!("tasks/default.{name}.json")), task).unwrap();
        }
        let ceilings = File::new(ceilings);
        let options =
            AuditOptions { directory: Some(directory.path().to_owned()), kept: 64 << 20, stream: None };
        let audit = Audit::start(options, "op-1", &Clock::system(), &Registry::new()).unwrap();
        let current = CurrentCeilings::of_file(ceilings.path.clone()).unwrap();
        let stage = Stage::audited(audit.clone(), cluster.path(), (current, stamps()), nodes);
        Self { stage, ceilings, audit, directory, _cluster: cluster }
    }

    async fn apply(&self, who: &str, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
        );
        self.stage.cluster.asked_by(Some(person(who))).apply(read(&text)).await.unwrap();
    }

    async fn annotate(&self, who: Option<&str>, name: &str, key: &'static str, value: &str) {
        let store = self.stage.cluster.asked_by(who.map(person));
        store.annotate(task_ref(name), key, Some(value.to_owned())).await.unwrap();
    }

    async fn approve(&self, who: &str, name: &str) {
        let task = self.stage.until(name, |task| awaiting(task).is_some()).await;
        let text = approved(&task, &awaiting(&task).unwrap(), who, self.stage.at());
        self.stage.cluster.annotate(task_ref(name), APPROVAL, Some(text)).await.unwrap();
    }

    /// The records, when everything is done.
    async fn end(self) -> Vec<Record> {
        self.stage.calm().await;
        self.audit.close();
        records(self.directory.path())
    }
}

/// A Task of an earlier release, which took what this one does not.
const INVALID: &str = r#"{"apiVersion":"sentinelnode.dev/v1alpha1","kind":"Task",
    "metadata":{"name":"bad","namespace":"default","uid":"bad","resourceVersion":"1","generation":1},
    "spec":{"targets":{"all":true},"run":{"script":{"text":"\ufeffdf"}}}}"#;

const ONE_NODE: &str = "{targets: {nodeNames: [a]}, run: {command: [\"true\"]}}";

#[tokio::test(start_paused = true)]
async fn each_kind_is_written_by_the_code_that_has_the_reason_to() {
    let audited = Audited::holding(&[("bad", INVALID)], &one(ABOVE_ONE), &["a", "b"]);
    let stage = &audited.stage;
    stage.until("bad", |task| condition(task, "Accepted") == "False").await;
    audited.apply("alice", "t", HELLO).await;
    audited.approve("alice", "t").await;
    stage.until("t", |task| serde_json::to_string(task).unwrap().contains("alice is behind it")).await;
    audited.approve("bob", "t").await;
    stage.starts(2).await;
    stage.refuse("t", 1, "a", Refusal::AlreadyCancelled);
    stage.report("t", 1, "b", running());
    audited.annotate(Some("carol"), "t", CANCEL, "1").await;
    stage.until_delivered(|all| all.iter().any(|one| matches!(one, Delivered::Cancel(_)))).await;
    stage.report("t", 1, "b", ended(Outcome::Cancelled));
    stage.until("t", has_ended).await;
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until_gone("t").await;

    let records = audited.end().await;
    let mut kinds: Vec<&str> = records.iter().map(Record::kind).collect();
    kinds.sort_unstable();
    // Two nodes, and one of them refused; everything else once.
    let expected = [
        "ApprovalRefused",
        "AttemptEnded",
        "AttemptEnded",
        "Began",
        "CancelAsked",
        "CancelSent",
        "Dispatched",
        "Dispatched",
        "NodeRefused",
        "RunBegan",
        "RunEnded",
        "RunHeld",
        "SpecRejected",
        "TaskDeleted",
    ];
    assert_eq!(kinds, expected, "{records:#?}");
    named(&records);
    proven(&records);
}

/// The records name the people.
fn named(records: &[Record]) {
    let (alice, bob, carol) = (person("alice"), person("bob"), person("carol"));
    for record in records {
        match record {
            Record::RunHeld { run, reason, message, .. } => {
                assert_eq!((run, reason.as_str()), (&RunNumber(1), "AwaitingApproval"));
                assert!(message.contains("run 1 would run on 2 nodes"), "{message}");
            }
            Record::ApprovalRefused { by, message, .. } => {
                assert_eq!(by.as_ref(), Some(&alice));
                assert_eq!(message.as_str(), "alice is behind it and cannot approve it");
            }
            Record::RunBegan(began) => {
                let by = began.requested_by.as_ref().unwrap();
                assert_eq!((&by.author, by.creator.as_ref()), (&alice, Some(&alice)));
                assert_eq!(began.approved_by.as_ref(), Some(&bob));
            }
            Record::CancelAsked { requested_by, .. } | Record::CancelSent { requested_by, .. } => {
                assert_eq!(requested_by.as_ref(), Some(&carol), "{}", record.kind());
            }
            Record::TaskDeleted { task, run, .. } => {
                assert_eq!((task, run), (&task_ref("t"), &RunNumber(1)));
            }
            _ => {}
        }
    }
}

/// Each kind that there is has its proof: it was written here, or a test that there is asserts it.
fn proven(records: &[Record]) {
    let listed: Vec<&str> = PROOFS.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(all_kinds(), listed, "a kind without a proof, or a proof without a kind");
    let written: BTreeSet<&str> = records.iter().map(Record::kind).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (kind, proof) in PROOFS {
        match proof {
            Proof::Here => assert!(written.contains(kind), "{kind} was not written"),
            Proof::By(file, name) => {
                let text = std::fs::read_to_string(root.join(file)).unwrap();
                assert!(text.contains(&format!("fn {name}(")), "{file} has no test {name}");
                assert!(text.contains(kind), "{file} does not name {kind}");
            }
        }
    }
}

fn has_ended(task: &Task) -> bool {
    let run = task.status.as_ref().and_then(|status| status.run.as_ref());
    run.is_some_and(|run| run.verdict.is_some()) && condition(task, "Archived") == "True"
}

/// Who asked for each `Cancel`, as it was sent.
fn cancellers(stage: &Stage) -> Vec<Option<Requester>> {
    let by = |one: Delivered| {
        if let Delivered::Cancel(cancel) = one { Some(cancel.requested_by.map(|by| *by)) } else { None }
    };
    stage.delivered().into_iter().filter_map(by).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cancel_names_who_asked_for_it_and_no_person_where_none_did() {
    let mut audited = Audited::new("ceilings: [{name: all, namespaces: ['*']}]", &["a"]);
    let spec = ONE_NODE.replacen('{', "{onChange: Cancel, ", 1);
    audited.apply("alice", "t", &spec).await;
    audited.stage.starts(1).await;
    audited.stage.report("t", 1, "a", running());
    audited.annotate(Some("carol"), "t", CANCEL, "1").await;
    audited.stage.until_delivered(|all| all.iter().any(|one| matches!(one, Delivered::Cancel(_)))).await;
    // The next leader knows it too.
    let before = cancellers(&audited.stage).len();
    audited.stage.restart().await;
    audited.stage.connect("a");
    audited.stage.report("t", 1, "a", running());
    let again =
        |all: &[Delivered]| all.iter().filter(|one| matches!(one, Delivered::Cancel(_))).count() > before;
    audited.stage.until_delivered(again).await;
    let carol = Some(person("carol"));
    assert!(cancellers(&audited.stage).iter().all(|by| *by == carol), "{:?}", cancellers(&audited.stage));
    audited.stage.report("t", 1, "a", ended(Outcome::Cancelled));
    audited.stage.until("t", has_ended).await;

    // Another spec replaces a Run, and a deletion ends it: no person has asked to cancel these.
    let of_people = cancellers(&audited.stage).len();
    audited.annotate(Some("dan"), "t", RERUN, "again").await;
    audited.stage.starts(2).await;
    audited.stage.report("t", 2, "a", running());
    audited.apply("alice", "t", &spec.replace("true", "false")).await;
    audited
        .stage
        .until_delivered(|all| {
            all.iter().filter(|one| matches!(one, Delivered::Cancel(_))).count() > of_people
        })
        .await;
    audited.stage.report("t", 2, "a", ended(Outcome::Cancelled));
    audited.stage.starts(3).await;
    audited.stage.report("t", 3, "a", running());
    let of_changes = cancellers(&audited.stage).len();
    audited.stage.cluster.delete(task_ref("t")).await.unwrap();
    audited
        .stage
        .until_delivered(|all| {
            all.iter().filter(|one| matches!(one, Delivered::Cancel(_))).count() > of_changes
        })
        .await;
    assert!(cancellers(&audited.stage)[of_people..].iter().all(Option::is_none));
    audited.stage.report("t", 3, "a", ended(Outcome::Cancelled));
    audited.stage.until_gone("t").await;

    let records = audited.end().await;
    let sent: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::CancelSent { attempt, requested_by, .. } => Some((attempt.run.0, requested_by.clone())),
            _ => None,
        })
        .collect();
    // The next leader sends it for its first time.
    assert_eq!(sent, [(1, carol.clone()), (1, carol.clone()), (2, None), (3, None)]);
    let asked: Vec<_> =
        records.iter().filter(|record| matches!(record, Record::CancelAsked { .. })).collect();
    assert!(
        matches!(asked[..], [Record::CancelAsked { requested_by, .. }] if *requested_by == carol),
        "{asked:?}"
    );
    assert_eq!(records.iter().filter(|record| matches!(record, Record::TaskDeleted { .. })).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_recorded_where_nothing_was_dispatched_and_without_a_guess_at_who_asked() {
    let audited = Audited::new("ceilings: [{name: all, namespaces: ['*']}]", &["a"]);
    audited.stage.disconnect("a");
    audited.apply("alice", "t", ONE_NODE).await;
    audited.stage.until("t", |task| task.status.as_ref().unwrap().run.is_some()).await;
    audited.annotate(None, "t", CANCEL, "1").await;
    audited.stage.until_event("t", "RunCancelled").await;
    audited.stage.until("t", has_ended).await;
    assert_eq!(audited.stage.count_starts(), 0);
    // Of one that has ended it cancels nothing, and is recorded too.
    let spec = ONE_NODE.replacen('{', "{timeouts: {start: 5s}, ", 1);
    audited.apply("alice", "u", &spec).await;
    audited.stage.until("u", has_ended).await;
    audited.annotate(Some("carol"), "u", CANCEL, "1").await;
    let records = audited.end().await;
    let asked: Vec<_> = records.iter().filter(|one| matches!(one, Record::CancelAsked { .. })).collect();
    let [Record::CancelAsked { requested_by: None, .. }, Record::CancelAsked { requested_by, .. }] =
        asked[..]
    else {
        panic!("{records:?}")
    };
    assert_eq!(*requested_by, Some(person("carol")));
    assert!(!records.iter().any(|one| matches!(one, Record::CancelSent { .. })), "{records:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_ceiling_refuses_or_cannot_be_judged_is_recorded_once_per_change() {
    let mut audited = Audited::new(&one("maxTargets: {count: 1}"), &["a", "b"]);
    audited.apply("alice", "t", HELLO).await;
    audited.stage.until_event("t", "CeilingExceeded").await;
    audited.stage.calm().await;
    audited.stage.restart().await;
    audited.stage.calm().await;
    std::fs::write(&audited.ceilings.path, "ceilings: {").unwrap();
    audited.stage.until_event("t", "CeilingsUnreadable").await;
    audited.stage.calm().await;
    audited.ceilings.write(&one(ABOVE_ONE));
    audited.stage.until_event("t", "AwaitingApproval").await;
    let records = audited.end().await;
    let held: Vec<(u32, String)> = records
        .iter()
        .filter_map(|record| match record {
            Record::RunHeld { run, reason, .. } => Some((run.0, reason.to_string())),
            _ => None,
        })
        .collect();
    let reasons = ["CeilingExceeded", "CeilingsUnreadable", "AwaitingApproval"];
    assert_eq!(held, reasons.map(|reason| (1, reason.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_does_not_count_any_more_is_recorded_with_the_reason() {
    let audited = Audited::new(&one(ABOVE_ONE), &["a", "b"]);
    let stage = &audited.stage;
    audited.apply("alice", "t", HELLO).await;
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    let text = approved(&task, &awaiting(&task).unwrap(), "bob", stage.at());
    tokio::time::sleep(std::time::Duration::from_secs(3_601)).await;
    stage.cluster.annotate(task_ref("t"), APPROVAL, Some(text)).await.unwrap();
    stage.until("t", |task| serde_json::to_string(task).unwrap().contains("by bob has expired")).await;
    let records = audited.end().await;
    let refused: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::ApprovalRefused { by, message, .. } => Some((by.clone(), message.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [(Some(person("bob")), "the approval by bob has expired".to_owned())]);
}

/// Retention would have removed the records of others.
#[tokio::test(start_paused = true)]
async fn who_may_change_tasks_cannot_fill_the_audit_with_what_they_do_not_get() {
    let audited = Audited::new(&one(ABOVE_ONE), &["a", "b"]);
    let (stage, task) = (&audited.stage, task_ref("other"));
    let use_up = |times: usize| {
        for _ in 0..times {
            let (uid, message) = (TaskUid::new("other").unwrap(), "not valid".into());
            let rejected = Record::SpecRejected { task: task.clone(), uid, generation: 1, message };
            audited.audit.refusal(&task, || rejected);
        }
        times
    };
    let mut rejected = use_up(2_000);
    audited.apply("alice", "t", HELLO).await;
    stage.until("t", |task| awaiting(task).is_some()).await;
    stage.cluster.annotate(task_ref("t"), APPROVAL, Some("yes".to_owned())).await.unwrap();
    stage.calm().await;
    audited.approve("bob", "t").await;
    stage.starts(2).await;
    audited.annotate(Some("carol"), "t", CANCEL, "1").await;
    stage.until_delivered(|all| all.iter().any(|one| matches!(one, Delivered::Cancel(_)))).await;
    for node in ["a", "b"] {
        stage.report("t", 1, node, ended(Outcome::Cancelled));
    }
    stage.until("t", has_ended).await;
    // It cancels nothing.
    let spec = ONE_NODE.replacen('{', "{timeouts: {start: 5s}, ", 1);
    stage.disconnect("a");
    audited.apply("alice", "u", &spec).await;
    stage.until("u", has_ended).await;
    rejected += use_up(100);
    audited.annotate(Some("carol"), "u", CANCEL, "1").await;

    stage.calm().await;
    // It runs on no node.
    rejected += use_up(100);
    let spec = "{targets: {nodeSelector: {matchLabels: {no: node}}}, run: {command: [\"true\"]}}";
    audited.apply("alice", "v", spec).await;
    stage.until("v", has_ended).await;
    // Nor does the next Run, which is cancelled before it begins.
    audited.annotate(Some("carol"), "v", CANCEL, "2").await;
    audited.apply("alice", "v", &spec.replace("true", "false")).await;
    let is_second = |task: &Task| task.status.as_ref().unwrap().run.as_ref().unwrap().number == 2;
    stage.until("v", |task| is_second(task) && has_ended(task)).await;
    stage.calm().await;
    stage.cluster.delete(task_ref("v")).await.unwrap();
    stage.until_gone("v").await;

    let records = audited.end().await;
    let of = |kind: &str| records.iter().filter(|record| record.kind() == kind).count();
    assert_eq!((of("RunHeld"), of("ApprovalRefused"), of("TaskDeleted")), (0, 0, 0));
    assert_eq!((of("RunBegan"), of("CancelAsked"), of("RunEnded")), (2, 1, 2), "what happens is recorded");
    let mut omitted = 0;
    for record in &records {
        if let Record::Omitted { omitted: more, by } = record {
            assert!(matches!(&by[..], [one] if one.cause.as_str() == "namespace default"), "{by:?}");
            omitted += more;
        }
    }
    let of_others = (rejected - of("SpecRejected")) as u64;
    assert_eq!(omitted - of_others, 9, "held, forged, a cancel of nothing, and six of Runs on no node");
}

/// It was logged only.
#[tokio::test(start_paused = true)]
async fn an_approval_that_no_operator_has_written_is_recorded_without_a_name() {
    let audited = Audited::new(&one(ABOVE_ONE), &["a", "b"]);
    let stage = &audited.stage;
    audited.apply("alice", "t", HELLO).await;
    let task = stage.until("t", |task| awaiting(task).is_some()).await;
    let genuine = approved(&task, &awaiting(&task).unwrap(), "bob", stage.at());
    let forged = genuine.replace("bob", "admin");
    stage.cluster.annotate(task_ref("t"), APPROVAL, Some(forged)).await.unwrap();
    stage.calm().await;
    stage.cluster.annotate(task_ref("t"), APPROVAL, Some("yes".to_owned())).await.unwrap();
    stage.calm().await;
    assert_eq!(stage.count_starts(), 0);
    let records = audited.end().await;
    let refused: Vec<&Record> = records.iter().filter(|record| record.kind() == "ApprovalRefused").collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    for refused in refused {
        let Record::ApprovalRefused { run: None, by: None, message, .. } = refused else {
            panic!("{refused:?}")
        };
        assert!(message.contains("must be signed by an operator for this Task"), "{message}");
    }
}
