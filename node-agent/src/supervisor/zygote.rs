//! The process that becomes the command, as its supervisor has it: forked before there is an Attempt.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::cgroup::Cgroup;
use super::child::Resumed;
use super::progress::{Follower, channel};
use super::standby::Standby;
use super::{child, fork_server};

/// From `linux/sched.h`; libc's constant has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child. Dropped, it ends, unless it has become the command.
#[derive(Debug)]
pub(super) struct Zygote {
    pid: Pid,
    follower: Follower,
    is_command: bool,
}

impl Zygote {
    /// Forks it into the command's control group, for an Attempt that the agent hands over, or for one that it has handed over
    /// before.
    ///
    /// By system call and not through std: std cannot create a process in a control group; moving it there would stall every fork of
    /// the machine for milliseconds.
    #[expect(unsafe_code, reason = "fork has no safe interface")]
    pub(super) fn fork(standby: &Standby, resumed: Option<Resumed<'_>>) -> io::Result<Self> {
        let (follower, reporter) = channel()?;
        // SAFETY: this process has one thread, so that the child may do whatever this process may.
        let pid = unsafe { fork(standby.cgroup.as_ref().map(Cgroup::directory)) };
        if pid == 0 {
            // Only the supervisor may hold its end, or the child would never see the end-of-file.
            drop(follower);
            child::run(standby, &reporter, resumed);
        }
        let pid = fork_server::child(pid).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { pid, follower, is_command: false })
    }

    /// What it reports.
    pub(super) fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Its pid, which is also its session and process group.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// It has become the command; returns its pid, which is also its session and process group.
    pub(super) fn into_command(mut self) -> Pid {
        self.is_command = true;
        self.pid
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if !self.is_command {
            // Not only by end-of-file: where the supervisor gives up, it must not become the command after all.
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}

/// Forks, into the control group where the kernel can (since 5.7).
#[expect(unsafe_code, reason = "see `Zygote::fork`")]
unsafe fn fork(cgroup: Option<&OwnedFd>) -> i32 {
    if let Some(cgroup) = cgroup {
        let mut args = [0_u64; 11];
        args[0] = CLONE_INTO_CGROUP;
        args[4] = libc::SIGCHLD as u64;
        args[10] = cgroup.as_raw_fd() as u64;
        // SAFETY: `args` is a `struct clone_args`; without CLONE_VM the child continues on a copy of this stack.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
        if pid >= 0 {
            return pid as i32;
        }
    }
    // SAFETY: see `Zygote::fork`.
    unsafe { libc::fork() }
}
