//! What a supervisor prepares before it has an Attempt.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::cgroup::Cgroup;
use super::invocation::HostNamespaces;
use super::zygote::Zygote;
use crate::process::ProcessIdentity;

/// A supervisor that is ready for an Attempt.
pub(super) struct Standby {
    /// The command's control group; `None` where none can be created.
    pub(super) cgroup: Option<Cgroup>,
    /// Why not.
    pub(super) no_cgroup: Option<io::Error>,
    pub(super) host: HostNamespaces,
    /// Where a preparation failed, it is tried once more for the Attempt, so that the reason is reported.
    pub(super) zygote: Option<Zygote>,
    identity: Option<ProcessIdentity>,
    signals: Option<SignalFd>,
}

impl Standby {
    /// Creates the control group. The zygote is forked later: see [`Self::fork`].
    pub(super) fn new(host: HostNamespaces) -> Self {
        let (cgroup, no_cgroup) = Cgroup::new().map_or_else(|error| (None, Some(error)), |group| (Some(group), None));
        Self {
            cgroup,
            no_cgroup,
            host,
            zygote: None,
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

    /// Takes the process that becomes the command.
    pub(super) fn take_zygote(&mut self) -> io::Result<Zygote> {
        self.zygote.take().map_or_else(|| Zygote::fork(self.cgroup.as_ref()), Ok)
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
