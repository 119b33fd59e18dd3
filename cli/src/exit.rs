//! Exit codes, and the failure that a verb ends with: a message, and a hint at what to do next.

use std::fmt;

/// Success.
pub(crate) const OK: u8 = 0;
/// The Task or the request failed.
pub(crate) const FAILED: u8 = 1;
/// The command line, a file or a value is invalid; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// `audit verify`: nothing contradicts a chain, and nothing proves it.
pub(crate) const UNPROVEN: u8 = 3;
/// A timeout expired.
pub(crate) const TIMED_OUT: u8 = 124;
/// `run` could not start or finish the command, whatever the command would have returned.
pub(crate) const RUN_FAILED: u8 = 125;
/// The program of `run` was found and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The program of `run` was not found.
pub(crate) const NOT_FOUND: u8 = 127;
/// What a signal's number is added to when it ended the command of `run`.
pub(crate) const SIGNALED: u8 = 128;
/// Interrupted by Ctrl-C, or the Run was cancelled.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit codes of every verb and their meaning, for the reference page.
pub(crate) const CODES: [(&str, &str); 5] = [
    ("0", "success"),
    ("1", "failure"),
    ("2", "usage error: the command line, a file or a value is invalid; nothing was done"),
    ("124", "timed out"),
    ("130", "interrupted by Ctrl-C"),
];

/// The exit codes of `run` and `rerun --follow` and their meaning, for the reference page.
pub(crate) const RUN_CODES: [(&str, &str); 8] = [
    ("0", "success on every node"),
    ("1-255", "exit code of the command; with several nodes, the highest"),
    ("124", "timed out: `--timeout`, `--idle`, or the node was not ready in time"),
    ("125", "not run or result unknown: no node, no server, refused, lost"),
    ("126", "the program cannot be executed"),
    ("127", "the program was not found"),
    ("128+N", "the command was ended by signal N"),
    ("130", "cancelled, or detached by Ctrl-C"),
];

/// Why a verb failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What failed, and on what.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The HTTP status, if the server answered.
    pub(crate) status: Option<u16>,
    /// Whether the same request is expected to fail again.
    pub(crate) is_lasting: bool,
}

/// The result of a verb: its exit code.
pub(crate) type ExitResult = Result<u8, Failure>;

impl Failure {
    fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, status: None, is_lasting: true }
    }

    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with_code(FAILED, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with_code(USAGE, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::with_code(TIMED_OUT, message)
    }

    /// A failure to write to standard output.
    pub(crate) fn stdout(error: &std::io::Error) -> Self {
        Self::new(format!("failed to write to standard output: {error}"))
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the server answered 404.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the server answered 409.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// Whether the server answered that the caller may not do this: 401 or 403.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status, Some(401 | 403))
    }

    /// The same failure with the exit code that `run` reserves for itself, so that it differs from those of commands.
    #[must_use]
    pub(crate) fn for_run(mut self) -> Self {
        if self.code == FAILED {
            self.code = RUN_FAILED;
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
