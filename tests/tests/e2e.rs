//! The main job, end to end, on real parts: `kubectl apply`, a real API server, agents and supervisors as processes,
//! Redis and a MongoDB-compatible server.
//!
//! The tests run one after the other, since `all: true` means every node of the one cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, doc};
use nix::sys::signal::Signal;
use redis::AsyncCommands;
use sentinel_tests::cluster::repository;
use sentinel_tests::memory;
use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Silence after which a node is unreachable, as `protocol::limits` declares it.
const DECLARED: Duration = Duration::from_millis(sentinel_protocol::limits::DEAD_AFTER_MS);

async fn testbed(test: &str) -> (Testbed, MutexGuard<'static, ()>) {
    let guard = ONE_AT_A_TIME.lock().await;
    (Testbed::new(test).await, guard)
}

fn task(name: &str, targets: &str, run: &str, more: &str) -> String {
    format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec:\n  targets: {targets}\n  run: {run}\n{more}"
    )
}

/// The Task as the API server has it.
async fn get_task(testbed: &Testbed, name: &str) -> serde_json::Value {
    let text =
        testbed.namespace.kubectl(&["get", "tasks.sentinelnode.dev", name, "-o", "json"]).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn wait_for(testbed: &Testbed, name: &str, condition: &str) -> Result<String, String> {
    let condition = format!("--for=condition={condition}");
    testbed.namespace.kubectl(&["wait", &condition, "--timeout=40s", "tasks.sentinelnode.dev", name]).await
}

/// The URL of the log of a Task's current Run on a node.
async fn log_url(testbed: &Testbed, name: &str, short: &str) -> String {
    let task = get_task(testbed, name).await;
    let uid = task["metadata"]["uid"].as_str().unwrap();
    let run = &task["status"]["run"]["number"];
    format!("{}/api/v1/executions/{uid}/{run}/{}/log", testbed.api, testbed.namespace.node_name(short))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_ends_as_it_states() {
    let (testbed, _guard) = testbed("examples").await;
    let mut agents = vec![];
    for short in ["a", "b", "c"] {
        agents.push(testbed.agent(short, &[("pool", "web")]).await);
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(repository().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let ends = text.lines().find_map(|line| line.strip_prefix("# Ends: "));
        let ends = ends.unwrap_or_else(|| panic!("{} does not state how it ends", path.display()));
        let condition = ends.split_whitespace().next().unwrap();
        testbed.namespace.kubectl(&["apply", "-f", &path.to_string_lossy()]).await.unwrap();
        for document in text.split("\n---") {
            let name = document.lines().find_map(|line| line.trim_start().strip_prefix("name: "));
            let Some(name) = name else { continue };
            if let Err(printed) = wait_for(&testbed, name.trim(), condition).await {
                panic!(
                    "{}: not {condition}: {printed}\n{}",
                    path.display(),
                    get_task(&testbed, name.trim()).await
                );
            }
        }
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} examples were found");
    testbed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_is_recorded_in_status_redis_and_history() {
    let (testbed, _guard) = testbed("traces").await;
    let _agent = testbed.agent("a", &[]).await;
    let yaml = task(
        "hello",
        "{all: true}",
        "{script: {interpreter: /bin/sh, text: \"echo out; echo err >&2; exit 3\"}, successExitCodes: [0, 3]}",
        "",
    );
    testbed.namespace.apply(&yaml).await.unwrap();
    wait_for(&testbed, "hello", "Complete").await.unwrap();

    let task = get_task(&testbed, "hello").await;
    let status = &task["status"];
    assert_eq!(status["observedGeneration"], task["metadata"]["generation"]);
    assert_eq!(status["run"]["number"], 1);
    assert_eq!(status["run"]["progress"], "1/1");
    assert_eq!(status["nodes"][0]["state"], "Succeeded");
    assert_eq!(status["nodes"][0]["exitCode"], 3);

    check_redis(&testbed).await;
    check_mongodb(&testbed, task["metadata"]["uid"].as_str().unwrap()).await;

    let log =
        testbed.http.get(log_url(&testbed, "hello", "a").await).send().await.unwrap().text().await.unwrap();
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
    testbed.close().await;
}

/// One key per node, with a time to live that falls until it is renewed.
async fn check_redis(testbed: &Testbed) {
    let client = redis::Client::open(testbed.namespace.parts.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("{}presence:{}", testbed.prefix, testbed.namespace.node_name("a"));
    let first: i64 = redis.pttl(&key).await.unwrap();
    assert!(first > 0, "{key} has no time to live: {first}");
    until("the time to live falls", Duration::from_secs(5), || {
        let (mut redis, key) = (redis.clone(), key.clone());
        async move {
            let now: i64 = redis.pttl(&key).await.unwrap();
            if now > 0 && now < first { Ok(()) } else { Err(now) }
        }
    })
    .await;
    let value: String = redis.get(&key).await.unwrap();
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    assert!(value["metrics"]["memoryTotal"].as_u64().unwrap() > 0, "{value}");
}

/// The execution with command, exit code, times and output.
async fn check_mongodb(testbed: &Testbed, uid: &str) {
    let client = mongodb::Client::with_uri_str(&testbed.namespace.parts.mongodb_uri).await.unwrap();
    let database = client.database(&testbed.database);
    let attempts = database.collection::<Document>("attempts");
    let attempt = until("the attempt is in MongoDB", Duration::from_secs(20), || async {
        let found = attempts.find(doc! {}).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        found
            .into_iter()
            .find(|d| d.to_string().contains(uid) && d.to_string().contains("Succeeded"))
            .ok_or("no such document")
    })
    .await;
    let text = attempt.to_string();
    assert!(text.contains("/bin/sh"), "no command in {text}");
    let output = database.collection::<Document>("output").count_documents(doc! {}).await.unwrap();
    assert!(output > 0, "no output in MongoDB");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_or_frozen_agent_is_detected_and_comes_back() {
    let (testbed, _guard) = testbed("three").await;
    let (a, b, c) =
        (testbed.agent("a", &[]).await, testbed.agent("b", &[]).await, testbed.agent("c", &[]).await);
    let yaml = task("sleep", "{all: true}", "{command: [sleep, \"20\"]}", "  timeouts: {grace: 1s}\n");
    testbed.namespace.apply(&yaml).await.unwrap();
    until("three commands run at once", Duration::from_secs(15), || async {
        let counts = get_task(&testbed, "sleep").await["status"]["run"]["counts"].clone();
        if counts["running"] == 3 { Ok(()) } else { Err(counts) }
    })
    .await;

    let unreachable = |short: &'static str, since: Instant| {
        let testbed = &testbed;
        async move {
            let name = testbed.namespace.node_name(short);
            until("the node is unreachable", DECLARED + Duration::from_secs(3), || async {
                let node = testbed.get(&format!("/api/v1/nodes/{name}")).await?;
                if node["reachable"] == false { Ok(()) } else { Err(node.to_string()) }
            })
            .await;
            since.elapsed()
        }
    };
    // Killed: its connection closes. Stopped: its connection stays open and nothing comes.
    a.kill().await;
    b.signal(Signal::SIGSTOP);
    let since = Instant::now();
    let noticed = unreachable("a", since).await;
    assert!(noticed <= DECLARED, "a killed agent was noticed after {noticed:?}");
    let noticed = unreachable("b", since).await;
    assert!(noticed <= DECLARED + Duration::from_secs(3), "a frozen agent was noticed after {noticed:?}");
    until("status shows which nodes are unreachable", Duration::from_secs(10), || async {
        let nodes = get_task(&testbed, "sleep").await["status"]["nodes"].clone();
        let silent = nodes.as_array().unwrap().iter().filter(|node| node["reach"] == "Unreachable").count();
        if silent == 2 { Ok(()) } else { Err(nodes.to_string()) }
    })
    .await;

    b.signal(Signal::SIGCONT);
    let a = testbed.start_agent("a");
    testbed.reachable("a").await;
    testbed.reachable("b").await;
    wait_for(&testbed, "sleep", "Complete").await.unwrap();
    drop((a, b, c));
    testbed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gigabyte_arrives_whole_in_bounded_memory() {
    const BYTES: u64 = 1_000_000_000;
    // Of the 64 MiB that each of them may take in a release; the rest is for the pages of its program.
    const LIMIT: u64 = 32 << 20;
    let (testbed, _guard) = testbed("gigabyte").await;
    let agent = testbed.agent("a", &[]).await;
    let script = format!(
        "{{script: {{interpreter: /bin/sh, text: \"yes | head -c {BYTES}\"}}, output: {{limit: 2Gi, maxBlock: 60s}}}}"
    );
    testbed.namespace.apply(&task("gigabyte", "{all: true}", &script, "")).await.unwrap();
    until("the command runs", Duration::from_secs(15), || async {
        let node = get_task(&testbed, "gigabyte").await["status"]["nodes"][0].clone();
        if node["startedAt"].is_string() { Ok(()) } else { Err(node.to_string()) }
    })
    .await;

    let begun = Instant::now();
    let url = format!("{}?follow=true", log_url(&testbed, "gigabyte", "a").await);
    let mut stream = testbed.http.get(url).send().await.unwrap().bytes_stream();
    let (mut digest, mut received, mut supervisor_peak) = (Sha256::new(), 0_u64, 0);
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.unwrap();
        digest.update(&bytes);
        received += bytes.len() as u64;
        if received % (64 << 20) < bytes.len() as u64 {
            let peaks = memory::children(agent.pid()).into_iter().map(memory::peak_without_files);
            supervisor_peak = supervisor_peak.max(peaks.max().unwrap_or(0));
        }
    }
    println!("{received} bytes in {:?}", begun.elapsed());
    let mut expected = Sha256::new();
    let block = "y\n".repeat(1 << 15);
    let mut left = BYTES;
    while left > 0 {
        let part = left.min(block.len() as u64) as usize;
        expected.update(&block.as_bytes()[..part]);
        left -= part as u64;
    }
    assert_eq!(received, BYTES);
    assert_eq!(digest.finalize(), expected.finalize());
    wait_for(&testbed, "gigabyte", "Complete").await.unwrap();

    let operator_peak = memory::peak_without_files(testbed.operator.as_ref().unwrap().pid());
    let agent_peak = memory::peak_without_files(agent.pid());
    println!("peaks: operator {operator_peak}, agent {agent_peak}, supervisor {supervisor_peak}");
    assert!(operator_peak < LIMIT, "operator: {operator_peak}");
    assert!(agent_peak < LIMIT, "agent: {agent_peak}");
    assert!(supervisor_peak > 0 && supervisor_peak < LIMIT, "supervisor: {supervisor_peak}");

    // A later reader gets all of it from History.
    let again =
        testbed.http.get(log_url(&testbed, "gigabyte", "a").await).send().await.unwrap().bytes_stream();
    let again =
        again.try_fold(0_u64, |sum, bytes| async move { Ok(sum + bytes.len() as u64) }).await.unwrap();
    assert_eq!(again, BYTES);
    testbed.close().await;
}

/// A cancellation ends the Run it names.
async fn cancel_ends_run(testbed: &Testbed, number: u64) {
    testbed.namespace.apply(&task("t", "{all: true}", "{command: [sleep, \"600\"]}", "")).await.unwrap();
    until(&format!("run {number} runs"), Duration::from_secs(15), || async {
        let status = get_task(testbed, "t").await["status"].clone();
        let runs = status["run"]["number"] == number && status["run"]["counts"]["running"] == 1;
        if runs { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    testbed
        .namespace
        .kubectl(&["annotate", "tasks.sentinelnode.dev", "t", &format!("sentinelnode.dev/cancel={number}")])
        .await
        .unwrap();
    wait_for(testbed, "t", "Failed").await.unwrap();
    assert_eq!(get_task(testbed, "t").await["status"]["phase"], "Cancelled");
}

/// Deleting a Task cancels its Run: nothing of it is left on the node.
async fn delete_ends_run(testbed: &Testbed) {
    testbed.namespace.apply(&task("gone", "{all: true}", "{command: [sleep, \"601\"]}", "")).await.unwrap();
    until("it runs", Duration::from_secs(15), || async {
        let status = get_task(testbed, "gone").await["status"].clone();
        if status["run"]["counts"]["running"] == 1 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    testbed.namespace.kubectl(&["delete", "--timeout=30s", "tasks.sentinelnode.dev", "gone"]).await.unwrap();
    let left = std::process::Command::new("pgrep").args(["-f", "^sleep 601$"]).output().unwrap();
    assert!(left.stdout.is_empty(), "the command still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_begin_exactly_when_triggered() {
    let (testbed, _guard) = testbed("runs").await;
    let _agent = testbed.agent("a", &[]).await;
    let run_is = |number: u64| {
        let testbed = &testbed;
        async move {
            until(&format!("run {number} is over"), Duration::from_secs(20), || async {
                let status = get_task(testbed, "t").await["status"].clone();
                let over = status["run"]["finishedAt"].is_string();
                if status["run"]["number"] == number && over { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
        }
    };
    testbed.namespace.apply(&task("t", "{all: true}", "{command: [echo, one]}", "")).await.unwrap();
    run_is(1).await;
    testbed.namespace.apply(&task("t", "{all: true}", "{command: [echo, two]}", "")).await.unwrap();
    run_is(2).await;
    testbed
        .namespace
        .apply(&task("t", "{all: true}", "{command: [echo, two]}", "  rerunToken: again\n"))
        .await
        .unwrap();
    run_is(3).await;
    testbed
        .namespace
        .kubectl(&["annotate", "tasks.sentinelnode.dev", "t", "sentinelnode.dev/rerun=x"])
        .await
        .unwrap();
    run_is(4).await;
    // An edit of a field that is not in the spec hash begins nothing.
    let more = "  rerunToken: again\n  timeouts: {run: 1h}\n";
    testbed.namespace.apply(&task("t", "{all: true}", "{command: [echo, two]}", more)).await.unwrap();
    until("the edit was seen", Duration::from_secs(10), || async {
        let task = get_task(&testbed, "t").await;
        let seen = task["status"]["observedGeneration"] == task["metadata"]["generation"];
        if seen { Ok(()) } else { Err(task["status"].to_string()) }
    })
    .await;
    run_is(4).await;

    cancel_ends_run(&testbed, 5).await;
    delete_ends_run(&testbed).await;
    testbed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_operator_resumes_from_durable_state() {
    let (mut testbed, _guard) = testbed("killed").await;
    let _agent = testbed.agent("a", &[]).await;
    let script = "{script: {interpreter: /bin/sh, text: \"echo begin; sleep 4; echo end\"}}";
    testbed.namespace.apply(&task("t", "{all: true}", script, "")).await.unwrap();
    until("it runs", Duration::from_secs(15), || async {
        let status = get_task(&testbed, "t").await["status"].clone();
        if status["run"]["counts"]["running"] == 1 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    testbed.operator.take().unwrap().kill().await;
    testbed.start_operator().await;
    wait_for(&testbed, "t", "Complete").await.unwrap();
    let log = testbed.http.get(log_url(&testbed, "t", "a").await).send().await.unwrap().text().await.unwrap();
    assert_eq!(log, "begin\nend\n");
    assert_eq!(get_task(&testbed, "t").await["status"]["run"]["number"], 1);
    testbed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explains_fields_and_names_field_of_invalid_task() {
    let (testbed, _guard) = testbed("refused").await;
    let explained =
        testbed.namespace.kubectl(&["explain", "tasks.sentinelnode.dev.spec", "--recursive"]).await.unwrap();
    assert!(explained.contains("maxConcurrent") && explained.contains("successExitCodes"), "{explained}");
    for field in ["spec.run.command", "spec.targets.exclude", "spec.timeouts.unreachable", "spec.rerunToken"]
    {
        let text = testbed
            .namespace
            .kubectl(&["explain", &format!("tasks.sentinelnode.dev.{field}")])
            .await
            .unwrap();
        let description = text.split("DESCRIPTION:").nth(1).unwrap_or_default();
        assert!(description.trim().len() > 20, "{field} has no description: {text}");
    }
    let run = "{command: [\"true\"]}";
    let bad = [
        (task("x", "{}", run, ""), "targets"),
        (task("x", "{all: true, nodeNames: [a]}", run, ""), "targets"),
        (task("x", "{all: true}", "{command: []}", ""), "command"),
        (task("x", "{all: true}", "{command: [a], script: {text: b}}", ""), "script"),
        (task("x", "{all: true}", "{command: [a], env: [{name: \"A=B\", value: c}]}", ""), "env"),
        (task("x", "{all: true}", run, "  rollout: {maxConcurrent: 0%}\n"), "maxConcurrent"),
        (task("x", "{all: true}", run, "  rollout: {maxConcurrent: 101%}\n"), "maxConcurrent"),
        (task("x", "{all: true}", run, "  timeouts: {run: -1s}\n"), "timeouts.run"),
        (task("x", "{all: true}", "{comand: [a]}", ""), "comand"),
    ];
    for (yaml, field) in bad {
        match testbed.namespace.apply(&yaml).await {
            Ok(printed) => panic!("accepted: {yaml}\n{printed}"),
            Err(printed) => assert!(printed.contains(field), "{field} is not named for\n{yaml}\n{printed}"),
        }
    }
    testbed.close().await;
}

/// The epoch in the operators' Lease.
async fn epoch(testbed: &Testbed) -> u64 {
    let text = testbed.namespace.kubectl(&["get", "lease", "sentinel-operator", "-o", "json"]).await.unwrap();
    let lease: serde_json::Value = serde_json::from_str(&text).unwrap();
    lease["metadata"]["annotations"]["sentinelnode.dev/epoch"].as_str().unwrap().parse().unwrap()
}

/// The agents dial one address; a follower there names the leader, and the leader is reachable at that address.
#[tokio::test(flavor = "multi_thread")]
async fn follower_takes_over_when_leader_is_killed_or_ends() {
    let (mut testbed, _guard) = testbed("takeover").await;
    let _agent = testbed.agent("a", &[]).await;
    let script = "{script: {interpreter: /bin/sh, text: \"echo begin; sleep 8; echo end\"}}";
    testbed.namespace.apply(&task("t", "{all: true}", script, "")).await.unwrap();
    until("it runs", Duration::from_secs(15), || async {
        let status = get_task(&testbed, "t").await["status"].clone();
        if status["run"]["counts"]["running"] == 1 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let first = epoch(&testbed).await;

    // A follower is ready, and does not touch the lead.
    let follower = testbed.start_follower();
    let ready = format!("{}/readyz", follower.metrics());
    until("the follower is ready", Duration::from_secs(20), || async {
        let answer = testbed.http.get(&ready).send().await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
    })
    .await;
    assert_eq!(epoch(&testbed).await, first);

    // Killed: the follower leads once the lease has run out. The old address is taken by a new follower, which
    // sends the agent on to the leader.
    testbed.operator.take().unwrap().kill().await;
    let begun = Instant::now();
    until("the epoch grows", Duration::from_secs(10), || async {
        let now = epoch(&testbed).await;
        if now > first { Ok(()) } else { Err(now) }
    })
    .await;
    println!("killed: a new leader after {:?}", begun.elapsed());
    let follower_at_old_address = Testbed::start_follower_at(&testbed);
    testbed.promote(follower);
    testbed.reachable("a").await;
    println!("killed: the agent is back after {:?}", begun.elapsed());
    wait_for(&testbed, "t", "Complete").await.unwrap();
    let log = testbed.http.get(log_url(&testbed, "t", "a").await).send().await.unwrap().text().await.unwrap();
    assert_eq!(log, "begin\nend\n");

    // Ended: the lead is given back, and taken within moments.
    let second = epoch(&testbed).await;
    let begun = Instant::now();
    let ending = testbed.operator.take().unwrap();
    ending.signal(Signal::SIGTERM);
    until("the lead is taken again", Duration::from_secs(5), || async {
        let now = epoch(&testbed).await;
        if now > second { Ok(()) } else { Err(now) }
    })
    .await;
    println!("ended: a new leader after {:?}", begun.elapsed());
    assert_eq!(ending.wait(Duration::from_secs(20)).await, Some(0));
    drop(follower_at_old_address);
    testbed.close().await;
}
