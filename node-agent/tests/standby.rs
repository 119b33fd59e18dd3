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

/// How many supervisors wait.
const STANDBYS: usize = 2;

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

    /// The directories that the supervisors in waiting have prepared, and their pids.
    fn ready(&self) -> Vec<(PathBuf, i32)> {
        wait_for("prepared directories", || {
            let ready = ready_in(&self.attempts());
            let is_whole = ready.len() == STANDBYS && ready.iter().all(|(_, pid)| children(*pid).len() == 1);
            is_whole.then_some(ready)
        })
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

fn ready_in(attempts: &Path) -> Vec<(PathBuf, i32)> {
    let names = fs::read_dir(attempts).unwrap().map(|entry| entry.unwrap().file_name());
    let pid = |name: std::ffi::OsString| name.to_str()?.strip_prefix(".ready.")?.parse::<i32>().ok();
    names.filter_map(pid).map(|pid| (attempts.join(format!(".ready.{pid}")), pid)).collect()
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
    // The second is too large for the write-ahead log.
    for (number, padding) in [(1, 0), (2, 16 << 10)] {
        let ready = node.ready();
        let prepared: Vec<(u64, i32)> = ready
            .iter()
            .map(|(directory, supervisor)| (fs::metadata(directory).unwrap().ino(), children(*supervisor)[0]))
            .collect();
        let seen = node.dir.path().join("pid");
        let start = shell(number, &format!("echo $$ > {} # {}", seen.display(), "x".repeat(padding)));
        assert_eq!(node.outcome(&start).await, Outcome::Succeeded { exit_code: 0 });
        let command: i32 = fs::read_to_string(seen).unwrap().trim().parse().unwrap();
        let attempt = node.attempts().join(start.attempt.directory_name());
        let used = (fs::metadata(attempt).unwrap().ino(), command);
        assert!(prepared.contains(&used), "{used:?} of {prepared:?}");
        // The next one is prepared in another.
        let next = node.ready();
        assert!(next.iter().any(|(_, pid)| ready.iter().all(|(_, before)| before != pid)), "{next:?}");
    }
}

#[tokio::test]
async fn a_command_runs_though_its_prepared_process_was_killed() {
    let mut node = Node::new().await;
    for (_, supervisor) in node.ready() {
        kill(children(supervisor)[0]);
    }
    assert_eq!(node.outcome(&shell(1, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn a_command_runs_though_its_prepared_supervisor_was_killed() {
    let mut node = Node::new().await;
    let ready: Vec<i32> = node.ready().into_iter().map(|(_, pid)| pid).collect();
    let prepared: Vec<i32> = ready.iter().flat_map(|pid| children(*pid)).collect();
    for pid in &ready {
        kill(*pid);
    }
    wait_for("the prepared processes to end", || prepared.iter().all(|pid| !is_alive(*pid)).then_some(()));
    // The directory that a killed one has prepared has a record of its own start.
    let (attempts, seen) = (node.attempts(), node.dir.path().join("seen"));
    let command = format!("echo $PPID > {0}; cat {1}/*.1.1/state >> {0}", seen.display(), attempts.display());
    assert_eq!(node.outcome(&shell(1, &command)).await, Outcome::Succeeded { exit_code: 0 });
    let seen = fs::read_to_string(seen).unwrap();
    let (parent, state) = seen.split_once('\n').unwrap();
    assert!(ready.iter().all(|pid| pid.to_string() != parent), "{parent} of {ready:?}");
    assert!(state.contains(&format!("\"supervisor\":{{\"pid\":{parent},")), "{seen}");
}

/// The processes that any thread of an agent has started.
fn children_of_all_threads(agent: u32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{agent}/task")).unwrap();
    let children = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
    children
        .flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// The processes of an agent that fork supervisors.
fn fork_servers(agent: u32) -> Vec<i32> {
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children_of_all_threads(agent).into_iter().filter(|pid| name(pid).trim() == "fork-server").collect()
}

#[tokio::test]
async fn commands_run_though_the_fork_server_was_killed() {
    let mut node = Node::new().await;
    node.ready();
    let agent = node.agent.id();
    let [server] = fork_servers(agent)[..] else { panic!("not one fork server") };
    kill(server);
    // More than wait already.
    for number in 1..=4 {
        assert_eq!(node.outcome(&shell(number, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
    }
    let replaced = wait_for("another fork server", || fork_servers(agent).first().copied());
    assert_ne!(replaced, server);
}

fn zombies(agent: u32) -> Vec<i32> {
    children_of_all_threads(agent).into_iter().filter(|pid| !is_alive(*pid)).collect()
}

/// The answer of one that hung was later taken for that to the next request, and so on.
#[tokio::test]
async fn a_fork_server_that_hangs_is_replaced_and_leaves_nothing() {
    let mut node = Node::new().await;
    node.ready();
    let agent = node.agent.id();
    let [server] = fork_servers(agent)[..] else { panic!("not one fork server") };
    kill_process(Pid::from_raw(server).unwrap(), Signal::STOP).unwrap();
    for number in 1..=4 {
        assert_eq!(node.outcome(&shell(number, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
    }
    assert!(!is_alive(server));
    node.ready();
    wait_for("all that has ended to be reaped", || zombies(agent).is_empty().then_some(()));
}

#[tokio::test]
async fn a_command_has_the_policy_of_the_agent() {
    let mut node = Node::new().await;
    let seen = node.dir.path().join("policy");
    // The 41st field is the policy (proc_pid_stat(5)), and 0 is SCHED_OTHER.
    let command = format!("cut -d' ' -f41 /proc/$$/stat > {}", seen.display());
    assert_eq!(node.outcome(&shell(1, &command)).await, Outcome::Succeeded { exit_code: 0 });
    assert_eq!(fs::read_to_string(seen).unwrap().trim(), "0");
}

#[tokio::test]
async fn a_command_runs_though_its_prepared_directory_is_gone() {
    let mut node = Node::new().await;
    for (ready, _) in node.ready() {
        // Its supervisor may be writing to it still.
        wait_for("a directory to be removed", || {
            let _ = fs::remove_dir_all(&ready);
            (!ready.exists()).then_some(())
        });
    }
    assert_eq!(node.outcome(&shell(1, "exit 0")).await, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn a_killed_agent_leaves_nothing_that_was_prepared() {
    let node = Node::new().await;
    let ready = node.ready();
    let servers = fork_servers(node.agent.id());
    assert_eq!(servers.len(), 1);
    let supervisors: Vec<i32> = ready.iter().map(|(_, pid)| *pid).collect();
    let prepared = supervisors.iter().flat_map(|pid| children(*pid));
    let all: Vec<i32> = prepared.chain(supervisors.clone()).chain(servers).collect();
    kill(node.agent.id().cast_signed());
    wait_for("what the agent has started to end", || all.iter().all(|pid| !is_alive(*pid)).then_some(()));
    assert!(ready.iter().all(|(directory, _)| !directory.exists()));
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]), None | Some(b'Z' | b'X'))
}
