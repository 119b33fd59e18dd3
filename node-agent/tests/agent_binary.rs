//! The binary as a process: how it fails to start, what it logs, and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;
mod gateway;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use gateway::{Gateway, next_message, send_to, within};
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::to_agent::{Cancel, Forget, ToAgent};
use sentinel_protocol::to_operator::ToOperator;

const TOKEN: &str = "a-token";

fn agent(dir: &Path, url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    command.env_clear().args(["--operator-url", url]);
    command.arg("--token-file").arg(dir.join("token")).arg("--state-dir").arg(dir.join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn health(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    // In the pod of an agent some of its variables are set, and others are flags.
    command.env_clear().env("SENTINEL_LOG", "info").env("SENTINEL_NODE_NAME", "node-1");
    command.arg("health").arg("--state-dir").arg(dir.join("state")).output().unwrap()
}

fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), TOKEN).unwrap();
    fs::set_permissions(dir.path().join("token"), PermissionsExt::from_mode(0o400)).unwrap();
    dir
}

fn check_fails(mut command: Command, expected: &[&str]) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it started");
    for text in expected {
        assert!(stderr.contains(text), "{stderr:?} does not contain {text:?}");
    }
}

#[test]
fn a_failed_start_names_the_cause_and_exits_with_an_error() {
    let dir = node();
    let path = dir.path();
    check_fails(agent(path, "http://op"), &["--operator-url", "its scheme is http", "ws://<host>"]);
    check_fails(agent(path, "wss://op"), &["--ca-file"]);
    fs::write(path.join("state"), "a file").unwrap();
    check_fails(agent(path, "ws://op"), &["failed to use the state directory", "state"]);
    fs::remove_file(path.join("token")).unwrap();
    check_fails(agent(path, "ws://op"), &["unable to read the token", "No such file"]);
    let mut bad_filter = agent(path, "ws://op");
    bad_filter.args(["--log", "x=y=z"]);
    check_fails(bad_filter, &["invalid log filter", "x=y=z", "expected one of"]);
}

/// Kills the agent at the end of the test.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl KilledOnDrop {
    /// Ends the agent by SIGTERM and returns its log.
    async fn terminate(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        let mut stderr = self.0.stderr.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        within("the agent's exit", read).await.unwrap()
    }
}

/// The line of a JSON log with this message.
fn line(log: &str, message: &str) -> serde_json::Value {
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let found = lines.into_iter().find(|line| line["message"] == message);
    found.unwrap_or_else(|| panic!("no line {message:?} in {log}"))
}

#[tokio::test]
async fn log_lines_carry_their_session_and_attempt() {
    let mut gateway = Gateway::start(TOKEN).await;
    let dir = node();
    let mut command = agent(dir.path(), &format!("ws://{}", gateway.address));
    // At the level of errors and warnings only, the fields are present too.
    command.args([
        "--log-format",
        "json",
        "--node-name",
        "n-1",
        "--log",
        "warn,sentinel_node_agent::link=info",
    ]);
    let child = KilledOnDrop(command.spawn().unwrap());
    let mut control = gateway.control().await;
    let attempt: AttemptId = "0b6c-1/7/node-1/2".parse().unwrap();
    let epoch = Epoch::from(1);
    control.send_message(ToAgent::Forget(Forget { attempt: attempt.clone(), epoch })).await;
    let spec_hash = SpecHash::new("0".repeat(64)).unwrap();
    control
        .send_message(ToAgent::Cancel(Cancel {
            attempt: attempt.clone(),
            spec_hash,
            epoch,
            requested_by: None,
        }))
        .await;
    assert_eq!(control.ended(&attempt).await.outcome, Outcome::Cancelled);
    let log = child.terminate().await;
    let ignored = line(&log, "ignored a message of the operator");
    let span =
        serde_json::json!({"name": "attempt", "task": "0b6c-1", "run": 7, "node": "node-1", "attempt": 2});
    assert_eq!(ignored["span"], span, "{ignored}");
    let established = line(&log, "session established");
    let span = serde_json::json!({"name": "session", "node": "n-1", "session": control.session.as_str()});
    assert_eq!(established["span"], span, "{established}");
}

#[tokio::test]
async fn text_of_the_operator_cannot_forge_log_lines() {
    let forged = "x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[31m\u{9b}31m\u{202e}:1";
    for format in ["text", "json"] {
        let mut gateway = Gateway::start(TOKEN).await;
        let dir = node();
        let mut command = agent(dir.path(), &format!("ws://{}", gateway.address));
        command.args(["--log-format", format]);
        let child = KilledOnDrop(command.spawn().unwrap());
        let mut socket = gateway.control_socket().await;
        let ToOperator::Hello(_) = next_message(&mut socket).await else { panic!("no Hello") };
        let refusal = SessionRefusal::NotLeader { leader: Some(forged.to_owned()) };
        send_to(&mut socket, &ToAgent::Refuse(refusal)).await;
        // It has logged that it could not dial that leader when it returns to the configured address.
        gateway.control_socket().await;
        let log = child.terminate().await;
        assert!(log.contains("failed to connect") && log.contains("ERROR forged"), "{log:?}");
        for line in log.lines() {
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert!(!line.starts_with("2026-01-01T00:00:00Z ERROR"), "{line:?}");
            assert!(format == "text" || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line:?}");
        }
    }
}

#[tokio::test]
async fn it_is_healthy_while_connected_and_exits_at_sigterm() {
    let mut gateway = Gateway::start(TOKEN).await;
    let dir = node();
    assert!(!health(dir.path()).status.success());
    let mut child = KilledOnDrop(agent(dir.path(), &format!("ws://{}", gateway.address)).spawn().unwrap());
    let mut control = gateway.control().await;
    let is_healthy = || health(dir.path()).status.success();
    within("a healthy agent", async {
        while !is_healthy() {
            control.heartbeat().await;
        }
    })
    .await;
    let status = fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    let kib: u64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 3 << 10, "an idle agent holds {kib} KiB of its own");

    let pid = nix::unistd::Pid::from_raw(child.0.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    let ended = within("its end", async {
        loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                return status;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(ended.success());
    assert!(!health(dir.path()).status.success(), "a stopped agent is reported as healthy");
}

#[tokio::test]
async fn the_journal_is_listed_for_a_person_while_the_agent_runs() {
    let dir = node();
    let mut gateway = Gateway::start(TOKEN).await;
    let _agent = KilledOnDrop(agent(dir.path(), &format!("ws://{}", gateway.address)).spawn().unwrap());
    let mut control = gateway.control().await;
    let mut start = fixtures::shell(1, "exit 3");
    start.credit = u64::MAX;
    control.send_message(ToAgent::Start(Box::new(start.clone()))).await;
    assert_eq!(control.ended(&start.attempt).await.outcome, Outcome::Failed { exit_code: 3 });
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    let output =
        command.env_clear().arg("journal").arg("--state-dir").arg(dir.path().join("state")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(output.status.success() && lines.len() == 2, "{text}");
    assert!(lines[0].starts_with("ATTEMPT") && lines[1].starts_with("0b6c-1.1.1"), "{text}");
    assert!(lines[1].contains("ops/disk-report") && lines[1].contains("exited with code 3"), "{text}");

    let missing = dir.path().join("missing");
    let output = Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .arg("journal")
        .arg("--state-dir")
        .arg(&missing)
        .output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("failed to list") && stderr.contains("missing"),
        "{stderr}"
    );
}

/// The inodes of sockets that wait for others, in the network namespace of a process: of TCP those that listen, of UDP all that are bound.
fn waiting_sockets(pid: u32) -> Vec<String> {
    const LISTEN: &str = "0A";
    let mut found = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, remote, state, ..] = fields[..] else { continue };
            let is_bound = protocol.starts_with("udp") && remote.ends_with(":0000");
            if state == LISTEN || is_bound {
                found.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    found
}

fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let target = |entry: fs::DirEntry| Some(fs::read_link(entry.path()).ok()?.display().to_string());
    entries.filter_map(target).collect()
}

/// It dials the operator: there is nothing on a node to connect to.
#[tokio::test]
async fn an_agent_listens_on_nothing() {
    let mut gateway = Gateway::start(TOKEN).await;
    let dir = node();
    let child = agent(dir.path(), &format!("ws://{}", gateway.address)).spawn().unwrap();
    let running = KilledOnDrop(child);
    let _control = gateway.control().await;
    let waiting = waiting_sockets(running.0.id());
    // The gateway of this test is found, so that an agent's would be.
    let own = open_files(std::process::id());
    assert!(waiting.iter().any(|socket| own.contains(socket)), "{waiting:?}");
    let files = open_files(running.0.id());
    assert!(files.iter().any(|file| file.starts_with("socket:")), "{files:?}");
    let found: Vec<&String> = files.iter().filter(|file| waiting.contains(file)).collect();
    assert_eq!(found, Vec::<&String>::new());
}
