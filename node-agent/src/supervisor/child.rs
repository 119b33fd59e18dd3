//! Between fork and exec: the only `unsafe` code.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::identity::Change;
use super::root::Namespace;

/// The descriptor that a script is handed over as.
const SCRIPT_FD: i32 = 3;
/// From `linux/sched.h`; libc's constant has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child does between fork and exec; on failure, what it was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
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
}

impl Step {
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
        ]
        .into_iter()
        .find(|step| *step as u8 == byte)
    }
}

/// A list of strings as `exec` takes it, made before the fork.
#[derive(Debug)]
pub(super) struct Strings {
    /// Addresses of the strings, then 0. Kept as numbers, as pointers may not move between threads; the strings'
    /// own memory does not move.
    addresses: Vec<usize>,
    _strings: Vec<CString>,
}

impl Strings {
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let addresses = strings.iter().map(|s| s.as_ptr().expose_provenance()).chain([0]).collect();
        Self { addresses, _strings: strings }
    }
}

/// Everything the child needs; nothing is allocated after the fork.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) path: CString,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    pub(super) directory: CString,
    pub(super) umask: Mode,
    pub(super) change: Option<Change>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) script: Option<OwnedFd>,
    /// Limits of each process, soft and hard.
    pub(super) nofile: Option<u64>,
    pub(super) core: Option<u64>,
}

/// What the child is born with.
#[derive(Debug)]
pub(super) struct Birth<'a> {
    /// Standard input, output and error.
    pub(super) stdio: [OwnedFd; 3],
    /// The directory of its control group.
    pub(super) cgroup: Option<&'a OwnedFd>,
    /// The `cgroup.procs` of every control group that limits it.
    pub(super) joins: &'a [OwnedFd],
    /// Where it says at which step it failed; closed by exec.
    pub(super) failed_at: OwnedFd,
}

impl Plan {
    /// The steps before exec that need no unsafe code.
    fn become_the_command(&self) -> Result<(), (Step, rustix::io::Errno)> {
        let at = |step| move |errno| (step, errno);
        // While we may still raise a hard limit. Nothing opens a descriptor between here and exec.
        let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
        if let Some(count) = self.nofile {
            setrlimit(Resource::Nofile, both(count)).map_err(at(Step::Nofile))?;
        }
        if let Some(bytes) = self.core {
            setrlimit(Resource::Core, both(bytes)).map_err(at(Step::Core))?;
        }
        for namespace in &self.namespaces {
            move_into_link_name_space(namespace.fd.as_fd(), Some(namespace.kind))
                .map_err(at(Step::Namespace))?;
        }
        if let Some(Change { uid, gid, groups }) = &self.change {
            set_thread_groups(groups).map_err(at(Step::Groups))?;
            set_thread_res_gid(*gid, *gid, *gid).map_err(at(Step::Group))?;
            set_thread_res_uid(*uid, *uid, *uid).map_err(at(Step::User))?;
            let is = (rustix::process::getuid(), rustix::process::geteuid());
            let is_in = (rustix::process::getgid(), rustix::process::getegid());
            if is != (*uid, *uid) || is_in != (*gid, *gid) {
                return Err((Step::Verify, rustix::io::Errno::PERM));
            }
        }
        rustix::process::chdir(&*self.directory).map_err(at(Step::Directory))
    }

    /// The steps whose failure is no reason not to run the command.
    fn be_modest(&self) {
        if self.core.is_none() {
            let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        }
        // Under memory pressure the command goes before the agent and before us.
        let path = c"/proc/self/oom_score_adj";
        if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&file, b"500");
        }
        rustix::process::umask(self.umask);
        // std leaves the supervisor's own mask in place.
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }
}

/// Makes the child, which becomes what the plan says; returns its pid. Whether it got as far as exec is told by
/// `failed_at`.
///
/// By system call and not through std: std would go through `execvp`, which hands a file of unknown format to a
/// shell, and it cannot have the child born in its control group, where moving it there would hold up every fork of
/// the machine for milliseconds.
#[expect(unsafe_code, reason = "fork, exec and the steps between them have no safe interface")]
pub(super) fn spawn(plan: &Plan, birth: &Birth<'_>) -> io::Result<i32> {
    // SAFETY: the caller is single-threaded (a test's process is not, and the child does nothing that would mind).
    // The child makes system calls on descriptors and memory that `plan` and `birth` own and that outlive it,
    // allocates nothing, takes no lock, does not unwind, and ends in exec or `_exit`. The addresses in `Strings`
    // are those of strings that live in the same plan. Descriptor 3 belongs to nobody in the child: the supervisor
    // occupies it from its first line on, so none of those that are needed here is there.
    unsafe {
        let pid = fork(birth.cgroup);
        if pid != 0 {
            return if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
        }
        let (step, errno) = child(plan, birth);
        let mut said = [step as u8, 0, 0, 0, 0];
        said[1..].copy_from_slice(&errno.to_le_bytes());
        let _ = rustix::io::write(&birth.failed_at, &said);
        libc::_exit(127)
    }
}

/// Forks, into the control group where the kernel can (5.7) and may.
#[expect(unsafe_code, reason = "see `spawn`")]
unsafe fn fork(cgroup: Option<&OwnedFd>) -> i32 {
    if let Some(cgroup) = cgroup {
        let mut args = [0_u64; 11];
        args[0] = CLONE_INTO_CGROUP;
        args[4] = libc::SIGCHLD as u64;
        args[10] = cgroup.as_raw_fd() as u64;
        // SAFETY: `args` is a `struct clone_args`; without CLONE_VM the child goes on with a copy of this stack.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
        if pid >= 0 {
            return pid as i32;
        }
    }
    // SAFETY: see `spawn`.
    unsafe { libc::fork() }
}

/// Everything between fork and exec; returns only to say at which step it failed, and how.
#[expect(unsafe_code, reason = "see `spawn`")]
unsafe fn child(plan: &Plan, birth: &Birth<'_>) -> (Step, i32) {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: see `spawn`.
    unsafe {
        for (number, fd) in (0..).zip(&birth.stdio) {
            if libc::dup2(fd.as_raw_fd(), number) < 0 {
                return (Step::Pipes, errno());
            }
        }
        if let Err(errno) = rustix::process::setsid() {
            return (Step::Session, errno.raw_os_error());
        }
        // Before anything of the node's is looked at through the namespaces and as the user: these are our files.
        for join in birth.joins {
            if let Err(errno) = rustix::io::write(join, b"0") {
                return (Step::Limits, errno.raw_os_error());
            }
        }
        plan.be_modest();
        // The kernel's own `sigaction`, all zero: the default for every signal, those that libc keeps for itself
        // included. For KILL and STOP it is refused, and needless.
        let default = [0_usize; 8];
        for signal in 1..=64 as libc::c_long {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0_usize, 8_usize);
        }
        if let Some(script) = &plan.script
            && libc::dup2(script.as_raw_fd(), SCRIPT_FD) < 0
        {
            return (Step::Script, errno());
        }
        let cloexec = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC.cast_signed());
        if libc::syscall(libc::SYS_close_range, 3 as libc::c_long, libc::c_long::from(i32::MAX), cloexec) < 0
        {
            // Kernels before 5.11.
            for fd in 3..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        if plan.script.is_some() {
            libc::fcntl(SCRIPT_FD, libc::F_SETFD, 0);
        }
        if let Err((step, errno)) = plan.become_the_command() {
            return (step, errno.raw_os_error());
        }
        let (argv, envp) = (plan.argv.addresses.as_ptr(), plan.envp.addresses.as_ptr());
        libc::execve(plan.path.as_ptr(), argv.cast(), envp.cast());
        (Step::Exec, errno())
    }
}
