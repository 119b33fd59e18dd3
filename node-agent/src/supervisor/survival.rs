//! Whether a command outlives the agent that started it, tried when the agent begins, and said.
//!
//! Two things may tie it to the agent: a namespace of process ids that ends with the agent's container, and control
//! groups that whoever ends the container empties.

use std::fs;
use std::io;

use super::{cgroup, outside};

/// The number of the namespace of process ids in which the machine's first process is (`PROC_PID_INIT_INO`).
const MACHINES_NAMESPACE: &str = "pid:[4026531836]";

/// What becomes of a command when its agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// It goes on, and the next agent adopts it.
    Outlives,
    /// It is ended with the agent's container, and the next agent calls it `Interrupted`.
    EndsWithContainer(Tie),
}

/// What ties a command to the agent's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// They share a namespace of process ids that is the container's own.
    Namespace,
    /// No control group can be made outside the container's.
    ControlGroups,
}

impl Tie {
    /// The same for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "the container has process ids of its own (hostPID is not set)",
            Self::ControlGroups => "no control group can be made outside the container's",
        }
    }
}

/// Finds out, by making what a command would need.
pub fn survival() -> Survival {
    let in_pod = outside::is_in_pod();
    if !in_pod && !is_machines_namespace() {
        return Survival::EndsWithContainer(Tie::Namespace);
    }
    // Outside of any container nobody empties our groups.
    if in_pod && try_groups().is_err() {
        return Survival::EndsWithContainer(Tie::ControlGroups);
    }
    Survival::Outlives
}

/// Whether the processes of the machine are seen, and with them the namespaces in which `environment: Host` runs; where
/// they are not, the words say what is missing. Without them process 1 is the container's own, and a command for the
/// host would run in the container without a word.
///
/// # Errors
/// What is missing.
pub fn sees_the_machine() -> Result<(), String> {
    if is_machines_namespace() {
        return Ok(());
    }
    Err("the agent has process ids of its own and not the machine's; its pod needs hostPID: true (and docker run \
         --pid=host)"
        .to_owned())
}

fn is_machines_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == MACHINES_NAMESPACE)
}

/// Makes the groups that commands and supervisors get, with v1, v2 or both.
fn try_groups() -> io::Result<()> {
    outside::make_groups()?;
    match cgroup::folder() {
        Ok(folder) => {
            let probe = folder.join(format!("{}.probe", std::process::id()));
            fs::create_dir_all(&probe)?;
            fs::remove_dir(&probe)
        }
        // Then commands stay in the groups of v1 that their supervisors moved to.
        Err(error) if error.kind() == io::ErrorKind::NotFound && outside::is_inherited() => Ok(()),
        Err(error) => Err(error),
    }
}
