//! The process that becomes the command: forked before its request is known, so that only exec is left to do when it comes.
//!
//! It waits at a socket. First it is asked to make the log durable, while the supervisor prepares the command. Then the supervisor
//! stores a plan in shared memory and sends the descriptors that belong to it; the process executes the plan ([`super::child`])
//! and calls `execve`. The socket shows how far it came: nothing but end-of-file means that it ended before, and no command was
//! started.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::cgroup::Cgroup;
use super::child::{self, ABOUT_TO_EXEC, ChildStep, EXECUTE, SYNC};
use super::plan::{Arena, ExecPlan, Inherited, MAX_FDS};

/// From `linux/sched.h`; libc's constant has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that waits for its plan. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Zygote {
    pid: Pid,
    /// `None` once a plan was sent.
    socket: Option<OwnedFd>,
    arena: Arena,
}

/// Why the command is not running.
#[derive(Debug)]
pub(super) enum NotExecuted {
    /// It could not be asked to, or ended before it was: another one may be.
    Ended(io::Error),
    /// A step failed.
    Failed(Option<ChildStep>, io::Error),
}

impl Zygote {
    /// Forks it into this control group.
    ///
    /// By system call and not through std: std uses `execvp`, which passes a file of unknown format to a shell, and it cannot
    /// create the process in its control group; moving it there would stall every fork of the machine for milliseconds.
    #[expect(unsafe_code, reason = "fork has no safe interface")]
    pub(super) fn fork(cgroup: Option<&Cgroup>) -> io::Result<Self> {
        let arena = Arena::new()?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // SAFETY: the caller is single-threaded (a test is not, and `child::run` does nothing that is affected by it).
        let pid = unsafe { fork(cgroup.map(Cgroup::directory)) };
        if pid == 0 {
            // Only the supervisor may hold its end, or this process would never see the end-of-file.
            drop(ours);
            // SAFETY: the arena is shared with the parent, which fills it before it sends a message.
            unsafe { child::run(theirs.as_fd(), arena.plan()) }
        }
        let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { pid, socket: Some(ours), arena })
    }

    /// Has it make the log durable, without waiting; if that fails, it executes nothing.
    pub(super) fn sync(&self, log: &File) -> io::Result<()> {
        self.send(SYNC, &[log.as_fd()])
    }

    /// Makes it the command. The caller still has its copies of the descriptors.
    pub(super) fn execute(mut self, plan: &ExecPlan, inherited: &Inherited<'_>) -> Result<Pid, NotExecuted> {
        let fds = self.arena.store(plan, inherited).map_err(|error| NotExecuted::Failed(None, error))?;
        let sent = self.send(EXECUTE, &fds).map_err(NotExecuted::Ended);
        let socket = self.socket.take();
        let executed = sent.and_then(|()| socket.as_ref().map_or(Ok(()), progress));
        if executed.is_err() {
            drop(socket);
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
        executed.map(|()| self.pid)
    }

    fn send(&self, message: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
        sendmsg(socket, &[IoSlice::new(&[message])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            drop(socket);
            // It exits at once, at end-of-file.
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}

/// How far the process came, when its end of the socket is closed.
fn progress(socket: &OwnedFd) -> Result<(), NotExecuted> {
    let mut bytes = [0; 16];
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::read(socket, &mut bytes[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    let about_to = read > 0 && bytes[0] == ABOUT_TO_EXEC;
    match &bytes[usize::from(about_to)..read] {
        [] if about_to => Ok(()),
        [] => Err(NotExecuted::Ended(io::ErrorKind::UnexpectedEof.into())),
        [step, errno @ ..] => {
            let errno = errno.try_into().map_or(0, i32::from_le_bytes);
            Err(NotExecuted::Failed(ChildStep::from_byte(*step), io::Error::from_raw_os_error(errno)))
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
