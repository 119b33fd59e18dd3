//! Who asked for a Run: kept from its beginning, sent with every command, and unknown where nothing proves it.

use sentinel_operator::cluster::TaskStore;
use sentinel_operator::resource::manifest;
use sentinel_operator::resource::marks::{CANCEL, RERUN};
use sentinel_operator::resource::stamp::{KEY_BYTES, Key, Stamps};
use sentinel_protocol::requester::Requester;

use super::HELLO;
use super::kit::{Stage, condition, running, succeeded, task_ref};

fn person(name: &str) -> Requester {
    Requester { user: name.into(), uid: None, groups: vec!["staff".into()] }
}

fn stamps() -> Stamps {
    Stamps::of(Key::from([7; KEY_BYTES]))
}

async fn apply(stage: &Stage, who: Option<&str>, spec: &str) {
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: t, namespace: default}}\nspec: {spec}\n"
    );
    let store = stage.cluster.asked_by(who.map(person));
    store.apply(manifest::read(&text).unwrap().remove(0)).await.unwrap();
}

async fn annotate(stage: &Stage, who: &str, key: &'static str, value: &str) {
    let store = stage.cluster.asked_by(Some(person(who)));
    store.annotate(task_ref("t"), key, Some(value.to_owned())).await.unwrap();
}

const ONE_BY_ONE: &str = "{targets: {all: true}, rollout: {maxConcurrent: 1}, run: {command: [\"true\"]}}";

#[tokio::test(start_paused = true)]
async fn a_run_keeps_who_asked_for_it_through_changes_and_takeovers() {
    let mut stage = Stage::stamping(stamps(), &["a", "b"]);
    apply(&stage, Some("alice"), ONE_BY_ONE).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    // The spec that runs stays, so no Run begins.
    apply(&stage, Some("bob"), &ONE_BY_ONE.replacen('{', "{ttlAfterFinished: 1h, ", 1)).await;
    stage.calm().await;
    stage.restart().await;
    stage.report("t", 1, "a", succeeded());
    let starts = stage.starts(2).await;
    for (start, _) in &starts {
        let by = start.requested_by.as_ref().unwrap();
        assert_eq!((&by.author, &by.rerun), (&person("alice"), &None), "{}", start.attempt);
    }
    stage.report("t", 1, "b", succeeded());
    stage.until("t", |task| condition(task, "Archived") == "True").await;
    assert!(stage.notes("t").iter().any(|note| note.ends_with("as alice asked")), "{:?}", stage.notes("t"));

    annotate(&stage, "carol", RERUN, "again").await;
    let by = stage.starts(3).await[2].0.requested_by.clone().unwrap();
    assert_eq!((by.author, by.rerun), (person("bob"), Some(person("carol"))));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_proven_is_unknown_in_every_command() {
    let stage = Stage::stamping(stamps(), &["a"]);
    apply(&stage, None, HELLO).await;
    assert_eq!(stage.starts(1).await[0].0.requested_by, None);
    stage.until_event("t", "RequesterUnknown").await;
    stage.report("t", 1, "a", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    let run = task.status.unwrap().run.unwrap();
    assert_eq!(run.requested_by.unwrap().unknown.as_deref(), Some("NotStamped"));
    // Who asks for it again is not who wrote what runs.
    annotate(&stage, "carol", RERUN, "again").await;
    assert_eq!(stage.starts(2).await[1].0.requested_by, None);
}

#[tokio::test(start_paused = true)]
async fn who_cancels_is_in_the_status_and_in_an_event() {
    let stage = Stage::stamping(stamps(), &["a"]);
    apply(&stage, Some("alice"), HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    annotate(&stage, "carol", CANCEL, "1").await;
    let is_cancelled = |run: &sentinel_operator::resource::status::RunStatus| run.cancelled_by.is_some();
    let task = stage
        .until("t", |task| {
            task.status.as_ref().and_then(|status| status.run.as_ref()).is_some_and(is_cancelled)
        })
        .await;
    assert_eq!(task.status.unwrap().run.unwrap().cancelled_by.unwrap().user, "carol");
    stage.until_event("t", "RunCancelled").await;
    assert!(
        stage.notes("t").contains(&"run 1 is cancelled, as carol asked".to_owned()),
        "{:?}",
        stage.notes("t")
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stamped_or_reported_without_a_key() {
    let stage = Stage::with_nodes(&["a"]);
    apply(&stage, Some("alice"), HELLO).await;
    let (start, recorded) = stage.starts(1).await.remove(0);
    assert_eq!(start.requested_by, None);
    let task = recorded.unwrap();
    assert_eq!((task.metadata.annotations, task.status.unwrap().run.unwrap().requested_by), (None, None));
    stage.calm().await;
    assert!(!stage.reasons("t").contains(&"RequesterUnknown"));
}
