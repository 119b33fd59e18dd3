//! Our own programs as real processes: started, stopped, killed, and measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// A program of ours that runs. Killed when it is dropped.
pub struct Program {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Program {
    /// Starts a program built by this workspace. What it prints goes to `<directory>/<label>.log`.
    pub fn start(name: &str, label: &str, directory: &Path, arguments: &[String]) -> Self {
        Self::start_binary(&binary(name), label, directory, arguments)
    }

    /// The same for any program.
    pub fn start_binary(path: &Path, label: &str, directory: &Path, arguments: &[String]) -> Self {
        let log = directory.join(format!("{label}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(path)
            .args(arguments)
            .env_remove("SENTINEL_PARTS")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", path.display()));
        Self { child, log, name: label.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended; its log:\n{}", self.name, self.log_tail()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Kills it, and waits for its end.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Asks it to end, and returns its exit code.
    pub async fn stop(mut self, within: Duration) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => status.expect("waited").code(),
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("{} did not end within {within:?}; its log:\n{}", self.name, self.log_tail())
            }
        }
    }

    /// The exit code, once it has exited.
    pub async fn wait(mut self, within: Duration) -> Option<i32> {
        tokio::time::timeout(within, self.child.wait())
            .await
            .expect("it ends in time")
            .expect("waited")
            .code()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Where cargo put a program of this workspace, for the profile of the running test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder =
        test.ancestors().find(|path| path.ends_with("deps")).and_then(Path::parent).or(test.parent());
    let path = folder.expect("a target folder").join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}
