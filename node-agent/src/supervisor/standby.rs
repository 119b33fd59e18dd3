//! What a supervisor prepares before it has an Attempt.

use std::io;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::cgroup::Cgroup;
use super::invocation::HostNamespaces;
use super::log;
use super::zygote::Zygote;
use crate::journal::{AttemptDir, AttemptLock, JournalError, ReadyDir, SUPERVISOR_LOG, SupervisorWakeups};
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

/// A supervisor that is ready for an Attempt.
pub(super) struct Standby {
    /// The command's control group; `None` where none can be created.
    pub(super) cgroup: Option<Cgroup>,
    /// Why not.
    pub(super) no_cgroup: Option<io::Error>,
    pub(super) host: HostNamespaces,
    /// Where a preparation failed, it is tried once more for the Attempt, so that the reason is reported.
    pub(super) zygote: Option<Zygote>,
    /// A directory for the Attempt.
    ready: Option<ReadyDir>,
    identity: Option<ProcessIdentity>,
    signals: Option<SignalFd>,
}

impl Standby {
    /// Creates the control group. The zygote is forked later: see [`Self::fork`].
    pub(super) fn new(host: HostNamespaces) -> Self {
        let (cgroup, no_cgroup) =
            Cgroup::new().map_or_else(|error| (None, Some(error)), |group| (Some(group), None));
        Self {
            cgroup,
            no_cgroup,
            host,
            zygote: None,
            ready: None,
            identity: ProcessIdentity::of_self().ok(),
            signals: watch_signals().ok(),
        }
    }

    /// Forks the process that becomes the command, unless there is one. It inherits the control groups of v1 that this process is
    /// in now.
    pub(super) fn fork(&mut self) {
        if self.zygote.is_none() {
            self.zygote = Zygote::fork(self.cgroup.as_ref()).ok();
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
        self.zygote = None;
        if let Some(ready) = self.ready.take() {
            ready.remove();
        }
    }

    /// The identity of this supervisor.
    pub(super) fn take_identity(&mut self) -> io::Result<ProcessIdentity> {
        self.identity.take().map_or_else(ProcessIdentity::of_self, Ok)
    }

    /// Where children that end are observed.
    pub(super) fn take_signals(&mut self) -> io::Result<SignalFd> {
        self.signals.take().map_or_else(watch_signals, Ok)
    }
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
