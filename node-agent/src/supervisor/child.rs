//! Between fork and exec: the only `unsafe` code.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::identity::Change;
use super::root::Namespace;

/// The descriptor that a script is handed over as.
const SCRIPT_FD: i32 = 3;

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
    /// Where the child says at which step it failed.
    pub(super) failed_at: OwnedFd,
}

impl Plan {
    /// The steps before exec that need no unsafe code.
    fn become_the_command(&self) -> Result<(), (Step, rustix::io::Errno)> {
        let at = |step| move |errno| (step, errno);
        for namespace in &self.namespaces {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace.fd), Some(namespace.kind))
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
        let core = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(Resource::Core, core);
        // Under memory pressure the command goes before the agent and before us.
        let path = c"/proc/self/oom_score_adj";
        if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&file, b"500");
        }
        rustix::process::umask(self.umask);
        // std leaves the supervisor's own mask in place.
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }

    fn fail(&self, step: Step, errno: io::Error) -> io::Error {
        let _ = rustix::io::write(&self.failed_at, &[step as u8]);
        errno
    }
}

/// Lets `command` become what the plan says. It executes the plan's program by itself, and so returns to std only
/// with an error: std would go through `execvp`, which hands a file of unknown format to a shell.
#[expect(
    unsafe_code,
    reason = "the steps between fork and exec have no safe interface; they do not allocate"
)]
pub(super) fn follow(command: &mut Command, plan: Plan) {
    // SAFETY: the closure runs in the forked child of a single-threaded process. It makes system calls on
    // descriptors and memory that the plan owns, allocates nothing and takes no lock. The addresses in `Strings`
    // are those of strings that live in the same plan. Descriptor 3 belongs to nobody in the child: the
    // supervisor occupies it from its first line on, so neither std's own pipe nor one of the plan's is there.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid().map_err(|errno| plan.fail(Step::Session, errno.into()))?;
            plan.be_modest();
            // The kernel's own `sigaction`, all zero: the default for every signal, those that libc keeps for
            // itself included. For KILL and STOP it is refused, and needless.
            let default = [0_usize; 8];
            for signal in 1..=64 as libc::c_long {
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0_usize, 8_usize);
            }
            if let Some(script) = &plan.script
                && libc::dup2(script.as_raw_fd(), SCRIPT_FD) < 0
            {
                return Err(plan.fail(Step::Script, io::Error::last_os_error()));
            }
            let cloexec = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            if libc::syscall(libc::SYS_close_range, 3 as libc::c_long, libc::c_long::from(i32::MAX), cloexec)
                < 0
            {
                // Kernels before 5.11.
                for fd in 3..4096 {
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                }
            }
            if plan.script.is_some() {
                libc::fcntl(SCRIPT_FD, libc::F_SETFD, 0);
            }
            plan.become_the_command().map_err(|(step, errno)| plan.fail(step, errno.into()))?;
            libc::execve(
                plan.path.as_ptr(),
                plan.argv.addresses.as_ptr().cast(),
                plan.envp.addresses.as_ptr().cast(),
            );
            Err(plan.fail(Step::Exec, io::Error::last_os_error()))
        });
    }
}
