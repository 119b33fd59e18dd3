//! What the command line makes of a server's answers: it decides by their reasons and their types, never by the words of
//! a message.
#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(test)]
mod kit;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use kit::CliOutput;

/// A server that gives every request these answers: the first whose path the request begins with. Returns its address.
fn server(answers: &'static [(&'static str, u16, &'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            let _rest: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let found = answers.iter().find(|(begin, ..)| path.starts_with(begin));
            let (_, status, content_type, body) = found.unwrap_or(&("", 500, "text/plain", ""));
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
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
fn answer_of_another_kind_of_server_is_an_error() {
    let server = server(&[("/", 404, "text/html", "<html>no Task</html>")]);
    run(&server, &["wait", "web", "--for", "deleted", "--timeout", "20s"])
        .exited(1)
        .printed("404")
        .printed("Is it a Sentinel Node API?");
}
