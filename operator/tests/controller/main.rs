//! The controller over an embedded cluster and History, with agents that do what the test tells them, on a paused clock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

mod agents;
mod audit;
mod ceilings;
mod changes;
mod deletions;
mod finalizers;
mod history;
mod kit;
mod recreations;
mod requesters;
mod restarts;
mod secrets;
mod server;
mod status;
#[path = "../stores/mod.rs"]
mod stores;

use std::time::Duration;

use sentinel_operator::resource::Task;
use sentinel_operator::resource::marks::FINALIZER;
use sentinel_protocol::request::ResourceLimits;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::version::Version;

use self::agents::Delivered;
use self::kit::{Stage, condition, failed, phase, running, succeeded};

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
async fn an_undelivered_start_is_sent_again() {
    let stage = Stage::with_nodes(&["a"]);
    stage.fleet.refuse_next(2);
    stage.apply("t", HELLO).await;
    stage.starts(1).await;
    assert_eq!(stage.counter("undelivered"), 2);
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
