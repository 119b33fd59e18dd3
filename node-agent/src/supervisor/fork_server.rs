//! Forks supervisors: a process that has executed this binary already, and has done what every supervisor does first.
//!
//! A supervisor that is forked from it takes a third of the processor time of one that is executed, and shares its memory. It is a
//! child of the agent all the same (`CLONE_PARENT`), which reaps it and knows its pid.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::Pid;

use super::invocation::{ARGUMENT, HostNamespaces, state_dir_argument};

/// How long a fork may take before the server counts as dead.
const ANSWERS_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The agent's side. Dropped, the server exits; what it has forked continues.
#[derive(Debug)]
pub(super) struct ForkServer {
    process: Child,
    socket: OwnedFd,
}

impl ForkServer {
    /// Starts it from this binary.
    pub(super) fn start(program: &Path, host: HostNamespaces, state_dir: Option<&Path>) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // No option here may make std fork instead of posix_spawn: a large agent would copy its page tables.
        let process = Command::new(program)
            .arg(ARGUMENT)
            .args(host.argument())
            .args(state_dir.map(state_dir_argument))
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process, socket })
    }

    /// Forks a supervisor with this standard input.
    ///
    /// # Errors
    /// When the server has died, or hangs. The inner error is that of the fork.
    pub(super) fn fork(&self, stdin: &OwnedFd) -> io::Result<io::Result<Pid>> {
        let stdin = [stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&stdin));
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        if poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&ANSWERS_WITHIN))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut answer = [0; 4];
        match recv(&self.socket, &mut answer, RecvFlags::empty())? {
            (_, 4) => {}
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        let answer = i32::from_ne_bytes(answer);
        Ok(child(answer).ok_or_else(|| io::Error::from_raw_os_error(-answer)))
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        // It may hang, or wait for its socket, which closes only behind this.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves the socket that is standard input until the agent exits. Returns true in each process that it forks, with the standard input
/// that the agent has sent, and false in the server itself, at the end.
///
/// To be called in a process with one thread.
pub(super) fn serve() -> bool {
    loop {
        let Some(stdin) = receive() else { return false };
        match clone_as_sibling() {
            Ok(None) => return rustix::stdio::dup2_stdin(&stdin).is_ok(),
            Ok(Some(pid)) => answer(pid.as_raw_nonzero().get()),
            Err(error) => answer(-error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

/// The standard input of the next supervisor.
fn receive() -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    loop {
        let mut into = [IoSliceMut::new(&mut byte)];
        match recvmsg(rustix::stdio::stdin(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Ok(message) if message.bytes > 0 => break,
            _ => return None,
        }
    }
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

fn answer(pid_or_error: i32) {
    // An agent that has exited is found at the next receive.
    let _ = send(rustix::stdio::stdin(), &pid_or_error.to_ne_bytes(), SendFlags::NOSIGNAL);
}

/// Forks a child of this process's parent; `None` in it.
#[expect(unsafe_code, reason = "fork has no safe interface")]
fn clone_as_sibling() -> io::Result<Option<Pid>> {
    // Not `clone3`, as this one is also in kernels and filters that do not know that. Its other arguments differ in order between
    // architectures, and are all zero.
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: this process has one thread, so that the child may do whatever this process may; without CLONE_VM it continues on a
    // copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    if pid == 0 {
        return Ok(None);
    }
    child(pid as i32).map(Some).ok_or_else(io::Error::last_os_error)
}

/// The child, from what a fork returns in its parent; `None` when that is an error.
pub(super) fn child(forked: i32) -> Option<Pid> {
    // `from_raw` panics on a negative number.
    Some(forked).filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

/// A pipe to the next supervisor: its end, and the agent's.
pub(super) fn pipe() -> io::Result<(OwnedFd, File)> {
    let (theirs, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((theirs, ours.into()))
}
