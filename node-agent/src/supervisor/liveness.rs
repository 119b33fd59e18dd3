//! Whether an Attempt has a living supervisor.

use super::kill::orphans;
use crate::journal::{AttemptDir, JournalError};

/// The state of an Attempt's supervisor, by its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It holds the lock.
    Alive,
    /// The lock is free: the supervisor is dead, or was never started.
    Dead {
        /// Whether processes of the command are alive.
        populated: bool,
    },
}

/// Checks whether an Attempt has a living supervisor, by trying its lock.
///
/// # Errors
/// When the directory or its state cannot be read.
pub fn liveness(attempt: &AttemptDir) -> Result<Liveness, JournalError> {
    match attempt.try_lock()? {
        None => Ok(Liveness::Alive),
        Some(_lock) => Ok(Liveness::Dead { populated: !orphans(&attempt.state()?).is_empty() }),
    }
}
