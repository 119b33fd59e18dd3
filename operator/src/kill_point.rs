//! Points between an intent and its effect at which a test can kill this process.
//!
//! A file with the point's name in the directory that `SENTINEL_KILL_POINTS` names arms it: the next pass removes the file
//! and aborts the process. Debug builds only.

use std::path::Path;

/// A point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// A Run and its target list are durable, and nothing else was done about it.
    RunBegun,
    /// A `Start` is in the send queue of a Session.
    StartHanded,
    /// History holds how an Attempt ended, and its agent has no Ack.
    Archived,
    /// The status shows the end of the Run, and History does not.
    RunOver,
    /// A Run is over and archived, and a Forget is about to be sent.
    Forgets,
    /// A deleted Task may go, and still has its finalizer.
    Released,
    /// History has answered whether an earlier Task has run the same, and nothing else was done about it.
    Answered,
}

impl KillPoint {
    /// In the order in which a Run passes them.
    pub const OF_A_RUN: [Self; 5] =
        [Self::RunBegun, Self::StartHanded, Self::Archived, Self::RunOver, Self::Forgets];

    /// In the order in which a Task passes them that is deleted and made again.
    pub const OF_A_RECREATION: [Self; 2] = [Self::Released, Self::Answered];

    /// The name of the file that arms it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Aborts this process if the point is armed.
    pub(crate) fn pass(self) {
        if cfg!(debug_assertions)
            && let Some(directory) = std::env::var_os(VARIABLE)
            && std::fs::remove_file(Path::new(&directory).join(self.name())).is_ok()
        {
            std::process::abort();
        }
    }
}

/// The environment variable that names the directory.
pub const VARIABLE: &str = "SENTINEL_KILL_POINTS";
