//! How the agent invokes a supervisor: the arguments of the process.

/// The first argument that makes this binary a supervisor.
pub(super) const ARGUMENT: &str = "__supervise";

/// The second argument for [`HostNamespaces::Own`]. Supervisors of an earlier release know it by this name.
const OWN_NAMESPACES: &str = "host-is-here";

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
        let is_own = std::env::args_os().nth(2).is_some_and(|argument| argument == OWN_NAMESPACES);
        if is_own { Self::Own } else { Self::OfInit }
    }
}

/// Whether this process was started as a supervisor. To be called first in `main`.
pub fn is_requested() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}
