//! Starts the command.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, WaitOptions, getrlimit, waitpid};
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::Program;
use sentinel_protocol::to_agent::Start;

use super::Host;
use super::cgroup::Cgroup;
use super::child::{Birth, Plan, Step, Strings, spawn};
use super::identity::{Identity, User};
use super::limits::Limited;
use super::program::{Located, check_directory, locate};
use super::root::Root;

use crate::shortage;

/// `PATH` of a command that sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel takes 249 bytes.
const MAX_MEMFD_NAME: usize = 200;

/// Why a command could not be started.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) reason: StartFailure,
    pub(super) message: String,
}

impl StartError {
    pub(super) fn new(reason: StartFailure, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// For lack of something of the node's.
    pub(super) fn out_of_resources(doing: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(StartFailure::OutOfResources, format!("{doing}: {}", shortage::describe(error)))
    }
}

/// Everything that was looked up for a command; nothing of it has happened yet.
#[derive(Debug)]
pub(super) struct Prepared {
    located: Located,
    directory: String,
    user: Option<String>,
    plan: Plan,
}

/// Checks the request against the node.
pub(super) fn prepare(start: &Start, host: Host) -> Result<Prepared, StartError> {
    prepare_in(Root::of(start.request.environment, host)?, start)
}

fn prepare_in(root: Root, start: &Start) -> Result<Prepared, StartError> {
    let request = &start.request;
    let identity = Identity::resolve(&root, request.user.as_deref(), request.group.as_deref())?;
    let env = environment(start, identity.user.as_ref());
    check_directory(&root, &request.working_dir)?;
    let search = env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value);
    let located = locate(&root, &request.program, search, Path::new(&request.working_dir))?;
    let resources = |doing| move |error: io::Error| StartError::out_of_resources(doing, &error);
    let script = match &request.program {
        Program::Command(_) => None,
        Program::Script { text, .. } => {
            Some(script(&start.task.name, text).map_err(resources("the script could not be kept"))?)
        }
    };
    let argv = located.argv.iter().enumerate();
    let argv = argv.map(|(at, arg)| c_string(arg, || format!("argument {at}"))).collect::<Result<_, _>>()?;
    let envp =
        env.iter().map(|(name, value)| c_string(format!("{name}={value}"), || format!("variable {name:?}")));
    let plan = Plan {
        path: c_string(located.path.as_os_str().as_bytes(), || "the program's path".to_owned())?,
        argv: Strings::new(argv),
        envp: Strings::new(envp.collect::<Result<_, _>>()?),
        directory: c_string(&request.working_dir, || "the working directory".to_owned())?,
        umask: Mode::from_raw_mode(request.umask & 0o777),
        change: identity.change,
        namespaces: root.into_namespaces(),
        script,
        nofile: request.limits.nofile.map(u64::from),
        core: request.limits.core,
    };
    Ok(Prepared {
        located,
        directory: request.working_dir.clone(),
        user: request.user.clone().or_else(|| request.group.as_ref().map(|group| format!("group {group}"))),
        plan,
    })
}

impl Prepared {
    /// Starts it in this control group, under these limits and with these as standard input, output and error; returns its pid, which
    /// is also its session and process group.
    pub(super) fn start(
        self,
        cgroup: Option<&Cgroup>,
        limited: &Limited,
        stdin: Option<OwnedFd>,
        outputs: [OwnedFd; 2],
    ) -> Result<i32, StartError> {
        let resources =
            |error: io::Error| StartError::out_of_resources("the node could not make a process", &error);
        let [stdout, stderr] = outputs;
        let stdin =
            stdin.map_or_else(|| File::open("/dev/null").map(OwnedFd::from), Ok).map_err(resources)?;
        let (said, failed_at) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| resources(errno.into()))?;
        let birth = Birth {
            stdio: [stdin, stdout, stderr],
            cgroup: cgroup.map(Cgroup::directory),
            joins: limited.joins(),
            failed_at,
        };
        let pid = spawn(&self.plan, &birth).map_err(resources)?;
        // With it go our copies of the command's ends, and so the end-of-file of what we read is the command's.
        drop(birth);
        let mut failure = Vec::new();
        File::from(said).read_to_end(&mut failure).map_err(resources)?;
        let [step, errno @ ..] = &failure[..] else { return Ok(pid) };
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        let errno = errno.try_into().map_or(0, i32::from_le_bytes);
        Err(self.explain(Step::from_byte(*step), &io::Error::from_raw_os_error(errno)))
    }
}

/// The command's whole environment: a few variables for every command, then the request's.
fn environment(start: &Start, user: Option<&User>) -> Vec<(String, String)> {
    let id = &start.attempt;
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        env.retain(|(other, _)| other != name);
        env.push((name.to_owned(), value.to_owned()));
    };
    set("PATH", PATH);
    set("LANG", "C.UTF-8");
    set("HOME", user.map_or("/", |user| &user.home));
    if let Some(user) = user {
        set("USER", &user.name);
        set("LOGNAME", &user.name);
        set("SHELL", if user.shell.is_empty() { "/bin/sh" } else { &user.shell });
    }
    set("SENTINEL_TASK", &start.task.name);
    set("SENTINEL_NAMESPACE", &start.task.namespace);
    set("SENTINEL_RUN", &id.run.to_string());
    set("SENTINEL_NODE", id.node.as_str());
    set("SENTINEL_ATTEMPT", &id.to_string());
    for variable in &start.request.env {
        set(&variable.name, &variable.value);
    }
    env
}

/// The script as a file that cannot be changed any more. It has the Task's name in `/proc/PID/fd`.
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
    /// Which limit of each process the kernel did not take, and what stands in the way.
    fn rlimit_refused(&self, step: Step, error: &io::Error) -> String {
        let (field, value, resource, setting) = match step {
            Step::Core => ("run.limits.core", self.plan.core, Resource::Core, "LimitCORE"),
            _ => ("run.limits.nofile", self.plan.nofile, Resource::Nofile, "LimitNOFILE"),
        };
        let value = value.unwrap_or_default();
        let hard =
            getrlimit(resource).maximum.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
        let kernel = match step {
            Step::Nofile => format!(" and the kernel's is {} (fs.nr_open)", most.trim()),
            _ => String::new(),
        };
        format!(
            "{field} cannot be held on this node: {value} cannot be set: {error}. The agent's hard limit is \
             {hard}{kernel}; raise it ({setting}= of the agent's unit, or run the agent with CAP_SYS_RESOURCE), or ask for less"
        )
    }

    /// What the kernel meant.
    fn explain(&self, step: Option<Step>, error: &io::Error) -> StartError {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let Located { what, named, .. } = &self.located;
        let (directory, who) = (&self.directory, self.user.as_deref().unwrap_or_default());
        match (step, errno) {
            (_, Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC))
            | (None, _) => StartError::new(
                StartFailure::OutOfResources,
                format!("the node could not make a process: {}", shortage::describe_io(error)),
            ),
            (Some(Step::Exec), Some(Errno::NOENT)) => StartError::new(
                StartFailure::ProgramNotFound,
                format!(
                    "{what} {named:?} needs a program that does not exist (its #! line or its dynamic loader)"
                ),
            ),
            (Some(Step::Exec), Some(Errno::ACCESS | Errno::PERM)) => StartError::new(
                StartFailure::NotExecutable,
                format!(
                    "{what} {named:?} may not be executed: {error} (its mode, its mount or a directory on the way)"
                ),
            ),
            (Some(Step::Exec), Some(Errno::NOEXEC)) => StartError::new(
                StartFailure::BadFormat,
                format!(
                    "{what} {named:?} has a format the kernel does not know (another architecture, or no #! line)"
                ),
            ),
            (Some(Step::Exec), Some(Errno::TOOBIG)) => StartError::new(
                StartFailure::TooLong,
                format!("arguments and environment of {what} {named:?} are longer than the kernel takes"),
            ),
            (Some(Step::Directory), _) => StartError::new(
                StartFailure::WorkingDirectory,
                format!("working directory {directory:?} cannot be entered: {error}"),
            ),
            (Some(Step::Groups | Step::Group | Step::User | Step::Verify), _) => StartError::new(
                StartFailure::IdentityDenied,
                format!("the agent may not run commands as {who:?}: {error}"),
            ),
            (Some(Step::Namespace), _) => StartError::new(
                StartFailure::Namespace,
                format!("the namespaces of the node cannot be entered: {error}"),
            ),
            (Some(Step::Limits), _) => StartError::new(
                StartFailure::Other,
                format!(
                    "run.limits cannot be held on this node: its control groups cannot be joined: {error}"
                ),
            ),
            (Some(step @ (Step::Nofile | Step::Core)), _) => {
                StartError::new(StartFailure::Other, self.rlimit_refused(step, error))
            }
            (Some(Step::Session | Step::Script | Step::Pipes | Step::Exec), _) => StartError::new(
                StartFailure::Other,
                format!("{what} {named:?} could not be started: {error}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::process::{Command, Stdio};

    /// Stands for the node's process 1, which not every machine shows: another process in namespaces of its own.
    #[test]
    fn a_command_enters_the_namespaces_of_the_node_and_is_looked_up_there() {
        let inner = "mount -t tmpfs none /mnt && cp /bin/hostname /mnt/only-here && mkdir /mnt/dir \
            && hostname inner-node && echo ready && exec cat";
        let node = Command::new("unshare")
            .args(["--mount", "--uts", "sh", "-c", inner])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut node) = node else {
            eprintln!("NOT RUN: there is no unshare program");
            return;
        };
        let mut ready = String::new();
        io::BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        if ready != "ready\n" {
            eprintln!("NOT RUN: namespaces cannot be made here");
            return;
        }
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
        let ours = Root::of(sentinel_protocol::request::Environment::Container, Host::OfProcess1).unwrap();
        let error = prepare_in(ours, &start("/mnt/only-here")).unwrap_err();
        assert_eq!(error.reason, StartFailure::WorkingDirectory, "{}", error.message);
        let prepared = prepare_in(Root::of_process(pid).unwrap(), &start("/mnt/only-here")).unwrap();
        let (read, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let stderr = stdout.try_clone().unwrap();
        prepared.start(None, &Limited::default(), None, [stdout, stderr]).unwrap();
        let mut said = String::new();
        File::from(read).read_to_string(&mut said).unwrap();
        assert_eq!(said, "inner-node\n");
        drop(node.stdin.take());
        node.wait().unwrap();
    }
}
