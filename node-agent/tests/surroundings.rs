//! The binary with unusual process attributes: whatever it inherits, its commands run with the same attributes, and SIGTERM
//! and SIGINT end the agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fixtures;
mod gateway;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fixtures::{PROGRAM, read_all, shell};
use gateway::{Control, Gateway, within};
use nix::sys::signal::Signal;
use sentinel_node_agent::journal::{AttemptDir, AttemptState};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::to_agent::{Start, ToAgent};

const TOKEN: &str = "a-token";

/// Prints the process attributes of a command.
const PROBE: &str = "grep -E '^Sig(Blk|Ign)' /proc/self/status; for l in t f d s c v n; do ulimit -S$l; done; umask; pwd; \
    ls /proc/self/fd; env | grep -vE '^SENTINEL_' | sort";

/// Signals that a parent may have ignored or blocked.
const SIGNALS: [&str; 14] = [
    "INT", "QUIT", "TERM", "CHLD", "PIPE", "USR1", "USR2", "ALRM", "TSTP", "TTIN", "TTOU", "XFSZ", "XCPU",
    "CONT",
];

/// A node's directory, and the agent that was started with some attributes.
struct WrappedAgent {
    dir: tempfile::TempDir,
    child: Child,
    control: Control,
}

impl Drop for WrappedAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl WrappedAgent {
    /// Starts the agent through `wrapper`, which executes its arguments.
    async fn start(wrapper: &[&str]) -> Self {
        let mut gateway = Gateway::start(TOKEN).await;
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, PermissionsExt::from_mode(0o400)).unwrap();
        let url = format!("ws://{}", gateway.address);
        let (program, arguments) = wrapper.split_first().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .args([PROGRAM, "--operator-url", &url, "--token-file"])
            .arg(&token)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let control = gateway.control().await;
        Self { dir, child, control }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn attempt(&self, start: &Start) -> AttemptDir {
        AttemptDir::at(self.state().join("attempts").join(start.attempt.directory_name()))
    }

    async fn send_start(&mut self, start: &Start) {
        self.control.send_message(ToAgent::Start(Box::new(start.clone()))).await;
    }

    /// Runs a command to its end; returns its output.
    async fn run(&mut self, start: &Start) -> String {
        self.send_start(start).await;
        let ended = self.control.ended(&start.attempt).await;
        assert_eq!(ended.outcome, Outcome::Succeeded { exit_code: 0 });
        let records = read_all(&self.attempt(start), ended.output.end);
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.data.iter().copied()).collect();
        String::from_utf8(bytes).unwrap()
    }

    async fn ends_at(&mut self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let ended = within("its end", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(ended.success(), "{ended:?}");
    }
}

/// The agent works with this wrapper, its commands have the usual attributes, and both signals end it.
async fn works_in(wrapper: &[&str]) {
    let mut plain = WrappedAgent::start(&["env", "-i"]).await;
    let usual = plain.run(&shell(1, PROBE)).await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut wrapped = WrappedAgent::start(wrapper).await;
        assert_eq!(wrapped.run(&shell(1, PROBE)).await, usual, "with {wrapper:?}");
        wrapped.ends_at(signal).await;
    }
}

/// The same with a shell that runs this first.
async fn works_after(shell: &str) {
    works_in(&["/bin/sh", "-c", &format!("{shell}\nexec \"$@\""), "sh"]).await;
}

#[tokio::test]
async fn a_command_gets_default_signals_and_the_documented_limits() {
    let seen = WrappedAgent::start(&["env", "-i"]).await.run(&shell(1, PROBE)).await;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"], "{seen}");
    // Processor time, file size, data, stack in KiB, core, addresses, descriptors.
    let (stack, core, descriptors) = (lines[5], lines[6], lines[8]);
    assert_eq!((stack, core, descriptors), ("8192", "0", "1024"), "{seen}");
    if fixtures::can_run_as_root() {
        let unlimited = [lines[2], lines[3], lines[4], lines[7]];
        assert_eq!(unlimited, ["unlimited"; 4], "{seen}");
    }
    assert_eq!(lines[9..15], ["0022", "/", "0", "1", "2", "3"], "{seen}");
    let names: Vec<&str> = lines[15..].iter().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "USER"], "{seen}");
}

#[tokio::test]
async fn ignored_signals_change_nothing() {
    let all = SIGNALS.map(|signal| format!("--ignore-signal={signal}"));
    for signal in &all {
        let mut wrapped = WrappedAgent::start(&["env", signal]).await;
        wrapped.run(&shell(1, "true")).await;
        wrapped.ends_at(Signal::SIGTERM).await;
    }
    let mut wrapper = vec!["env"];
    wrapper.extend(all.iter().map(String::as_str));
    works_in(&wrapper).await;
}

#[tokio::test]
async fn blocked_signals_change_nothing() {
    let all = SIGNALS.map(|signal| format!("--block-signal={signal}"));
    for signal in &all {
        let mut wrapped = WrappedAgent::start(&["env", signal]).await;
        wrapped.run(&shell(1, "true")).await;
        wrapped.ends_at(Signal::SIGTERM).await;
    }
    let mut wrapper = vec!["env"];
    wrapper.extend(all.iter().map(String::as_str));
    works_in(&wrapper).await;
}

#[tokio::test]
async fn an_ignored_sighup_stays_ignored() {
    let mut wrapped = WrappedAgent::start(&["env", "--ignore-signal=HUP"]).await;
    let pid = nix::unistd::Pid::from_raw(wrapped.child.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
    let seen = wrapped.run(&shell(1, "grep ^SigIgn /proc/self/status")).await;
    assert_eq!(seen, "SigIgn:\t0000000000000000\n", "its commands do not inherit that");
    wrapped.ends_at(Signal::SIGTERM).await;
}

#[tokio::test]
async fn low_soft_limits_change_nothing() {
    for limit in ["-t 3600", "-f 1", "-d 100000", "-v 4000000", "-n 20", "-s 512", "-c 0", "-u 20", "-l 0"] {
        works_after(&format!("ulimit -S {limit} || ulimit -S {}", limit.replace("-u", "-p"))).await;
    }
}

#[tokio::test]
async fn low_hard_limits_are_raised_where_allowed() {
    let raise = "ulimit -t 3600; ulimit -t unlimited";
    // Without CAP_SYS_RESOURCE a hard limit stays, and commands run within it.
    let may_raise =
        Command::new("/bin/sh").args(["-c", raise]).stderr(Stdio::null()).status().unwrap().success();
    for limit in ["-t 3600", "-d 100000", "-v 4000000", "-s 512", "-n 100"] {
        if may_raise && !limit.starts_with("-n") {
            works_after(&format!("ulimit {limit}")).await;
        } else {
            let mut wrapped =
                WrappedAgent::start(&["/bin/sh", "-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]).await;
            wrapped.run(&shell(1, "true")).await;
            wrapped.ends_at(Signal::SIGTERM).await;
        }
    }
}

#[tokio::test]
async fn a_pending_alarm_is_cancelled() {
    let mut wrapped = WrappedAgent::start(&["perl", "-e", "alarm 1; exec @ARGV", "--"]).await;
    wrapped.run(&shell(1, "sleep 1.5")).await;
    wrapped.ends_at(Signal::SIGTERM).await;
}

#[tokio::test]
async fn open_and_closed_descriptors_change_nothing() {
    works_after("exec 3</dev/null 4>/dev/null 7<>/dev/null 9</").await;
    works_after("exec <&-").await;
    works_after("exec >&- 2>&-").await;
    works_after("exec <&- >&- 2>&- 3</dev/null").await;
}

#[tokio::test]
async fn a_supervisor_does_not_keep_inherited_descriptors_open() {
    let mut wrapped = WrappedAgent::start(&["/bin/sh", "-c", "exec 7</dev/zero; exec \"$@\"", "sh"]).await;
    let start = shell(1, "exec sleep 60");
    wrapped.send_start(&start).await;
    wrapped.control.running(&start.attempt).await;
    let AttemptState::Running { supervisor, .. } = wrapped.attempt(&start).state().unwrap() else { panic!() };
    let open = descriptors(supervisor.pid);
    assert!(!open.iter().any(|target| target == "/dev/zero"), "{open:?}");
    assert!(!open.iter().any(|target| target.contains("inotify")), "{open:?}");
    let agent = descriptors(wrapped.child.id().cast_signed());
    assert!(!agent.iter().any(|target| target.contains("inotify")), "{agent:?}");
    let cancel = sentinel_protocol::to_agent::Cancel {
        attempt: start.attempt.clone(),
        spec_hash: start.spec_hash.clone(),
        epoch: start.epoch,
        requested_by: None,
    };
    wrapped.control.send_message(ToAgent::Cancel(cancel)).await;
    assert_eq!(wrapped.control.ended(&start.attempt).await.outcome, Outcome::Cancelled);
}

/// The targets of a process's descriptors.
fn descriptors(pid: i32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let target = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.unwrap().path()).ok();
    open.filter_map(target).map(|target| target.to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn environment_directory_and_priority_are_not_needed() {
    works_in(&["env", "-i"]).await;
    works_in(&["env", "LD_LIBRARY_PATH=/nowhere", "LD_BIND_NOW=1", "GLIBC_TUNABLES=x", "IFS=x", "PATH="])
        .await;
    works_after("mkdir -p /tmp/sentinel-gone.$$ && cd /tmp/sentinel-gone.$$ && rmdir ../sentinel-gone.$$")
        .await;
    works_in(&["nice", "-n", "19"]).await;
    works_in(&["setpriv", "--pdeathsig", "TERM"]).await;
    works_in(&["setsid"]).await;
    for umask in ["000", "777"] {
        works_after(&format!("umask {umask}")).await;
    }
}

#[tokio::test]
async fn files_are_closed_to_others_under_any_umask() {
    let mut wrapped = WrappedAgent::start(&["/bin/sh", "-c", "umask 000; exec \"$@\"", "sh"]).await;
    wrapped.run(&shell(1, "echo x")).await;
    let mut seen = 0;
    each_below(&wrapped.state(), &mut |path, mode| {
        seen += 1;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    });
    assert!(seen > 8, "{seen} files");
}

fn each_below(path: &Path, visit: &mut impl FnMut(&Path, u32)) {
    let metadata = fs::symlink_metadata(path).unwrap();
    visit(path, metadata.mode());
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each_below(&entry.unwrap().path(), visit);
        }
    }
}

/// Starts the agent, which has to fail; returns its standard error.
fn failed_start(dir: &Path, wrapper: &[&str]) -> String {
    let token = dir.join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, PermissionsExt::from_mode(0o400)).unwrap();
    let (program, arguments) = wrapper.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .args([PROGRAM, "--operator-url", "ws://127.0.0.1:1", "--token-file"])
        .arg(&token)
        .arg("--state-dir")
        .arg(dir.join("state"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let _ = fs::remove_file(&token);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn too_few_descriptors_fail_the_start_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = failed_start(dir.path(), &["/bin/sh", "-c", "ulimit -n 30; exec \"$@\"", "sh"]);
    assert!(stderr.contains("may open 30 files") && stderr.contains("LimitNOFILE="), "{stderr}");
}

#[test]
fn a_state_directory_writable_by_others_is_rejected() {
    if !fixtures::can_run_as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // A complete Attempt, as an agent creates it, that writes a file when it is run.
    let state = dir.path().join("state");
    let journal = sentinel_node_agent::journal::StateDir::open(&state).unwrap();
    let witness = dir.path().join("witness");
    let start = shell(1, &format!("touch {}", witness.display()));
    journal.create(sentinel_node_agent::journal::Accepted::now(start).unwrap()).unwrap();
    drop(journal);
    fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    let stderr = failed_start(dir.path(), &["env"]);
    assert!(stderr.contains("mode 0777") && stderr.contains("can be written to by other users"), "{stderr}");
    std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
    fs::set_permissions(&state, PermissionsExt::from_mode(0o755)).unwrap();
    let stderr = failed_start(dir.path(), &["env"]);
    assert!(stderr.contains("(uid 65534)") && stderr.contains("mode 0755"), "{stderr}");
    assert!(!witness.exists());
}

#[test]
fn a_request_owned_by_another_user_is_not_run() {
    if !fixtures::can_run_as_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let journal = sentinel_node_agent::journal::StateDir::open(dir.path()).unwrap();
    let accepted = |number| sentinel_node_agent::journal::Accepted::now(shell(number, "true")).unwrap();
    let of_file = journal.create(accepted(1)).unwrap();
    std::os::unix::fs::chown(of_file.path().join("request"), Some(65534), None).unwrap();
    let of_dir = journal.create(accepted(2)).unwrap();
    std::os::unix::fs::chown(of_dir.path(), Some(65534), None).unwrap();
    let linked = journal.create(accepted(3)).unwrap();
    fs::rename(linked.path().join("request"), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), linked.path().join("request")).unwrap();
    assert!(of_file.accepted().is_err());
    assert!(of_dir.try_lock().is_err());
    assert!(linked.accepted().is_err());
}
