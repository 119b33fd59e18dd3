//! Starts supervisors; the agent's side.

use std::io;
use std::path::PathBuf;

use crate::journal::AttemptDir;

/// Whether one supervisor is kept waiting, so that a start does not pay for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warm {
    /// One waits.
    Yes,
    /// None does; for many agents in one process.
    No,
}

/// Why a supervisor could not be started. The Attempt is as it was: accepted.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The process could not be made.
    #[error("unable to start a supervisor")]
    Spawn(#[source] io::Error),
    /// It went away before it took its Attempt.
    #[error("unable to hand the attempt to its supervisor")]
    HandOver(#[source] io::Error),
}

/// Starts supervisors.
#[derive(Debug)]
pub struct Launcher {}

impl Launcher {
    /// Starts supervisors from this very binary.
    pub fn new(warm: Warm) -> Self {
        Self::of("/proc/self/exe", warm)
    }

    /// Starts supervisors from another binary that calls [`super::main`].
    pub fn of(_program: impl Into<PathBuf>, _warm: Warm) -> Self {
        Self {}
    }

    /// Hands an accepted Attempt to a supervisor. Harmless to repeat: only one of them gets the Attempt's lock.
    ///
    /// # Errors
    /// When no supervisor could be started.
    pub fn launch(&mut self, _attempt: &AttemptDir) -> Result<(), LaunchError> {
        Ok(())
    }

    /// Takes note of supervisors that ended, so that they are no zombies. To be called every few seconds.
    pub fn reap(&mut self) {}
}
