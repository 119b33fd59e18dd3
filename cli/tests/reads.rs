//! Read your writes, and lists that are longer than what is shown.

#[cfg(test)]
mod kit;

use kit::{CliOutput, Dev, body, task, task_without, write};
use serde_json::{Value, json};

const JSON: &str = "content-type: application/json";

fn names(ran: &CliOutput) -> Vec<&str> {
    ran.out.lines().collect()
}

#[test]
fn every_read_after_wait_or_run_has_the_result() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&[]);
    for index in 0..6 {
        let name = format!("waited-{index}");
        let file = directory.path().join("task.yaml");
        write(&file, &task(&name, "{command: [echo, hello]}"));
        dev.run(&["apply", "-f", file.to_str().unwrap()]).exited(0);
        dev.run(&["wait", &name, "--timeout", "60s"]).exited(0);
        // One read per `wait`: a second one would have had more time.
        match index % 3 {
            0 => assert_eq!(dev.run(&["logs", &name]).exited(0).out, "hello\n"),
            1 => {
                let runs = dev.run(&["get", "runs", "--task", &name, "-o", "json"]).exited(0).json();
                assert_eq!(runs["items"][0]["verdict"], "Complete", "{runs}");
                assert_eq!(runs["items"][0]["outcomes"], json!({"Succeeded": 1}), "{runs}");
            }
            _ => {
                dev.run(&["get", "executions", "--task", &name]).exited(0).printed("Succeeded");
            }
        }
        let name = format!("run-{index}");
        dev.run(&["run", "--name", &name, "--", "sh", "-c", "echo out; exit 3"]).exited(3);
        match index % 3 {
            0 => {
                let listed = dev.run(&["get", "executions", "--task", &name, "-o", "json"]).exited(0).json();
                assert_eq!(listed["items"][0]["exitCode"], 3, "{listed}");
                let id = listed["items"][0]["id"].as_str().unwrap();
                let one = dev.run(&["get", "execution", id, "-o", "json"]).exited(0).json();
                assert_eq!(one["details"]["stdout"]["bytes"], 4, "{one}");
            }
            1 => assert_eq!(dev.run(&["logs", &name]).exited(0).out, "out\n"),
            _ => {
                let failed = ["get", "executions", "--outcome", "Failed", "--task", &name, "-o", "name"];
                assert_eq!(names(&dev.run(&failed).exited(0)).len(), 1);
            }
        }
    }
}

#[test]
fn equal_outputs_of_many_nodes_are_shown_once() {
    let dev = Dev::start(&["--nodes", "6"]);
    let script = "case $SENTINEL_NODE in sim-2) echo odd >&2; exit 3;; sim-5) ;; *) echo fine;; esac";
    dev.run(&["run", "--name", "many", "--all", "--", "sh", "-c", script]).exited(3);
    let folded = dev.run(&["logs", "many", "--fold"]).exited(0);
    let this = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let this = this.trim();
    let (mut fine, odd) = (format!("sim-[1,3,4,6],{this}"), "== sim-2: Failed: exited with code 3\n");
    if this < "sim" {
        fine = format!("{this},sim-[1,3,4,6]");
    }
    let expected = format!("{odd}\n== sim-5: Succeeded; no output\n\n== {fine} (5 nodes): Succeeded\nfine\n");
    assert_eq!((folded.out.as_str(), folded.err.as_str()), (expected.as_str(), "odd\n"));
    let latest = dev.run(&["logs", "task/default/many", "--run", "1", "--fold"]).exited(0);
    assert_eq!(latest.out, folded.out);
    let missing = dev.run(&["logs", "many", "--run", "9", "--fold"]).exited(1);
    assert!(missing.err.contains("task default/many has no execution of run 9"), "{}", missing.err);
    dev.run(&["logs", "many/1/sim-1", "--fold"]).exited(2);

    let found = dev.run(&["logs", "many", "--grep", "^(odd|never)$"]).exited(0);
    assert_eq!(found.out.split_whitespace().collect::<Vec<_>>(), ["sim-2", "|", "odd"]);
    assert_eq!(dev.run(&["logs", "many/1/sim-2", "--grep", "d+"]).exited(0).out, "odd\n");
    assert_eq!(dev.run(&["logs", "many", "--grep", "fine", "--stream", "stderr"]).exited(1).out, "");
    let invalid = dev.run(&["logs", "many", "--grep", "("]).exited(2);
    assert!(invalid.err.contains("unclosed group"), "{}", invalid.err);
}

#[test]
fn a_pending_target_is_listed_and_its_log_is_empty() {
    let dev = Dev::start(&["--nodes", "2"]);
    let made = dev.request(
        &format!("POST /api/v1/tasks\n{JSON}"),
        &task_without(
            &[],
            &[("run", json!({"command": ["sleep", "120"]})), ("rollout", json!({"maxConcurrent": 1}))],
        ),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    // A dispatched target is not running yet.
    let running = ["get", "executions", "--task", "a", "--state", "running", "-o", "name"];
    dev.wait_until(&running, |ran| names(ran).len() == 1);
    let list = |state: &str| {
        dev.run(&["get", "executions", "--task", "a", "--state", state, "-o", "json"]).exited(0).json()
    };
    let waiting = list("pending");
    let waits: Vec<&str> =
        waiting["items"].as_array().unwrap().iter().map(|item| item["node"].as_str().unwrap()).collect();
    assert_eq!(waits.len(), 2, "{waiting}");
    let shown = dev.run(&["get", "task", "a", "-o", "json"]).exited(0).json();
    assert_eq!(shown["status"]["run"]["counts"]["running"], 1, "{shown}");
    let log = dev.run(&["logs", "a", "--node", waits[0]]).exited(0);
    assert_eq!((log.out.as_str(), log.err.as_str()), ("", ""));
    dev.run(&["cancel", "a", "--wait"]).exited(0);
    let gone: Vec<Value> = list("ended")["items"].as_array().unwrap().clone();
    assert_eq!(gone.iter().filter(|item| item["outcome"] == "NotStarted").count(), 2, "{gone:?}");
}

#[test]
fn a_truncated_list_is_marked_in_every_format() {
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
        let listed = dev.run(&["get", "tasks", "-o", form]).exited(0);
        assert!(listed.err.contains("only the first 500 tasks are shown"), "{form}: {}", listed.err);
        assert!(listed.err.contains("all with --limit 0"), "{}", listed.err);
    }
    let first = dev.run(&["get", "tasks", "-o", "json"]).json();
    assert_eq!(first["items"].as_array().unwrap().len(), 500);
    let rest = dev.run(&["get", "tasks", "-o", "name", "--page", first["next"].as_str().unwrap()]).exited(0);
    assert_eq!((names(&rest), rest.err.as_str()), (vec!["task/t500"], ""));
    let all = dev.run(&["get", "tasks", "-o", "name", "--limit", "0"]).exited(0);
    assert_eq!((names(&all).len(), all.err.as_str()), (501, ""));
    let exact = dev.run(&["get", "tasks", "-o", "json", "--limit", "501"]).exited(0);
    assert_eq!((exact.json().get("next"), exact.err.as_str()), (None, ""));

    for token in ["a", "b", "c"] {
        dev.run(&["run", "--name", token, "--", "true"]).exited(0);
    }
    for noun in ["executions", "runs"] {
        let listed = dev.run(&["get", noun, "--limit", "2", "-o", "json"]).exited(0);
        assert!(listed.err.contains(&format!("only the first 2 {noun} are shown")), "{}", listed.err);
        let next = listed.json()["next"].as_str().unwrap().to_owned();
        let rest = dev.run(&["get", noun, "--limit", "2", "-o", "json", "--page", &next]).exited(0);
        assert_eq!((rest.json()["items"].as_array().unwrap().len(), rest.err.as_str()), (1, ""));
        assert_eq!(rest.json()["items"][0]["task"], "a", "{rest:?}");
        dev.run(&["get", noun, "--page", "zzz"]).exited(2).printed("page");
    }
}

#[test]
fn a_task_in_json_names_the_command_for_older_runs() {
    let dev = Dev::start(&[]);
    dev.run(&["run", "--name", "again", "--", "true"]).exited(0);
    for _ in 0..11 {
        dev.run(&["rerun", "again", "-f"]).exited(0);
    }
    let task = dev.run(&["get", "task", "again", "-o", "json"]).exited(0);
    assert_eq!(task.json()["status"]["recentRuns"].as_array().unwrap().len(), 10);
    assert!(task.err.contains("sentinel get runs --task again --limit 0"), "{}", task.err);
    let runs = dev.run(&["get", "runs", "--task", "again", "--limit", "0", "-o", "name"]).exited(0);
    assert_eq!((names(&runs).len(), runs.err.as_str()), (12, ""));
}

/// A server that cannot read its History, which dev mode always can.
#[test]
fn a_partial_list_is_marked_and_exits_with_1() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let list = json!({
        "items": [{"id": "u/1/a", "task": "t", "run": 1, "node": "a", "state": "Running"}],
        "partial": {"message": "History does not answer"},
    });
    // The thread ends with the test process.
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
        let ran = CliOutput::of(&arguments, &output).exited(1);
        assert!(ran.err.contains("executions may be missing: History does not answer"), "{ran:?}");
        assert!(ran.out.contains('a'), "known rows are listed: {ran:?}");
        if form == "json" {
            assert_eq!(ran.json()["partial"]["message"], "History does not answer");
        }
    }
}
