//! Named places between an intent and its deed, at which a test can have this process killed.
//!
//! A file of the place's name in `kill-points/` of the state directory arms it: whoever passes there next takes the
//! file away and is gone, as by SIGKILL from outside. In a release build there is nothing of it.

use std::path::Path;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// The agent: an Attempt is in the Journal, and no supervisor has it.
    AgentRecorded,
    /// The agent: a supervisor has it, and nobody else knows.
    AgentLaunched,
    /// The agent: an exit record was seen, and not reported.
    AgentSawExit,
    /// The agent: an Ack came, and is not noted.
    AgentAcked,
    /// The agent: a Forget was decided on, and there is no tombstone.
    AgentForgets,
    /// The supervisor: it holds the lock, and has announced nothing.
    SupervisorLocked,
    /// The supervisor: the start is announced, and the command not started.
    SupervisorAnnounced,
    /// The supervisor: the command is started, and not noted as running.
    SupervisorSpawned,
    /// The supervisor: the command has ended, and there is no exit record.
    SupervisorSawExit,
    /// The supervisor: there is an exit record.
    SupervisorRecorded,
}

impl KillPoint {
    /// All of them, in the order in which an Attempt passes them.
    pub const ALL: [Self; 10] = [
        Self::AgentRecorded,
        Self::AgentLaunched,
        Self::SupervisorLocked,
        Self::SupervisorAnnounced,
        Self::SupervisorSpawned,
        Self::SupervisorSawExit,
        Self::SupervisorRecorded,
        Self::AgentSawExit,
        Self::AgentAcked,
        Self::AgentForgets,
    ];

    /// The name of the file that arms it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Ends this process if the place is armed in this state directory.
    pub(crate) fn pass(self, state_dir: &Path) {
        if cfg!(debug_assertions) && std::fs::remove_file(state_dir.join(FOLDER).join(self.name())).is_ok() {
            std::process::abort();
        }
    }
}

/// The folder in the state directory.
pub const FOLDER: &str = "kill-points";
