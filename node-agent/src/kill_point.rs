//! Named points between a durable intent and its effect, at which a test can have this process killed.
//!
//! A file with the point's name in `kill-points/` of the state directory arms it: the next process that passes the point
//! removes the file and aborts, as if by SIGKILL. Release builds do not contain them.

use std::path::Path;

/// A kill point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// The agent: an Attempt is in the Journal, and no supervisor has it.
    AgentRecorded,
    /// The agent: a supervisor has it, and nothing was recorded about that.
    AgentLaunched,
    /// The agent: an exit record was read, and not reported.
    AgentSawExit,
    /// The agent: an Ack was received, and is not recorded.
    AgentAcked,
    /// The agent: a Forget was decided on, and there is no tombstone.
    AgentForgets,
    /// The supervisor: it holds the lock, and has not recorded *starting*.
    SupervisorLocked,
    /// The supervisor: *starting* is recorded, and the command not started.
    SupervisorAnnounced,
    /// The supervisor: the command is started, and *running* not recorded.
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

    /// Aborts this process if the point is armed in this state directory.
    pub(crate) fn pass(self, state_dir: &Path) {
        if cfg!(debug_assertions) && std::fs::remove_file(state_dir.join(FOLDER).join(self.name())).is_ok() {
            std::process::abort();
        }
    }

    /// As [`Self::pass`], for a process that does the work of its parent: both end.
    pub(crate) fn pass_with_parent(self, state_dir: &Path) {
        if cfg!(debug_assertions) && std::fs::remove_file(state_dir.join(FOLDER).join(self.name())).is_ok() {
            if let Some(parent) = rustix::process::getppid() {
                let _ = rustix::process::kill_process(parent, rustix::process::Signal::KILL);
            }
            std::process::abort();
        }
    }
}

/// The folder in the state directory.
pub const FOLDER: &str = "kill-points";
