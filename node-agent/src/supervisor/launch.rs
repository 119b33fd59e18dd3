//! Starts supervisors; the agent's side.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cgroup;
use super::entry::{ARGUMENT, HOST_IS_HERE};
use crate::journal::AttemptDir;

/// How often control groups of commands that are over are removed, if they are empty by then.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Whether one supervisor is kept waiting, so that a start does not pay for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warm {
    /// One waits.
    Yes,
    /// None does; for many agents in one process.
    No,
}

/// What the host is to commands that ask for `environment: Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The machine that the node's process 1 is on: its namespaces are entered, where they are others than ours.
    OfProcess1,
    /// The machine that this process is on: there is nothing to enter.
    Here,
}

/// Why a supervisor could not be started. The Attempt is as it was: accepted.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The process could not be made.
    #[error("unable to start a supervisor")]
    Spawn(#[source] io::Error),
    /// It went away before it took its Attempt.
    #[error("unable to hand the attempt to its supervisor")]
    HandOver(#[source] io::Error),
}

/// Starts supervisors. When it is dropped, the one that waits ends; those that have an Attempt go on.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    warm: Warm,
    host: Host,
    waiting: Option<Child>,
    running: Vec<Child>,
    /// Supervisors that ended, until their control groups are gone: those of the last minute, and those whose commands
    /// left a living process.
    ended: HashSet<u32>,
    swept_at: Instant,
}

impl Launcher {
    /// Starts supervisors from this very binary, also when its file was replaced meanwhile.
    pub fn new(warm: Warm, host: Host) -> Self {
        Self::with("/proc/self/exe", warm, host)
    }

    /// Starts supervisors from another binary, which calls [`super::main`].
    pub fn of(program: impl Into<PathBuf>, warm: Warm) -> Self {
        Self::with(program, warm, Host::OfProcess1)
    }

    /// Starts supervisors from another binary, whose commands find the host here.
    pub fn with(program: impl Into<PathBuf>, warm: Warm, host: Host) -> Self {
        let mut launcher = Self {
            program: program.into(),
            warm,
            host,
            waiting: None,
            running: Vec::new(),
            ended: HashSet::new(),
            swept_at: Instant::now(),
        };
        cgroup::sweep();
        launcher.warm_up();
        launcher
    }

    /// Hands an accepted Attempt to a supervisor. Harmless to repeat: only one of them gets the Attempt's lock, and
    /// it starts nothing unless the Attempt is still *accepted*.
    ///
    /// # Errors
    /// When no supervisor could be started.
    pub fn launch(&mut self, attempt: &AttemptDir) -> Result<(), LaunchError> {
        self.reap_supervisors();
        let handed_over = match self.waiting.take() {
            Some(waiting) => self.hand_over(waiting, attempt),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if handed_over.is_err() {
            let fresh = self.spawn().map_err(LaunchError::Spawn)?;
            self.hand_over(fresh, attempt).map_err(LaunchError::HandOver)?;
        }
        self.warm_up();
        Ok(())
    }

    /// Takes note of supervisors that ended, so that they are no zombies, and once a minute removes control groups
    /// that a command had left processes in and that are empty now. To be called every few seconds.
    pub fn reap(&mut self) {
        self.reap_supervisors();
        if self.swept_at.elapsed() >= SWEEP_EVERY {
            self.swept_at = Instant::now();
            cgroup::sweep_ended(&mut self.ended);
        }
    }

    fn reap_supervisors(&mut self) {
        let ended = &mut self.ended;
        self.running.retain_mut(|child| {
            let runs = matches!(child.try_wait(), Ok(None));
            if !runs {
                ended.insert(child.id());
            }
            runs
        });
        if self.waiting.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            self.waiting = None;
        }
    }

    /// Supervisors that this launcher started and that have not ended.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn warm_up(&mut self) {
        if self.warm == Warm::Yes && self.waiting.is_none() {
            // Without one the next start is slower, or fails and says why.
            self.waiting = self.spawn().ok();
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        // Nothing here may make std fork instead of posix_spawn: a large agent would pay for its page tables.
        Command::new(&self.program)
            .arg(ARGUMENT)
            .args(match self.host {
                Host::OfProcess1 => None,
                Host::Here => Some(HOST_IS_HERE),
            })
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
    }

    fn hand_over(&mut self, mut supervisor: Child, attempt: &AttemptDir) -> io::Result<()> {
        // Closed right behind the path: after this nothing connects the two.
        let sent = match supervisor.stdin.take() {
            Some(mut stdin) => stdin.write_all(attempt.path().as_os_str().as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        self.running.push(supervisor);
        sent
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if let Some(mut waiting) = self.waiting.take() {
            drop(waiting.stdin.take());
            // It ends at once, as its input has.
            let _ = waiting.wait();
        }
    }
}
