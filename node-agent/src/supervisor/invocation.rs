//! How the agent invokes a supervisor: the arguments of the process.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The first argument that makes this binary a supervisor.
pub(super) const ARGUMENT: &str = "__supervise";

/// The second argument for [`HostNamespaces::Own`]. Supervisors of an earlier release know it by this name.
const OWN_NAMESPACES: &str = "host-is-here";

/// What the agent writes to a supervisor: one of the first two, the path of the Attempt's directory, and a newline. Where the command
/// needs the values of Secrets, a zero byte and their length follow the path, and the values follow the newline.
///
/// The start is in the write-ahead log, and [`CONFIRMED`] follows once it is durable.
pub(super) const LOGGED: u8 = b'L';
/// The supervisor has to record the start and make it durable.
pub(super) const PLAIN: u8 = b'P';
pub(super) const CONFIRMED: u8 = b'G';
/// Instead of [`CONFIRMED`]: the start could not be made durable. It must not be tried again: an fsync that follows a failed one proves nothing.
pub(super) const REFUSED: u8 = b'F';

/// Begins the argument that names the state directory.
const STATE_DIR: &str = "state-dir=";

/// Begins an argument that names what commands must not see.
const HIDDEN: &str = "hidden=";

/// Which namespaces `environment: Host` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostNamespaces {
    /// Those of process 1, which a command enters where they are not the agent's own.
    OfInit,
    /// The agent's own: it runs on the host.
    Own,
}

impl HostNamespaces {
    /// The argument that passes it on.
    pub(super) fn argument(self) -> Option<&'static str> {
        match self {
            Self::OfInit => None,
            Self::Own => Some(OWN_NAMESPACES),
        }
    }

    /// From the arguments of this supervisor.
    pub(super) fn from_arguments() -> Self {
        let is_own = std::env::args_os().skip(2).any(|argument| argument == OWN_NAMESPACES);
        if is_own { Self::Own } else { Self::OfInit }
    }
}

/// The argument that names the state directory, in which a supervisor prepares a directory for its Attempt.
pub(super) fn state_dir_argument(state_dir: &Path) -> OsString {
    let mut argument = OsString::from(STATE_DIR);
    argument.push(state_dir);
    argument
}

/// The state directory, from the arguments of this supervisor.
pub(super) fn state_dir_from_arguments() -> Option<PathBuf> {
    arguments_with(STATE_DIR).next()
}

/// The argument that names a file or directory of the agent that commands must not see.
pub(super) fn hidden_argument(path: &Path) -> OsString {
    let mut argument = OsString::from(HIDDEN);
    argument.push(path);
    argument
}

/// The files and directories that commands must not see, from the arguments of this supervisor.
pub(super) fn hidden_from_arguments() -> Vec<PathBuf> {
    arguments_with(HIDDEN).collect()
}

/// The paths of the arguments that begin with this.
fn arguments_with(prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    std::env::args_os().skip(2).filter_map(move |argument| {
        let path = argument.as_bytes().strip_prefix(prefix.as_bytes())?;
        Some(PathBuf::from(OsStr::from_bytes(path)))
    })
}

/// Whether this process was started as a supervisor. To be called first in `main`.
pub fn is_requested() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}
