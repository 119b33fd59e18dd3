//! Whether an Attempt has a living supervisor.

use super::kill::orphans;
use crate::journal::{AttemptDir, JournalError};

/// What is known about the supervisor of an Attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It holds the lock.
    Alive,
    /// Nobody holds the lock: it is dead, or never came.
    Dead {
        /// Whether processes of the command are still there.
        populated: bool,
    },
}

/// Looks whether an Attempt has a living supervisor, by trying its lock.
///
/// # Errors
/// When the directory or its state cannot be read.
pub fn liveness(attempt: &AttemptDir) -> Result<Liveness, JournalError> {
    match attempt.try_lock()? {
        None => Ok(Liveness::Alive),
        Some(_lock) => Ok(Liveness::Dead { populated: !orphans(&attempt.state()?).is_empty() }),
    }
}
