//! From fork to exec: what the process does that becomes the command.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::plan::{MAX_FDS, Plan, PlanFds};

/// The descriptor of the script in the command.
const SCRIPT_FD: i32 = 3;
/// Messages to the process: make the log durable that comes with it; execute the plan with the descriptors that come with it.
pub(super) const SYNC: u8 = b'S';
pub(super) const EXECUTE: u8 = b'X';

/// Written before exec: without it the process has ended before, and no command was started.
pub(super) const ABOUT_TO_EXEC: u8 = b'!';

/// A step between fork and exec, reported when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ChildStep {
    Session = 1,
    Script = 2,
    Namespace = 3,
    Groups = 4,
    Group = 5,
    User = 6,
    Verify = 7,
    Directory = 8,
    Exec = 9,
    Pipes = 10,
    Limits = 11,
    Nofile = 12,
    Core = 13,
    Log = 14,
}

impl ChildStep {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Session,
            Self::Script,
            Self::Namespace,
            Self::Groups,
            Self::Group,
            Self::User,
            Self::Verify,
            Self::Directory,
            Self::Exec,
            Self::Pipes,
            Self::Limits,
            Self::Nofile,
            Self::Core,
            Self::Log,
        ]
        .into_iter()
        .find(|step| *step as u8 == byte)
    }
}

/// Everything from the fork to exec; never returns.
///
/// It makes system calls on descriptors and memory that exist, allocates nothing, takes no lock and does not unwind: the
/// process may be the copy of one with several threads.
///
/// # Safety
/// `plan` points to the arena that the parent fills before it sends a message; nothing else of the parent is used.
#[expect(unsafe_code, reason = "exec, and what leads to it, has no safe interface")]
pub(super) unsafe fn run(socket: BorrowedFd<'_>, plan: *const Plan) -> ! {
    // SAFETY: see above; the message shows that the plan is complete.
    unsafe {
        become_independent();
        let mut fds = [const { None }; MAX_FDS];
        let mut synced = Ok(());
        loop {
            match receive(socket, &mut fds) {
                Some(SYNC) => synced = fds[0].take().map_or(Err(Errno::BADF), rustix::fs::fdatasync),
                Some(EXECUTE) => break,
                // The supervisor has ended, or needs no command.
                _ => libc::_exit(0),
            }
        }
        let plan = &*plan;
        let (step, errno) = match synced {
            Ok(()) => execute(socket, plan, &plan.fds(&fds)),
            Err(errno) => (ChildStep::Log, errno.raw_os_error()),
        };
        let mut failure = [step as u8, 0, 0, 0, 0];
        failure[1..].copy_from_slice(&errno.to_le_bytes());
        let _ = rustix::io::write(socket, &failure);
        libc::_exit(127)
    }
}

/// What every command needs, before it is known.
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn become_independent() {
    let _ = rustix::process::setsid();
    // Under memory pressure the command is killed before the agent and its supervisors.
    let path = c"/proc/self/oom_score_adj";
    if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, b"500");
    }
    // The kernel's `sigaction`, all zero: the default for every signal, including those that libc reserves. For KILL
    // and STOP it fails, harmlessly.
    let default = [0_usize; 8];
    for signal in 1..=64 as libc::c_long {
        // SAFETY: the kernel reads 32 bytes of `default`.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0_usize, 8_usize) };
    }
    // Inherited from the supervisor.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Waits for a message and its descriptors; `None` at end-of-file.
fn receive(socket: BorrowedFd<'_>, fds: &mut [Option<OwnedFd>; MAX_FDS]) -> Option<u8> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    received.ok().filter(|message| message.bytes == 1)?;
    let mut places = fds.iter_mut();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            received.zip(&mut places).for_each(|(fd, place)| *place = Some(fd));
        }
    }
    Some(byte[0])
}

/// Executes the plan; returns only on failure: the step and the errno.
#[expect(unsafe_code, reason = "see `run`")]
unsafe fn execute(socket: BorrowedFd<'_>, plan: &Plan, fds: &PlanFds<'_>) -> (ChildStep, i32) {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: see `run`. Descriptor 3 is none of those that are needed here: the supervisor occupies it from its first line on.
    unsafe {
        for (number, fd) in (0..).zip(fds.stdio) {
            let Some(fd) = fd else { return (ChildStep::Pipes, libc::EBADF) };
            if libc::dup2(fd.as_raw_fd(), number) < 0 {
                return (ChildStep::Pipes, errno());
            }
        }
        // Before namespaces and user are changed: these files are the agent's.
        for file in fds.join_files.iter().flatten() {
            if let Err(errno) = rustix::io::write(file, b"0") {
                return (ChildStep::Limits, errno.raw_os_error());
            }
        }
        if let Some(script) = fds.script
            && libc::dup2(script.as_raw_fd(), SCRIPT_FD) < 0
        {
            return (ChildStep::Script, errno());
        }
        let cloexec = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC.cast_signed());
        if libc::syscall(libc::SYS_close_range, 3 as libc::c_long, libc::c_long::from(i32::MAX), cloexec) < 0
        {
            // Kernels before 5.11.
            for fd in 3..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        if fds.script.is_some() {
            libc::fcntl(SCRIPT_FD, libc::F_SETFD, 0);
        }
        if let Err((step, errno)) = prepare_exec(plan, fds.namespaces) {
            return (step, errno.raw_os_error());
        }
        if let Err(errno) = rustix::io::write(socket, &[ABOUT_TO_EXEC]) {
            return (ChildStep::Pipes, errno.raw_os_error());
        }
        libc::execve(plan.path(), plan.argv(), plan.envp());
        (ChildStep::Exec, errno())
    }
}

/// The steps before exec that need no unsafe code and have to succeed.
fn prepare_exec(plan: &Plan, namespaces: &[Option<OwnedFd>]) -> Result<(), (ChildStep, Errno)> {
    let at = |step| move |errno| (step, errno);
    rustix::process::umask(plan.umask());
    // Before the privilege to raise a hard limit is dropped. No descriptor is opened between here and exec.
    let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
    if let Some(count) = plan.nofile() {
        setrlimit(Resource::Nofile, both(count)).map_err(at(ChildStep::Nofile))?;
    }
    match plan.core() {
        Some(bytes) => setrlimit(Resource::Core, both(bytes)).map_err(at(ChildStep::Core))?,
        // Its failure does not keep the command from running.
        None => drop(setrlimit(Resource::Core, both(0))),
    }
    for (namespace, kind) in namespaces.iter().zip(plan.namespaces()) {
        let Some(namespace) = namespace else { return Err((ChildStep::Namespace, Errno::BADF)) };
        let kind: LinkNameSpaceType = kind;
        move_into_link_name_space(namespace.as_fd(), Some(kind)).map_err(at(ChildStep::Namespace))?;
    }
    if let Some((uid, gid, groups)) = plan.credentials() {
        enter(uid, gid, groups)?;
    }
    rustix::process::chdir(plan.directory()).map_err(at(ChildStep::Directory))
}

fn enter(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), (ChildStep, Errno)> {
    let at = |step| move |errno| (step, errno);
    set_thread_groups(groups).map_err(at(ChildStep::Groups))?;
    set_thread_res_gid(gid, gid, gid).map_err(at(ChildStep::Group))?;
    set_thread_res_uid(uid, uid, uid).map_err(at(ChildStep::User))?;
    let uids = (rustix::process::getuid(), rustix::process::geteuid());
    let gids = (rustix::process::getgid(), rustix::process::getegid());
    if uids == (uid, uid) && gids == (gid, gid) { Ok(()) } else { Err((ChildStep::Verify, Errno::PERM)) }
}
