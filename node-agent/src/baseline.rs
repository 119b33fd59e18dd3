//! What a process of ours depends on, set at its start: it may have been started by anything.
//!
//! A parent passes on ignored and blocked signals, an alarm that is about to ring, limits, a umask and open
//! descriptors. Some of them would stop us without a word: with SIGCHLD ignored no end of a command is seen, with
//! SIGTERM blocked no agent ends, with a file size limit no record is written. So each process sets them before
//! anything else. Commands get a set of their own, which does not depend on who started the agent either; it is listed
//! in `docs/clocks-and-limits.md`.
//!
//! What a parent may well want is left alone: niceness and scheduling, processor affinity, an ignored SIGHUP (nohup),
//! the signal at the parent's death, and hard limits that we may not raise.

use std::io;

use nix::libc;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors without which an agent cannot work: its files and sockets, and the pipes to one supervisor.
const DESCRIPTORS_NEEDED: u64 = 64;

/// The soft limit of descriptors of a command; a program that needs more raises it, up to the hard limit.
const DESCRIPTORS_OF_COMMAND: u64 = 1024;

/// The soft limit of the stack, as the kernel has it by default.
const STACK: u64 = 8 << 20;

/// Limits that we and our commands are to be without. One on the size of files or on processor time would end a
/// supervisor in the middle of its work, and who limits a command says so in its Task.
const UNLIMITED: [Resource; 7] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::As,
    Resource::Data,
    Resource::Rss,
    Resource::Locks,
    Resource::Rttime,
];

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An agent, or many of them in one process.
    Agent,
    /// The supervisor of one Attempt. Its command inherits its limits.
    Supervisor,
    /// A command line that keeps nothing. It only makes sure that it can be ended and can wait for children.
    CommandLine,
}

/// Why a process cannot do its work.
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

/// Sets what this process depends on. To be called first thing in `main`, before any thread or runtime exists.
///
/// # Errors
/// [`Unfit`] when the process could not do its work.
pub fn settle(role: Role) -> Result<(), Unfit> {
    default_signals();
    // One that was blocked until now and pending arrives here.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let _ = nix::unistd::alarm::cancel();
    if role == Role::CommandLine {
        return Ok(());
    }
    let_go_of_descriptors(role);
    rustix::process::umask(Mode::from_raw_mode(0o077));
    for resource in UNLIMITED {
        lift(resource);
    }
    raise(Resource::Nproc);
    set_stack();
    match role {
        Role::Supervisor => set_soft(Resource::Nofile, DESCRIPTORS_OF_COMMAND),
        _ => raise(Resource::Nofile),
    }
    if role == Role::Agent
        && let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < DESCRIPTORS_NEEDED)
    {
        return Err(Unfit::Descriptors { limit });
    }
    Ok(())
}

/// Every signal does what it does by default, but for those that would end us where an error code tells as much.
/// SIGHUP stays ignored if it was: nohup means it. SIGSEGV and SIGBUS are Rust's own, for its stack guard.
#[expect(unsafe_code, reason = "dispositions of signals have no safe interface")]
fn default_signals() {
    let kept = [libc::SIGKILL, libc::SIGSTOP, libc::SIGHUP, libc::SIGSEGV, libc::SIGBUS];
    for signal in (1..=64).filter(|signal| !kept.contains(signal)) {
        let disposition = match signal {
            // A write to a pipe without a reader, or beyond a limit of file sizes.
            libc::SIGPIPE | libc::SIGXFSZ => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        // SAFETY: no handler is installed, and no other thread exists. For the two signals that libc keeps for itself
        // it fails, which changes nothing.
        unsafe { libc::signal(signal, disposition) };
    }
}

/// What others left open is not held open by us: a supervisor outlives the agent, and with it a pipe of whoever started
/// the agent, who would wait for its end. An agent was perhaps given one for a reason; its children were not.
#[expect(unsafe_code, reason = "close_range has no safe interface")]
fn let_go_of_descriptors(role: Role) {
    let flags = match role {
        Role::Supervisor => 0,
        _ => libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC.cast_signed()),
    };
    // SAFETY: nothing has been opened yet by us, so nothing that is in use is closed.
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

/// No limit, if we may; as much as we may otherwise.
fn lift(resource: Resource) {
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
        // It takes a privilege; without it, what there is has to do.
        let _ = setrlimit(Resource::Stack, Rlimit { current: Some(STACK), maximum: None });
    }
    set_soft(Resource::Stack, STACK);
}

/// How many more files this process could open, by its soft limit; `None` is any number.
pub fn descriptors_left() -> io::Result<Option<u64>> {
    let open = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    Ok(getrlimit(Resource::Nofile).current.map(|limit| limit.saturating_sub(open)))
}
