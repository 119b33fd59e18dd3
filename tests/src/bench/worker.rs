//! Worker processes: this program again, in another role.

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The first argument of a worker.
pub(super) const ARGUMENT: &str = "__role";

/// The role of a program that is not ours.
pub(super) const OTHER: &str = "other";

/// What a process needs for 15,000 agents and whatever else it opens.
pub(super) const DESCRIPTORS: u64 = 20_000;

/// A single-threaded runtime: whatever measures must not wake other threads.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A worker process. Requests and answers are lines of JSON; it ends when this process does.
pub(super) struct Worker {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one.
    pub(super) fn start(role: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .arg(ARGUMENT)
            .arg(role)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a child process");
        let stdin = child.stdin.take().expect("its input");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, stdin, lines }
    }

    /// Starts a program that is not ours; it ends when this process does, as ours do.
    pub(super) fn start_other(program: &str, arguments: &[&str]) -> Self {
        Self::start(OTHER, &[&[program], arguments].concat())
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().expect("it has ended")
    }

    /// Sends it a value.
    pub(super) async fn send(&mut self, value: &impl Serialize) {
        let mut line = serde_json::to_vec(value).expect("JSON");
        line.push(b'\n');
        self.stdin.write_all(&line).await.expect("the worker reads");
    }

    /// Its next line.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> T {
        let line = self.lines.next_line().await.expect("the worker writes").expect("the worker runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Ends it.
    pub(super) async fn end(mut self) {
        self.child.kill().await.expect("killed");
    }
}

/// In a worker: a line from the parent.
pub(super) fn read_line<T: DeserializeOwned>() -> T {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    serde_json::from_str(&line).expect("JSON")
}

/// In a worker: a line to the parent.
pub(super) fn write_line(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("JSON"));
}

/// In a worker: ends when the parent does, and may open as many descriptors as it can.
pub(super) fn die_with_parent() {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("a signal at the parent's end");
    raise_descriptors();
}

/// How many descriptors this process may open from now on: as many as it can have.
pub(super) fn raise_descriptors() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // Root may go further.
    let wanted = most.max(DESCRIPTORS);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return wanted;
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a higher limit");
    most
}

/// In a worker: becomes a program that is not ours. It keeps the signal at the parent's end, and the limits.
pub(super) fn other(arguments: &[String]) -> ! {
    let error = std::process::Command::new(&arguments[0]).args(&arguments[1..]).exec();
    panic!("cannot start {}: {error}", arguments[0])
}
