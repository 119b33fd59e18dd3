//! Reaps children. The supervisor is the subreaper of its tree, so every orphan of the tree is its child too.

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitStatus {
    /// It exited with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
}

/// The result of [`reap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reaped {
    /// How the command ended, if it was reaped.
    pub(super) command: Option<ExitStatus>,
    /// Whether no child is left, and so no process of the tree.
    pub(super) tree_is_empty: bool,
}

/// Reaps every child that has ended.
pub(super) fn reap(command: Pid) -> Reaped {
    let mut reaped = Reaped { command: None, tree_is_empty: false };
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => reaped.command = exit_status(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return reaped,
            // ECHILD: no child is left.
            Err(_) => {
                reaped.tree_is_empty = true;
                return reaped;
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let exited = status.exit_status().and_then(|code| u8::try_from(code).ok()).map(ExitStatus::Exited);
    exited.or_else(|| status.terminating_signal().map(ExitStatus::Signaled))
}
