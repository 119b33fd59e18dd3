//! Whether a command survives the agent that started it. Checked and logged when the agent starts.
//!
//! Two things may tie it to the agent's container: a pid namespace that ends with the container, and control groups whose
//! processes the container runtime kills with it.

use std::fs;
use std::io;

use super::{cgroup, pod_cgroup};

/// The initial pid namespace, in which the machine's first process is (`PROC_PID_INIT_INO`).
const INIT_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What becomes of a command when its agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// It continues, and the next agent adopts it.
    Outlives,
    /// It ends with the agent's container, and the next agent reports it as `Interrupted`.
    EndsWithContainer(Tie),
}

/// What ties a command to the agent's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// They share a pid namespace that is the container's own.
    Namespace,
    /// No control group can be created outside the container's.
    ControlGroups,
}

impl Tie {
    /// The reason, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "the container has a pid namespace of its own (hostPID is not set)",
            Self::ControlGroups => "no control group can be created outside the container's",
        }
    }
}

/// Checks it, by creating the groups that a command would need.
pub fn survival() -> Survival {
    let in_pod = pod_cgroup::is_in_pod();
    if !in_pod && !is_init_pid_namespace() {
        return Survival::EndsWithContainer(Tie::Namespace);
    }
    // Outside a container no runtime kills the processes in the groups.
    if in_pod && try_creating_groups().is_err() {
        return Survival::EndsWithContainer(Tie::ControlGroups);
    }
    Survival::Outlives
}

/// Checks that the agent is in the machine's pid namespace. Elsewhere process 1 is the container's own, and a command with
/// `environment: Host` would run in the container instead.
///
/// # Errors
/// What is missing.
pub fn check_host_pid_namespace() -> Result<(), String> {
    if is_init_pid_namespace() {
        return Ok(());
    }
    Err("the agent has a pid namespace of its own; its pod needs hostPID: true (or docker run --pid=host), and on \
         nodes that are containers, as of kind, the agent also needs --nested-node"
        .to_owned())
}

fn is_init_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == INIT_PID_NAMESPACE)
}

/// Creates the groups that commands and supervisors need, with v1, v2 or both.
fn try_creating_groups() -> io::Result<()> {
    pod_cgroup::create_groups()?;
    match cgroup::folder() {
        Ok(folder) => {
            let probe = folder.join(format!("{}.probe", std::process::id()));
            fs::create_dir_all(&probe)?;
            fs::remove_dir(&probe)
        }
        // Commands stay in the groups of v1 that their supervisors moved to.
        Err(error) if error.kind() == io::ErrorKind::NotFound && pod_cgroup::is_inherited() => Ok(()),
        Err(error) => Err(error),
    }
}
