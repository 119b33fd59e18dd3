//! Checks a request against the node.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sentinel_core::agent::{DirectoryIdentity, Permit};
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::{Program, Sandbox};
use sentinel_protocol::to_agent::Start;
use sentinel_secrets::values::SecretValues;

use super::environment::{environment, path_in};
use super::exec_plan::{ChildStep, ExecPlan, WorkingDirectory};
use super::identity::Identity;
use super::invocation::HostNamespaces;
use super::permitted::{self, Executable};
use super::program::{Located, check_directory, locate};
use super::root::Root;
use super::sandbox::{self, Confinement, Hiding};
use super::start_error::{NotStarted, StartError};

use crate::shortage;

/// Longest name of a memfd, characters; the kernel's limit is 249 bytes.
const MAX_MEMFD_NAME: usize = 200;

/// A command that was checked, ready to be spawned.
#[derive(Debug)]
pub(super) struct Prepared {
    located: Located,
    directory: String,
    user: Option<String>,
    pub(super) plan: ExecPlan,
}

/// Checks the request against the node, and against what the node's policy has allowed, if it has one.
pub(super) fn prepare(
    start: &Start,
    secrets: Option<&SecretValues>,
    permit: Option<&Permit>,
    host: HostNamespaces,
    hiding: &Hiding,
) -> Result<Prepared, NotStarted> {
    let root = Root::of(start.request.environment, host).map_err(NotStarted::Failed)?;
    prepare_in(root, start, secrets, permit, hiding)
}

fn prepare_in(
    root: Root,
    start: &Start,
    secrets: Option<&SecretValues>,
    permit: Option<&Permit>,
    hiding: &Hiding,
) -> Result<Prepared, NotStarted> {
    let found = find(&root, start, secrets, hiding).map_err(NotStarted::Failed)?;
    let executable = match permit {
        None => Executable::Path,
        Some(permit) => {
            let directory = Path::new(&start.request.working_dir);
            permitted::check(permit, &root, &found.located, directory, &found.identity)
                .map_err(NotStarted::Refused)?
        }
    };
    let directory = permit.and_then(|permit| permit.directory.clone());
    plan(root, start, found, Compared { executable, directory }).map_err(NotStarted::Failed)
}

/// What the request names, as the node has it.
struct Found {
    identity: Identity,
    confinement: Confinement,
    env: Vec<(String, String)>,
    located: Located,
}

fn find(
    root: &Root,
    start: &Start,
    secrets: Option<&SecretValues>,
    hiding: &Hiding,
) -> Result<Found, StartError> {
    let request = &start.request;
    let identity = Identity::resolve(root, request)?;
    let confinement = Confinement::of(request, identity.credentials.as_ref(), hiding)?;
    let env = environment(start, secrets, identity.user.as_ref());
    check_directory(root, &request.working_dir)?;
    let located = locate(root, &request.program, path_in(&env), Path::new(&request.working_dir))?;
    Ok(Found { identity, confinement, env, located })
}

/// What was compared with what the policy has allowed, if there is one.
struct Compared {
    executable: Executable,
    directory: Option<DirectoryIdentity>,
}

fn plan(root: Root, start: &Start, found: Found, compared: Compared) -> Result<Prepared, StartError> {
    let request = &start.request;
    let Compared { executable, directory: allowed } = compared;
    let Found { identity, confinement, env, located } = found;
    let resources = |doing| move |error: io::Error| StartError::out_of_resources(doing, &error);
    let script = match &request.program {
        Program::Command(_) => None,
        Program::Script { text, .. } => {
            Some(script(&start.task.name, text).map_err(resources("the script could not be stored"))?)
        }
    };
    let argv = located.argv.iter().enumerate();
    let argv = argv.map(|(at, arg)| c_string(arg, || format!("argument {at}"))).collect::<Result<_, _>>()?;
    let envp =
        env.iter().map(|(name, value)| c_string(format!("{name}={value}"), || format!("variable {name:?}")));
    let plan = ExecPlan {
        path: c_string(located.path.as_os_str().as_bytes(), || "the program's path".to_owned())?,
        argv,
        envp: envp.collect::<Result<_, _>>()?,
        directory: WorkingDirectory {
            path: c_string(allowed.as_ref().map_or(&request.working_dir, |allowed| &allowed.path), || {
                "the working directory".to_owned()
            })?,
            // Its own scratch directories are made later, and empty.
            allowed: allowed
                .filter(|allowed| !(confinement.has_own_scratch() && sandbox::is_scratch(&allowed.path)))
                .map(|allowed| (allowed.device, allowed.inode)),
        },
        umask: Mode::from_raw_mode(request.umask & 0o777),
        credentials: identity.credentials,
        namespaces: root.into_namespaces(),
        script,
        program: executable,
        confinement,
        nofile: request.limits.nofile.map(u64::from),
        core: request.limits.core,
        most_files: (request.sandbox() == Sandbox::Restricted && request.limits.nofile.is_none())
            .then_some(sandbox::NOFILE),
        most_processes: None,
    };
    Ok(Prepared {
        located,
        directory: request.working_dir.clone(),
        user: request.user.clone().or_else(|| request.group.as_ref().map(|group| format!("group {group}"))),
        plan,
    })
}

/// The script as a sealed memfd. It has the Task's name in `/proc/PID/fd`.
fn script(task: &str, text: &str) -> io::Result<OwnedFd> {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
    let name: String = task.chars().filter(plain).take(MAX_MEMFD_NAME).collect();
    let fd = memfd_create(&*name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes())?;
    io::Seek::rewind(&mut file)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

fn c_string(bytes: impl AsRef<[u8]>, what: impl FnOnce() -> String) -> Result<CString, StartError> {
    CString::new(bytes.as_ref())
        .map_err(|_| StartError::new(StartFailure::Other, format!("{} contains a NUL byte", what())))
}

impl Prepared {
    /// The message for a limit of each process that the kernel denied.
    fn rlimit_refused(&self, step: ChildStep, error: &io::Error) -> String {
        let (field, value, resource, setting) = match step {
            ChildStep::Core => ("run.limits.core", self.plan.core, Resource::Core, "LimitCORE"),
            _ => ("run.limits.nofile", self.plan.nofile, Resource::Nofile, "LimitNOFILE"),
        };
        let value = value.unwrap_or_default();
        let hard =
            getrlimit(resource).maximum.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
        let nr_open = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
        let kernel = match step {
            ChildStep::Nofile => format!(" and the kernel's is {} (fs.nr_open)", nr_open.trim()),
            _ => String::new(),
        };
        format!(
            "{field} cannot be held on this node: {value} cannot be set: {error}. The agent's hard limit is \
             {hard}{kernel}; raise it ({setting}= of the agent's unit, or run the agent with CAP_SYS_RESOURCE), or ask for less"
        )
    }

    fn explain_directory(&self, errno: Option<Errno>, error: &io::Error) -> String {
        let directory = &self.directory;
        if errno == Some(Errno::STALE) {
            return format!(
                "working directory {directory:?} is not the one that the node's policy allowed: it was replaced meanwhile"
            );
        }
        format!("working directory {directory:?} cannot be entered: {error}")
    }

    /// Explains why a step failed.
    pub(super) fn explain(&self, step: ChildStep, error: &io::Error) -> StartError {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let lacks_resources =
            matches!(errno, Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC));
        if lacks_resources {
            let message = format!("the node could not create a process: {}", shortage::describe_io(error));
            return StartError::new(StartFailure::OutOfResources, message);
        }
        let Located { what, named, .. } = &self.located;
        let who = self.user.as_deref().unwrap_or("65534");
        let profile = self.plan.confinement.profile();
        let (reason, message) = match step {
            ChildStep::Exec => self.explain_exec(errno, error),
            ChildStep::Directory => (StartFailure::WorkingDirectory, self.explain_directory(errno, error)),
            ChildStep::Groups | ChildStep::Group | ChildStep::User | ChildStep::Verify => {
                (StartFailure::IdentityDenied, format!("the agent may not run commands as {who:?}: {error}"))
            }
            ChildStep::Namespace => {
                (StartFailure::Namespace, format!("the namespaces of the node cannot be entered: {error}"))
            }
            ChildStep::Limits => (
                StartFailure::Other,
                format!(
                    "run.limits cannot be held on this node: its control groups cannot be joined: {error}"
                ),
            ),
            ChildStep::Nofile | ChildStep::Core => (StartFailure::Other, self.rlimit_refused(step, error)),
            ChildStep::Processes => (
                StartFailure::Other,
                format!(
                    "run.sandbox {profile} cannot be held on this node: the number of processes cannot be limited: {error}"
                ),
            ),
            ChildStep::Mounts => (
                StartFailure::Namespace,
                format!(
                    "run.sandbox {profile} cannot be held on this node: the command's mounts cannot be changed: {error}. Does \
                     AppArmor, SELinux or a seccomp profile keep the agent from mounting, though it has CAP_SYS_ADMIN?"
                ),
            ),
            ChildStep::Capabilities | ChildStep::Privileges => (
                StartFailure::Other,
                format!(
                    "run.sandbox {profile} cannot be held on this node: capabilities cannot be dropped: {error}"
                ),
            ),
            ChildStep::Filter => (
                StartFailure::Other,
                format!(
                    "run.sandbox {profile} cannot be held on this node: system calls cannot be filtered: {error}. The kernel \
                     needs CONFIG_SECCOMP_FILTER"
                ),
            ),
            ChildStep::Script | ChildStep::Pipes => {
                (StartFailure::Other, format!("{what} {named:?} could not be started: {error}"))
            }
        };
        StartError::new(reason, message)
    }

    /// Explains why `execve` failed.
    fn explain_exec(&self, errno: Option<Errno>, error: &io::Error) -> (StartFailure, String) {
        let Located { what, named, .. } = &self.located;
        let (reason, why) = match errno {
            Some(Errno::NOENT) => (
                StartFailure::ProgramNotFound,
                if self.plan.confinement.has_own_scratch() {
                    "needs a program that does not exist (its #! line or its dynamic loader), or is in /tmp or /dev/shm, \
                     which are empty with run.readOnlyRootFilesystem"
                } else {
                    "needs a program that does not exist (its #! line or its dynamic loader)"
                }
                .to_owned(),
            ),
            Some(Errno::ACCESS | Errno::PERM) => (
                StartFailure::NotExecutable,
                format!("may not be executed: {error} (its mode, its mount or a parent directory)"),
            ),
            Some(Errno::NOEXEC) => (
                StartFailure::BadFormat,
                "has an unknown executable format (another architecture, or no #! line)".to_owned(),
            ),
            Some(Errno::TOOBIG) => {
                let message = format!(
                    "arguments and environment of {what} {named:?} are longer than the kernel allows"
                );
                return (StartFailure::TooLong, message);
            }
            _ => (StartFailure::Other, format!("could not be started: {error}")),
        };
        (reason, format!("{what} {named:?} {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exec_plan::execute;
    use super::*;
    use std::io::{BufRead, Read};
    use std::process::{Command, Stdio};

    use rustix::pipe::{PipeFlags, pipe_with};

    /// The node's process 1 is not visible on every machine; another process in namespaces of its own takes its place.
    #[test]
    fn a_command_is_found_and_run_in_the_nodes_namespaces() {
        let inner = "mount -t tmpfs none /mnt && cp /bin/hostname /mnt/only-here && mkdir /mnt/dir \
            && hostname inner-node && echo ready && exec cat";
        let node = Command::new("unshare")
            .args(["--mount", "--uts", "sh", "-c", inner])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut node = node.expect("this test needs unshare (util-linux)");
        let mut ready = String::new();
        io::BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(
            ready, "ready\n",
            "this test needs root and namespaces; elsewhere: -- --skip nodes_namespaces"
        );
        let pid = node.id().cast_signed();
        let start = |program: &str| -> Start {
            serde_json::from_value(serde_json::json!({
                "attempt": "u/1/n/1", "specHash": "0".repeat(64), "epoch": 1,
                "task": {"namespace": "a", "name": "b"},
                "request": {"program": {"command": [program]}, "workingDir": "/mnt/dir", "umask": 18,
                    "environment": "Host", "successExitCodes": [0],
                    "output": {"limit": 1, "spool": 1, "maxBlockMs": 1}},
                "deadlines": {"startMs": 1, "graceMs": 1}, "credit": 0
            }))
            .unwrap()
        };
        let ours =
            Root::of(sentinel_protocol::request::Environment::Container, HostNamespaces::OfInit).unwrap();
        let error = prepare_in(ours, &start("/mnt/only-here"), None, None, &Hiding::default()).unwrap_err();
        let NotStarted::Failed(error) = error else { panic!("{error:?}") };
        assert_eq!(error.reason, StartFailure::WorkingDirectory, "{}", error.message);
        let prepared = prepare_in(
            Root::of_process(pid).unwrap(),
            &start("/mnt/only-here"),
            None,
            None,
            &Hiding::default(),
        )
        .unwrap();
        let (read, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let stdio = [File::open("/dev/null").unwrap().into(), stdout.try_clone().unwrap(), stdout];
        become_in_a_child(&prepared, &stdio);
        drop(stdio);
        let mut output = String::new();
        File::from(read).read_to_string(&mut output).unwrap();
        assert_eq!(output, "inner-node\n");
        drop(node.stdin.take());
        node.wait().unwrap();
    }

    #[expect(unsafe_code, reason = "a test of what follows a fork")]
    fn become_in_a_child(prepared: &Prepared, stdio: &[OwnedFd; 3]) {
        // SAFETY: the child uses of this process only what libc makes safe after a fork: memory.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { .. } => {}
            nix::unistd::ForkResult::Child => {
                execute(&prepared.plan, stdio, &[], || true);
                std::process::abort();
            }
        }
    }
}
