//! Every route that reads, on a whole operator whose History a test holds back or takes away: what the operator has shown
//! once, or has been told by an agent, is in every answer at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "reads/house.rs"]
mod house;

use house::House;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::to_operator::{Report, ReportedState, Running, ToOperator};
use serde_json::{Value, json};

use gateway::{ended, record};

/// A Task for the nodes `a`, whose agent is connected, and `b`, which has none.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_shows_at_once_what_the_operator_knows_while_history_has_nothing_of_it() {
    let house = House::new(&["a", "b"]).await;
    house.history.hold_writes();
    let mut agent = house.agent("a").await;

    house.apply(&body("t", &["a", "b"], &json!({}))).await;
    // The status names the Run: from here on every route knows it and its targets.
    let task = house.until("/tasks/default/t", |task| task["status"]["run"]["number"] == 1).await;
    let uid = task["metadata"]["uid"].as_str().unwrap().to_owned();
    let runs = house.get("/runs?task=t").await;
    assert_eq!(runs["items"][0]["targets"], 2, "{runs}");
    assert_eq!(runs["items"][0].get("verdict"), None, "{runs}");
    let listed = house.get("/executions?task=t").await;
    let seen = states(&listed);
    assert!(matches!(seen[0].1.as_str(), "Pending" | "Dispatched"), "{listed}");
    assert_eq!(seen[1], pair("b", "WaitingForNode"), "{listed}");
    assert_eq!(states(&house.get("/executions?state=WaitingForNode").await), [pair("b", "WaitingForNode")]);
    assert_eq!(states(&house.get("/executions?outcome=Succeeded").await), []);
    let waiting = house.get(&format!("/executions/{uid}/1/b")).await;
    assert_eq!((&waiting["state"], &waiting["attempt"]), (&json!("WaitingForNode"), &json!(0)), "{waiting}");
    // Its log has not begun, and that is not an error.
    let log = house.log(&format!("/executions/{uid}/1/b/log?format=json")).await;
    assert_eq!(log, "{\"ended\":false,\"kind\":\"end\",\"position\":0}\n");

    // The agent runs it. Whichever route shows it first, all others follow.
    let start = house.start(&mut agent).await;
    let report = |state| {
        ToOperator::Report(Box::new(Report {
            attempt: start.attempt.clone(),
            spec_hash: start.spec_hash.clone(),
            state,
        }))
    };
    agent.say(&report(ReportedState::Running(Running { started_at: house.now(), pid: 7 }))).await;
    house.until(&format!("/executions/{uid}/1/a"), |one| one["state"] == "Running").await;
    assert_eq!(states(&house.get("/executions?task=t").await)[0], pair("a", "Running"));
    assert_eq!(states(&house.get("/executions?node=a&state=Running").await), [pair("a", "Running")]);
    let task = house.get("/tasks/default/t").await;
    assert_eq!(task["status"]["run"]["counts"]["running"], 1, "{task}");
    let node =
        &task["status"]["nodes"].as_array().unwrap().iter().find(|n| n["node"] == "a").unwrap()["state"];
    assert_eq!(node, "Running", "{task}");
    let event = house.first_event("/tasks/default/t/events").await;
    assert_eq!(event["status"]["run"]["counts"]["running"], 1, "{event}");

    // It ends; its output is still on the node.
    agent.say(&report(ended(5))).await;
    house.until("/executions?node=a&task=t", |list| states(list) == [pair("a", "Succeeded")]).await;
    assert_eq!(states(&house.get("/executions?outcome=Succeeded").await), [pair("a", "Succeeded")]);
    assert_eq!(states(&house.get("/executions?state=Ended").await), [pair("a", "Succeeded")]);
    assert_eq!(states(&house.get("/executions?state=Running").await), []);
    let runs = house.get("/runs?task=t").await;
    assert_eq!(runs["items"][0]["outcomes"], json!({"Succeeded": 1}), "{runs}");
    let one = house.get(&format!("/executions/{uid}/1/a")).await;
    assert_eq!((&one["outcome"], &one["exitCode"]), (&json!("Succeeded"), &json!(0)), "{one}");
    assert_eq!(one["details"]["stdout"]["bytes"], 5, "{one}");
    let task = house.get("/tasks/default/t").await;
    assert_eq!(task["status"]["run"]["counts"]["succeeded"], 1, "{task}");

    // A reader of the log that came before the output gets all of it.
    let path = format!("/executions/{uid}/1/a/log?format=json");
    let reading = house.log(&path);
    let sending = async {
        let mut socket = house.log_socket(&agent, "a").await;
        socket.say(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
        socket.hear_log().await;
        socket.record(&start.attempt, &record(0, 5)).await;
        socket
    };
    let (log, _socket) = tokio::join!(reading, sending);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["kind"], &lines[0]["len"]), (&json!("record"), &json!(5)), "{log}");
    assert_eq!(lines[1], json!({"kind": "end", "position": 5, "ended": true}), "{log}");

    // Once History has it all, the answers are the same: no row twice, none missing.
    let (before, runs) = (house.get("/executions").await, house.get("/runs").await);
    house.history.let_writes_through();
    house.until_archived(&uid, "a", "Succeeded").await;
    assert_eq!(house.get("/executions").await, before);
    assert_eq!(house.get("/runs").await, runs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_run_is_in_every_list_when_the_status_has_its_verdict() {
    let house = House::new(&["a"]).await;
    house.history.hold_writes();
    let mut agent = house.agent("a").await;
    // The second ends by a conclusion of the operator, which no agent confirms.
    house.apply(&body("ran", &["a"], &json!({}))).await;
    house.apply(&body("never", &["gone"], &json!({"timeouts": {"start": "1s"}}))).await;
    let start = house.start(&mut agent).await;
    let state = ended(0);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.say(&ToOperator::Report(Box::new(report))).await;
    for (name, verdict, outcome) in [("ran", "Complete", "Succeeded"), ("never", "Failed", "StartTimedOut")] {
        house
            .until(&format!("/tasks/default/{name}"), |task| task["status"]["run"]["verdict"] == verdict)
            .await;
        let listed = house.get(&format!("/executions?task={name}&outcome={outcome}")).await;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
        let runs = house.get(&format!("/runs?task={name}")).await;
        assert_eq!(runs["items"][0]["verdict"], verdict, "{runs}");
        assert_eq!(runs["items"][0]["outcomes"], json!({outcome: 1}), "{runs}");
    }
    // What is on its way to History outlives its Task, which is forgotten at once.
    house.delete("/tasks/default/ran").await;
    house.until_gone("/tasks/default/ran").await;
    assert_eq!(states(&house.get("/executions?task=ran").await), [pair("a", "Succeeded")]);
    assert_eq!(house.get("/runs?task=ran").await["items"][0]["verdict"], "Complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_tried_again_is_pending_and_not_failed() {
    let house = House::new(&["a"]).await;
    let mut agent = house.agent("a").await;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "1h", "max": "1h"}}});
    house.apply(&body("t", &["a"], &retry)).await;
    let start = house.start(&mut agent).await;
    let ReportedState::Ended(mut end) = ended(0) else { unreachable!() };
    end.outcome = sentinel_protocol::outcome::Outcome::Failed { exit_code: 3 };
    let state = ReportedState::Ended(end);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.say(&ToOperator::Report(Box::new(report))).await;
    let uid = start.attempt.task.to_string();
    // History has it as failed, which says nothing of the Execution yet.
    house.until_archived(&uid, "a", "Failed").await;
    assert_eq!(states(&house.get("/executions?task=t").await), [pair("a", "Pending")]);
    assert_eq!(states(&house.get("/executions?task=t&outcome=Failed").await), []);
    assert_eq!(house.get("/runs?task=t").await["items"][0]["outcomes"], json!({}));
    let one = house.get(&format!("/executions/{uid}/1/a")).await;
    assert_eq!(one["message"], "attempt 1 ended Failed with exit code 3; attempt 2 of at most 2 follows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_history_what_is_in_memory_is_listed_and_said_to_be_a_part() {
    let house = House::new(&["a"]).await;
    let mut agent = house.agent("a").await;
    house.apply(&body("old", &["a"], &json!({}))).await;
    let start = house.start(&mut agent).await;
    let report =
        Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state: ended(0) };
    agent.say(&ToOperator::Report(Box::new(report))).await;
    let uid = start.attempt.task.to_string();
    house.until_archived(&uid, "a", "Succeeded").await;
    assert_eq!(house.get("/executions").await.get("partial"), None);

    house.history.go_away();
    house.apply(&body("new", &["a"], &json!({}))).await;
    house.until("/tasks/default/new", |task| task["status"]["run"]["number"] == 1).await;
    for path in ["/executions", "/runs"] {
        let list = house.get(path).await;
        let tasks: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|item| item["task"].as_str().unwrap()).collect();
        assert_eq!(tasks, ["new", "old"], "{list}");
        let why = list["partial"]["message"].as_str().unwrap();
        assert!(why.contains("only what this operator holds in memory is listed"), "{why}");
    }
    assert_eq!(house.get(&format!("/executions/{uid}/1/a")).await["outcome"], "Succeeded");
    // Nothing is made up about what memory does not hold.
    let (status, unknown) = house.ask(&format!("/executions/{uid}/7/a")).await;
    assert_eq!((status, &unknown["reason"]), (503, &json!("Unavailable")), "{unknown}");
    house.history.come_back();
    assert_eq!(house.get("/executions").await.get("partial"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_attempt_that_there_never_was_is_not_found_and_is_not_followed_for_ever() {
    let house = House::new(&["a"]).await;
    let mut agent = house.agent("a").await;
    house.apply(&body("t", &["a"], &json!({}))).await;
    let start = house.start(&mut agent).await;
    let path = format!("/executions/{}/1/a/log", start.attempt.task);
    let seventh = format!("{path}?attempt=7&follow=true&format=json");
    // While the Execution goes on, a seventh Attempt may come; once it has ended, this reader is done.
    let following = house.follow(&seventh).await;
    let state = ended(0);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.say(&ToOperator::Report(Box::new(report))).await;
    house.until("/tasks/default/t", |task| task["status"]["run"]["verdict"] == "Complete").await;
    let log = following.rest().await;
    assert_eq!(log, "{\"ended\":true,\"kind\":\"end\",\"position\":0}\n");

    for path in [&seventh, &format!("{path}?attempt=2")] {
        let (status, error) = house.ask(path).await;
        assert_eq!((status, &error["reason"]), (404, &json!("NotFound")), "{error}");
        assert_eq!((&error["field"], &error["allowed"]), (&json!("attempt"), &json!("1")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("has ended with Attempt 1"), "{error}");
    }
    assert_eq!(house.log(&format!("{path}?attempt=1")).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lines_are_no_lines_also_of_a_log_without_a_line_end() {
    let house = House::new(&["a"]).await;
    let mut agent = house.agent("a").await;
    house.apply(&body("t", &["a"], &json!({}))).await;
    let start = house.start(&mut agent).await;
    let state = ended(3);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.say(&ToOperator::Report(Box::new(report))).await;
    let mut socket = house.log_socket(&agent, "a").await;
    socket.say(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
    socket.hear_log().await;
    socket.record(&start.attempt, &record(0, 3)).await;
    let path = format!("/executions/{}/1/a/log", start.attempt.task);
    house.until("/executions?node=a&task=t", |list| states(list) == [pair("a", "Succeeded")]).await;
    assert_eq!(house.log(&path).await.len(), 3);
    assert_eq!(house.log(&format!("{path}?tail=0")).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_end_whose_node_is_gone_says_how_much_is_missing() {
    let house = House::new(&["a"]).await;
    let mut agent = house.agent("a").await;
    house.apply(&body("t", &["a"], &json!({}))).await;
    let start = house.start(&mut agent).await;
    let state = ended(9);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.say(&ToOperator::Report(Box::new(report))).await;
    house.until("/tasks/default/t", |task| task["status"]["run"]["verdict"] == "Complete").await;
    drop(agent);
    house.until("/nodes/a", |node| node["reachable"] == false).await;
    let path = format!("/executions/{}/1/a/log", start.attempt.task);
    let log = house.log(&format!("{path}?format=json")).await;
    assert_eq!(log, "{\"ended\":false,\"kind\":\"end\",\"missing\":9,\"position\":0}\n");
    assert_eq!(house.log(&path).await, "[sentinel: 9 bytes have not arrived from the node yet]\n");
}
