//! What people and scripts read right after something happened, and lists that are longer than what is shown.

#[cfg(test)]
mod kit;

use kit::{Dev, Ran, body, task, task_without, write};
use serde_json::{Value, json};

const JSON: &str = "content-type: application/json";

fn names(ran: &Ran) -> Vec<&str> {
    ran.out.lines().collect()
}

#[test]
fn what_wait_and_run_have_shown_is_in_every_read_that_follows() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&[]);
    for index in 0..6 {
        let name = format!("waited-{index}");
        let file = directory.path().join("task.yaml");
        write(&file, &task(&name, "{command: [echo, hello]}"));
        dev.run(&["apply", "-f", file.to_str().unwrap()]).ended(0);
        dev.run(&["wait", &name, "--timeout", "60s"]).ended(0);
        // Each follows another `wait` that returned, so that none has the time that the ones before it took.
        match index % 3 {
            0 => assert_eq!(dev.run(&["logs", &name]).ended(0).out, "hello\n"),
            1 => {
                let runs = dev.run(&["get", "runs", "--task", &name, "-o", "json"]).ended(0).json();
                assert_eq!(runs["items"][0]["verdict"], "Complete", "{runs}");
                assert_eq!(runs["items"][0]["outcomes"], json!({"Succeeded": 1}), "{runs}");
            }
            _ => {
                dev.run(&["get", "executions", "--task", &name]).ended(0).said("Succeeded");
            }
        }
        let name = format!("run-{index}");
        dev.run(&["run", "--name", &name, "--", "sh", "-c", "echo out; exit 3"]).ended(3);
        match index % 3 {
            0 => {
                let listed = dev.run(&["get", "executions", "--task", &name, "-o", "json"]).ended(0).json();
                assert_eq!(listed["items"][0]["exitCode"], 3, "{listed}");
                let id = listed["items"][0]["id"].as_str().unwrap();
                let one = dev.run(&["get", "execution", id, "-o", "json"]).ended(0).json();
                assert_eq!(one["details"]["stdout"]["bytes"], 4, "{one}");
            }
            1 => assert_eq!(dev.run(&["logs", &name]).ended(0).out, "out\n"),
            _ => {
                let failed = ["get", "executions", "--outcome", "Failed", "--task", &name, "-o", "name"];
                assert_eq!(names(&dev.run(&failed).ended(0)).len(), 1);
            }
        }
    }
}

#[test]
fn a_target_that_waits_for_its_turn_is_listed_and_its_log_is_empty() {
    let dev = Dev::start(&["--nodes", "2"]);
    let made = dev.request(
        &format!("POST /api/v1/tasks\n{JSON}"),
        &task_without(
            &[],
            &[("run", json!({"command": ["sleep", "120"]})), ("rollout", json!({"maxConcurrent": 1}))],
        ),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    // Handed to its node, it does not run yet.
    let running = ["get", "executions", "--task", "a", "--state", "running", "-o", "name"];
    dev.until(&running, |ran| names(ran).len() == 1);
    let list = |state: &str| {
        dev.run(&["get", "executions", "--task", "a", "--state", state, "-o", "json"]).ended(0).json()
    };
    let waiting = list("pending");
    let waits: Vec<&str> =
        waiting["items"].as_array().unwrap().iter().map(|item| item["node"].as_str().unwrap()).collect();
    assert_eq!(waits.len(), 2, "{waiting}");
    let shown = dev.run(&["get", "task", "a", "-o", "json"]).ended(0).json();
    assert_eq!(shown["status"]["run"]["counts"]["running"], 1, "{shown}");
    let log = dev.run(&["logs", "a", "--node", waits[0]]).ended(0);
    assert_eq!((log.out.as_str(), log.err.as_str()), ("", ""));
    dev.run(&["cancel", "a", "--wait"]).ended(0);
    let gone: Vec<Value> = list("ended")["items"].as_array().unwrap().clone();
    assert_eq!(gone.iter().filter(|item| item["outcome"] == "NotStarted").count(), 2, "{gone:?}");
}

#[test]
fn a_list_that_was_cut_says_so_to_people_and_to_programs() {
    let dev = Dev::start(&[]);
    let suspended = |name: &str| {
        let mut value: Value = serde_json::from_slice(&body(name, &["true"])).unwrap();
        value["spec"]["suspend"] = json!(true);
        value.to_string().into_bytes()
    };
    for index in 0..501 {
        let made = dev.request(&format!("POST /api/v1/tasks\n{JSON}"), &suspended(&format!("t{index:03}")));
        assert_eq!(made.status, 201, "{}", made.text());
    }
    for form in ["name", "json", "table"] {
        let listed = dev.run(&["get", "tasks", "-o", form]).ended(0);
        assert!(listed.err.contains("only the first 500 tasks are shown"), "{form}: {}", listed.err);
        assert!(listed.err.contains("--limit 0 all"), "{}", listed.err);
    }
    let first = dev.run(&["get", "tasks", "-o", "json"]).json();
    assert_eq!(first["items"].as_array().unwrap().len(), 500);
    let rest = dev.run(&["get", "tasks", "-o", "name", "--page", first["next"].as_str().unwrap()]).ended(0);
    assert_eq!((names(&rest), rest.err.as_str()), (vec!["task/t500"], ""));
    let all = dev.run(&["get", "tasks", "-o", "name", "--limit", "0"]).ended(0);
    assert_eq!((names(&all).len(), all.err.as_str()), (501, ""));
    let exact = dev.run(&["get", "tasks", "-o", "json", "--limit", "501"]).ended(0);
    assert_eq!((exact.json().get("next"), exact.err.as_str()), (None, ""));

    for token in ["a", "b", "c"] {
        dev.run(&["run", "--name", token, "--", "true"]).ended(0);
    }
    for noun in ["executions", "runs"] {
        let listed = dev.run(&["get", noun, "--limit", "2", "-o", "json"]).ended(0);
        assert!(listed.err.contains(&format!("only the first 2 {noun} are shown")), "{}", listed.err);
        let next = listed.json()["next"].as_str().unwrap().to_owned();
        let rest = dev.run(&["get", noun, "--limit", "2", "-o", "json", "--page", &next]).ended(0);
        assert_eq!((rest.json()["items"].as_array().unwrap().len(), rest.err.as_str()), (1, ""));
        assert_eq!(rest.json()["items"][0]["task"], "a", "{rest:?}");
        dev.run(&["get", noun, "--page", "zzz"]).ended(2).said("page");
    }
}

#[test]
fn a_task_as_json_says_where_the_rest_of_its_runs_are() {
    let dev = Dev::start(&[]);
    dev.run(&["run", "--name", "again", "--", "true"]).ended(0);
    for _ in 0..11 {
        dev.run(&["rerun", "again", "-f"]).ended(0);
    }
    let task = dev.run(&["get", "task", "again", "-o", "json"]).ended(0);
    assert_eq!(task.json()["status"]["recentRuns"].as_array().unwrap().len(), 10);
    assert!(task.err.contains("sentinel get runs --task again --limit 0"), "{}", task.err);
    let runs = dev.run(&["get", "runs", "--task", "again", "--limit", "0", "-o", "name"]).ended(0);
    assert_eq!((names(&runs).len(), runs.err.as_str()), (12, ""));
}

/// A server that cannot read its History; dev mode always can.
#[test]
fn a_list_in_which_rows_may_be_missing_says_so_and_ends_with_1() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let list = json!({
        "items": [{"id": "u/1/a", "task": "t", "run": 1, "node": "a", "state": "Running"}],
        "partial": {"message": "History does not answer"},
    });
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let body = list.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    for form in ["table", "json", "name"] {
        let arguments = ["get", "executions", "-o", form];
        let output = kit::sentinel().env("SENTINEL_SERVER", &server).args(arguments).output().unwrap();
        let ran = Ran::of(&arguments, &output).ended(1);
        assert!(ran.err.contains("executions may be missing: History does not answer"), "{ran:?}");
        assert!(ran.out.contains('a'), "what is known is listed: {ran:?}");
        if form == "json" {
            assert_eq!(ran.json()["partial"]["message"], "History does not answer");
        }
    }
}
