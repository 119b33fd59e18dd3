//! The HTTP API: raw requests against a real dev mode.

#[cfg(test)]
mod kit;

use kit::{Dev, body, task, task_without};
use serde_json::{Value, json};

const JSON: &str = "content-type: application/json";

#[test]
fn the_user_agent_has_name_version_and_platform() {
    use std::io::{BufRead as _, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let mut command = kit::sentinel()
        .args(["--server", &server, "get", "tasks"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (tcp, _) = listener.accept().unwrap();
    let head: Vec<String> =
        BufReader::new(tcp).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    command.wait().unwrap();
    let agents: Vec<&str> = head.iter().filter_map(|line| line.strip_prefix("user-agent: ")).collect();
    assert_eq!(agents, [sentinel_protocol::product::user_agent("sentinel")]);
}

#[test]
fn bad_requests_are_refused_with_what_is_allowed() {
    let dev = Dev::start(&[]);
    dev.get("/api/v1/nope").is_error(404, "UnknownPath", &["/api/v1/nope", "openapi.json"]);
    dev.get("/api/v1/tasks/default/nope").is_error(404, "NotFound", &["default/nope"]);
    dev.get("/api/v1/nodes/nope").is_error(404, "NotFound", &["nope"]);
    dev.get("/api/v1/nodes/%2e%2e").is_error(400, "InvalidPath", &[]);
    let wrong = dev.request("PATCH /api/v1/tasks", b"");
    wrong.is_error(405, "MethodNotAllowed", &["GET, POST"]);
    assert!(wrong.head.to_lowercase().contains("allow: get, post"), "{}", wrong.head);
    let overridden = dev.request("POST /api/v1/nodes\nx-http-method-override: GET", b"");
    overridden.is_error(405, "MethodNotAllowed", &[]);

    dev.get("/api/v1/executions?nod=a").is_error(400, "InvalidQuery", &["\"nod\"", "known: namespace, task"]);
    dev.get("/api/v1/tasks?limit=0").is_error(400, "InvalidQuery", &["limit", "1 to 500"]);
    dev.get("/api/v1/tasks?limit=501").is_error(400, "InvalidQuery", &["1 to 500"]);
    dev.get("/api/v1/executions?outcome=Great").is_error(400, "InvalidQuery", &["Succeeded, Failed"]);
    dev.get("/api/v1/executions?state=Odd").is_error(400, "InvalidQuery", &["Dispatched, Running, Ended"]);
    dev.get("/api/v1/executions?since=yesterday").is_error(
        400,
        "InvalidQuery",
        &["since", "RFC 3339", "24h"],
    );
    dev.get("/api/v1/runs?trigger=Odd").is_error(400, "InvalidQuery", &["SpecChange, RerunToken"]);
    dev.get("/api/v1/executions?page=zzz").is_error(400, "InvalidQuery", &["page"]);
    dev.get("/api/v1/executions?run=0").is_error(400, "InvalidQuery", &["run"]);
    dev.get("/api/v1/executions?run=1&run=2").is_error(400, "InvalidQuery", &["given twice"]);
    dev.get("/api/v1/executions/u/1/n/log").is_error(404, "NotFound", &["u/1/n"]);
    dev.get("/api/v1/executions/u/x/n/log").is_error(400, "InvalidPath", &["run"]);
    dev.get("/api/v1/executions/u/1/N_N/log").is_error(400, "InvalidPath", &["node"]);
    dev.get("/api/v1/executions/u/1/n/log?from=-1").is_error(400, "InvalidQuery", &["from"]);
    dev.get("/api/v1/executions/u/1/n/log?from=18446744073709551616").is_error(
        400,
        "InvalidQuery",
        &["from"],
    );
    dev.get("/api/v1/executions/u/1/n/log?stream=stdin").is_error(400, "InvalidQuery", &["stdout, stderr"]);

    let post = |head: &str, body: &[u8]| dev.request(&format!("POST /api/v1/tasks\n{head}"), body);
    post("", &body("a", &["true"])).is_error(415, "UnsupportedMediaType", &["application/json"]);
    post("content-type: text/plain", &body("a", &["true"])).is_error(
        415,
        "UnsupportedMediaType",
        &["text/plain"],
    );
    post(JSON, b"").is_error(400, "InvalidJson", &["empty"]);
    post(JSON, b"{\"a\": }").is_error(400, "InvalidJson", &["column 7"]);
    post(JSON, &b"[".repeat(100_000)).is_error(400, "InvalidJson", &[]);
    post(JSON, b"[1]").is_error(422, "InvalidTask", &["Task"]);
    post(JSON, b"null").is_error(422, "InvalidTask", &["Task"]);
    post(JSON, &vec![b' '; 600 << 10]).is_error(413, "BodyTooLarge", &["524288"]);
    post(JSON, &body("a", &[])).is_error(422, "InvalidTask", &["spec.run.command"]);
    post(JSON, &body("A B", &["true"])).is_error(422, "InvalidTask", &["metadata.name"]);
    let many = post(JSON, &task_without(&["targets"], &[("timeouts", json!({"run": 5}))]));
    many.is_error(422, "InvalidTask", &["spec.targets", "spec.timeouts.run"]);
    assert!(many.json()["problems"].as_array().unwrap().len() >= 2, "{}", many.text());
    // As on an API server, rules about values are checked after types and required fields.
    let duration = post(JSON, &task_without(&[], &[("timeouts", json!({"run": "5 minutes"}))]));
    duration.is_error(422, "InvalidTask", &["spec.timeouts.run"]);
    let put = dev.request(&format!("PUT /api/v1/tasks/default/other\n{JSON}"), &body("a", &["true"]));
    put.is_error(400, "InvalidTask", &["the path names Task default/other"]);
    // None of these requests created a Task.
    assert_eq!(dev.get("/api/v1/tasks").json()["items"], json!([]));
}

#[test]
fn rejects_pages_of_other_sites_and_ports() {
    let dev = Dev::start(&[]);
    for host in ["evil.test", "127.0.0.1.evil.test", "10.0.0.1"] {
        dev.request(&format!("GET /api/v1/tasks\nhost: {host}"), b"").is_error(
            421,
            "ForeignHost",
            &["localhost"],
        );
    }
    for origin in ["http://evil.test", "null"] {
        let head = format!("POST /api/v1/tasks\norigin: {origin}\n{JSON}");
        dev.request(&head, &body("a", &["true"])).is_error(403, "ForeignOrigin", &[]);
    }
    assert_eq!(dev.get("/api/v1/tasks").json()["items"], json!([]));
    // Another port of the same host is another site too.
    for head in [
        "POST /api/v1/tasks/default/a/rerun\norigin: http://localhost:3000",
        "GET /api/v1/tasks\nsec-fetch-site: same-site",
    ] {
        dev.request(head, b"").is_error(403, "ForeignOrigin", &["other ports"]);
    }
    let twice = format!("GET /api/v1/tasks\norigin: {0}\norigin: {0}", dev.server);
    dev.request(&twice, b"").is_error(403, "ForeignOrigin", &["more than once"]);
    let ours = dev.request(&format!("GET /api/v1/tasks\norigin: {}", dev.server), b"");
    assert_eq!(ours.status, 200);
}

#[test]
fn without_the_token_only_probes_are_answered() {
    let dev = Dev::start(&[]);
    for head in ["GET /api/v1/tasks", "GET /metrics", "GET /api/v1/events", "DELETE /api/v1/tasks/default/a"]
    {
        dev.request_without_token(head, b"").is_error(401, "Unauthorized", &["failed to authenticate"]);
        dev.request_without_token(&format!("{head}\nauthorization: Bearer x"), b"").is_error(
            401,
            "Unauthorized",
            &[],
        );
    }
    let post = format!("POST /api/v1/tasks\n{JSON}\nsentinel-request: 1");
    dev.request_without_token(&post, &body("a", &["true"])).is_error(401, "Unauthorized", &[]);
    for probe in ["GET /healthz", "GET /readyz"] {
        assert_eq!(dev.request_without_token(probe, b"").status, 200, "{probe}");
    }
    assert_eq!(dev.get("/api/v1/tasks").json()["items"], json!([]));
    let curl = kit::over_socket(&dev.socket, "GET /api/v1/tasks HTTP/1.1\r\nhost: localhost\r\n");
    assert_eq!((curl.status, curl.json()), (200, json!({"items": []})));
}

#[test]
fn a_body_is_read_only_where_one_is_expected() {
    let dev = Dev::start(&[]);
    let large = vec![b' '; 100 << 10];
    for head in ["POST /api/v1/tasks/default/a/rerun", "DELETE /api/v1/tasks/default/a", "GET /api/v1/tasks"]
    {
        dev.request(head, &large).is_error(413, "BodyTooLarge", &["takes no body"]);
    }
    dev.request("POST /api/v1/nope", &large).is_error(404, "UnknownPath", &[]);
    dev.request("PATCH /api/v1/tasks", &large).is_error(405, "MethodNotAllowed", &[]);
    dev.request_without_token(&format!("POST /api/v1/tasks\n{JSON}"), &large).is_error(
        401,
        "Unauthorized",
        &[],
    );
}

#[test]
fn rejects_invalid_names_in_path_query_and_body() {
    let dev = Dev::start(&[]);
    for path in [
        "/api/v1/tasks/prod/%3Fx",
        "/api/v1/tasks/prod/%23x",
        "/api/v1/tasks/a%3Fb/x",
        "/api/v1/tasks/a.b/x",
        "/api/v1/tasks/A/x",
        "/api/v1/tasks/default/x%20y",
    ] {
        for method in ["GET", "DELETE"] {
            dev.request(&format!("{method} {path}"), b"").is_error(
                400,
                "InvalidPath",
                &["in the path must be"],
            );
        }
        dev.request(&format!("GET {path}/events"), b"").is_error(400, "InvalidPath", &[]);
        dev.request(&format!("POST {path}/cancel"), b"").is_error(400, "InvalidPath", &[]);
    }
    for query in ["namespace=..%2F..%2Fapi", "namespace=a%3Flimit", "namespace=", "namespace=A"] {
        for path in ["tasks", "events", "runs", "executions"] {
            dev.get(&format!("/api/v1/{path}?{query}")).is_error(400, "InvalidQuery", &["namespace"]);
        }
    }
    dev.get("/api/v1/runs?task=a%2Fb").is_error(400, "InvalidQuery", &["task"]);
    for page in ["x", "a%2F..%2Fb", "..%2Fa", "a%2Fb%3F"] {
        dev.get(&format!("/api/v1/tasks?page={page}")).is_error(400, "InvalidQuery", &["page"]);
    }
    let named = |metadata: Value| {
        let mut task: Value = serde_json::from_slice(&body("a", &["true"])).unwrap();
        task["metadata"] = metadata;
        dev.request(&format!("POST /api/v1/tasks\n{JSON}"), task.to_string().as_bytes())
    };
    named(json!({"name": "a/b"})).is_error(422, "InvalidTask", &["metadata.name"]);
    named(json!({"name": "a", "namespace": "../x"})).is_error(422, "InvalidTask", &["metadata.namespace"]);
    named(json!({"generateName": "../x"})).is_error(422, "InvalidTask", &["metadata.generateName"]);
    assert_eq!(dev.get("/api/v1/tasks").json()["items"], json!([]));
}

#[test]
fn a_task_is_created_followed_and_deleted_over_http() {
    let dev = Dev::start(&[]);
    let post = format!("POST /api/v1/tasks\n{JSON}");
    let made = dev.request(&post, &body("plain", &["sh", "-c", "echo one; echo two >&2; echo three"]));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json()["metadata"]["namespace"], "default");
    assert_eq!(made.json()["spec"]["timeouts"]["grace"], "10s", "defaults are set");
    let uid = made.json()["metadata"]["uid"].as_str().unwrap().to_owned();
    dev.request(&post, &body("plain", &["true"])).is_error(409, "AlreadyExists", &["default/plain"]);

    dev.run(&["wait", "plain", "--timeout", "60s"]).exited(0);
    let node = dev.get("/api/v1/nodes").json()["items"][0]["name"].as_str().unwrap().to_owned();
    // Dev mode keeps the last 15 minutes of its node too.
    let samples = dev.get(&format!("/api/v1/nodes/{node}/samples")).json();
    assert_eq!(samples["cpu"].as_array().map(Vec::len), Some(90), "{samples}");
    let log = format!("/api/v1/executions/{uid}/1/{node}/log");
    let text = dev.get(&format!("{log}?follow=true"));
    assert_eq!((text.status, text.text().len()), (200, 14), "{}", text.text());
    assert!(text.head.to_lowercase().contains("content-type: text/plain"), "{}", text.head);
    assert_eq!(dev.get(&format!("{log}?stream=stdout")).text(), "one\nthree\n");
    assert_eq!(dev.get(&format!("{log}?stream=stderr")).text(), "two\n");
    assert_eq!(dev.get(&format!("{log}?from=14")).text(), "");
    dev.get(&format!("{log}?from=15")).is_error(416, "PositionOutOfRange", &["15", "14"]);
    let lines: Vec<Value> = dev
        .get(&format!("{log}?format=json&follow"))
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.last().unwrap(), &json!({"kind": "end", "position": 14, "ended": true}));
    assert!(lines.iter().any(|line| line["stream"] == "stderr" && line["data"] == "dHdvCg=="), "{lines:?}");

    let executions = dev.get(&format!("/api/v1/executions?taskUid={uid}&state=Ended&outcome=Succeeded"));
    assert_eq!(executions.json()["items"].as_array().unwrap().len(), 1, "{}", executions.text());
    let one = dev.get(&format!("/api/v1/executions/{uid}/1/{node}")).json();
    assert_eq!((&one["exitCode"], &one["details"]["stdout"]["bytes"]), (&json!(0), &json!(10)), "{one}");
    assert_eq!(dev.get("/api/v1/runs?task=plain").json()["items"][0]["verdict"], "Complete");

    dev.request("POST /api/v1/tasks/default/plain/cancel", b"").is_error(409, "Conflict", &["over already"]);
    let rerun = dev.request("POST /api/v1/tasks/default/plain/rerun", b"");
    assert_eq!(rerun.status, 202, "{}", rerun.text());
    let gone = dev.request("DELETE /api/v1/tasks/default/plain", b"");
    assert_eq!(gone.status, 202, "{}", gone.text());
    dev.run(&["wait", "plain", "--for", "deleted", "--timeout", "60s"]).exited(0);
    dev.request("DELETE /api/v1/tasks/default/plain", b"").is_error(404, "NotFound", &["default/plain"]);
}

#[test]
fn pages_of_a_list_have_no_gaps_or_repeats() {
    let dev = Dev::start(&[]);
    for index in 0..7 {
        let name = format!("t{index}");
        let made = dev.request(&format!("POST /api/v1/tasks\n{JSON}"), &body(&name, &["true"]));
        assert_eq!(made.status, 201, "{}", made.text());
        dev.run(&["wait", &name, "--timeout", "60s"]).exited(0);
    }
    for (path, key) in
        [("/api/v1/tasks", "/metadata/name"), ("/api/v1/executions", "/task"), ("/api/v1/runs", "/task")]
    {
        let mut names = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page =
                next.as_ref().map(|token| format!("&page={}", token.replace('/', "%2F"))).unwrap_or_default();
            let answer = dev.get(&format!("{path}?limit=3{page}")).json();
            let items = answer["items"].as_array().unwrap();
            assert!(items.len() <= 3);
            names.extend(items.iter().map(|item| item.pointer(key).unwrap().as_str().unwrap().to_owned()));
            next = answer["next"].as_str().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        names.sort();
        assert_eq!(names, ["t0", "t1", "t2", "t3", "t4", "t5", "t6"], "{path}");
    }
}

#[test]
fn every_documented_path_answers() {
    let dev = Dev::start(&[]);
    let document = dev.get("/api/v1/openapi.json").json();
    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{namespace}", "default")
            .replace("{name}", "nope")
            .replace("{node}", "nope")
            .replace("{taskUid}", "nope")
            .replace("{run}", "1");
        for method in methods.as_object().unwrap().keys() {
            // This stream never ends; other tests read it.
            if path == "/api/v1/events" {
                walked += 1;
                continue;
            }
            let answer = dev.request(&format!("{} {path}", method.to_uppercase()), b"");
            let is_unknown = answer.status == 404 && answer.json()["reason"] == "UnknownPath";
            let known = answer.status != 405 && !is_unknown;
            assert!(known, "{method} {path}: {} {}", answer.head, answer.text());
            walked += 1;
        }
    }
    assert!(walked >= 19, "only {walked} operations");
    let ready = dev.get("/readyz");
    assert_eq!((ready.status, dev.get("/healthz").status), (200, 200), "{}", ready.text());
    let metrics = dev.get("/metrics").text();
    for name in ["sentinel_history_up 1", "sentinel_gateway_sessions 1", "sentinel_controller_ledgers"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
}

#[test]
fn events_start_with_the_current_state_and_end_with_deletion() {
    let dev = Dev::start(&[]);
    let yaml = task("watched", "{command: [\"true\"]}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("watched.yaml");
    kit::write(&file, &yaml);
    dev.run(&["apply", "-f", file.to_str().unwrap()]).exited(0);
    dev.run(&["wait", "watched", "--timeout", "60s"]).exited(0);
    let events = dev.stream("/api/v1/tasks/default/watched/events");
    events.wait_for("event: synced");
    dev.run(&["delete", "watched"]).exited(0);
    let deleting = events.wait_for("event: deleted");
    let kinds: Vec<&str> = deleting.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(kinds.first(), Some(&"task"), "{deleting}");
    assert_eq!(kinds.get(1), Some(&"synced"), "{deleting}");
    assert_eq!(kinds.last(), Some(&"deleted"), "{deleting}");
    dev.get("/api/v1/tasks/default/watched/events").is_error(404, "NotFound", &[]);
}
