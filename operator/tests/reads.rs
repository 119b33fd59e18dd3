//! Every route that reads, on a whole operator whose History a test delays or takes down: what the operator has shown
//! once, or has received from an agent, is in every response at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "reads/lines.rs"]
mod lines;
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
#[path = "reads/operator.rs"]
mod operator;
#[path = "reads/samples.rs"]
mod samples;
mod stores;

use operator::TestOperator;
use sentinel_operator::history::OutcomeName;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_operator::{Report, ReportedState, Running, ToOperator};
use serde_json::{Value, json};

use gateway::{Agent, ended, record};
use stores::eventually;
use stores::faulty::Fault;

/// A Task for these nodes.
fn body(name: &str, nodes: &[&str], more: &Value) -> Value {
    let mut spec = json!({"targets": {"nodeNames": nodes}, "run": {"command": ["true"]}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}

/// The states of the listed Executions, by node.
fn states(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list["items"].as_array().unwrap().iter().map(|item| (text(&item["node"]), text(&item["state"]))).collect()
}

fn pair(node: &str, state: &str) -> (String, String) {
    (node.to_owned(), state.to_owned())
}

/// Every route has the targets of a Run before any of them has started.
async fn shows_waiting_targets(operator: &TestOperator, uid: &str) {
    let runs = operator.get("/runs?task=t").await;
    assert_eq!(runs["items"][0]["targets"], 2, "{runs}");
    assert_eq!(runs["items"][0].get("verdict"), None, "{runs}");
    let listed = operator.get("/executions?task=t").await;
    let seen = states(&listed);
    assert!(matches!(seen[0].1.as_str(), "Pending" | "Dispatched"), "{listed}");
    assert_eq!(seen[1], pair("b", "WaitingForNode"), "{listed}");
    assert_eq!(
        states(&operator.get("/executions?state=WaitingForNode").await),
        [pair("b", "WaitingForNode")]
    );
    assert_eq!(states(&operator.get("/executions?outcome=Succeeded").await), []);
    let waiting = operator.get(&format!("/executions/{uid}/1/b")).await;
    assert_eq!((&waiting["state"], &waiting["attempt"]), (&json!("WaitingForNode"), &json!(0)), "{waiting}");
    // Its log has not begun; that is not an error.
    let log = operator.log(&format!("/executions/{uid}/1/b/log?format=json")).await;
    assert_eq!(log, "{\"ended\":false,\"kind\":\"end\",\"position\":0}\n");
}

/// The Execution that has ended has what it used in lists, which filter by trigger and time.
async fn is_listed_with_what_it_used(operator: &TestOperator) {
    let listed = operator.get("/executions?node=a&trigger=SpecChange&since=1h").await["items"][0].clone();
    let used = [&listed["cpuMs"], &listed["maxRss"], &listed["outputBytes"], &listed["trigger"]];
    assert_eq!(used, [&json!(7), &json!(5 << 20), &json!(5), &json!("SpecChange")], "{listed}");
    for none in ["trigger=RerunToken", "until=1h", "since=2999-01-01T00:00:00Z"] {
        assert_eq!(states(&operator.get(&format!("/executions?{none}")).await), [], "{none}");
        assert_eq!(operator.get(&format!("/runs?{none}")).await["items"], json!([]), "{none}");
    }
    assert_eq!(operator.get("/runs?trigger=SpecChange&since=1h").await["items"][0]["run"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_shows_what_is_not_archived_yet() {
    let operator = TestOperator::new(&["a", "b"]).await;
    operator.history.set(Fault::WritesHang);
    let mut agent = operator.agent("a").await;

    operator.apply(&body("t", &["a", "b"], &json!({}))).await;
    // The status names the Run: from here on every route knows it and its targets.
    let task = operator.until("/tasks/default/t", |task| task["status"]["run"]["number"] == 1).await;
    let uid = task["metadata"]["uid"].as_str().unwrap().to_owned();
    shows_waiting_targets(&operator, &uid).await;

    // The agent runs it. Whichever route shows it first, all others follow.
    let start = operator.start(&mut agent).await;
    let report = |state| {
        ToOperator::Report(Box::new(Report {
            attempt: start.attempt.clone(),
            spec_hash: start.spec_hash.clone(),
            state,
        }))
    };
    agent.send_json(&report(ReportedState::Running(Running { started_at: operator.now(), pid: 7 }))).await;
    operator.until(&format!("/executions/{uid}/1/a"), |one| one["state"] == "Running").await;
    assert_eq!(states(&operator.get("/executions?task=t").await)[0], pair("a", "Running"));
    assert_eq!(states(&operator.get("/executions?node=a&state=Running").await), [pair("a", "Running")]);
    let task = operator.get("/tasks/default/t").await;
    assert_eq!(task["status"]["run"]["counts"]["running"], 1, "{task}");
    let node =
        &task["status"]["nodes"].as_array().unwrap().iter().find(|n| n["node"] == "a").unwrap()["state"];
    assert_eq!(node, "Running", "{task}");
    let event = operator.first_event("/tasks/default/t/events").await;
    assert_eq!(event["status"]["run"]["counts"]["running"], 1, "{event}");

    // It ends; its output is still on the node.
    agent.send_json(&report(ended(5))).await;
    operator.until("/executions?node=a&task=t", |list| states(list) == [pair("a", "Succeeded")]).await;
    assert_eq!(states(&operator.get("/executions?outcome=Succeeded").await), [pair("a", "Succeeded")]);
    assert_eq!(states(&operator.get("/executions?state=Ended").await), [pair("a", "Succeeded")]);
    is_listed_with_what_it_used(&operator).await;
    assert_eq!(states(&operator.get("/executions?state=Running").await), []);
    let runs = operator.get("/runs?task=t").await;
    assert_eq!(runs["items"][0]["outcomes"], json!({"Succeeded": 1}), "{runs}");
    let one = operator.get(&format!("/executions/{uid}/1/a")).await;
    assert_eq!((&one["outcome"], &one["exitCode"]), (&json!("Succeeded"), &json!(0)), "{one}");
    assert_eq!(one["details"]["stdout"]["bytes"], 5, "{one}");
    let task = operator.get("/tasks/default/t").await;
    assert_eq!(task["status"]["run"]["counts"]["succeeded"], 1, "{task}");

    // A reader that opened the log before its output arrived gets all of it.
    let path = format!("/executions/{uid}/1/a/log?format=json");
    let reading = operator.log(&path);
    let sending = async {
        let mut socket = operator.log_socket(&agent, "a").await;
        socket.send_json(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
        socket.receive_log().await;
        socket.record(&start.attempt, &record(0, 5)).await;
        socket
    };
    let (log, _socket) = tokio::join!(reading, sending);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["kind"], &lines[0]["len"]), (&json!("record"), &json!(5)), "{log}");
    assert_eq!(lines[1], json!({"kind": "end", "position": 5, "ended": true}), "{log}");

    // Once History has it all, the answers are the same: no row twice, none missing.
    let (before, runs) = (operator.get("/executions").await, operator.get("/runs").await);
    operator.history.set(Fault::None);
    operator.until_archived(&uid, "a", OutcomeName::Succeeded).await;
    assert_eq!(operator.get("/executions").await, before);
    assert_eq!(operator.get("/runs").await, runs);
}

/// Ends the first Attempt of a Run on one node with this exit code and these digests; returns the uid of its Task.
async fn end_with(
    operator: &TestOperator,
    node: &str,
    exit_code: u8,
    [stdout, stderr]: [char; 2],
) -> (String, Agent) {
    let mut agent = operator.agent(node).await;
    let start = operator.start(&mut agent).await;
    let ReportedState::Ended(mut end) = ended(7) else { unreachable!() };
    end.outcome = match exit_code {
        0 => Outcome::Succeeded { exit_code },
        _ => Outcome::Failed { exit_code },
    };
    end.output.stdout.sha256 = stdout.to_string().repeat(64);
    (end.output.stderr.bytes, end.output.stderr.sha256) = (9, stderr.to_string().repeat(64));
    let state = ReportedState::Ended(end);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    (start.attempt.task.to_string(), agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_outputs_are_one_group_before_and_after_they_are_archived() {
    let nodes = ["web-1", "web-2", "web-3", "web-4", "web-5", "gone"];
    let operator = TestOperator::new(&nodes).await;
    operator.history.set(Fault::WritesHang);
    operator.apply(&body("t", &nodes, &json!({}))).await;
    let mut uid = String::new();
    let mut agents = Vec::new();
    for (node, exit_code, digests) in [
        ("web-1", 0, ['a', 'e']),
        ("web-2", 0, ['a', 'e']),
        ("web-3", 0, ['a', 'f']),
        ("web-4", 3, ['a', 'e']),
        ("web-5", 0, ['b', 'e']),
    ] {
        let (task, agent) = end_with(&operator, node, exit_code, digests).await;
        uid = task;
        agents.push(agent);
    }
    let path = format!("/runs/{uid}/1/outputs");
    let groups = |value: &Value| -> Vec<(String, String, u64)> {
        let of = |group: &Value| {
            let text = |name: &str| group[name].as_str().unwrap().to_owned();
            (text("outcome"), text("nodes"), group["count"].as_u64().unwrap())
        };
        value["groups"].as_array().unwrap().iter().map(of).collect()
    };
    let group = |outcome: &str, nodes: &str, count: u64| (outcome.to_owned(), nodes.to_owned(), count);
    let both = operator.until(&path, |outputs| outputs["ended"] == 5).await;
    assert_eq!(both["pending"], 1);
    let expected = [
        group("Failed", "web-4", 1),
        group("Succeeded", "web-3", 1),
        group("Succeeded", "web-5", 1),
        group("Succeeded", "web-[1,2]", 2),
    ];
    assert_eq!(groups(&both), expected, "{both}");
    let last = &both["groups"][3];
    assert_eq!((&last["node"], &last["attempt"], &last["exitCode"]), (&json!("web-1"), &json!(1), &json!(0)));
    assert_eq!(last["stderr"], json!({"bytes": 9, "dropped": 0, "sha256": "e".repeat(64)}));
    let by_stdout = operator.get(&format!("{path}?equal=stdout")).await;
    let expected =
        [group("Failed", "web-4", 1), group("Succeeded", "web-5", 1), group("Succeeded", "web-[1-3]", 3)];
    assert_eq!(groups(&by_stdout), expected, "{by_stdout}");
    operator.history.set(Fault::None);
    for node in ["web-1", "web-2", "web-3", "web-5"] {
        operator.until_archived(&uid, node, OutcomeName::Succeeded).await;
    }
    operator.until_archived(&uid, "web-4", OutcomeName::Failed).await;
    assert_eq!(operator.get(&path).await, both);
    assert_eq!(operator.ask(&format!("/runs/{uid}/9/outputs")).await.0, 404);
    assert_eq!(operator.ask(&format!("{path}?equal=all")).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_the_end_of_a_run_once_its_status_does() {
    let operator = TestOperator::new(&["a"]).await;
    operator.history.set(Fault::WritesHang);
    let mut agent = operator.agent("a").await;
    // The second ends by a conclusion of the operator, without an agent.
    operator.apply(&body("ran", &["a"], &json!({}))).await;
    operator.apply(&body("never", &["gone"], &json!({"timeouts": {"start": "1s"}}))).await;
    let start = operator.start(&mut agent).await;
    let state = ended(0);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    for (name, verdict, outcome) in [("ran", "Complete", "Succeeded"), ("never", "Failed", "StartTimedOut")] {
        operator
            .until(&format!("/tasks/default/{name}"), |task| task["status"]["run"]["verdict"] == verdict)
            .await;
        let listed = operator.get(&format!("/executions?task={name}&outcome={outcome}")).await;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
        let runs = operator.get(&format!("/runs?task={name}")).await;
        assert_eq!(runs["items"][0]["verdict"], verdict, "{runs}");
        assert_eq!(runs["items"][0]["outcomes"], json!({outcome: 1}), "{runs}");
    }
    // Queued records outlive their Task, which is removed at once.
    operator.delete("/tasks/default/ran").await;
    operator.until_gone("/tasks/default/ran").await;
    assert_eq!(states(&operator.get("/executions?task=ran").await), [pair("a", "Succeeded")]);
    assert_eq!(operator.get("/runs?task=ran").await["items"][0]["verdict"], "Complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_retried_is_pending_not_failed() {
    let operator = TestOperator::new(&["a"]).await;
    let mut agent = operator.agent("a").await;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "1h", "max": "1h"}}});
    operator.apply(&body("t", &["a"], &retry)).await;
    let start = operator.start(&mut agent).await;
    let ReportedState::Ended(mut end) = ended(0) else { unreachable!() };
    end.outcome = sentinel_protocol::outcome::Outcome::Failed { exit_code: 3 };
    let state = ReportedState::Ended(end);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    let uid = start.attempt.task.to_string();
    // History has the Attempt as failed; the Execution has not ended.
    operator.until_archived(&uid, "a", OutcomeName::Failed).await;
    assert_eq!(states(&operator.get("/executions?task=t").await), [pair("a", "Pending")]);
    assert_eq!(states(&operator.get("/executions?task=t&outcome=Failed").await), []);
    assert_eq!(operator.get("/runs?task=t").await["items"][0]["outcomes"], json!({}));
    let one = operator.get(&format!("/executions/{uid}/1/a")).await;
    assert_eq!(one["message"], "attempt 1 ended Failed with exit code 3; attempt 2 of at most 2 follows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_is_shown_before_and_after_it_is_archived() {
    let operator = TestOperator::new(&["a"]).await;
    operator.history.set(Fault::WritesHang);
    let mut agent = operator.agent("a").await;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "100ms", "max": "100ms"}}});
    operator.apply(&body("t", &["a"], &retry)).await;
    let mut uid = String::new();
    for (attempt, outcome) in
        [(1, Outcome::Failed { exit_code: 3 }), (2, Outcome::Succeeded { exit_code: 0 })]
    {
        let start = operator.start(&mut agent).await;
        assert_eq!(start.attempt.attempt, attempt);
        let ReportedState::Ended(mut end) = ended(10 * u64::from(attempt)) else { unreachable!() };
        end.outcome = outcome;
        end.usage.max_rss = 1000 * u64::from(attempt);
        let state = ReportedState::Ended(end);
        let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
        agent.send_json(&ToOperator::Report(Box::new(report))).await;
        uid = start.attempt.task.to_string();
    }
    let path = format!("/executions/{uid}/1/a");
    let one = operator.until(&path, |one| one["outcome"] == "Succeeded").await;
    let attempts: Vec<Value> = one["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| json!([a["attempt"], a["state"], a["exitCode"], a["details"]["maxRss"], a["log"]]))
        .collect();
    let log = |attempt: u32| format!("/api/v1{path}/log?attempt={attempt}");
    let expected = json!([[1, "Failed", 3, 1000, log(1)], [2, "Succeeded", 0, 2000, log(2)]]);
    assert_eq!(json!(attempts), expected, "{one}");
    assert_eq!(one["details"], one["attempts"][1]["details"]);
    assert_eq!(operator.get("/executions?task=t").await["items"][0].get("attempts"), None);
    operator.history.set(Fault::None);
    operator.until_archived(&uid, "a", OutcomeName::Succeeded).await;
    assert_eq!(operator.get(&path).await, one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_answers_as_the_change_would_and_changes_nothing() {
    let operator = TestOperator::new(&["a"]).await;
    let task = body("t", &["a"], &json!({}));
    let tried = operator.call("POST", "/tasks?dryRun=All", &task.to_string()).await;
    assert!(tried.0 == 201 && tried.1.contains("sentinel-result: created"), "{tried:?}");
    let would: Value = serde_json::from_str(&tried.2).unwrap();
    assert_eq!(would["spec"]["timeouts"]["grace"], "10s", "{would}");
    assert_eq!(operator.ask("/tasks/default/t").await.0, 404);
    operator.apply(&task).await;
    let stored = operator.until("/tasks/default/t", |task| task["status"]["run"]["number"] == 1).await;
    assert_eq!(operator.call("POST", "/tasks?dryRun=All", &task.to_string()).await.0, 409);
    let changed = body("t", &["a"], &json!({"run": {"command": ["false"]}}));
    for (sent, result) in [(&task, "unchanged"), (&changed, "configured")] {
        let tried = operator.call("PUT", "/tasks/default/t?dryRun=All", &sent.to_string()).await;
        assert!(tried.0 == 200 && tried.1.contains(&format!("sentinel-result: {result}")), "{tried:?}");
        let would: Value = serde_json::from_str(&tried.2).unwrap();
        assert_eq!(would["spec"]["run"]["command"], sent["spec"]["run"]["command"], "{would}");
        // Later readers get what is stored, not what was tried.
        let read = operator.get("/tasks/default/t").await;
        assert_eq!((&read["spec"], &read["metadata"]["generation"]), (&stored["spec"], &json!(1)));
    }
    let bad = body("t", &["a"], &json!({"timeouts": {"run": "5 minutes"}, "retry": {"limit": 99}}));
    let refused = operator.call("PUT", "/tasks/default/t?dryRun=All", &bad.to_string()).await;
    let refused: Value = serde_json::from_str(&refused.2).unwrap();
    let fields: Vec<&Value> = refused["problems"].as_array().unwrap().iter().map(|p| &p["field"]).collect();
    assert_eq!(fields, ["spec.retry.limit", "spec.timeouts.run"], "{refused}");
    let unknown = operator.call("POST", "/tasks?dryRun=Some", &task.to_string()).await;
    assert!(unknown.0 == 400 && unknown.2.contains("dryRun"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_history_lists_are_partial() {
    let operator = TestOperator::new(&["a"]).await;
    let mut agent = operator.agent("a").await;
    operator.apply(&body("old", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let report =
        Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state: ended(0) };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    let uid = start.attempt.task.to_string();
    operator.until_archived(&uid, "a", OutcomeName::Succeeded).await;
    assert_eq!(operator.get("/executions").await.get("partial"), None);

    operator.history.set(Fault::Unavailable);
    operator.apply(&body("new", &["a"], &json!({}))).await;
    operator.until("/tasks/default/new", |task| task["status"]["run"]["number"] == 1).await;
    for path in ["/executions", "/runs"] {
        let list = operator.get(path).await;
        let tasks: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["task"].as_str().unwrap()).collect();
        assert_eq!(tasks, ["new", "old"], "{list}");
        let why = list["partial"]["message"].as_str().unwrap();
        assert!(why.contains("only what this operator holds in memory is listed"), "{why}");
    }
    assert_eq!(operator.get(&format!("/executions/{uid}/1/a")).await["outcome"], "Succeeded");
    // An Execution that is not in memory is unavailable, not missing.
    let (status, unknown) = operator.ask(&format!("/executions/{uid}/7/a")).await;
    assert_eq!((status, &unknown["reason"]), (503, &json!("Unavailable")), "{unknown}");
    operator.history.set(Fault::None);
    assert_eq!(operator.get("/executions").await.get("partial"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_missing_attempt_is_not_found() {
    let operator = TestOperator::new(&["a"]).await;
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let path = format!("/executions/{}/1/a/log", start.attempt.task);
    let seventh = format!("{path}?attempt=7&follow=true&format=json");
    // While the Execution is active, a seventh Attempt may come; once it has ended, this reader is done.
    let following = operator.follow(&seventh).await;
    let state = ended(0);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    operator.until("/tasks/default/t", |task| task["status"]["run"]["verdict"] == "Complete").await;
    let log = following.rest().await;
    assert_eq!(log, "{\"ended\":true,\"kind\":\"end\",\"position\":0}\n");

    for path in [&seventh, &format!("{path}?attempt=2")] {
        let (status, error) = operator.ask(path).await;
        assert_eq!((status, &error["reason"]), (404, &json!("NotFound")), "{error}");
        assert_eq!((&error["field"], &error["allowed"]), (&json!("attempt"), &json!("1")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("has ended with Attempt 1"), "{error}");
    }
    assert_eq!(operator.log(&format!("{path}?attempt=1")).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_zero_is_empty_without_a_line_end() {
    let operator = TestOperator::new(&["a"]).await;
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let state = ended(3);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    let mut socket = operator.log_socket(&agent, "a").await;
    socket.send_json(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
    socket.receive_log().await;
    socket.record(&start.attempt, &record(0, 3)).await;
    let path = format!("/executions/{}/1/a/log", start.attempt.task);
    operator.until("/executions?node=a&task=t", |list| states(list) == [pair("a", "Succeeded")]).await;
    assert_eq!(operator.log(&path).await.len(), 3);
    assert_eq!(operator.log(&format!("{path}?tail=0")).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_lost_node_shows_how_much_is_missing() {
    let operator = TestOperator::new(&["a"]).await;
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let state = ended(9);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    operator.until("/tasks/default/t", |task| task["status"]["run"]["verdict"] == "Complete").await;
    drop(agent);
    operator.until("/nodes/a", |node| node["reachable"] == false).await;
    let path = format!("/executions/{}/1/a/log", start.attempt.task);
    let log = operator.log(&format!("{path}?format=json")).await;
    assert_eq!(log, "{\"ended\":false,\"kind\":\"end\",\"missing\":9,\"position\":0}\n");
    assert_eq!(operator.log(&path).await, "[sentinel: 9 bytes have not arrived from the node yet]\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_writes_to_history_are_counted_by_category() {
    let operator = TestOperator::new(&["a"]).await;
    operator.history.set(Fault::Unavailable);
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    operator.start(&mut agent).await;
    eventually("a failed write is counted", || {
        let metrics = operator.metrics.render();
        let counts = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("sentinel_history_failures_total{category=\"TimedOut\"} "));
        counts.into_iter().any(|count| count != "0")
    })
    .await;
}
