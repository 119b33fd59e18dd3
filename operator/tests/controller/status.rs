//! What the status of a Task reports, how often it is written, and what is logged and counted when a reconcile fails.

use std::time::Duration;

use sentinel_operator::cluster::TaskStore;
use sentinel_operator::resource::Task;
use sentinel_protocol::exit::{Clock, ExitDetails};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_operator::ReportedState;

use super::HELLO;
use super::kit::{Stage, condition, ended, failed, running, succeeded, task_ref};

#[tokio::test(start_paused = true)]
async fn one_failure_fails_the_run_and_names_the_node() {
    let stage = Stage::with_nodes(&["a", "b"]);
    stage.apply("t", HELLO).await;
    stage.starts(2).await;
    stage.report("t", 1, "a", succeeded());
    stage.report("t", 1, "b", failed(3));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    assert_eq!(
        (condition(&task, "Stalled"), condition(&task, "Ready"), condition(&task, "Reconciling")),
        ("True", "False", "")
    );
    let nodes = task.status.unwrap().nodes;
    assert_eq!(
        (nodes[0].node.as_str(), nodes[0].state.as_str(), nodes[0].exit_code),
        ("b", "Failed", Some(3))
    );
}

#[tokio::test(start_paused = true)]
async fn exit_details_reach_the_status_and_the_next_leader() {
    let mut stage = Stage::with_nodes(&["a", "b"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}}").await;
    stage.starts(2).await;
    let ReportedState::Ended(mut end) = ended(Outcome::TimedOut) else { panic!("no end") };
    end.exit = ExitDetails { code: Some(3), ..ExitDetails::clock(Clock::Run, 10_000) };
    stage.report("t", 1, "a", ReportedState::Ended(end));
    let line = |task: &Task| {
        let node = task.status.as_ref()?.nodes.iter().find(|node| node.node == "a")?.clone();
        (node.state == "TimedOut").then_some((node.exit_code, node.message))
    };
    let expected = Some((Some(3), "ended by timeouts.run after 10s; exited with code 3".to_owned()));
    let task = stage.until("t", |task| line(task).is_some()).await;
    assert_eq!(line(&task), expected);
    stage.calm().await;
    stage.restart().await;
    stage.report("t", 1, "b", succeeded());
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    assert_eq!(line(&task), expected);
}

#[tokio::test(start_paused = true)]
async fn status_writes_are_batched_to_about_one_a_second() {
    let names: Vec<String> = (0..90).map(|n| format!("n{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = Stage::with_nodes(&names);
    stage.apply("t", HELLO).await;
    stage.starts(90).await;
    let before = stage.counter("status_writes");
    for name in &names {
        stage.report("t", 1, name, running());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let writes = stage.counter("status_writes") - before;
    assert!((5..=11).contains(&writes), "{writes} writes in 9 seconds");
    for name in &names {
        stage.report("t", 1, name, succeeded());
    }
    let began = tokio::time::Instant::now();
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    assert!(began.elapsed() < Duration::from_millis(500), "the end is written at once");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_spec_is_reported_and_its_task_deletable() {
    let directory = tempfile::tempdir().unwrap();
    let tasks = directory.path().join("tasks");
    std::fs::create_dir_all(&tasks).unwrap();
    // As a newer schema, or none, might have accepted it.
    let bad = r#"{"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "bad",
        "namespace": "default", "uid": "u-1", "generation": 4, "resourceVersion": "7",
        "finalizers": ["sentinelnode.dev/run"]},
        "spec": {"targets": {"all": true}, "run": {"command": [""]}}}"#;
    std::fs::write(tasks.join("default.bad.json"), bad).unwrap();
    let stage = Stage::in_directory(directory.path(), &["a"]);
    let task = stage.until("bad", |task| condition(task, "Accepted") == "False").await;
    let conditions = task.status.as_ref().unwrap().conditions.clone();
    let accepted = conditions.iter().find(|c| c.type_ == "Accepted").unwrap();
    assert_eq!(accepted.message, "spec.run.command[0] is \"\"; it must name a program");
    assert_eq!((condition(&task, "Stalled"), condition(&task, "Ready")), ("True", "False"));
    assert_eq!(task.status.unwrap().observed_generation, 4);
    stage.cluster.delete(task_ref("bad")).await.unwrap();
    stage.until_gone("bad").await;
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_reconcile_is_counted_logged_and_published() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let directory = tempfile::tempdir().unwrap();
    let tasks = directory.path().join("tasks");
    std::fs::create_dir_all(&tasks).unwrap();
    let strange = r#"{"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "strange",
        "namespace": "default", "uid": "u-1", "generation": 1, "resourceVersion": "7"},
        "spec": {"targets": {"all": true}, "run": {"command": ["true"]}},
        "status": {"observedGeneration": 1, "run": {"number": 1, "specHash": "nonsense"}}}"#;
    std::fs::write(tasks.join("default.strange.json"), strange).unwrap();
    let stage = Stage::in_directory(directory.path(), &["a"]);
    stage.until_event("strange", "ReconcileFailed").await;
    // Another test's thread, without a subscriber, may have disabled the span for the whole process.
    tracing::callsite::rebuild_interest_cache();
    stage.calm().await;
    assert!(stage.errors("status") >= 2, "it is retried");
    assert_eq!(stage.errors("status"), stage.counter("failed_reconciles"));
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().rfind(|line| line.contains("reconcile failed")).unwrap();
    for part in ["reconcile{task=\"default/strange\"}", "category=\"status\"", "retryable=false"] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    // The command comes first.
    stage.until_event("t", "RunStarted").await;
    assert_eq!(stage.reasons("t"), ["RunStarted"], "nothing failed there");
}

/// By which rule a node refused a command is where people read how it ended, and where those read who watch events.
#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_node_is_in_the_status_and_in_an_event_with_its_rule() {
    let stage = Stage::with_nodes(&["a", "b"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}}").await;
    stage.starts(2).await;
    let refusal = Refusal::Policy { rule: "no-shell".into(), why: Some("the program is /bin/sh".into()) };
    stage.report("t", 1, "a", ended(Outcome::Refused { refusal }));
    stage.report("t", 1, "b", succeeded());
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let nodes = task.status.unwrap().nodes;
    let expected = "the node's policy forbids it (rule no-shell): the program is /bin/sh";
    assert_eq!((nodes[0].state.as_str(), nodes[0].message.as_str()), ("Refused", expected));
    stage.until_event("t", "CommandRefused").await;
    let noted = format!("run 1: 1 of 2 nodes refused the command; a: {expected}");
    assert!(stage.notes("t").contains(&noted), "{:?}", stage.notes("t"));
}
