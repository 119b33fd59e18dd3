//! A node that has run out of something: the outcome names it, its limit, and how to raise it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;
mod gateway;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fixtures::{PROGRAM, is_root, shell};
use gateway::{Control, Gateway, next_message, within};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_protocol::to_operator::ToOperator;

const TOKEN: &str = "a-token";

struct Agent {
    child: Child,
    control: Control,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// Starts an agent with its state in this directory.
    async fn start(wrapper: &[&str], dir: &Path, arguments: &[&str]) -> Self {
        Self::start_limited(wrapper, dir, arguments, None).await
    }

    /// The same, with a limit from before its Session.
    async fn start_limited(
        wrapper: &[&str],
        dir: &Path,
        arguments: &[&str],
        limited: Option<(&str, usize)>,
    ) -> Self {
        let mut gateway = Gateway::start(TOKEN).await;
        let token = dir.join("token");
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, PermissionsExt::from_mode(0o400)).unwrap();
        chown(&token, Some(fs::metadata(dir).unwrap().uid()), None).unwrap();
        let (program, own) = wrapper.split_first().unwrap();
        let child = Command::new(program)
            .args(own)
            .args([PROGRAM, "--operator-url", &format!("ws://{}", gateway.address)])
            .arg("--token-file")
            .arg(&token)
            .arg("--state-dir")
            .arg(dir.join("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut socket = gateway.control_socket().await;
        let ToOperator::Hello(hello) = next_message(&mut socket).await else { panic!("no Hello") };
        if let Some((resource, to)) = limited {
            limit(&child, resource, to);
        }
        let control = gateway.welcome(socket, hello).await;
        Self { child, control }
    }

    async fn send_start(&mut self, start: &Start) {
        self.control.send_message(ToAgent::Start(Box::new(start.clone()))).await;
    }

    async fn outcome(&mut self, start: &Start) -> Outcome {
        self.send_start(start).await;
        within("the end", self.control.ended(&start.attempt)).await.outcome
    }

    fn limit(&self, resource: &str, to: usize) {
        limit(&self.child, resource, to);
    }

    async fn refusal(&mut self, start: &Start) -> Refusal {
        self.send_start(start).await;
        within("a refusal", self.control.refused()).await.refusal
    }
}

/// Changes a limit of the agent, and of what it has started if that may start processes.
fn limit(agent: &Child, resource: &str, to: usize) {
    let agent = agent.id().to_string();
    let mut limited = vec![agent.clone()];
    if resource == "nproc" {
        for thread in fs::read_dir(format!("/proc/{agent}/task")).unwrap() {
            let children = fs::read_to_string(thread.unwrap().path().join("children")).unwrap();
            limited.extend(children.split_whitespace().map(str::to_owned));
        }
    }
    // The limits of another user's process are closed to a root without CAP_SYS_RESOURCE.
    let owner = fs::metadata(format!("/proc/{agent}")).unwrap();
    let (uid, gid) = (owner.uid().to_string(), owner.gid().to_string());
    let limit = format!("--{resource}={to}:{to}");
    for pid in limited {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "prlimit", "--pid", &pid, &limit]);
        assert!(command.status().unwrap().success());
    }
}

const UNPRIVILEGED_UID: u32 = 65534;

#[tokio::test]
async fn running_out_of_processes_names_their_limit() {
    if !fixtures::can_run_as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(UNPRIVILEGED_UID), None).unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut agent = Agent::start(&user, dir.path(), &[]).await;
    agent.limit("nproc", 1);
    // The preforked supervisors take the first ones.
    agent.outcome(&shell(1, "true")).await;
    agent.outcome(&shell(2, "true")).await;
    let Outcome::StartFailed { reason: StartFailure::OutOfResources, message } =
        agent.outcome(&shell(3, "true")).await
    else {
        panic!("it was started")
    };
    for expected in ["uid 65534 has as many processes", "1 (ulimit -u)", "LimitNPROC="] {
        assert!(message.contains(expected), "{message}");
    }
}

/// Its runtime panicked when it had no thread for a blocking call, and could start none.
#[tokio::test]
async fn without_a_process_left_the_agent_stays_connected() {
    if !fixtures::can_run_as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(UNPRIVILEGED_UID), None).unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut agent = Agent::start_limited(&user, dir.path(), &[], Some(("nproc", 1))).await;
    // The preforked supervisors take the first ones.
    agent.outcome(&shell(1, "true")).await;
    agent.outcome(&shell(2, "true")).await;
    let outcome = agent.outcome(&shell(3, "true")).await;
    assert!(matches!(outcome, Outcome::StartFailed { .. }), "{outcome:?}");
}

/// *Running* was recorded only after some milliseconds. If the supervisor was killed before that, its command kept running
/// unsupervised: without a control group, only that record identifies it.
#[tokio::test]
async fn a_command_whose_supervisor_is_killed_at_once_is_ended_without_control_groups() {
    if !fixtures::can_run_as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(UNPRIVILEGED_UID), None).unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut agent = Agent::start(&user, dir.path(), &[]).await;
    let pid = dir.path().join("pid");
    let command = format!("echo $$ > {}; kill -9 $PPID; exec sleep 300", pid.display());
    let outcome = agent.outcome(&shell(1, &command)).await;
    // By whether *running* was recorded before.
    assert!(matches!(outcome, Outcome::Interrupted { .. } | Outcome::Lost { .. }), "{outcome:?}");
    let pid = fs::read_to_string(pid).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[tokio::test]
async fn running_out_of_descriptors_names_their_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&["env"], dir.path(), &[]).await;
    // All numbers below are in use, so no other is available.
    let limit = 3;
    agent.limit("nofile", limit);
    let refusal = agent.refusal(&shell(1, "true")).await;
    let Refusal::JournalUnsafe { message } = refusal else { panic!("{refusal:?}") };
    for expected in [&format!("no file descriptor left of its {limit}"), "ulimit -n", "LimitNOFILE="] {
        assert!(message.contains(expected), "{message}");
    }
}

/// A file system of a test's own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn with(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let tmpfs = Some("tmpfs");
        if !is_root() || mount(tmpfs, dir.path(), tmpfs, MsFlags::empty(), Some(options)).is_err() {
            fixtures::cannot_run("it needs root and a tmpfs");
            return None;
        }
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        Some(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn running_out_of_inodes_is_named() {
    let Some(disk) = Disk::with("size=128m,nr_inodes=64") else { return };
    let mut agent = Agent::start(&["env"], disk.0.path(), &[]).await;
    let attempts = disk.0.path().join("state/attempts");
    fixtures::wait_for("a prepared directory", || {
        let mut names = fs::read_dir(&attempts).ok()?.map(|entry| entry.unwrap().path());
        names.find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(".ready.")
                && path.join("log/reserve").exists()
                && path.join("state.starting").exists()
        })
    });
    for number in 0.. {
        if fs::write(disk.0.path().join(number.to_string()), "").is_err() {
            break;
        }
    }
    // What was prepared suffices for these.
    for number in 1..=2 {
        assert_eq!(agent.outcome(&shell(number, "true")).await, Outcome::Succeeded { exit_code: 0 });
    }
    let refusal = agent.refusal(&shell(3, "true")).await;
    let Refusal::JournalUnsafe { message } = refusal else { panic!("{refusal:?}") };
    assert!(message.contains("inode") && message.contains(" left of 64; remove files there"), "{message}");
}

#[tokio::test]
async fn a_full_disk_is_refused_by_name_and_small_commands_run() {
    let Some(disk) = Disk::with("size=8m") else { return };
    let mut agent = Agent::start(&["env"], disk.0.path(), &[]).await;
    let refusal = agent.refusal(&shell(1, "true")).await;
    let state = disk.0.path().join("state").canonicalize().unwrap();
    assert!(
        matches!(&refusal, Refusal::DiskLow { needed, directory: Some(directory), .. }
            if *needed == 64 << 20 && *directory == state.display().to_string()),
        "{refusal:?}"
    );
    let mut small = shell(2, "echo cleaned");
    small.request.output.spool = 1 << 20;
    assert_eq!(agent.outcome(&small).await, Outcome::Succeeded { exit_code: 0 });

    drop(agent);
    let mut agent = Agent::start(&["env"], disk.0.path(), &["--min-free", "1Mi"]).await;
    assert_eq!(agent.outcome(&shell(3, "true")).await, Outcome::Succeeded { exit_code: 0 });
}

#[tokio::test]
async fn without_wakeup_pipes_the_agent_polls() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::set_permissions(dir.path().join("state"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("state/bell"), "in the way").unwrap();
    let mut agent = Agent::start(&["env"], dir.path(), &[]).await;
    assert_eq!(agent.outcome(&shell(1, "echo x")).await, Outcome::Succeeded { exit_code: 0 });
    let start = shell(2, "exec sleep 60");
    agent.send_start(&start).await;
    agent.control.running(&start.attempt).await;
    let cancel = sentinel_protocol::to_agent::Cancel {
        attempt: start.attempt.clone(),
        spec_hash: start.spec_hash.clone(),
        epoch: start.epoch,
        requested_by: None,
    };
    agent.control.send_message(ToAgent::Cancel(cancel)).await;
    assert_eq!(agent.control.ended(&start.attempt).await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn environment_host_is_unavailable_without_host_pids() {
    let dir = tempfile::tempdir().unwrap();
    // A pid namespace of its own, as a pod without hostPID has.
    let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let probe = Command::new("unshare").args(&unshare[1..]).arg("true").status();
    if !is_root() || !probe.is_ok_and(|status| status.success()) {
        return fixtures::cannot_run("it needs root and a pid namespace (unshare --pid)");
    }
    let mut agent = Agent::start(&unshare, dir.path(), &["--profile", "host"]).await;
    let mut host = shell(1, "true");
    host.request.environment = sentinel_protocol::request::Environment::Host;
    let refusal = agent.refusal(&host).await;
    let message = refusal.to_string();
    assert!(matches!(refusal, Refusal::EnvironmentUnavailable { .. }), "{refusal:?}");
    assert!(message.contains("Host") && message.contains("hostPID: true"), "{message}");
    assert_eq!(agent.outcome(&shell(2, "true")).await, Outcome::Succeeded { exit_code: 0 });
}
