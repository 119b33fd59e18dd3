//! The chart's `ClusterRole`s for people. Their names begin with that of the installation, which a message does not always know.

use std::fmt;

/// A `ClusterRole` for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All reads but output.
    TaskViewer,
    /// Output.
    LogReader,
    /// Everything but output, and approvals.
    TaskRunner,
    /// Approving Runs of others.
    TaskApprover,
}

impl Role {
    /// What its name ends with.
    fn suffix(self) -> &'static str {
        match self {
            Self::TaskViewer => "-task-viewer",
            Self::LogReader => "-log-reader",
            Self::TaskRunner => "-task-runner",
            Self::TaskApprover => "-task-approver",
        }
    }

    /// Its name in the installation of this name.
    pub(crate) fn of(self, installation: &str) -> String {
        format!("{installation}{}", self.suffix())
    }
}

/// For a message that does not know the installation.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, usual) = (self.suffix(), self.of("sentinel-node"));
        write!(f, "ClusterRole whose name ends with {suffix} ({usual}, unless the release has another name)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_by_its_installation_or_by_its_end() {
        assert_eq!(Role::LogReader.of("prod-sentinel"), "prod-sentinel-log-reader");
        let shown = Role::TaskRunner.to_string();
        assert!(shown.contains("ends with -task-runner (sentinel-node-task-runner, unless"), "{shown}");
    }
}
