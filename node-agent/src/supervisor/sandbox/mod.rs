//! What a command is kept from (`run.sandbox`, `run.readOnlyRootFilesystem`): the last steps of its process before exec.
//!
//! Invariants:
//!
//! * What is promised holds or the command does not start. Where the agent lacks `CAP_SYS_ADMIN`, nothing can be hidden, and the promise
//!   rests on another user than the agent's; root is refused there.
//! * Nothing is undone by exec: no step leaves a privilege by which the command could revert another.
//! * A node changes nothing for a command of the profile `Privileged`.
//!
//! `docs/sandbox.md` has what each profile gives and keeps.

mod capabilities;
mod hidden;
mod mounts;
mod seccomp;

use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities as current};
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::{RootFilesystem, RunRequest, Sandbox};

pub(super) use hidden::Hiding;
pub(super) use mounts::is_scratch;

use self::mounts::View;
use super::identity::Credentials;
use super::start_error::StartError;

/// Processes and threads of a command with the profile `Restricted` that sets no `run.limits.pids`.
pub(super) const PIDS: u32 = 4096;

/// Open files of each of its processes, as its hard limit, if it sets no `run.limits.nofile`.
pub(super) const NOFILE: u64 = 65_536;

/// Why commands are, or are not, kept from the files of their agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separation {
    /// They do not see these files.
    Hidden,
    /// They see them, and may not open them as long as they run as another user.
    OtherUser,
    /// They run as the agent's own user, and may do to its files what the agent may.
    SameUser,
}

/// How this process can keep commands from its files.
pub fn separation() -> Separation {
    match (can_mount(), geteuid().is_root()) {
        (true, _) => Separation::Hidden,
        (false, true) => Separation::OtherUser,
        (false, false) => Separation::SameUser,
    }
}

fn can_mount() -> bool {
    current(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Does what every later start would do first.
pub(super) fn prepare() {
    seccomp::filter();
}

/// What the process of a command does to itself.
#[derive(Debug)]
pub(super) struct Confinement {
    profile: Sandbox,
    view: Option<View>,
}

impl Confinement {
    /// That of a request, for a command with these credentials (`None`: the agent's own).
    pub(super) fn of(
        request: &RunRequest,
        credentials: Option<&Credentials>,
        hiding: &Hiding,
    ) -> Result<Self, StartError> {
        let profile = request.sandbox();
        let (is_confined, root) = (profile != Sandbox::Privileged, request.root_filesystem);
        if let (Sandbox::Restricted, Some(credentials)) = (profile, credentials) {
            check_restricted(credentials)?;
        }
        let separation = separation();
        if root == RootFilesystem::ReadOnly && separation != Separation::Hidden {
            return Err(unable_to_mount());
        }
        let is_root =
            credentials.map_or_else(|| geteuid().is_root(), |credentials| credentials.uid.is_root());
        if is_confined && is_root && separation == Separation::OtherUser {
            return Err(root_is_unhidden(profile));
        }
        let view = match (separation, is_confined, root) {
            (Separation::Hidden, true, root) => Some(View::confined(hiding.of(request.environment)?, root)),
            (Separation::Hidden, false, RootFilesystem::ReadOnly) => Some(View::read_only()),
            _ => None,
        };
        Ok(Self { profile, view })
    }

    /// In the mount namespace in which the command is to run; while this process has the agent's capabilities.
    pub(super) fn enter_view(&self) -> Result<(), Errno> {
        self.view.as_ref().map_or(Ok(()), View::enter)
    }

    /// Before the user is changed.
    pub(super) fn limit_capabilities(&self) -> Result<(), Errno> {
        match self.profile {
            Sandbox::Restricted => capabilities::none().limit(),
            Sandbox::Baseline => capabilities::of_containers().limit(),
            Sandbox::Privileged => Ok(()),
        }
    }

    /// After the user was changed.
    pub(super) fn drop_capabilities(&self) -> Result<(), Errno> {
        match self.profile {
            Sandbox::Restricted => capabilities::none().keep(),
            Sandbox::Baseline => capabilities::of_containers().keep(),
            Sandbox::Privileged => Ok(()),
        }
    }

    /// From here on no program gains anything by a set-user-ID bit or by capabilities of its file.
    pub(super) fn forbid_new_privileges(&self) -> Result<(), Errno> {
        if self.profile == Sandbox::Privileged { Ok(()) } else { rustix::thread::set_no_new_privs(true) }
    }

    /// After that, and when only exec is left.
    pub(super) fn filter_calls(&self) -> Result<(), Errno> {
        if self.profile == Sandbox::Privileged { Ok(()) } else { seccomp::filter().install() }
    }

    /// Whether `/tmp` and `/dev/shm` are empty ones of its own.
    pub(super) fn has_own_scratch(&self) -> bool {
        self.view.as_ref().is_some_and(View::has_own_scratch)
    }

    /// The profile's name.
    pub(super) fn profile(&self) -> &'static str {
        self.profile.as_str()
    }
}

fn unable_to_mount() -> StartError {
    StartError::new(
        StartFailure::Namespace,
        "run.readOnlyRootFilesystem cannot be held on this node: the agent has no CAP_SYS_ADMIN, which mounting needs. \
         Run the agent with it (the chart's profile host), or leave the field out",
    )
}

fn root_is_unhidden(profile: Sandbox) -> StartError {
    let profile = profile.as_str();
    StartError::new(
        StartFailure::IdentityDenied,
        format!(
            "run.sandbox {profile} cannot be held for root on this node: the agent has no CAP_SYS_ADMIN, so nothing would \
             hide its token and state from the command. Name another run.user, use run.sandbox: Restricted, or \
             Privileged if the command may have all that the agent has"
        ),
    )
}

/// `Restricted` is never root, nor in its group.
fn check_restricted(credentials: &Credentials) -> Result<(), StartError> {
    let denied = |what: &str| {
        let message = format!(
            "run.sandbox Restricted runs nothing as root, and the command's user {what} on this node. Name another run.user \
             or run.group, leave both out to run as 65534:65534, or set run.sandbox: Baseline"
        );
        Err(StartError::new(StartFailure::IdentityDenied, message))
    };
    if credentials.uid.is_root() {
        return denied("is uid 0");
    }
    if credentials.groups.iter().chain([&credentials.gid]).any(|gid| gid.is_root()) {
        return denied("is in group 0");
    }
    Ok(())
}
