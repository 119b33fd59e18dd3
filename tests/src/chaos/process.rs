//! One process of the system: restarted when it exits, as a kubelet would, and a target of faults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_operator::kill_point::VARIABLE;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// How long a process that exited stays down: a kubelet's first back-off, shortened.
const BACK_OFF: Duration = Duration::from_millis(500);

/// A process that is started again whenever it ends. Killed when the last handle is dropped.
pub struct Process {
    /// What it is called in the report.
    pub name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    unexpected_exits: AtomicU64,
    stop_timeouts: AtomicU64,
}

impl Process {
    /// Describes it, and starts nothing.
    pub fn new(name: &str, program: PathBuf, arguments: Vec<OsString>, log: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            program,
            arguments,
            log,
            child: Mutex::new(None),
            unexpected_exits: AtomicU64::new(0),
            stop_timeouts: AtomicU64::new(0),
        })
    }

    /// The same process as it would be on another machine: with the boot id in this file. As root.
    pub fn elsewhere(&self, boot_id: &Path) -> Arc<Self> {
        let before = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let [shell, flag, before] = ["sh", "-c", before].map(OsString::from);
        self.unshared(&["--mount"], [shell, flag, before, boot_id.into()])
    }

    /// The same process as it would be in a container: the first in a namespace of process ids of its own, so that all
    /// others in it end with it. As root.
    pub fn contained(&self) -> Arc<Self> {
        self.unshared(&["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"], [])
    }

    fn unshared<const N: usize>(&self, flags: &[&str], before: [OsString; N]) -> Arc<Self> {
        let mut arguments: Vec<OsString> = flags.iter().map(OsString::from).collect();
        arguments.push("--".into());
        arguments.extend(before);
        arguments.push(self.program.clone().into());
        arguments.extend(self.arguments.iter().cloned());
        Self::new(&self.name, PathBuf::from("unshare"), arguments, self.log.clone())
    }

    /// Starts it, unless it runs.
    pub async fn start(&self) {
        let mut child = self.child.lock().await;
        if child.is_none() {
            *child = Some(self.spawn());
        }
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log file");
        // Not in our process group, so that a Ctrl-C is ours alone; gone with us, should we be killed.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(&self.arguments)
            .env_remove("SENTINEL_PARTS")
            .env("RUST_BACKTRACE", "1")
            // Where kill points of an operator are armed.
            .envs(self.log.parent().map(|directory| (VARIABLE, directory.join("kill-points"))))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()))
    }

    /// Restarts it when it has exited; to be called a few times a second.
    pub async fn restart_if_exited(&self) {
        let Ok(mut child) = self.child.try_lock() else { return };
        let Some(running) = child.as_mut() else { return };
        if let Ok(Some(status)) = running.try_wait() {
            self.unexpected_exits.fetch_add(1, Ordering::Relaxed);
            println!("{} exited: {status}", self.name);
            tokio::time::sleep(BACK_OFF).await;
            *child = Some(self.spawn());
        }
    }

    /// Process id, when it runs and no fault holds it.
    pub fn pid(&self) -> Option<u32> {
        self.child.try_lock().ok().and_then(|child| child.as_ref().and_then(Child::id))
    }

    /// SIGKILL; started again after `down`. False when another fault holds it.
    pub async fn kill(&self, down: Duration) -> bool {
        let Ok(mut child) = self.child.try_lock() else { return false };
        if let Some(mut running) = child.take() {
            let _ = running.kill().await;
        }
        tokio::time::sleep(down).await;
        *child = Some(self.spawn());
        true
    }

    /// SIGSTOP, and SIGCONT after `frozen`. False when another fault holds it.
    pub async fn freeze(&self, frozen: Duration) -> bool {
        let Ok(child) = self.child.try_lock() else { return false };
        let Some(pid) = child.as_ref().and_then(Child::id) else { return false };
        signal(pid, Signal::SIGSTOP);
        tokio::time::sleep(frozen).await;
        signal(pid, Signal::SIGCONT);
        true
    }

    /// SIGTERM, and started again when it has ended; SIGKILL when it does not within `patience`.
    pub async fn restart(&self, patience: Duration) -> bool {
        let Ok(mut child) = self.child.try_lock() else { return false };
        if let Some(mut running) = child.take() {
            if let Some(pid) = running.id() {
                signal(pid, Signal::SIGTERM);
            }
            if tokio::time::timeout(patience, running.wait()).await.is_err() {
                self.stop_timeouts.fetch_add(1, Ordering::Relaxed);
                let _ = running.kill().await;
            }
        }
        *child = Some(self.spawn());
        true
    }

    /// Kills it for good.
    pub async fn end(&self) {
        let mut child = self.child.lock().await;
        if let Some(mut running) = child.take() {
            let _ = running.kill().await;
        }
    }

    /// How often it exited unexpectedly.
    pub fn unexpected_exits(&self) -> u64 {
        self.unexpected_exits.load(Ordering::Relaxed)
    }

    /// How often it did not exit in time on SIGTERM.
    pub fn stop_timeouts(&self) -> u64 {
        self.stop_timeouts.load(Ordering::Relaxed)
    }

    /// All that it printed, over all of its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}
