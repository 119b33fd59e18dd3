//! How a verb ends: an exit code that means something, and a sentence that says what to do next.

use std::fmt;

/// Everything asked for is done, and went well.
pub(crate) const OK: u8 = 0;
/// What was asked for is done, and did not go well; or it could not be done.
pub(crate) const FAILED: u8 = 1;
/// The command line, a file or a value in it is wrong; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// It took longer than it may.
pub(crate) const TIMED_OUT: u8 = 124;
/// `run` could not do its job, whatever the command would have done.
pub(crate) const RUN_FAILED: u8 = 125;
/// Stopped by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What happened, and on what.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The status of the server's answer, where it answered.
    pub(crate) status: Option<u16>,
}

/// What a verb gives back: its exit code.
pub(crate) type Ended = Result<u8, Failure>;

impl Failure {
    fn of(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, status: None }
    }

    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::of(FAILED, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::of(USAGE, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::of(TIMED_OUT, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the server answered that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the server answered that there is such a thing already.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// The same with the exit code that `run` keeps apart from those of commands.
    #[must_use]
    pub(crate) fn of_run(mut self) -> Self {
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
