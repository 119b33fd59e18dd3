//! Starts supervisors: the agent's side.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, WaitOptions, waitpid};

use sentinel_secrets::values::SecretValues;
use zeroize::Zeroizing;

use super::cgroup;
use super::fork_server::{ForkError, ForkServer};
use super::invocation::{CONFIRMED, HostNamespaces, LOGGED, PLAIN, REFUSED};
use crate::error_category::ErrorCategory;
use crate::journal::{AttemptDir, ready_name};
use crate::process::ProcessIdentity;

/// How often empty control groups of commands that have ended are removed.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// How long a fork server is kept where no supervisor is started in advance.
const SERVER_KEPT_FOR: Duration = Duration::from_secs(5);

/// How long after a failure the next supervisor is started in advance.
const PREFORK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Supervisors that wait for an Attempt.
const STANDBYS: usize = 2;

/// What a pipe takes without being read, bytes; more is made room for.
const PIPE_TAKES: usize = 32 << 10;

/// How long a supervisor may take to read the values of Secrets that its pipe has no room for. The agent's loop waits with it.
const READS_WITHIN: Duration = Duration::from_secs(2);

/// Whether supervisors are started in advance, so that a start does not wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefork {
    /// Two are, and are replaced.
    On,
    /// None is; for many agents in one process. What forks them ends a few seconds after the last start.
    Off,
}

/// Why a supervisor could not be started. The Attempt is unchanged: accepted.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The process could not be created.
    #[error("unable to start a supervisor")]
    Spawn(#[source] io::Error),
    /// It exited before it received its Attempt.
    #[error("unable to hand the attempt to its supervisor")]
    HandOver(#[source] io::Error),
}

impl LaunchError {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Spawn(error) | Self::HandOver(error) => ErrorCategory::of_io(error),
        }
    }

    /// Whether launching again may succeed. The Attempt is unchanged, so it may always be tried.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// A supervisor without an Attempt.
#[derive(Debug)]
struct Supervisor {
    pid: Pid,
    stdin: File,
    /// `None` where it could not be read.
    identity: Option<ProcessIdentity>,
}

impl Supervisor {
    /// Ends it.
    fn end(self) {
        drop(self.stdin);
        // It exits at once, at end-of-file.
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
}

/// Whether this child has ended; then it is reaped.
fn has_ended(pid: Pid) -> bool {
    !matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// How the start of an Attempt is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartRecord {
    /// The supervisor does it.
    BySupervisor,
    /// It is in the write-ahead log, and is confirmed once the log was synced.
    InLog,
}

/// An Attempt that was handed over, whose start is to be confirmed. Dropped, as by an agent that is killed, the supervisor makes the
/// start durable itself.
#[derive(Debug)]
#[must_use]
pub struct Unconfirmed(Option<File>);

impl Unconfirmed {
    /// The start is durable: the command may be executed.
    pub fn confirm(self) {
        self.answer(CONFIRMED);
    }

    /// The start could not be made durable: the command must not be executed.
    pub fn refuse(self) {
        self.answer(REFUSED);
    }

    fn answer(self, answer: u8) {
        if let Some(mut supervisor) = self.0 {
            // One that has ended is found by its lock.
            let _ = supervisor.write_all(&[answer]);
        }
    }
}

/// Starts supervisors. When it is dropped, the idle ones exit; those that have an Attempt continue.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    prefork: Prefork,
    host: HostNamespaces,
    /// Where an idle supervisor prepares a directory.
    state_dir: Option<PathBuf>,
    /// What commands do not see.
    hidden: Vec<PathBuf>,
    /// What forks supervisors; `None` until one is needed.
    server: Option<ForkServer>,
    idle: VecDeque<Supervisor>,
    /// Supervisors whose prepared directory is an Attempt's already, by its name.
    bound: HashMap<String, Supervisor>,
    running: Vec<Pid>,
    /// When a supervisor was last needed.
    used_at: Instant,
    /// Until when none is started in advance, as that has failed.
    prefork_from: Instant,
    /// Fork servers that have died or hung.
    replaced: u64,
    /// Supervisors that have ended, until their control groups are removed: those of the last minute, and those whose
    /// commands left a process.
    ended: HashSet<u32>,
    swept_at: Instant,
}

impl Launcher {
    /// Starts supervisors from the binary of this process, even when its file has been replaced.
    pub fn new(prefork: Prefork, host: HostNamespaces) -> Self {
        Self::with("/proc/self/exe", prefork, host)
    }

    /// Starts supervisors from another binary, which calls [`super::main`].
    pub fn of(program: impl Into<PathBuf>, prefork: Prefork) -> Self {
        Self::with(program, prefork, HostNamespaces::OfInit)
    }

    /// Starts supervisors from another binary, with these namespaces as the host's.
    pub fn with(program: impl Into<PathBuf>, prefork: Prefork, host: HostNamespaces) -> Self {
        cgroup::sweep();
        Self {
            program: program.into(),
            prefork,
            host,
            state_dir: None,
            hidden: Vec::new(),
            server: None,
            idle: VecDeque::new(),
            bound: HashMap::new(),
            running: Vec::new(),
            used_at: Instant::now(),
            prefork_from: Instant::now(),
            replaced: 0,
            ended: HashSet::new(),
            swept_at: Instant::now(),
        }
    }

    /// Has supervisors prepare a directory in this state directory. To be called before any is started.
    #[must_use]
    pub fn preparing_in(mut self, state_dir: &Path) -> Self {
        self.state_dir = Some(state_dir.to_owned());
        self
    }

    /// Hides these files and directories of the agent from commands, unless they are privileged. To be called before any supervisor is
    /// started.
    #[must_use]
    pub fn hiding(mut self, paths: Vec<PathBuf>) -> Self {
        self.hidden = paths;
        self
    }

    /// The name of the directory that the next supervisor prepares; it may not exist yet.
    pub(crate) fn ready_name(&self) -> Option<String> {
        self.state_dir.as_ref().and(self.idle.front()).map(|idle| ready_name(number(idle.pid)))
    }

    /// Notes that the prepared directory has become an Attempt's: no other one is handed to its supervisor.
    pub(crate) fn bind(&mut self, attempt: &AttemptDir) {
        if let Some(idle) = self.idle.pop_front() {
            self.bound.insert(attempt.name().to_owned(), idle);
        }
    }

    /// Ends the supervisor that is bound to an Attempt, as the Attempt is not to be started. Its lock is free then.
    pub(crate) fn unbind(&mut self, attempt: &AttemptDir) {
        if let Some(bound) = self.bound.remove(attempt.name()) {
            bound.end();
        }
    }

    /// Hands an accepted Attempt to a supervisor, which records its start and makes it durable. See [`Self::launch_with`].
    ///
    /// # Errors
    /// When no supervisor could be started.
    pub fn launch(&mut self, attempt: &AttemptDir) -> Result<(), LaunchError> {
        self.launch_with(attempt, None, |_| StartRecord::BySupervisor).map(drop)
    }

    /// Hands an accepted Attempt to a supervisor, with the values of the Secrets that its command needs, if it needs any; `record` may
    /// write its start to the log before. The next supervisor is started by
    /// [`Self::prefork`]. Idempotent: only one of them gets the Attempt's lock, and it starts nothing unless the Attempt is still
    /// *accepted*.
    ///
    /// # Errors
    /// When no supervisor could be started.
    pub fn launch_with(
        &mut self,
        attempt: &AttemptDir,
        secrets: Option<&SecretValues>,
        record: impl Fn(&ProcessIdentity) -> StartRecord,
    ) -> Result<Unconfirmed, LaunchError> {
        if let Some(waiting) = self.bound.remove(attempt.name()).or_else(|| self.idle.pop_front())
            && let Ok(handed_over) = self.hand_over(waiting, attempt, secrets, &record)
        {
            return Ok(handed_over);
        }
        let fresh = self.spawn().map_err(LaunchError::Spawn)?;
        self.hand_over(fresh, attempt, secrets, &record).map_err(LaunchError::HandOver)
    }

    /// Reaps supervisors that have ended, and once a minute removes control groups that have become empty. To be called
    /// every few seconds.
    pub fn reap(&mut self) {
        self.reap_supervisors();
        let is_needed = self.prefork == Prefork::On || self.used_at.elapsed() < SERVER_KEPT_FOR;
        if self.server.as_mut().is_some_and(|server| !is_needed || !server.is_alive()) {
            self.server = None;
        }
        if self.swept_at.elapsed() >= SWEEP_EVERY {
            self.swept_at = Instant::now();
            cgroup::sweep_ended(&mut self.ended);
        }
    }

    fn reap_supervisors(&mut self) {
        let ended = &mut self.ended;
        self.running.retain(|pid| {
            let has_ended = has_ended(*pid);
            if has_ended {
                ended.insert(number(*pid));
            }
            !has_ended
        });
        self.idle.retain(|idle| !has_ended(idle.pid));
    }

    /// Supervisors that this launcher started and that have not ended.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether no supervisor waits, though some should.
    pub(crate) fn has_no_standby(&self) -> bool {
        self.prefork == Prefork::On && self.idle.is_empty()
    }

    /// Whether [`Self::prefork`] would start one.
    pub(crate) fn lacks_standby(&self) -> bool {
        self.prefork == Prefork::On && self.idle.len() < STANDBYS
    }

    /// Starts supervisors in advance, if that is wanted and some are missing. To be called when no Attempt waits for this process: it
    /// takes as long as two forks, and up to six seconds where the fork server hangs.
    pub fn prefork(&mut self) {
        self.reap_supervisors();
        while self.lacks_standby() && Instant::now() >= self.prefork_from {
            // Without one the next start is slower, or fails with the reason.
            let Ok(supervisor) = self.spawn() else {
                self.prefork_from = Instant::now() + PREFORK_AGAIN_AFTER;
                return;
            };
            self.idle.push_back(supervisor);
        }
    }

    /// Fork servers that have died or hung since the last call.
    pub(crate) fn take_replaced(&mut self) -> u64 {
        std::mem::take(&mut self.replaced)
    }

    fn spawn(&mut self) -> io::Result<Supervisor> {
        self.used_at = Instant::now();
        if let Some(mut server) = self.server.take()
            && server.is_alive()
        {
            match self.fork(server) {
                Err(ForkError::Dead { error, .. }) => {
                    self.replaced += 1;
                    tracing::warn!(%error, "the fork server has died or hangs; another is started");
                }
                done => return done.map_err(ForkError::into_io),
            }
        }
        let server = ForkServer::start(&self.program, self.host, self.state_dir.as_deref(), &self.hidden)?;
        self.fork(server).map_err(ForkError::into_io)
    }

    fn fork(&mut self, mut server: ForkServer) -> Result<Supervisor, ForkError> {
        let forked = server.fork();
        if let Err(ForkError::Dead { forked, .. }) = &forked {
            // It ends at end-of-file.
            self.running.extend(forked);
        } else {
            self.server = Some(server);
        }
        let (pid, stdin) = forked?;
        let identity = ProcessIdentity::of_other(pid.as_raw_nonzero().get()).ok();
        Ok(Supervisor { pid, stdin, identity })
    }

    fn hand_over(
        &mut self,
        supervisor: Supervisor,
        attempt: &AttemptDir,
        secrets: Option<&SecretValues>,
        record: impl Fn(&ProcessIdentity) -> StartRecord,
    ) -> io::Result<Unconfirmed> {
        let start = supervisor.identity.as_ref().map_or(StartRecord::BySupervisor, record);
        let kind = if start == StartRecord::InLog { LOGGED } else { PLAIN };
        let mut line = vec![kind];
        line.extend_from_slice(attempt.path().as_os_str().as_bytes());
        let values = secrets.map(SecretValues::encode);
        if let Some(values) = &values {
            line.extend_from_slice(format!("\0{}", values.len()).as_bytes());
        }
        line.push(b'\n');
        // Closed after the confirmation: the two processes share nothing from there on.
        let Supervisor { pid, mut stdin, .. } = supervisor;
        self.running.push(pid);
        match values {
            None => stdin.write_all(&line)?,
            Some(values) => write_values(&mut stdin, &line, &values)?,
        }
        Ok(Unconfirmed((start == StartRecord::InLog).then_some(stdin)))
    }
}

/// Writes the values of Secrets without waiting for long: a supervisor may hang. One that has received a part of them starts nothing.
fn write_values(pipe: &mut File, line: &[u8], values: &Zeroizing<Vec<u8>>) -> io::Result<()> {
    let len = line.len() + values.len();
    if len > PIPE_TAKES {
        // Where the pipe cannot grow, the supervisor has to read.
        let _ = fcntl_setpipe_size(&*pipe, len + PIPE_TAKES);
    }
    rustix::io::ioctl_fionbio(&*pipe, true)?;
    let until = Instant::now() + READS_WITHIN;
    for mut rest in [line, &values[..]] {
        while !rest.is_empty() {
            match pipe.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(pipe, until)?,
                Err(error) => return Err(error),
            }
        }
    }
    // Room for the answer of an `Unconfirmed`, which is written without waiting and must not be lost.
    wait_for_room(pipe, until)
}

fn wait_for_room(pipe: &File, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::OUT)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.idle.drain(..).for_each(Supervisor::end);
        self.bound.drain().for_each(|(_, bound)| bound.end());
    }
}
