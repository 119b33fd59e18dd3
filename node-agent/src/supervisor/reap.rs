//! Who of our children ended. The supervisor is the subreaper of its tree, so every orphan of it is a child too.

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitStatus {
    /// By itself.
    Exited(u8),
    /// By a signal.
    Signaled(i32),
}

/// What a round of reaping found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reaped {
    /// How the command ended, if it was among them.
    pub(super) command: Option<ExitStatus>,
    /// Whether a child is left, and so a process of the tree.
    pub(super) tree: Tree,
}

/// Whether processes of the command's tree are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// None.
    Empty,
    /// Some.
    Populated,
}

/// Reaps every child that has ended.
pub(super) fn reap(command: Pid) -> Reaped {
    let mut reaped = Reaped { command: None, tree: Tree::Populated };
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => reaped.command = exit_status(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return reaped,
            // ECHILD: none is left.
            Err(_) => {
                reaped.tree = Tree::Empty;
                return reaped;
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let exited = status.exit_status().and_then(|code| u8::try_from(code).ok()).map(ExitStatus::Exited);
    exited.or_else(|| status.terminating_signal().map(ExitStatus::Signaled))
}
