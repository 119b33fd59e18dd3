//! Forks supervisors: a process that has executed this binary already, and has done what every supervisor does first.
//!
//! A supervisor that is forked from it takes a third of the processor time of one that is executed, and shares its memory. It is a
//! child of the agent all the same (`CLONE_PARENT`), which reaps it and knows its pid.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::Pid;

use super::invocation::{ARGUMENT, HostNamespaces, hidden_argument, state_dir_argument};

/// How long the first fork may take, which waits for the server to start, and each later one. The agent's loop waits with it.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// The agent's side. Dropped, the server exits; what it has forked continues.
#[derive(Debug)]
pub(super) struct ForkServer {
    process: Child,
    socket: OwnedFd,
    has_answered: bool,
    /// It has become a supervisor itself, as it may not fork for the agent.
    is_supervisor: bool,
}

/// Why there is no supervisor.
#[derive(Debug)]
pub(super) enum ForkError {
    /// The server could not fork; it may be asked again.
    Refused(io::Error),
    /// The server has died or hangs. What it has forked all the same is to be reaped.
    Dead { error: io::Error, forked: Option<Pid> },
}

impl ForkError {
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Refused(error) | Self::Dead { error, .. } => error,
        }
    }
}

impl ForkServer {
    /// Starts it from this binary, for supervisors that prepare a directory in `state_dir`, and whose commands do not see
    /// what is `hidden`.
    ///
    /// # Errors
    /// When the process could not be created.
    pub(super) fn start(
        program: &Path,
        host: HostNamespaces,
        state_dir: Option<&Path>,
        hidden: &[PathBuf],
    ) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // No option here may make std fork instead of posix_spawn: a large agent would copy its page tables.
        let process = Command::new(program)
            .arg(ARGUMENT)
            .args(host.argument())
            .args(state_dir.map(state_dir_argument))
            .args(hidden.iter().map(|path| hidden_argument(path)))
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process, socket, has_answered: false, is_supervisor: false })
    }

    /// Forks a supervisor, and returns the other end of its standard input: a pipe that no other one ever gets.
    ///
    /// # Errors
    /// See [`ForkError`].
    pub(super) fn fork(&mut self) -> Result<(Pid, File), ForkError> {
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (stdin, ours) = pipe.map_err(|error| ForkError::Refused(error.into()))?;
        let answer = self.request(&stdin).map_err(|error| self.dead(error))?;
        self.has_answered = true;
        let Some(pid) = child(answer) else {
            return Err(ForkError::Refused(io::Error::from_raw_os_error(-answer)));
        };
        self.is_supervisor = pid.as_raw_nonzero().get().unsigned_abs() == self.process.id();
        Ok((pid, ours.into()))
    }

    /// Whether it can be asked again.
    pub(super) fn is_alive(&mut self) -> bool {
        !self.is_supervisor && matches!(self.process.try_wait(), Ok(None))
    }

    fn request(&self, stdin: &OwnedFd) -> io::Result<i32> {
        let descriptors = [stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        let until = Instant::now() + if self.has_answered { ANSWERS_WITHIN } else { STARTS_WITHIN };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.received().unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into())),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An answer that has arrived; `None` at the end.
    fn received(&self) -> Option<io::Result<i32>> {
        let mut answer = [0; 4];
        match recv(&self.socket, &mut answer, RecvFlags::DONTWAIT) {
            Ok((_, 4)) => Some(Ok(i32::from_ne_bytes(answer))),
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Ends it, so that nothing is forked any more, and then sees what was.
    fn dead(&mut self, error: io::Error) -> ForkError {
        self.end();
        let late = self.received().and_then(Result::ok).and_then(child);
        ForkError::Dead { error, forked: late }
    }

    fn end(&mut self) {
        // It may hang, or wait for its socket, which closes only behind this.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        if !self.is_supervisor {
            self.end();
        }
    }
}

/// Serves the socket that is standard input until the agent exits. Returns true in each process that it forks, with the standard
/// input that the agent has sent, and false in the server itself, at the end. A server that may not fork for the agent becomes the
/// supervisor that was asked for.
///
/// To be called in a process with one thread.
pub(super) fn serve() -> bool {
    loop {
        let Some(stdin) = receive() else { return false };
        match clone_as_sibling() {
            Ok(Some(_)) => {}
            Ok(None) => return become_supervisor(&stdin),
            Err(error) => match Errno::from_io_error(&error) {
                // Filtered, or not known here.
                Some(Errno::PERM | Errno::INVAL | Errno::NOSYS) => return become_supervisor(&stdin),
                errno => answer(-errno.map_or(libc::EIO, Errno::raw_os_error)),
            },
        }
    }
}

/// The answer is the new process's own, so that a server that dies in between loses none.
fn become_supervisor(stdin: &OwnedFd) -> bool {
    answer(std::process::id().cast_signed());
    rustix::stdio::dup2_stdin(stdin).is_ok()
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
