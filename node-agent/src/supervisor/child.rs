//! Between fork and exec: the only `unsafe` code of the supervisor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::identity::Credentials;
use super::root::Namespace;

/// The descriptor of the script in the command.
const SCRIPT_FD: i32 = 3;
/// From `linux/sched.h`; libc's constant has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

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
        ]
        .into_iter()
        .find(|step| *step as u8 == byte)
    }
}

/// A list of strings as `execve` takes it, built before the fork.
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

/// What the child executes; nothing is allocated after the fork.
#[derive(Debug)]
pub(super) struct ExecPlan {
    pub(super) path: CString,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    pub(super) directory: CString,
    pub(super) umask: Mode,
    pub(super) credentials: Option<Credentials>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) script: Option<OwnedFd>,
    /// Limits of each process, soft and hard.
    pub(super) nofile: Option<u64>,
    pub(super) core: Option<u64>,
}

/// The descriptors that the child inherits.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    /// Standard input, output and error.
    pub(super) stdio: [OwnedFd; 3],
    /// The directory of its control group.
    pub(super) cgroup: Option<&'a OwnedFd>,
    /// The `cgroup.procs` of every control group that limits it.
    pub(super) join_files: &'a [OwnedFd],
    /// Where it reports the step that failed; closed by exec.
    pub(super) failed_at: OwnedFd,
}

impl ExecPlan {
    /// The steps before exec that need no unsafe code and have to succeed.
    fn prepare_exec(&self) -> Result<(), (ChildStep, rustix::io::Errno)> {
        let at = |step| move |errno| (step, errno);
        // Before the privilege to raise a hard limit is dropped. No descriptor is opened between here and exec.
        let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
        if let Some(count) = self.nofile {
            setrlimit(Resource::Nofile, both(count)).map_err(at(ChildStep::Nofile))?;
        }
        if let Some(bytes) = self.core {
            setrlimit(Resource::Core, both(bytes)).map_err(at(ChildStep::Core))?;
        }
        for namespace in &self.namespaces {
            move_into_link_name_space(namespace.fd.as_fd(), Some(namespace.kind))
                .map_err(at(ChildStep::Namespace))?;
        }
        if let Some(Credentials { uid, gid, groups }) = &self.credentials {
            set_thread_groups(groups).map_err(at(ChildStep::Groups))?;
            set_thread_res_gid(*gid, *gid, *gid).map_err(at(ChildStep::Group))?;
            set_thread_res_uid(*uid, *uid, *uid).map_err(at(ChildStep::User))?;
            let uids = (rustix::process::getuid(), rustix::process::geteuid());
            let gids = (rustix::process::getgid(), rustix::process::getegid());
            if uids != (*uid, *uid) || gids != (*gid, *gid) {
                return Err((ChildStep::Verify, rustix::io::Errno::PERM));
            }
        }
        rustix::process::chdir(&*self.directory).map_err(at(ChildStep::Directory))
    }

    /// The steps whose failure does not keep the command from running.
    fn apply_defaults(&self) {
        if self.core.is_none() {
            let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        }
        // Under memory pressure the command is killed before the agent and its supervisors.
        let path = c"/proc/self/oom_score_adj";
        if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&file, b"500");
        }
        rustix::process::umask(self.umask);
        // The child has inherited the supervisor's signal mask.
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }
}

/// Forks the child, which executes the plan; returns its pid. `failed_at` shows whether it got as far as exec.
///
/// By system call and not through std: std uses `execvp`, which passes a file of unknown format to a shell, and it cannot
/// create the child in its control group; moving it there would stall every fork of the machine for milliseconds.
#[expect(unsafe_code, reason = "fork, exec and the steps between them have no safe interface")]
pub(super) fn spawn(plan: &ExecPlan, inherited: &Inherited<'_>) -> io::Result<i32> {
    // SAFETY: the caller is single-threaded (a test is not, and the child does nothing that is affected by it).
    // The child makes system calls on descriptors and memory that `plan` and `inherited` own and that outlive it,
    // allocates nothing, takes no lock, does not unwind, and ends in exec or `_exit`. The addresses in `Strings`
    // are those of strings in the same plan. Descriptor 3 is not used in the child: the supervisor occupies it from its
    // first line on, so none of the descriptors that are needed here has that number.
    unsafe {
        let pid = fork(inherited.cgroup);
        if pid != 0 {
            return if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
        }
        let (step, errno) = child(plan, inherited);
        let mut failure = [step as u8, 0, 0, 0, 0];
        failure[1..].copy_from_slice(&errno.to_le_bytes());
        let _ = rustix::io::write(&inherited.failed_at, &failure);
        libc::_exit(127)
    }
}

/// Forks, into the control group where the kernel can (since 5.7).
#[expect(unsafe_code, reason = "see `spawn`")]
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
    // SAFETY: see `spawn`.
    unsafe { libc::fork() }
}

/// Everything between fork and exec; returns only on failure: the step and the errno.
#[expect(unsafe_code, reason = "see `spawn`")]
unsafe fn child(plan: &ExecPlan, inherited: &Inherited<'_>) -> (ChildStep, i32) {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: see `spawn`.
    unsafe {
        for (number, fd) in (0..).zip(&inherited.stdio) {
            if libc::dup2(fd.as_raw_fd(), number) < 0 {
                return (ChildStep::Pipes, errno());
            }
        }
        if let Err(errno) = rustix::process::setsid() {
            return (ChildStep::Session, errno.raw_os_error());
        }
        // Before namespaces and user are changed: these files are the agent's.
        for file in inherited.join_files {
            if let Err(errno) = rustix::io::write(file, b"0") {
                return (ChildStep::Limits, errno.raw_os_error());
            }
        }
        plan.apply_defaults();
        // The kernel's `sigaction`, all zero: the default for every signal, including those that libc reserves. For KILL
        // and STOP it fails, harmlessly.
        let default = [0_usize; 8];
        for signal in 1..=64 as libc::c_long {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0_usize, 8_usize);
        }
        if let Some(script) = &plan.script
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
        if plan.script.is_some() {
            libc::fcntl(SCRIPT_FD, libc::F_SETFD, 0);
        }
        if let Err((step, errno)) = plan.prepare_exec() {
            return (step, errno.raw_os_error());
        }
        let (argv, envp) = (plan.argv.addresses.as_ptr(), plan.envp.addresses.as_ptr());
        libc::execve(plan.path.as_ptr(), argv.cast(), envp.cast());
        (ChildStep::Exec, errno())
    }
}
