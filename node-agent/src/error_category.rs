//! Categories of errors: the labels that logs and metrics count them by.

use std::fmt;
use std::io;

/// What kind of failure an error is. A closed set, so that it can be a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCategory {
    /// A flag, a file or a directory is not as the agent needs it; a person has to change it.
    Configuration,
    /// The token or the certificates cannot be used, or were declined.
    Credentials,
    /// No connection, or it broke.
    Network,
    /// The other side did not answer in time.
    Timeout,
    /// The operator declined or closed the Session.
    Refused,
    /// The other side sent what the protocol does not allow.
    Protocol,
    /// The disk or the kernel did not do what it was asked.
    Io,
    /// A record on disk cannot be read.
    Corrupt,
    /// The node has run out of a resource.
    Resources,
    /// The agent is shutting down, or the Session this belongs to has ended.
    Shutdown,
    /// A broken invariant of the agent.
    Internal,
}

impl ErrorCategory {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Credentials => "credentials",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Resources => "resources",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }

    /// The category of a system error.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::FileTooLarge => Self::Resources,
            // EMFILE, ENFILE and EAGAIN of fork have no kind of their own.
            _ => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::AGAIN) => {
                    Self::Resources
                }
                _ => Self::Io,
            },
        }
    }
}

impl fmt::Display for ErrorCategory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_for_lack_of_something_are_resources() {
        for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::MFILE, rustix::io::Errno::NOMEM] {
            assert_eq!(ErrorCategory::of_io(&errno.into()), ErrorCategory::Resources, "{errno}");
        }
        assert_eq!(ErrorCategory::of_io(&rustix::io::Errno::NOENT.into()), ErrorCategory::Io);
    }
}
