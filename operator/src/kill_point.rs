//! Named places between an intent and its deed, at which a test can have this process killed.
//!
//! A file of the place's name in the directory that `SENTINEL_KILL_POINTS` names arms it: whoever passes there next
//! takes the file away and is gone, without a last word. In a release build there is nothing of it.

use std::path::Path;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// A Run and its target list are durable, and nothing else has been done about it.
    RunBegun,
    /// A `Start` is in the queue of a Session.
    StartHanded,
    /// History holds how an Attempt ended, and its agent has no Ack.
    Archived,
    /// The status says that the Run is over, and History does not.
    RunOver,
    /// A Run is over and archived, and an agent is to forget it.
    Forgets,
}

impl KillPoint {
    /// All of them, in the order in which a Run passes them.
    pub const ALL: [Self; 5] =
        [Self::RunBegun, Self::StartHanded, Self::Archived, Self::RunOver, Self::Forgets];

    /// The name of the file that arms it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Ends this process if the place is armed.
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
