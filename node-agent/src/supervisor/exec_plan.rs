//! The last steps before exec: each is a system call that can fail, and is named when it does.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use nix::libc;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::identity::Credentials;
use super::permitted::Executable;
use super::root::Namespace;
use super::sandbox::Confinement;

/// The descriptor of the script in the command.
const SCRIPT_FD: i32 = 3;

/// A step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildStep {
    Pipes,
    Limits,
    Script,
    Nofile,
    Core,
    Processes,
    Namespace,
    Mounts,
    Capabilities,
    Groups,
    Group,
    User,
    Verify,
    Directory,
    Privileges,
    Filter,
    Exec,
}

/// What the command is.
#[derive(Debug)]
pub(super) struct ExecPlan {
    pub(super) path: CString,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    pub(super) directory: WorkingDirectory,
    pub(super) umask: Mode,
    pub(super) credentials: Option<Credentials>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) script: Option<OwnedFd>,
    /// How the program is executed.
    pub(super) program: Executable,
    pub(super) confinement: Confinement,
    /// Limits of each process, soft and hard.
    pub(super) nofile: Option<u64>,
    pub(super) core: Option<u64>,
    /// Hard limits that only lower what the agent has.
    pub(super) most_files: Option<u64>,
    pub(super) most_processes: Option<u64>,
}

/// Where a command begins.
#[derive(Debug)]
pub(super) struct WorkingDirectory {
    pub(super) path: CString,
    /// File system and inode of the one that the node's policy has allowed.
    pub(super) allowed: Option<(u64, u64)>,
}

impl WorkingDirectory {
    /// Enters it. Compared afterwards: then no other name can lead elsewhere. Without a descriptor, as there may be none left.
    fn enter(&self) -> Result<(), Errno> {
        rustix::process::chdir(&*self.path)?;
        let Some(allowed) = self.allowed else { return Ok(()) };
        let entered = rustix::fs::stat(c".")?;
        if (entered.st_dev, entered.st_ino) == allowed { Ok(()) } else { Err(Errno::STALE) }
    }
}

/// Becomes the command, with these as standard input, output and error, in the control groups of these `cgroup.procs`, if
/// `may_execute` when only that is left. Returns only on failure.
pub(super) fn execute(
    plan: &ExecPlan,
    stdio: &[OwnedFd; 3],
    join_files: &[OwnedFd],
    may_execute: impl FnOnce() -> bool,
) -> (ChildStep, io::Error) {
    match prepare(plan, stdio, join_files) {
        Ok(()) if may_execute() => (ChildStep::Exec, exec(plan)),
        Ok(()) => (ChildStep::Exec, io::ErrorKind::BrokenPipe.into()),
        Err((step, errno)) => (step, errno.into()),
    }
}

fn prepare(plan: &ExecPlan, stdio: &[OwnedFd; 3], join_files: &[OwnedFd]) -> Result<(), (ChildStep, Errno)> {
    let at = |step| move |errno| (step, errno);
    // Descriptor 3 is none of those that are needed here: the supervisor occupies it from its first line on.
    for (number, fd) in (0..).zip(stdio) {
        duplicate(fd, number).map_err(at(ChildStep::Pipes))?;
    }
    // Before namespaces and user are changed: these files are the agent's.
    for file in join_files {
        rustix::io::write(file, b"0").map_err(at(ChildStep::Limits))?;
    }
    rustix::process::umask(plan.umask);
    if let Some(script) = &plan.script {
        duplicate(script, SCRIPT_FD).map_err(at(ChildStep::Script))?;
    }
    close_at_exec(plan.script.is_some());
    limit(plan)?;
    for namespace in &plan.namespaces {
        move_into_link_name_space(namespace.fd.as_fd(), Some(namespace.kind))
            .map_err(at(ChildStep::Namespace))?;
    }
    let confinement = &plan.confinement;
    confinement.enter_view().map_err(at(ChildStep::Mounts))?;
    confinement.limit_capabilities().map_err(at(ChildStep::Capabilities))?;
    if let Some(credentials) = &plan.credentials {
        enter(credentials)?;
    }
    confinement.drop_capabilities().map_err(at(ChildStep::Capabilities))?;
    // As the command's user: the agent may enter every directory.
    plan.directory.enter().map_err(at(ChildStep::Directory))?;
    confinement.forbid_new_privileges().map_err(at(ChildStep::Privileges))?;
    confinement.filter_calls().map_err(at(ChildStep::Filter))
}

/// The limit with which there is no core dump, bytes. With 0 a `core_pattern` that is a program, such as systemd-coredump, gets one all
/// the same (core(5)); with 1 the kernel makes none (`fs/coredump.c`), and no file is as small.
const NO_CORE_DUMP: u64 = 1;

/// Before the privilege to raise a hard limit is dropped. No descriptor is opened between here and exec.
fn limit(plan: &ExecPlan) -> Result<(), (ChildStep, Errno)> {
    let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
    if let Some(count) = plan.nofile {
        setrlimit(Resource::Nofile, both(count)).map_err(|errno| (ChildStep::Nofile, errno))?;
    }
    if let Some(most) = plan.most_files {
        lower(Resource::Nofile, most).map_err(|errno| (ChildStep::Nofile, errno))?;
    }
    if let Some(most) = plan.most_processes {
        lower(Resource::Nproc, most).map_err(|errno| (ChildStep::Processes, errno))?;
    }
    let core = plan.core.filter(|bytes| *bytes > 0).unwrap_or(NO_CORE_DUMP);
    match setrlimit(Resource::Core, both(core)) {
        // Its failure does not keep a command from running that asks for none.
        Err(errno) if core != NO_CORE_DUMP => Err((ChildStep::Core, errno)),
        _ => Ok(()),
    }
}

/// Lowers a hard limit, and the soft one with it.
fn lower(resource: Resource, most: u64) -> Result<(), Errno> {
    let limit = getrlimit(resource);
    let at_most = |value: Option<u64>| Some(value.map_or(most, |value| value.min(most)));
    setrlimit(resource, Rlimit { current: at_most(limit.current), maximum: at_most(limit.maximum) })
}

fn enter(credentials: &Credentials) -> Result<(), (ChildStep, Errno)> {
    let Credentials { uid, gid, groups } = credentials;
    let at = |step| move |errno| (step, errno);
    set_thread_groups(groups).map_err(at(ChildStep::Groups))?;
    set_thread_res_gid(*gid, *gid, *gid).map_err(at(ChildStep::Group))?;
    set_thread_res_uid(*uid, *uid, *uid).map_err(at(ChildStep::User))?;
    let uids = (rustix::process::getuid(), rustix::process::geteuid());
    let gids = (rustix::process::getgid(), rustix::process::getegid());
    if uids == (*uid, *uid) && gids == (*gid, *gid) { Ok(()) } else { Err((ChildStep::Verify, Errno::PERM)) }
}

#[expect(unsafe_code, reason = "a descriptor with a number of its own has no safe interface")]
fn duplicate(fd: &OwnedFd, number: i32) -> Result<(), Errno> {
    // SAFETY: nothing in this process uses the descriptor with this number.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        0.. => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::BADF)),
    }
}

#[expect(unsafe_code, reason = "descriptors by their numbers have no safe interface")]
fn close_at_exec(has_script: bool) {
    let cloexec = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC.cast_signed());
    // SAFETY: it only changes which descriptors exec closes.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 3 as libc::c_long, libc::c_long::from(i32::MAX), cloexec) < 0
        {
            // Kernels before 5.11.
            for fd in 3..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        if has_script {
            libc::fcntl(SCRIPT_FD, libc::F_SETFD, 0);
        }
    }
}

/// By system call and not through std: std uses `execvp`, which passes a file of unknown format to a shell.
#[expect(unsafe_code, reason = "exec of what was prepared has no safe interface")]
fn exec(plan: &ExecPlan) -> io::Error {
    let addresses = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (addresses(&plan.argv), addresses(&plan.envp));
    // SAFETY: both lists end with a null pointer, and their strings live as long as the plan.
    unsafe {
        match &plan.program {
            Executable::Path => {
                libc::execve(plan.path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            Executable::Resolved(path) => {
                libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            Executable::Descriptor(program) => {
                let (empty, fd) = (c"".as_ptr(), program.as_raw_fd());
                let flags = libc::c_long::from(libc::AT_EMPTY_PATH);
                libc::syscall(
                    libc::SYS_execveat,
                    libc::c_long::from(fd),
                    empty,
                    argv.as_ptr(),
                    envp.as_ptr(),
                    flags,
                );
            }
        }
    }
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Enters a directory as a command does, in a thread with a working directory of its own. Returns where the thread is then.
    fn entered(path: &Path, allowed: Option<&Path>) -> (Result<(), Errno>, (u64, u64)) {
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).unwrap();
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let directory = WorkingDirectory { path, allowed: allowed.map(identity) };
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS).unwrap();
            (directory.enter(), identity(Path::new(".")))
        })
        .join()
        .unwrap()
    }

    /// What is exchanged after the last comparison of paths, and before the directory is entered.
    #[test]
    fn a_directory_that_takes_the_place_of_the_allowed_one_is_not_where_a_command_begins() {
        let folder = tempfile::tempdir().unwrap();
        let (allowed, secret) = (folder.path().join("allowed"), folder.path().join("secret"));
        for directory in [&allowed, &secret] {
            fs::create_dir(directory).unwrap();
        }
        let (result, at) = entered(&allowed, Some(&allowed));
        assert_eq!((result, at.1), (Ok(()), fs::metadata(&allowed).unwrap().ino()));

        let moved = folder.path().join("moved");
        fs::rename(&allowed, &moved).unwrap();
        // A link, and the directory itself under the allowed name.
        std::os::unix::fs::symlink(&secret, &allowed).unwrap();
        assert_eq!(entered(&allowed, Some(&moved)).0, Err(Errno::STALE));
        fs::remove_file(&allowed).unwrap();
        fs::rename(&secret, &allowed).unwrap();
        assert_eq!(entered(&allowed, Some(&moved)).0, Err(Errno::STALE));
        // Without a policy there is nothing to compare.
        assert_eq!(entered(&allowed, None).0, Ok(()));
    }
}
