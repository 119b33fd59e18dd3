//! What a supervisor prepares before it has an Attempt: used when it exists, and not needed when it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;
mod gateway;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fixtures::{shell, wait_for};
use gateway::{Control, Gateway};
use rustix::process::{Pid, Signal, kill_process};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_agent::{Start, ToAgent};

const TOKEN: &str = "a-token";

/// An agent in a process of its own, and its operator.
struct Node {
    dir: tempfile::TempDir,
    agent: Child,
    control: Control,
    _gateway: Gateway,
}

impl Node {
    async fn new() -> Self {
        let mut gateway = Gateway::start(TOKEN).await;
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, PermissionsExt::from_mode(0o400)).unwrap();
        let mut command = Command::new(fixtures::PROGRAM);
        command.env_clear().arg("--operator-url").arg(format!("ws://{}", gateway.address));
        command.arg("--token-file").arg(token).arg("--state-dir").arg(dir.path().join("state"));
        let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let control = gateway.control().await;
        Self { dir, agent, control, _gateway: gateway }
    }

    fn attempts(&self) -> PathBuf {
        self.dir.path().join("state/attempts")
    }

    /// The directory that the supervisor in waiting has prepared, and its pid.
    fn ready(&self) -> (PathBuf, i32) {
        wait_for("a prepared directory", || ready_in(&self.attempts()))
    }

    async fn outcome(&mut self, start: &Start) -> Outcome {
        self.control.send_message(ToAgent::Start(Box::new(start.clone()))).await;
        self.control.ended(&start.attempt).await.outcome
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn ready_in(attempts: &Path) -> Option<(PathBuf, i32)> {
    let mut names = fs::read_dir(attempts).unwrap().map(|entry| entry.unwrap().file_name());
    let pid: i32 = names.find_map(|name| name.to_str()?.strip_prefix(".ready.")?.parse().ok())?;
    Some((attempts.join(format!(".ready.{pid}")), pid))
}

/// The processes that this one has started: of a supervisor, the one that becomes the command.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn an_attempt_gets_the_directory_and_the_process_that_were_prepared() {
    let mut node = Node::new().await;
    let (ready, supervisor) = node.ready();
    let inode = fs::metadata(&ready).unwrap().ino();
    let prepared = children(supervisor);
    let seen = node.dir.path().join("pid");
    let start = shell(1, &format!("echo $$ > {}", seen.display()));
    assert_eq!(node.outcome(&start).await, Outcome::Succeeded { exit_code: 0 });
    let command: i32 = fs::read_to_string(seen).unwrap().trim().parse().unwrap();
    assert_eq!(prepared, [command]);
    let attempt = node.attempts().join(start.attempt.directory_name());
    assert_eq!(fs::metadata(attempt).unwrap().ino(), inode);
    // The next one is prepared in another.
    assert_ne!(node.ready().1, supervisor);
}

#[tokio::test]
async fn a_command_runs_though_its_prepared_process_was_killed() {
    let mut node = Node::new().await;
    let (_, supervisor) = node.ready();
    let prepared = children(supervisor);
    let [waiting] = prepared[..] else { panic!("{prepared:?}") };
    kill(waiting);
    assert_eq!(node.outcome(&shell(1, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn a_command_runs_though_its_prepared_supervisor_was_killed() {
    let mut node = Node::new().await;
    let (_, supervisor) = node.ready();
    let prepared = children(supervisor);
    kill(supervisor);
    wait_for("the prepared process to end", || prepared.iter().all(|pid| !is_alive(*pid)).then_some(()));
    assert_eq!(node.outcome(&shell(1, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn a_command_runs_though_its_prepared_directory_is_gone() {
    let mut node = Node::new().await;
    let (ready, _) = node.ready();
    fs::remove_dir_all(ready).unwrap();
    assert_eq!(node.outcome(&shell(1, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn a_killed_agent_leaves_nothing_that_was_prepared() {
    let node = Node::new().await;
    let (ready, supervisor) = node.ready();
    let prepared = children(supervisor);
    kill(node.agent.id().cast_signed());
    wait_for("the supervisor to end", || (!is_alive(supervisor)).then_some(()));
    assert!(prepared.iter().all(|pid| !is_alive(*pid)));
    assert!(!ready.exists());
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]), None | Some(b'Z' | b'X'))
}
