//! Tasks with `onRecreate: OncePerSpec` that are deleted and made again.

use sentinel_operator::cluster::TaskStore;
use sentinel_operator::history::{History, RunQuery, RunVerdict};
use sentinel_operator::resource::Task;
use sentinel_operator::resource::marks::{ABANDON, RERUN};
use sentinel_operator::resource::status::EarlierRunStatus;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::ReportedState;

use super::kit::{Stage, condition, ended, failed, phase, running, succeeded, task_ref};

const ONCE: &str = "{targets: {all: true}, run: {command: [x]}, onRecreate: OncePerSpec}";

fn with(more: &str) -> String {
    format!("{{targets: {{all: true}}, run: {{command: [x]}}, onRecreate: OncePerSpec, {more}}}")
}

fn reason<'a>(task: &'a Task, kind: &str) -> &'a str {
    let conditions = task.status.as_ref().map_or(&[][..], |status| &status.conditions);
    conditions.iter().find(|condition| condition.type_ == kind).map_or("", |condition| &condition.reason)
}

fn is_executed(task: &Task) -> bool {
    reason(task, "Ready") == "AlreadyExecuted"
}

fn earlier(task: &Task) -> EarlierRunStatus {
    task.status.as_ref().unwrap().earlier_run.clone().unwrap()
}

/// A Task whose command ended like this, and that is gone. Its uid.
async fn ran(stage: &Stage, spec: &str, end: ReportedState) -> String {
    let before = stage.count_starts();
    stage.apply("t", spec).await;
    let start = stage.starts(before + 1).await.remove(before).0;
    stage.report("t", start.attempt.run.0, "a", end);
    stage.until("t", |task| condition(task, "Ready") != "Unknown").await;
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until_gone("t").await;
    start.attempt.task.to_string()
}

#[tokio::test(start_paused = true)]
async fn an_equal_task_made_again_shows_the_earlier_run_and_runs_nothing() {
    for (end, verdict, ready) in [(succeeded(), "Complete", "True"), (failed(3), "Failed", "False")] {
        let stage = Stage::with_nodes(&["a"]);
        let first = ran(&stage, ONCE, end).await;
        stage.apply("t", ONCE).await;
        let task = stage.until("t", is_executed).await;
        assert_eq!((condition(&task, "Ready"), condition(&task, verdict)), (ready, "True"));
        let link = earlier(&task);
        assert_eq!((link.task_uid, link.number, link.verdict.as_deref()), (first, 1, Some(verdict)));
        assert!(link.finished_at.is_some() && task.status.as_ref().unwrap().run.is_none());
        assert_eq!(task.metadata.finalizers.unwrap_or_default(), [""; 0], "there is nothing to end");
        stage.until_event("t", "AlreadyExecuted").await;
        stage.calm().await;
        assert_eq!(stage.count_starts(), 1);
        // What is made again and again refers to the Run that there was.
        stage.cluster.delete(task_ref("t")).await.unwrap();
        stage.until_gone("t").await;
        stage.apply("t", ONCE).await;
        assert_eq!(earlier(&stage.until("t", is_executed).await).number, 1);
    }
}

/// The trap: `ttlAfterFinished` deletes, GitOps makes again.
#[tokio::test(start_paused = true)]
async fn a_task_that_its_ttl_deletes_runs_once_and_then_stays() {
    let stage = Stage::with_nodes(&["a"]);
    let spec = with("ttlAfterFinished: 1m");
    stage.apply("t", &spec).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    stage.until_gone("t").await;
    stage.apply("t", &spec).await;
    stage.until("t", is_executed).await;
    tokio::time::sleep(std::time::Duration::from_hours(24)).await;
    stage.apply("t", &spec).await;
    stage.calm().await;
    assert!(is_executed(&stage.until("t", |_| true).await));
    assert_eq!(stage.count_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_counts() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", ONCE).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until("t", |task| phase(task) == "Terminating").await;
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    stage.until_gone("t").await;
    stage.apply("t", ONCE).await;
    let task = stage.until("t", is_executed).await;
    assert_eq!((condition(&task, "Failed"), earlier(&task).verdict.as_deref()), ("True", Some("Failed")));
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1);
}

/// As many starts as differ from what ran before.
#[tokio::test(start_paused = true)]
async fn what_differs_runs() {
    let stage = Stage::with_nodes(&["a"]);
    ran(&stage, ONCE, succeeded()).await;
    ran(&stage, &with("rerunToken: \"2\""), succeeded()).await;
    ran(&stage, "{targets: {all: true}, run: {command: [other]}, onRecreate: OncePerSpec}", succeeded())
        .await;
    assert_eq!(stage.count_starts(), 3);
    for spec in [ONCE, &with("rerunToken: \"2\"")] {
        stage.apply("t", spec).await;
        stage.until("t", is_executed).await;
        stage.cluster.delete(task_ref("t")).await.unwrap();
        stage.until_gone("t").await;
    }
    // A person asks; the same request on the next Task is an old one.
    stage.apply("t", ONCE).await;
    stage.until("t", is_executed).await;
    stage.cluster.annotate(task_ref("t"), RERUN, Some("now".into())).await.unwrap();
    stage.starts(4).await;
    stage.report("t", 1, "a", failed(1));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    assert_eq!(task.status.unwrap().earlier_run, None, "it has a Run of its own");
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until_gone("t").await;
    stage.apply("t", ONCE).await;
    stage.cluster.annotate(task_ref("t"), RERUN, Some("now".into())).await.unwrap();
    let task = stage.until("t", |task| is_executed(task) && condition(task, "Failed") == "True").await;
    assert_eq!(task.status.unwrap().handled.rerun.as_deref(), Some("now"));
    stage.calm().await;
    assert_eq!(stage.count_starts(), 4);
}

#[tokio::test(start_paused = true)]
async fn by_default_a_task_made_again_runs_again() {
    let stage = Stage::with_nodes(&["a"]);
    ran(&stage, ONCE, succeeded()).await;
    stage.apply("t", super::HELLO.replace("\"true\"", "x").as_str()).await;
    stage.starts(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_without_targets_does_not_count() {
    let stage = Stage::with_nodes(&["a"]);
    let spec =
        "{targets: {nodeSelector: {matchLabels: {pool: gpu}}}, run: {command: [x]}, onRecreate: OncePerSpec}";
    for _ in 0..2 {
        stage.apply("t", spec).await;
        let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
        assert_eq!(reason(&task, "Failed"), "NoMatchingNodes");
        stage.cluster.delete(task_ref("t")).await.unwrap();
        stage.until_gone("t").await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_while_history_is_unavailable() {
    let mut stage = Stage::with_nodes(&["a"]);
    ran(&stage, ONCE, succeeded()).await;
    stage.history.set_available(false);
    stage.apply("t", ONCE).await;
    let task = stage.until("t", |task| reason(task, "Reconciling") == "WaitingForHistory").await;
    assert_eq!((condition(&task, "Ready"), phase(&task)), ("Unknown", "Pending"));
    tokio::time::sleep(std::time::Duration::from_hours(1)).await;
    stage.restart().await;
    tokio::time::sleep(std::time::Duration::from_hours(1)).await;
    assert_eq!(stage.count_starts(), 1);
    stage.history.set_available(true);
    stage.until("t", is_executed).await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_task_runs_once_history_answers() {
    let stage = Stage::with_nodes(&["a"]);
    stage.history.set_available(false);
    stage.apply("t", ONCE).await;
    stage.until("t", |task| reason(task, "Reconciling") == "WaitingForHistory").await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 0);
    stage.history.set_available(true);
    stage.starts(1).await;
    // Who cannot wait does not have to.
    stage.history.set_available(false);
    stage.apply("u", ONCE).await;
    stage.until("u", |task| reason(task, "Reconciling") == "WaitingForHistory").await;
    stage.apply("u", super::HELLO).await;
    stage.starts(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_until_history_has_the_run() {
    let mut stage = Stage::with_nodes(&["a"]);
    stage.apply("t", ONCE).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.history.set_available(false);
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    stage.cluster.delete(task_ref("t")).await.unwrap();
    let task = stage.until("t", |task| reason(task, "Reconciling") == "WaitingForHistory").await;
    assert_eq!(phase(&task), "Terminating");
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    // Not even a new leader, which never knew the Run, releases it.
    stage.restart().await;
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert!(stage.cluster.get(task_ref("t")).await.unwrap().is_some());
    stage.history.set_available(true);
    stage.until_gone("t").await;
    stage.apply("t", ONCE).await;
    let task = stage.until("t", is_executed).await;
    assert_eq!(condition(&task, "Complete"), "True");
    assert_eq!(stage.count_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_person_can_delete_without_history() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", ONCE).await;
    stage.starts(1).await;
    stage.history.set_available(false);
    stage.report("t", 1, "a", succeeded());
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until("t", |task| reason(task, "Reconciling") == "WaitingForHistory").await;
    stage.cluster.annotate(task_ref("t"), ABANDON, Some("true".into())).await.unwrap();
    stage.until_gone("t").await;
}

/// A stand-in takes the place of a spec that is invalid now; it would not wait.
#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_history_even_if_the_spec_is_invalid() {
    let directory = tempfile::tempdir().unwrap();
    let tasks = directory.path().join("tasks");
    std::fs::create_dir_all(&tasks).unwrap();
    let hash = "a".repeat(64);
    let bad = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
        "metadata": {"name": "bad", "namespace": "default", "uid": "u-1", "generation": 4, "resourceVersion": "7",
            "finalizers": ["sentinelnode.dev/run"]},
        "spec": {"targets": {"all": true}, "run": {"command": [""]}, "onRecreate": "OncePerSpec"},
        "status": {"observedGeneration": 3, "run": {"number": 1, "specHash": hash, "verdict": "Complete",
            "startedAt": "2026-11-24T03:00:00.000000Z", "finishedAt": "2026-11-24T03:00:07.000000Z",
            "targets": ["a"], "targetCount": 1, "counts": {"succeeded": 1}}},
    });
    std::fs::write(tasks.join("default.bad.json"), bad.to_string()).unwrap();
    let stage = Stage::in_directory(directory.path(), &["a"]);
    stage.history.set_available(false);
    stage.cluster.delete(task_ref("bad")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    assert!(stage.cluster.get(task_ref("bad")).await.unwrap().is_some());
    stage.history.set_available(true);
    stage.until_gone("bad").await;
    let runs = stage.history.runs(RunQuery::default()).await.unwrap().items;
    assert_eq!((runs[0].spec_hash.as_str(), runs[0].verdict), (hash.as_str(), Some(RunVerdict::Complete)));
}

#[tokio::test(start_paused = true)]
async fn the_next_run_waits_until_history_has_the_last() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", ONCE).await;
    stage.starts(1).await;
    stage.history.set_available(false);
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    stage.apply("t", &with("rerunToken: \"2\"")).await;
    stage.until("t", |task| reason(task, "Reconciling") == "WaitingForHistory").await;
    tokio::time::sleep(std::time::Duration::from_hours(1)).await;
    assert_eq!(stage.count_starts(), 1);
    stage.history.set_available(true);
    stage.starts(2).await;
}
