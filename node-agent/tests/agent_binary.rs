//! The binary from outside: what it says when it cannot begin, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod gateway;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use gateway::{Gateway, within};

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
    command.env_clear().arg("health").arg("--state-dir").arg(dir.join("state")).output().unwrap()
}

fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), TOKEN).unwrap();
    fs::set_permissions(dir.path().join("token"), PermissionsExt::from_mode(0o400)).unwrap();
    dir
}

fn check_fails(mut command: Command, words: &[&str]) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it began");
    for word in words {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}

#[test]
fn what_keeps_it_from_beginning_is_said_and_it_ends_with_an_error() {
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
    check_fails(bad_filter, &["--log", "x=y=z"]);
}

/// Ends the agent when the test does.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_is_healthy_while_connected_small_and_ends_at_sigterm() {
    let mut gateway = Gateway::start(TOKEN).await;
    let dir = node();
    assert!(!health(dir.path()).status.success());
    let mut child = Ended(agent(dir.path(), &format!("ws://{}", gateway.address)).spawn().unwrap());
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
    assert!(!health(dir.path()).status.success(), "an ended agent looks healthy");
}
