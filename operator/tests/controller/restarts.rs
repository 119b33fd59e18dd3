//! What a restarted operator, or a new leader, reads and continues; it repeats nothing.

use std::time::Duration;

use sentinel_operator::cluster::TaskKeeper;
use sentinel_operator::history::{History as _, RunQuery};
use sentinel_operator::resource::{manifest, validate};
use sentinel_protocol::ids::{AttemptId, RunNumber};
use sentinel_protocol::request::Program;

use super::agents::Delivered;
use super::kit::{Stage, condition, failed, phase, running, succeeded};
use super::{HELLO, RETRYING, numbers};

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_adopts_the_active_attempt() {
    let mut stage = Stage::with_nodes(&["a"]);
    stage.apply("t", RETRYING).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", failed(3));
    stage.starts(2).await;
    stage.report("t", 1, "a", running());
    stage.restart().await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 2, "what runs was not started again");
    stage.report("t", 1, "a", failed(3));
    assert_eq!(numbers(&stage.starts(3).await), [1, 2, 3]);
    stage.report("t", 1, "a", failed(4));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let node = &task.status.unwrap().nodes[0];
    assert_eq!((node.attempt, node.exit_code), (Some(3), Some(4)));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_repeats_nothing_and_loses_nothing() {
    let mut stage = Stage::with_nodes(&["a", "b", "c"]);
    stage.apply("t", HELLO).await;
    stage.starts(3).await;
    stage.report("t", 1, "a", succeeded());
    stage.report("t", 1, "b", running());
    stage.report("t", 1, "c", running());
    stage.until_archived(&["a"]).await;
    // Its agent is unreachable.
    stage.disconnect("a");
    stage.restart().await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 3, "what runs was not started again");
    stage.report("t", 1, "b", succeeded());
    stage.report("t", 1, "c", failed(1));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let counts = task.status.unwrap().run.unwrap().counts;
    assert_eq!((counts.succeeded, counts.failed), (2, 1), "a's result came from History");
    assert_eq!(stage.count_starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_knows_forgotten_attempts() {
    let mut stage = Stage::with_nodes(&["a", "b"]);
    stage.apply("t", HELLO).await;
    stage.starts(2).await;
    stage.report("t", 1, "a", succeeded());
    stage.report("t", 1, "b", failed(1));
    stage.until("t", |task| condition(task, "Archived") == "True").await;
    stage
        .until_delivered(|delivered| {
            delivered.iter().filter(|delivered| matches!(delivered, Delivered::Forget(_))).count() == 2
        })
        .await;
    stage.restart().await;
    stage.calm().await;
    let task = stage.until("t", |task| condition(task, "Archived") == "True").await;
    let status = task.status.unwrap();
    let states: Vec<&str> = status.nodes.iter().map(|node| node.state.as_str()).collect();
    assert_eq!(states, ["Failed", "Succeeded"]);
    let counts = status.run.unwrap().counts;
    assert_eq!((counts.succeeded, counts.failed), (1, 1));
}

/// History has nothing of it when its leaders ended during an outage; the results are still on the nodes.
#[tokio::test(start_paused = true)]
async fn an_earlier_run_is_known_by_what_its_task_records() {
    let mut stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    stage.apply("t", &HELLO.replacen('{', "{rerunToken: again, ", 1)).await;
    let starts = stage.starts(2).await;
    stage.report("t", 2, "a", running());
    stage.restart().await;
    stage.calm().await;
    let [first, second] = [0, 1].map(|at| starts[at].0.attempt.clone());
    let facts = stage.earlier_facts(&first).unwrap();
    assert_eq!((&*facts.task.name, facts.trigger.as_deref(), &*facts.command), ("t", Some("SpecChange"), ""));
    assert!(stage.earlier_facts(&second).is_none(), "that Run is tracked");
    let never = AttemptId { run: RunNumber(9), ..first };
    assert!(stage.earlier_facts(&never).is_none(), "the Task had no such Run");
}

/// The ended Executions are in History only, on more than one page.
#[tokio::test(start_paused = true)]
async fn a_takeover_reads_every_page_of_history() {
    let names: Vec<String> = (0..1203).map(|n| format!("node-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stage = Stage::with_nodes(&names);
    stage.apply("t", HELLO).await;
    stage.starts(names.len()).await;
    let (last, over) = names.split_last().unwrap();
    for (index, name) in over.iter().enumerate() {
        stage.report("t", 1, name, if index == 1100 { failed(7) } else { succeeded() });
    }
    stage.report("t", 1, last, running());
    stage.until_archived(over).await;
    for name in over {
        stage.disconnect(name);
    }
    stage.restart().await;
    for name in over {
        stage.connect_empty(name);
    }
    stage.calm().await;
    assert_eq!(stage.count_starts(), names.len(), "nothing was started again");
    stage.report("t", 1, last, succeeded());
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let status = task.status.unwrap();
    let counts = status.run.unwrap().counts;
    assert_eq!((counts.succeeded, counts.failed, counts.unreachable), (1202, 1, 0));
    assert_eq!((status.nodes[0].node.as_str(), status.nodes[0].exit_code), ("node-01100", Some(7)));
    assert_eq!(stage.count_starts(), names.len());
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_record_and_start_continues_the_run() {
    let mut stage = Stage::with_nodes(&["a"]);
    stage.disconnect("a");
    stage.apply("t", HELLO).await;
    stage.until("t", |task| task.status.as_ref().is_some_and(|status| status.run.is_some())).await;
    stage.restart().await;
    stage.connect("a");
    let starts = stage.starts(1).await;
    assert_eq!(starts[0].0.attempt.run.0, 1, "it is the same run");
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
}

/// What stands in for the spec while that is invalid was started, as the Run that was recorded.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_taken_over_while_its_spec_is_invalid_continues_with_its_own_command() {
    let spec = "{targets: {all: true}, run: {command: [id, -u]}}";
    let text = format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: t, namespace: default}}\nspec: {spec}\n"
    );
    let hash = validate::spec_hash(&manifest::read(&text).unwrap()[0]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let tasks = directory.path().join("tasks");
    std::fs::create_dir_all(&tasks).unwrap();
    // As another schema might have accepted it, during the Run.
    let invalid = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
        "metadata": {"name": "t", "namespace": "default", "uid": "u-1", "generation": 2, "resourceVersion": "7",
            "finalizers": ["sentinelnode.dev/run"]},
        "spec": {"targets": {"all": true}, "run": {"command": [""]}},
        "status": {"observedGeneration": 1, "run": {"number": 1, "specHash": hash,
            "startedAt": "2026-09-21T14:13:20.000000Z", "targets": ["a", "b"], "targetCount": 2}},
    });
    std::fs::write(tasks.join("default.t.json"), invalid.to_string()).unwrap();
    let stage = Stage::in_directory(directory.path(), &["a", "b"]);
    stage.until("t", |task| phase(task) == "Rejected").await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 0, "nothing is started by an invalid spec");
    stage.apply("t", spec).await;
    for (start, _) in stage.starts(2).await {
        assert_eq!((start.attempt.run, &start.spec_hash), (RunNumber(1), &hash));
        assert_eq!(start.request.program, Program::Command(vec!["id".to_owned(), "-u".to_owned()]));
        stage.report("t", 1, start.attempt.node.as_str(), succeeded());
    }
    stage
        .until("t", |task| ["Complete", "Archived"].iter().all(|kind| condition(task, kind) == "True"))
        .await;
    let runs = stage.history.runs(RunQuery::default()).await.unwrap().items;
    assert_eq!(runs.iter().map(|run| run.command.as_str()).collect::<Vec<_>>(), ["id -u"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_target_list_survives_a_restart_in_slices() {
    let names: Vec<String> = (0..2500).map(|n| format!("node-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stage = Stage::with_nodes(&names);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, rollout: {maxConcurrent: 3}}").await;
    let starts = stage.starts(3).await;
    let recorded = starts[0].1.as_ref().unwrap();
    let run = recorded.status.as_ref().unwrap().run.as_ref().unwrap();
    assert_eq!((run.target_count, run.target_slices, run.targets.len()), (2500, 1, 0));
    assert_eq!(
        stage.cluster.load_targets(recorded).await.unwrap().len(),
        2500,
        "durable before the first start"
    );
    assert!(serde_json::to_vec(recorded).unwrap().len() < 64 << 10);
    stage.restart().await;
    stage.report("t", 1, names[0], succeeded());
    // What was only accepted may be sent again; beyond that only the next in the list is started.
    let started_on = |node: &str| {
        let node = node.to_owned();
        move |delivered: &Delivered| matches!(delivered, Delivered::Start(start, _) if start.attempt.node.as_str() == node)
    };
    stage.until_delivered(|delivered| delivered.iter().any(started_on(names[3]))).await;
    assert!(!stage.delivered().iter().any(started_on(names[4])));
}

/// A new leader used to write the status of every finished Task twice, and lost its Lease behind its own writes.
#[tokio::test(start_paused = true)]
async fn a_takeover_writes_no_status_of_finished_tasks() {
    let mut stage = Stage::with_nodes(&["a", "b"]);
    let names: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    for name in &names {
        stage.apply(name, HELLO).await;
    }
    stage.starts(40).await;
    for name in &names {
        stage.report(name, 1, "a", succeeded());
        stage.report(name, 1, "b", failed(1));
    }
    for name in &names {
        stage.until(name, |task| condition(task, "Archived") == "True").await;
    }
    stage.restart().await;
    stage.calm().await;
    stage.disconnect("a");
    stage.history.set_available(false);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(stage.counter("status_writes"), 0);
}
