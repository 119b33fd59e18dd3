//! The controller over an embedded cluster and History, with agents that do what the test tells them, on a paused clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

mod agents;
mod history;
mod kit;
#[path = "../stores/mod.rs"]
mod stores;

use std::time::Duration;

use sentinel_operator::cluster::{TaskKeeper, TaskStore};
use sentinel_operator::resource::Task;
use sentinel_operator::resource::marks::{ABANDON, CANCEL, FINALIZER, RERUN};
use sentinel_protocol::exit::{Clock, ExitDetails};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::ResourceLimits;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::ReportedState;
use sentinel_protocol::version::Version;

use self::agents::Delivered;
use self::kit::{Stage, condition, ended, failed, phase, running, succeeded, task_ref};

const HELLO: &str = "{targets: {all: true}, run: {command: [\"true\"]}}";

#[tokio::test(start_paused = true)]
async fn a_run_is_recorded_before_its_first_start() {
    let stage = Stage::with_nodes(&["a", "b", "c"]);
    stage.apply("hello", HELLO).await;
    let starts = stage.starts(3).await;
    for (start, recorded) in &starts {
        let run = recorded.as_ref().unwrap().status.as_ref().unwrap().run.as_ref().unwrap();
        assert_eq!(run.number, 1, "the run was durable before {} was started", start.attempt);
        assert_eq!(run.targets, ["a", "b", "c"]);
        assert!(
            recorded.as_ref().unwrap().metadata.finalizers.as_ref().unwrap().contains(&FINALIZER.to_owned())
        );
        assert_eq!(start.deadlines.start_ms, 300_000);
        assert_eq!(start.spec_hash.as_str(), run.spec_hash);
    }
    for node in ["a", "b", "c"] {
        stage.report("hello", 1, node, running());
        stage.report("hello", 1, node, succeeded());
    }
    let task = stage.until("hello", |task| condition(task, "Complete") == "True").await;
    assert_eq!(phase(&task), "Succeeded");
    assert_eq!((condition(&task, "Ready"), condition(&task, "Reconciling")), ("True", ""));
    let status = task.status.unwrap();
    let run = status.run.unwrap();
    assert_eq!(
        (run.progress.as_str(), run.counts.succeeded, run.verdict.as_deref()),
        ("3/3", 3, Some("Complete"))
    );
    assert_eq!(status.observed_generation, 1);
    assert_eq!(status.nodes.len(), 3);
    stage
        .until_delivered(|delivered| {
            delivered.iter().filter(|delivered| matches!(delivered, Delivered::Forget(_))).count() == 3
        })
        .await;
    assert_eq!(stage.count_starts(), 3, "nothing was started twice");
    assert_eq!(stage.reasons("hello"), ["RunStarted", "RunComplete"]);
}

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
async fn a_selector_without_matches_fails_the_run() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {nodeSelector: {matchLabels: {pool: gpu}}}, run: {command: [x]}}").await;
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let stalled = task.status.unwrap().conditions.into_iter().find(|c| c.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "NoMatchingNodes");
    assert_eq!(stage.count_starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn max_concurrent_bounds_the_active_nodes() {
    let stage = Stage::with_nodes(&["a", "b", "c"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, rollout: {maxConcurrent: 1}}").await;
    for (done, node) in ["a", "b", "c"].into_iter().enumerate() {
        stage.starts(done + 1).await;
        stage.calm().await;
        assert_eq!(stage.count_starts(), done + 1);
        stage.report("t", 1, node, succeeded());
    }
    stage.until("t", |task| condition(task, "Complete") == "True").await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_spec_runs_after_active_commands_finish() {
    let stage = Stage::with_nodes(&["a", "b"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [old]}, rollout: {maxConcurrent: 1}}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.apply("t", "{targets: {all: true}, run: {command: [new]}, rollout: {maxConcurrent: 1}}").await;
    stage.until("t", |task| task.status.as_ref().unwrap().run.as_ref().unwrap().stopping.is_some()).await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1, "nothing of either run was started while the old one runs");
    assert!(
        stage.delivered().iter().all(|delivered| !matches!(delivered, Delivered::Cancel(_))),
        "Finish cancels nothing"
    );
    stage.report("t", 1, "a", succeeded());
    let starts = stage.starts(2).await;
    assert_eq!(starts[1].0.attempt.run.0, 2);
    stage.report("t", 2, "a", succeeded());
    stage.starts(3).await;
    stage.report("t", 2, "b", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    let status = task.status.unwrap();
    assert_eq!((status.run.unwrap().number, status.recent_runs.len()), (2, 1));
    assert_eq!(status.recent_runs[0].verdict.as_deref(), Some("Failed"), "b never had its turn in run 1");
}

#[tokio::test(start_paused = true)]
async fn on_change_cancel_cancels_active_commands() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [old]}, onChange: Cancel}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.apply("t", "{targets: {all: true}, run: {command: [new]}, onChange: Cancel}").await;
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Cancel(_)))
        })
        .await;
    assert_eq!(stage.count_starts(), 1);
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    let starts = stage.starts(2).await;
    assert_eq!(starts[1].0.attempt.run.0, 2);
}

#[tokio::test(start_paused = true)]
async fn only_a_hashed_edit_or_a_new_token_runs_again() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    let edited = "{targets: {all: true}, run: {command: [\"true\"], output: {limit: 1Mi}}, timeouts: {run: 9m}, suspend: true, ttlAfterFinished: 9h";
    stage.apply("t", &format!("{edited}}}")).await;
    stage.until("t", |task| condition(task, "Suspended") == "True").await;
    stage.calm().await;
    assert_eq!(stage.count_starts(), 1);
    stage
        .apply("t", &format!("{}, rerunToken: again}}", edited.replace("suspend: true", "suspend: false")))
        .await;
    let starts = stage.starts(2).await;
    assert_eq!(starts[1].0.deadlines.run_ms, Some(540_000));
    let task = stage.until("t", |task| task.status.as_ref().unwrap().run.as_ref().unwrap().number == 2).await;
    assert_eq!(task.status.unwrap().run.unwrap().trigger, "RerunToken");
}

#[tokio::test(start_paused = true)]
async fn limits_and_clocks_reach_the_node() {
    let stage = Stage::with_nodes(&["a"]);
    let spec = "{targets: {all: true}, run: {command: [x], limits: {cpu: 2, memory: 256Mi, pids: 64, nofile: 4096, core: 1Mi}}, timeouts: {idle: 2m, total: 1h}}";
    stage.apply("t", spec).await;
    let starts = stage.starts(1).await;
    let start = &starts[0].0;
    let limits = ResourceLimits {
        cpu_millis: Some(2000),
        memory: Some(256 << 20),
        pids: Some(64),
        nofile: Some(4096),
        core: Some(1 << 20),
    };
    assert_eq!((start.request.limits, start.deadlines.idle_ms), (limits, Some(120_000)));
    let total = start.deadlines.total_ms.unwrap();
    assert!((3_590_000..=3_600_000).contains(&total), "{total}");
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

const RETRYING: &str = "{targets: {all: true}, run: {command: [x]}, retry: {limit: 2, backoff: {initial: 5s}, causes: [Failed]}}";

/// The numbers of the Attempts that were started.
fn numbers(starts: &[(Start, Option<Box<Task>>)]) -> Vec<u32> {
    starts.iter().map(|(start, _)| start.attempt.attempt).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_retried_and_both_are_forgotten() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", RETRYING).await;
    stage.starts(1).await;
    let began = tokio::time::Instant::now();
    stage.report("t", 1, "a", failed(3));
    assert_eq!(numbers(&stage.starts(2).await), [1, 2]);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(3750) && waited < Duration::from_millis(5500), "{waited:?}");
    stage.report("t", 1, "a", succeeded());
    let over = |task: &Task| condition(task, "Complete") == "True" && condition(task, "Archived") == "True";
    let task = stage.until("t", over).await;
    let status = task.status.unwrap();
    assert_eq!((status.nodes[0].attempt, status.nodes[0].state.as_str()), (Some(2), "Succeeded"));
    stage
        .until_delivered(|delivered| {
            delivered.iter().filter(|delivered| matches!(delivered, Delivered::Forget(_))).count() == 2
        })
        .await;
}

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
async fn an_old_agent_is_sent_nothing_that_it_would_ignore() {
    let stage = Stage::with_nodes(&["a"]);
    stage.fleet.set_version(Version(1));
    for (name, spec) in [
        ("limited", "{targets: {all: true}, run: {command: [x], limits: {pids: 5}}}"),
        ("idle", "{targets: {all: true}, run: {command: [x]}, timeouts: {idle: 5s}}"),
    ] {
        stage.apply(name, spec).await;
        let task = stage.until(name, |task| condition(task, "Failed") == "True").await;
        let node = &task.status.unwrap().nodes[0];
        assert_eq!(node.state, "Refused");
        assert!(node.message.contains("older release"), "{}", node.message);
    }
    assert_eq!(stage.count_starts(), 0);
    // An agent of version 2 would ignore what was added later; each field is named.
    stage.fleet.set_version(Version(2));
    for (name, run, field) in [
        ("merged", "{command: [x], output: {merge: true}}", "run.output.merge"),
        ("keeping", "{command: [x], leftovers: Keep}", "run.leftovers"),
        ("files", "{command: [x], limits: {pids: 5, nofile: 99}}", "run.limits.nofile"),
        ("core", "{command: [x], limits: {core: 1Mi}}", "run.limits.core"),
        (
            "argument",
            "{script: {text: \"#!/bin/sh -e\"}}",
            "the argument in the first line of run.script.text",
        ),
    ] {
        stage.apply(name, &format!("{{targets: {{all: true}}, run: {run}}}")).await;
        let task = stage.until(name, |task| condition(task, "Failed") == "True").await;
        let node = &task.status.unwrap().nodes[0];
        assert_eq!(node.state, "Refused");
        let expected = format!("an older release that does not know {field}; upgrade the agent");
        assert!(node.message.contains(&expected), "{}", node.message);
    }
    assert_eq!(stage.count_starts(), 0);
    // What it supports is sent.
    stage.apply("plain", "{targets: {all: true}, run: {command: [x]}, timeouts: {total: 1h}}").await;
    stage.starts(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_task_starts_nothing_until_it_is_resumed() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, suspend: true}").await;
    let task = stage.until("t", |task| condition(task, "Suspended") == "True").await;
    assert_eq!(phase(&task), "Suspended");
    stage.calm().await;
    assert_eq!(stage.count_starts(), 0);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, suspend: false}").await;
    stage.starts(1).await;
}

#[tokio::test(start_paused = true)]
async fn cancel_and_rerun_annotations_act_once() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.cluster.annotate(task_ref("t"), CANCEL, Some("1".into())).await.unwrap();
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Cancel(_)))
        })
        .await;
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    assert_eq!(phase(&task), "Cancelled");
    stage.cluster.annotate(task_ref("t"), RERUN, Some("x".into())).await.unwrap();
    stage.starts(2).await;
    stage.report("t", 2, "a", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    let handled = task.status.unwrap().handled;
    assert_eq!((handled.cancel, handled.rerun.as_deref()), (Some(1), Some("x")));
    stage.calm().await;
    assert_eq!(stage.count_starts(), 2, "neither acts again");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_task_is_cancelled_and_removed_after_its_command() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Cancel(_)))
        })
        .await;
    stage.calm().await;
    assert!(stage.cluster.get(task_ref("t")).await.unwrap().is_some(), "it stays while its command runs");
    stage.report("t", 1, "a", ended(Outcome::Cancelled));
    stage.until_gone("t").await;
    stage.until_untracked().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_waits_for_a_node_can_be_abandoned() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.disconnect("a");
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.calm().await;
    assert!(stage.cluster.get(task_ref("t")).await.unwrap().is_some());
    let began = tokio::time::Instant::now();
    stage.cluster.annotate(task_ref("t"), ABANDON, Some("true".into())).await.unwrap();
    stage.until_gone("t").await;
    assert!(began.elapsed() < Duration::from_secs(10), "it did not wait for timeouts.unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_lost_and_a_late_result_corrects_it() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, timeouts: {unreachable: 60s}}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    stage.until("t", |task| task.status.as_ref().unwrap().run.as_ref().unwrap().counts.running == 1).await;
    let began = tokio::time::Instant::now();
    stage.disconnect("a");
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let waited = began.elapsed().as_secs();
    assert!((59..70).contains(&waited), "lost after {waited} s");
    assert_eq!(task.status.unwrap().nodes[0].state, "Lost");
    stage.connect("a");
    stage.report("t", 1, "a", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    assert_eq!(task.status.unwrap().run.unwrap().counts.succeeded, 1);
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
async fn a_long_target_list_survives_a_restart_in_slices() {
    let names: Vec<String> = (0..2500).map(|n| format!("node-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stage = Stage::with_nodes(&names);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, rollout: {maxConcurrent: 3}}").await;
    let starts = stage.starts(3).await;
    let recorded = starts[0].1.as_ref().unwrap();
    let run = recorded.status.as_ref().unwrap().run.as_ref().unwrap();
    assert_eq!((run.target_count, run.target_slices, run.targets.len()), (2500, 3, 0));
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

#[tokio::test(start_paused = true)]
async fn a_finished_task_is_deleted_after_its_ttl() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", "{targets: {all: true}, run: {command: [x]}, ttlAfterFinished: 10m}").await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    let began = tokio::time::Instant::now();
    stage.until_gone("t").await;
    let waited = began.elapsed().as_secs();
    assert!((595..=660).contains(&waited), "deleted after {waited} s");
}

#[tokio::test(start_paused = true)]
async fn tasks_run_without_history_and_nothing_is_forgotten() {
    let stage = Stage::with_nodes(&["a"]);
    stage.history.set_available(false);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", succeeded());
    let task = stage.until("t", |task| condition(task, "Complete") == "True").await;
    assert_eq!(condition(&task, "Ready"), "True");
    stage.until("t", |task| condition(task, "Archived") == "False").await;
    assert!(stage.delivered().iter().all(|delivered| !matches!(delivered, Delivered::Forget(_))));
    stage.history.set_available(true);
    stage
        .until_delivered(|delivered| {
            delivered.iter().any(|delivered| matches!(delivered, Delivered::Forget(_)))
        })
        .await;
    stage.until("t", |task| condition(task, "Archived") == "True").await;
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

#[tokio::test(start_paused = true)]
async fn an_undelivered_start_is_sent_again() {
    let stage = Stage::with_nodes(&["a"]);
    stage.fleet.refuse_next(2);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    assert_eq!(stage.counter("undelivered"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_recreated_task_of_the_same_name_is_another() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", HELLO).await;
    let first = stage.starts(1).await.remove(0).0.attempt.task;
    stage.report("t", 1, "a", succeeded());
    stage.until("t", |task| condition(task, "Complete") == "True").await;
    stage.cluster.delete(task_ref("t")).await.unwrap();
    stage.until_gone("t").await;
    stage.apply("t", HELLO).await;
    let second = stage.starts(2).await.remove(1).0;
    assert_eq!(second.attempt.run.0, 1);
    assert_ne!(first, second.attempt.task);
}

/// Also a guard against work that grows with the square of the targets: it is counted, and not timed.
#[tokio::test(start_paused = true)]
async fn ten_thousand_targets_take_linear_work() {
    let names: Vec<String> = (0..10_000).map(|n| format!("node-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stage = Stage::with_nodes(&names);
    let (began, reads) = (tokio::time::Instant::now(), stage.fleet.reads());
    stage.apply("t", HELLO).await;
    stage.starts(10_000).await;
    let attempts = stage.fleet.started("t");
    for (index, (attempt, spec_hash)) in attempts.into_iter().enumerate() {
        stage.report_of(&attempt, spec_hash, if index == 7 { failed(1) } else { succeeded() });
    }
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?} of paused time");
    // Each pass reads the agent of each target a few times.
    let (passes, reads) = (stage.counter("reconciles"), stage.fleet.reads() - reads);
    eprintln!("10,000 targets: {passes} passes, {reads} reads of agents, {took:?} of paused time");
    assert!(passes <= 20, "{passes} passes");
    assert!(reads <= 4 * 10_000 * passes, "{reads} reads in {passes} passes");
    let status = task.status.as_ref().unwrap();
    assert_eq!(status.run.as_ref().unwrap().progress, "10000/10000");
    assert_eq!((status.nodes.len(), status.nodes[0].node.as_str()), (100, "node-00007"));
    assert!(serde_json::to_vec(&task).unwrap().len() < 256 << 10);
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
    assert_eq!(stage.reasons("t"), ["RunStarted"], "nothing failed there");
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
