//! What the command line makes of a server's answers: it decides by their reasons and their types, never by the words of
//! a message.
#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(test)]
mod kit;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use kit::CliOutput;

/// An answer: to requests whose method and path begin so, or whose path does; its status, media type and body.
type Answer = (&'static str, u16, &'static str, &'static str);

/// A server that gives every request these answers: the first whose path the request begins with. Returns its address.
fn server(answers: &'static [Answer]) -> String {
    recorded(answers).0
}

/// The same, and method and path of each request.
fn recorded(answers: &'static [Answer]) -> (String, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&requests);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = reader.by_ref().lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            let request = request.trim_end_matches("HTTP/1.1").to_owned();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let head: Vec<String> =
                lines.by_ref().take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let found =
                answers.iter().find(|(begin, ..)| path.starts_with(begin) || request.starts_with(begin));
            seen.lock().unwrap().push(request);
            let (_, status, content_type, body) = found.unwrap_or(&("", 500, "text/plain", ""));
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (format!("http://{address}"), requests)
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

fn run(server: &str, arguments: &[&str]) -> CliOutput {
    let output = kit::sentinel().args(["--server", server]).args(arguments).output().unwrap();
    CliOutput::of(arguments, &output)
}

#[test]
fn deleted_task_is_known_by_the_reason_in_any_wording() {
    let server = server(&[("/", 404, JSON, r#"{"reason": "NotFound", "message": "gibt es nicht"}"#)]);
    run(&server, &["wait", "web", "--for", "deleted", "--timeout", "20s"])
        .exited(0)
        .printed("task/web deleted");
    let server = self::server(&[
        ("/api/v1/tasks", 404, JSON, r#"{"reason": "NotFound", "message": "gibt es nicht"}"#),
        ("/api/v1/executions?", 200, JSON, r#"{"items": []}"#),
    ]);
    run(&server, &["logs", "web", "--run", "3"])
        .exited(1)
        .printed("task default/web has no execution of run 3");
}

/// The words are those of a missing Task; the reason tells that its absence is not known.
#[test]
fn other_reason_is_not_a_deleted_task_in_any_wording() {
    for body in [
        r#"{"reason": "NotFound", "message": "no Task a/web here, ask another", "field": "namespace"}"#,
        r#"{"reason": "UnknownPath", "message": "no Task"}"#,
    ] {
        let server = server(Box::leak(Box::new([("/", 404, JSON, body)])));
        run(&server, &["wait", "web", "--for", "deleted", "--timeout", "20s"]).exited(1).printed("no Task");
    }
}

#[test]
fn wrong_type_is_an_error_that_names_field_and_server() {
    const TASK: &str = r#"{"metadata": {"name": "web", "new": 1}, "status": {"run": {"number": "3"}}}"#;
    const EVENT: &str = "event: task\ndata: {\"metadata\": {\"name\": 7}}\n\n";
    let server = server(&[("/api/v1/tasks/default/web/events", 200, EVENTS, EVENT), ("/", 200, JSON, TASK)]);
    run(&server, &["get", "task", "web"]).exited(1).printed("status.run.number").printed(&server);
    run(&server, &["wait", "web", "--timeout", "20s"]).exited(1).printed("metadata.name").printed(&server);
}

#[test]
fn fields_of_a_newer_server_are_ignored() {
    const TASK: &str =
        r#"{"metadata": {"name": "web", "new": 1}, "status": {"run": {"number": 3, "new": []}}, "new": {}}"#;
    let server = server(&[("/", 200, JSON, TASK)]);
    run(&server, &["get", "task", "web"]).exited(0).printed("web");
}

#[test]
fn check_continues_in_the_namespace_that_is_served() {
    let server = server(&[
        ("/api/v1/tasks?namespace=ops", 200, JSON, r#"{"items": []}"#),
        (
            "/api/v1/tasks?",
            404,
            JSON,
            r#"{"reason": "NotFound", "message": "no", "field": "namespace", "allowed": "ops"}"#,
        ),
        ("/api/v1/runs?namespace=ops", 200, JSON, r#"{"items": []}"#),
        ("/api/v1/nodes", 200, JSON, r#"{"items": []}"#),
    ]);
    let ran = run(&server, &["check"]).printed("the operator serves namespace ops only");
    ran.printed("sentinel check -n ops").printed("the operator reads its History");
}

#[test]
fn answer_of_another_kind_of_server_is_an_error() {
    let server = server(&[("/", 404, "text/html", "<html>no Task</html>")]);
    run(&server, &["wait", "web", "--for", "deleted", "--timeout", "20s"])
        .exited(1)
        .printed("404")
        .printed("Is it a Sentinel Node API?");
}

const NOT_FOUND: &str = r#"{"reason": "NotFound", "message": "no Task"}"#;
const FORBIDDEN: &str = r#"{"reason": "Forbidden", "message": "User cannot watch resource \"tasks\""}"#;
const CREATED: &str = r#"{"metadata": {"name": "web", "namespace": "default", "uid": "u-1"}}"#;

/// The Task was created, and then the server was asked for what the caller may not have: who repeated the command line ran
/// the command twice.
#[test]
fn nothing_is_started_that_cannot_be_followed() {
    let refusals: [&'static [Answer]; 2] = [
        &[("/api/v1/tasks/default/", 403, JSON, FORBIDDEN), ("/", 201, JSON, CREATED)],
        &[
            (
                "/api/v1/tasks/default/",
                404,
                JSON,
                r#"{"reason": "NotFound", "message": "no", "field": "namespace"}"#,
            ),
            ("/", 201, JSON, CREATED),
        ],
    ];
    for answers in refusals {
        let (server, requests) = recorded(answers);
        for arguments in [&["run", "--node", "a", "--", "true"][..], &["rerun", "web", "--follow"]] {
            let ran = run(&server, arguments).printed("Nothing was started");
            assert_ne!(ran.code, 0);
        }
        let requests = requests.lock().unwrap();
        assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
        drop(requests);
        run(&server, &["run", "--node", "a", "--detach", "--", "true"]).exited(0).printed("Created.");
    }
}

#[test]
fn what_was_started_and_is_not_followed_is_named() {
    let server =
        server(&[("POST /api/v1/tasks ", 201, JSON, CREATED), ("/api/v1/tasks/", 404, JSON, NOT_FOUND)]);
    // It may answer 404 for a while after a restart; a Task that was never seen is not waited for.
    let ran = run(&server, &["run", "--node", "a", "--", "true"]).exited(125);
    let name = ran.err.split("default/").nth(1).unwrap().split(' ').next().unwrap();
    assert!(name.starts_with("run-"), "{ran:?}");
    for expected in [
        format!("Task default/{name} was created. Do not start it again"),
        format!("sentinel logs -f {name} --server"),
        format!("sentinel cancel {name} --server"),
        format!("sentinel delete {name} --server"),
    ] {
        assert!(ran.err.contains(&expected), "{expected}: {ran:?}");
    }
    let server = self::server(&[
        ("/api/v1/tasks/default/web/events", 404, JSON, NOT_FOUND),
        ("POST /api/v1/tasks/default/web/rerun", 202, JSON, r#"{"token": "t-1"}"#),
    ]);
    run(&server, &["rerun", "web", "-f"])
        .exited(125)
        .printed("A rerun of Task default/web was requested (token t-1)");
}

/// A Run that has ended with success.
const ENDED: &str = concat!(
    "event: task\ndata: {\"metadata\": {\"name\": \"web\", \"namespace\": \"default\", \"uid\": \"u-1\", \"generation\": 1},",
    "\"status\": {\"observedGeneration\": 1, \"run\": {\"number\": 1, \"targets\": [\"a\"], \"targetCount\": 1,",
    "\"counts\": {\"succeeded\": 1}, \"verdict\": \"Complete\"}}}\n\n"
);
const NO_LOG: &str = r#"{"reason": "Forbidden", "message": "User \"joe\" cannot get resource \"tasks/log\" in the namespace"}"#;

/// Nothing was printed until the command had ended, and then that its output had not arrived yet.
#[test]
fn output_that_may_not_be_read_is_reported_with_the_role() {
    let server = server(&[
        ("/api/v1/tasks/default/web/events", 200, EVENTS, ENDED),
        ("GET /api/v1/tasks/default/web ", 200, JSON, CREATED),
        ("POST /api/v1/tasks ", 201, JSON, CREATED),
        ("POST /api/v1/tasks/default/web/rerun", 202, JSON, r#"{"token": "t"}"#),
        ("/api/v1/executions?", 200, JSON, r#"{"items": []}"#),
        ("/api/v1/executions/", 403, JSON, NO_LOG),
        ("/api/v1/runs/", 403, JSON, NO_LOG),
    ]);
    let refused = "you may not read the output of default/web: User \"joe\" cannot get";
    for flags in [&[][..], &["--fold"], &["-o", "json"]] {
        let ran = [&["run", "--name", "web", "--node", "a"][..], flags, &["--", "true"]].concat();
        let ran = run(&server, &ran).exited(0).printed(refused).printed("-log-reader");
        assert_eq!(ran.err.matches("cannot get").count(), 1, "{ran:?}");
        assert!(!ran.err.contains("has not arrived"), "{ran:?}");
        let is_json = flags == ["-o", "json"];
        assert_eq!(ran.out.contains("{\"advice\":\"Ask for the ClusterRole"), is_json, "{ran:?}");
        assert_eq!(ran.out.contains("\"type\":\"refused\""), is_json, "{ran:?}");
    }
    for flags in [&["-f"][..], &["-f", "-o", "json"], &["-f", "-o", "raw"]] {
        run(&server, &[&["logs", "web"][..], flags].concat())
            .exited(1)
            .printed("cannot get resource")
            .printed("-log-reader");
    }
}

#[test]
fn a_lost_answer_is_not_a_failure_to_start() {
    let server = server(&[
        ("/api/v1/tasks/default/", 404, JSON, NOT_FOUND),
        ("POST /api/v1/tasks ", 502, "text/html", "<html>"),
    ]);
    for arguments in
        [&["run", "--node", "a", "--", "true"][..], &["run", "--node", "a", "--detach", "--", "true"]]
    {
        run(&server, arguments)
            .exited(125)
            .printed("may have been created")
            .printed("sentinel get task run-");
    }
    let server = self::server(&[("/", 502, "text/html", "<html>")]);
    run(&server, &["rerun", "web"]).exited(1).printed("it runs once: sentinel rerun web --token 20");
    // A refusal is certain.
    let server = self::server(&[
        ("/api/v1/tasks/default/", 404, JSON, NOT_FOUND),
        ("POST /api/v1/tasks ", 403, JSON, FORBIDDEN),
    ]);
    let ran = run(&server, &["run", "--node", "a", "--", "true"]).exited(125);
    assert!(!ran.err.contains("may have been created"), "{ran:?}");
}
