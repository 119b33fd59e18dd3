//! Resets the process attributes that agent and supervisor depend on, whatever started them.
//!
//! A process inherits ignored and blocked signals, a pending alarm, limits, a umask and open descriptors. Some of them
//! would break it silently: with SIGCHLD ignored the end of a command is not observed, with SIGTERM blocked the agent does
//! not exit, with a file size limit no record is written. So each process sets them before anything else. Commands have a
//! set of their own, which does not depend on what started the agent either; it is listed in
//! `docs/clocks-and-limits.md`.
//!
//! Attributes that a parent may have set on purpose are kept: niceness and scheduling, processor affinity, an ignored
//! SIGHUP (nohup), the parent-death signal, and hard limits that cannot be raised.

use std::io;

use nix::libc;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};

use crate::error_category::ErrorCategory;

/// Descriptors without which an agent cannot work: its files and sockets, and the pipes to the supervisors that wait.
const DESCRIPTORS_NEEDED: u64 = 64;

/// The soft limit of descriptors of a command; a program that needs more raises it, up to the hard limit.
const DESCRIPTORS_OF_COMMAND: u64 = 1024;

/// The soft limit of the stack, as the kernel has it by default.
const STACK: u64 = 8 << 20;

/// Limits that are removed for the process and its commands. One on file size or processor time would kill a supervisor in
/// the middle of its work, and the limits of a command are in its Task.
const UNLIMITED: [Resource; 7] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::As,
    Resource::Data,
    Resource::Rss,
    Resource::Locks,
    Resource::Rttime,
];

/// Blocks that are smaller are kept, bytes: larger than a frame of output.
#[cfg(target_env = "gnu")]
const KEPT_BELOW: libc::c_int = 4 << 20;

/// How much is kept at the end of the heap, bytes.
#[cfg(target_env = "gnu")]
const KEPT_AT_END: libc::c_int = 8 << 20;

/// The role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An agent, or many of them in one process.
    Agent,
    /// The supervisor of one Attempt. Its command inherits its limits.
    Supervisor,
    /// A command line without state. Only signals are reset, so that it can be ended and can wait for children.
    CommandLine,
}

/// Why a process cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There are too few descriptors, and the limit cannot be raised.
    #[error(
        "this process may open {limit} files (hard limit, ulimit -Hn) and needs at least {DESCRIPTORS_NEEDED}; raise it \
         with ulimit -n, LimitNOFILE= of the unit, or the runtime's nofile ulimit"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
    },
}

impl Unfit {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Descriptors { .. } => ErrorCategory::Resources,
        }
    }

    /// Whether starting again may succeed though the limit was not changed.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Resets the attributes of this process. To be called first in `main`, before any thread or runtime exists.
///
/// # Errors
/// [`Unfit`] when the process could not work.
pub fn apply(role: Role) -> Result<(), Unfit> {
    default_signals();
    // A signal that was blocked and pending is delivered here.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let _ = nix::unistd::alarm::cancel();
    if role == Role::CommandLine {
        return Ok(());
    }
    close_inherited_descriptors(role);
    rustix::process::umask(Mode::from_raw_mode(0o077));
    // No memory, environment or descriptor of this process is shown to others of its user in /proc, nor is it traced by them, nor does a
    // core file hold its token. Root with CAP_SYS_PTRACE may all the same.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for resource in UNLIMITED {
        remove_limit(resource);
    }
    raise(Resource::Nproc);
    set_stack();
    // A core dump of either may have the value of a Secret. A command that asks for one raises it, up to the hard limit.
    set_soft(Resource::Core, 0);
    match role {
        Role::Supervisor => set_soft(Resource::Nofile, DESCRIPTORS_OF_COMMAND),
        _ => raise(Resource::Nofile),
    }
    if role == Role::Agent {
        keep_blocks();
    }
    if role == Role::Agent
        && let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < DESCRIPTORS_NEEDED)
    {
        return Err(Unfit::Descriptors { limit });
    }
    Ok(())
}

/// Every signal has its default action, except those that would kill the process where an error code is enough. SIGHUP
/// stays ignored if it was, as nohup intends. SIGSEGV and SIGBUS are handled by Rust, for its stack guard.
#[expect(unsafe_code, reason = "dispositions of signals have no safe interface")]
fn default_signals() {
    let kept = [libc::SIGKILL, libc::SIGSTOP, libc::SIGHUP, libc::SIGSEGV, libc::SIGBUS];
    for signal in (1..=64).filter(|signal| !kept.contains(signal)) {
        let disposition = match signal {
            // A write to a pipe without a reader, or beyond a limit of file sizes.
            libc::SIGPIPE | libc::SIGXFSZ => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        // SAFETY: no handler is installed, and no other thread exists. For the two signals that libc reserves it
        // fails, which changes nothing.
        unsafe { libc::signal(signal, disposition) };
    }
}

/// Has the allocator keep blocks of the size of output's frames: glibc gets them from the kernel each time, which clears them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "it has no safe interface")]
fn keep_blocks() {
    // SAFETY: it may be called at any time (mallopt(3)). Where it fails, the values of glibc stay.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BELOW);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_END);
    }
}

/// Other allocators keep them.
#[cfg(not(target_env = "gnu"))]
fn keep_blocks() {}

/// Closes inherited descriptors: a supervisor outlives the agent and would keep a pipe of the agent's parent open, which may
/// wait for its end. The agent keeps its own, but does not pass them on.
#[expect(unsafe_code, reason = "close_range has no safe interface")]
fn close_inherited_descriptors(role: Role) {
    let flags = match role {
        Role::Supervisor => 0,
        _ => libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC.cast_signed()),
    };
    // SAFETY: this process has not opened a descriptor yet, so none in use is closed.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, 3 as libc::c_long, libc::c_long::from(i32::MAX), flags)
    };
    if done < 0 {
        // Kernels before 5.9, and before 5.11 for the flag.
        for fd in 3..4096 {
            // SAFETY: as above; on a number that is not open it fails, which changes nothing.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Removes a limit, or raises it as far as possible.
fn remove_limit(resource: Resource) {
    if setrlimit(resource, Rlimit { current: None, maximum: None }).is_err() {
        raise(resource);
    }
}

fn raise(resource: Resource) {
    let limit = getrlimit(resource);
    // A soft limit may always be raised to the hard one.
    let _ = setrlimit(resource, Rlimit { current: limit.maximum, ..limit });
}

fn set_soft(resource: Resource, soft: u64) {
    let limit = getrlimit(resource);
    let soft = limit.maximum.map_or(soft, |hard| hard.min(soft));
    let _ = setrlimit(resource, Rlimit { current: Some(soft), ..limit });
}

fn set_stack() {
    if getrlimit(Resource::Stack).maximum.is_some_and(|hard| hard < STACK) {
        // This needs a privilege; without it the limit stays.
        let _ = setrlimit(Resource::Stack, Rlimit { current: Some(STACK), maximum: None });
    }
    set_soft(Resource::Stack, STACK);
}

/// How many more files this process can open, by its soft limit; `None` means unlimited.
pub fn descriptors_left() -> io::Result<Option<u64>> {
    let open = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    Ok(getrlimit(Resource::Nofile).current.map(|limit| limit.saturating_sub(open)))
}
