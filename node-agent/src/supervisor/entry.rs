//! The supervisor's `main`.

use std::process::ExitCode;

/// The first argument that makes this binary a supervisor.
pub(super) const ARGUMENT: &str = "__supervise";

/// Whether this process was started as a supervisor. To be asked first thing in `main`.
pub fn is_requested() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// Carries one Attempt to its end. To be called before any thread or runtime exists.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
