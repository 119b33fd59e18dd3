//! What a supervisor prepares before it has an Attempt.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;

use super::cgroup::{self, Cgroup};
use super::invocation::HostNamespaces;
use super::sandbox::Hiding;
use super::start_error::{NotStarted, failed};
use super::{log, output, stdin};
use crate::journal::{
    AttemptDir, AttemptLock, AttemptState, JournalError, ReadyDir, SUPERVISOR_LOG, SupervisorWakeups,
};
use crate::process::ProcessIdentity;
use crate::spool;

/// An Attempt under its lock.
pub(super) struct Locked {
    pub(super) lock: AttemptLock,
    /// The pipe by which the agent wakes this process; `None` where the file system has none.
    pub(super) wakeups: Option<SupervisorWakeups>,
    pub(super) since: LockedSince,
}

/// Since when this process has had the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockedSince {
    /// Since before there was the Attempt: only this process can have started or abandoned it.
    Creation,
    /// An earlier holder may have abandoned the Attempt, or run it to its end.
    Now,
}

/// Both ends of the pipes between supervisor and command.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: OwnedFd,
    pub(super) stdin_end: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stdout_end: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) stderr_end: OwnedFd,
}

impl Pipes {
    fn open() -> io::Result<Self> {
        let (stdin, stdin_end) = stdin::open_pipe()?;
        let (stdout, stdout_end) = output::open_pipe()?;
        let (stderr, stderr_end) = output::open_pipe()?;
        // A command can open its own again, as /dev/stdout, whatever its user is; others cannot reach them.
        for end in [&stdin_end, &stdout_end, &stderr_end] {
            rustix::fs::fchmod(end, Mode::from_raw_mode(0o666))?;
        }
        Ok(Self { stdin, stdin_end, stdout, stdout_end, stderr, stderr_end })
    }
}

/// A supervisor that is ready for an Attempt. Its child has a copy of all this. What could not be prepared is an error of the
/// Attempt's start.
pub(super) struct Standby {
    pub(super) host: HostNamespaces,
    /// Where the agent's files are, which commands do not see.
    pub(super) hiding: Hiding,
    /// The command's control group; `None` where none can be created.
    pub(super) cgroup: Option<Cgroup>,
    /// Why not.
    pub(super) no_cgroup: Option<io::Error>,
    /// The name of the command's other control groups.
    pub(super) name: String,
    identity: io::Result<ProcessIdentity>,
    pipes: io::Result<Pipes>,
    signals: io::Result<SignalFd>,
    /// Whether the orphans of the command become children of this supervisor.
    subreaper: io::Result<()>,
    /// A directory for the Attempt.
    ready: Option<ReadyDir>,
}

impl Standby {
    /// Prepares everything but a directory.
    pub(super) fn new(host: HostNamespaces, hiding: Hiding) -> Self {
        let (cgroup, no_cgroup) =
            Cgroup::new().map_or_else(|error| (None, Some(error)), |group| (Some(group), None));
        Self {
            host,
            hiding,
            cgroup,
            no_cgroup,
            name: cgroup::own_name().unwrap_or_else(|_| std::process::id().to_string()),
            identity: ProcessIdentity::of_self(),
            pipes: Pipes::open(),
            signals: watch_signals(),
            subreaper: rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(io::Error::from),
            ready: None,
        }
    }

    /// Prepares a directory in this state directory, whose log becomes this process's.
    pub(super) fn prepare_directory(&mut self, state_dir: &Path) {
        // Without one the agent creates the Attempt's.
        let Ok(ready) = ReadyDir::create(state_dir) else { return };
        if spool::reserve(&ready.log_folder()).is_ok() && rustix::stdio::dup2_stderr(ready.log()).is_ok() {
            self.ready = Some(ready);
        } else {
            ready.remove();
        }
    }

    /// Whether this Attempt has the directory that was prepared.
    pub(super) fn is_prepared_for(&self, attempt: &AttemptDir) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.is_of(attempt))
    }

    /// Takes the lock of an Attempt, waiting until it is free. The log of this process becomes the Attempt's.
    pub(super) fn lock(&mut self, attempt: &AttemptDir) -> Result<Locked, JournalError> {
        if let Some((lock, wakeups)) = self.ready.take().and_then(|ready| ready.take(attempt)) {
            return Ok(Locked { lock, wakeups, since: LockedSince::Creation });
        }
        log::write_to(&attempt.file(SUPERVISOR_LOG));
        let lock = attempt.lock()?;
        // Without the pipe, and with an agent that does not use it, the directory is polled.
        Ok(Locked { lock, wakeups: attempt.supervisor_wakeups().ok(), since: LockedSince::Now })
    }

    /// Removes what was prepared and is not needed.
    pub(super) fn discard(&mut self) {
        if let Some(ready) = self.ready.take() {
            ready.remove();
        }
    }

    /// Whether everything was prepared that the supervisor cannot do without.
    pub(super) fn check(&self) -> Result<(), NotStarted> {
        self.signals.as_ref().map_err(again).map_err(failed("failed to watch for signals"))?;
        self.subreaper.as_ref().map_err(again).map_err(failed("failed to become the subreaper"))?;
        Ok(())
    }

    /// The identity of this supervisor.
    pub(super) fn identity(&self) -> io::Result<&ProcessIdentity> {
        self.identity.as_ref().map_err(again)
    }

    /// The state in which a command starts that is prepared here, in this process.
    pub(super) fn starting(&self, command: i32) -> io::Result<AttemptState> {
        let supervisor = self.identity()?.clone();
        Ok(AttemptState::Starting {
            command: Some(ProcessIdentity::of(command)?),
            supervisor,
            cgroup: self.cgroup_path(),
        })
    }

    /// Prepares the record of the start of a command in this process.
    pub(super) fn prepare_start(&self, command: i32) {
        if let (Some(ready), Ok(starting)) = (&self.ready, self.starting(command)) {
            ready.prepare_start(&starting);
        }
    }

    /// The pipes of the command.
    pub(super) fn pipes(&self) -> io::Result<&Pipes> {
        self.pipes.as_ref().map_err(again)
    }

    /// Takes the pipes of the command.
    pub(super) fn take_pipes(&mut self) -> io::Result<Pipes> {
        std::mem::replace(&mut self.pipes, Err(io::ErrorKind::NotFound.into()))
    }

    /// Takes the descriptor by which children that end are observed.
    pub(super) fn take_signals(&mut self) -> io::Result<SignalFd> {
        std::mem::replace(&mut self.signals, Err(io::ErrorKind::NotFound.into()))
    }

    /// The path of the command's control group.
    pub(super) fn cgroup_path(&self) -> Option<String> {
        self.cgroup.as_ref().map(|cgroup| cgroup.path().to_string_lossy().into_owned())
    }
}

fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Children that end are observed through a descriptor. Termination signals to the supervisor are blocked: it ends when
/// its Attempt has.
fn watch_signals() -> io::Result<SignalFd> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let mut blocked = children;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        blocked.add(signal);
    }
    blocked.thread_block()?;
    Ok(SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
