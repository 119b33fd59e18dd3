//! The process that becomes the command, from its fork to exec.
//!
//! It is a copy of a supervisor that had no Attempt yet, and has no thread but this one; so it may do whatever its parent may. It reads
//! the path of the Attempt from the agent itself, so that only one process has to wake up before a command starts, and reports to its
//! parent how far it has come ([`super::progress`]).

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use nix::libc;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use sentinel_protocol::request::{RunRequest, Sandbox};

use super::clocks::Clocks;
use super::exec_plan::{ExecPlan, execute};
use super::invocation::{CONFIRMED, LOGGED};
use super::limits::AppliedLimits;
use super::progress::Reporter;
use super::sandbox;
use super::scheduling;
use super::spawn::prepare;
use super::standby::Standby;
use super::start_error::{NotStarted, failed};
use crate::host::boot_clock_ms;
use crate::journal::{Accepted, AttemptDir, AttemptLock};
use crate::kill_point::KillPoint;

/// Longest path that is read, bytes.
const MAX_PATH: usize = 4096;

/// A typical request, never executed. Its path is absolute: a search would open directories that may be on a server that hangs.
const REHEARSED: &[u8] = br#"{"start":{"attempt":"rehearsal/1/node/1","specHash":"0000000000000000000000000000000000000000000000000000000000000000","epoch":1,"task":{"namespace":"default","name":"rehearsal"},"request":{"program":{"command":["/bin/sh","-c",":"]},"env":[],"workingDir":"/","umask":18,"stdin":"","environment":"Container","successExitCodes":[0],"output":{"limit":1,"spool":1,"maxBlockMs":1}},"deadlines":{"startMs":1,"graceMs":1},"credit":0},"acceptedAt":0,"bootId":"","bootMs":0}"#;

/// An Attempt as the agent hands it over.
pub(super) struct HandedOver {
    pub(super) attempt: AttemptDir,
    pub(super) sync: Sync,
}

/// Who makes the start durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// This process.
    Here,
    /// The agent, which has written the start to the log. Its answer follows, unless it was read already.
    AtAgent(Option<Answer>),
}

/// What the agent has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The start is durable.
    Confirmed,
    /// It could not be made durable, and must not be tried again.
    Refused,
    /// None: the agent has ended.
    Ended,
}

/// Becomes the command of the Attempt that the agent hands over, or of one that was handed over before; never returns.
pub(super) fn run(standby: &Standby, reporter: &Reporter, resumed: Option<&AttemptDir>) -> ! {
    if resumed.is_none() {
        rehearse(standby);
    }
    become_independent();
    let resumed = resumed.map(|attempt| HandedOver { attempt: attempt.clone(), sync: Sync::Here });
    if let Some(handed_over) = resumed.or_else(|| receive(reporter)) {
        let is_prepared = standby.is_prepared_for(&handed_over.attempt);
        if reporter.attempt(&handed_over.attempt, is_prepared)
            && let Err(not_started) = start(standby, reporter, &handed_over, is_prepared)
        {
            reporter.not_started(&not_started);
        }
    }
    exit()
}

/// Without destructors: locks, files and directories are the parent's.
#[expect(unsafe_code, reason = "the standard library has no exit without handlers")]
fn exit() -> ! {
    // SAFETY: it only ends this process.
    unsafe { libc::_exit(127) }
}

/// Goes through a start with a request that is never executed. After a fork the first use of each page is a page fault; these forty
/// took a third of a start.
fn rehearse(standby: &Standby) {
    if let (Ok(accepted), Ok(())) = (Accepted::from_json(REHEARSED), standby.check()) {
        let _ = Clocks::new(&accepted, "", boot_clock_ms()).too_late_to_start(boot_clock_ms());
        let _ = prepare(&accepted.start, None, standby.host, &standby.hiding);
        let _ = stdio(standby, &accepted);
    }
}

/// What every command needs, before it is known.
#[expect(unsafe_code, reason = "`sigaction` of libc changes less than the kernel's")]
fn become_independent() {
    scheduling::step_up();
    let _ = rustix::process::setsid();
    // Under memory pressure the command is killed before the agent and its supervisors.
    likely_to_be_killed();
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

fn likely_to_be_killed() {
    let write = || std::fs::write("/proc/self/oom_score_adj", "500");
    // The file is root's as long as the process is not dumpable.
    if write().is_err() && rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).is_ok() {
        let _ = write();
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Waits for the agent; `None` when it, or the supervisor, has ended.
fn receive(reporter: &Reporter) -> Option<HandedOver> {
    let agent = rustix::stdio::stdin();
    let mut line = Vec::with_capacity(256);
    loop {
        let mut fds = [PollFd::new(&agent, PollFlags::IN), PollFd::new(reporter, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) if !fds[1].revents().is_empty() => return None,
            Ok(_) => {}
        }
        let mut bytes = [0; 512];
        let read = rustix::io::read(agent, &mut bytes).ok().filter(|read| *read > 0)?;
        line.extend_from_slice(&bytes[..read]);
        if let Some(handed_over) = parse(&line) {
            return Some(handed_over);
        }
        if line.len() > MAX_PATH {
            return None;
        }
    }
}

/// What was handed over, once its line is complete.
fn parse(bytes: &[u8]) -> Option<HandedOver> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (kind, path) = bytes[..end].split_first()?;
    let sync = match *kind {
        LOGGED => Sync::AtAgent(bytes.get(end + 1).map(|byte| answer_of(*byte))),
        _ => Sync::Here,
    };
    let path = OsString::from_vec(path.to_vec());
    Some(HandedOver { attempt: AttemptDir::at(path), sync })
}

fn answer_of(byte: u8) -> Answer {
    if byte == CONFIRMED { Answer::Confirmed } else { Answer::Refused }
}

/// Waits for the agent's answer.
fn answer() -> Answer {
    let mut byte = [0];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(1) => return answer_of(byte[0]),
            Err(Errno::INTR) => {}
            _ => return Answer::Ended,
        }
    }
}

/// Checks the request, records *starting*, and executes the command once that is durable. Returns only when nothing was started.
///
/// Until *starting* is recorded a failure is how the Attempt ends; otherwise it would be launched again and again.
fn start(
    standby: &Standby,
    reporter: &Reporter,
    handed_over: &HandedOver,
    is_prepared: bool,
) -> Result<(), NotStarted> {
    let attempt = &handed_over.attempt;
    let lock = AttemptLock::of_parent(attempt);
    // The parent reads it as well, and handles what is wrong with it.
    let Ok(Some(accepted)) = lock.accepted() else { exit() };
    standby.check()?;
    let supervisor = standby.identity().map_err(failed("failed to read /proc"))?;
    let clocks = Clocks::new(&accepted, &supervisor.boot_id, boot_clock_ms());
    if let Some(clock) = clocks.too_late_to_start(boot_clock_ms()) {
        return Err(NotStarted::TooLate(clock));
    }
    if attempt.is_cancel_requested() {
        return Err(NotStarted::Cancelled);
    }
    let state_dir = attempt.state_dir();
    KillPoint::SupervisorLocked.pass_with_parent(state_dir);
    let starting =
        || standby.starting(std::process::id().cast_signed()).map_err(failed("failed to read /proc"));
    let unrecorded = "the start could not be recorded";
    let announced = match handed_over.sync {
        Sync::Here => Some(lock.announce_start(&starting()?).map_err(failed(unrecorded))?),
        Sync::AtAgent(_) => {
            // A directory that another supervisor has prepared would name that one.
            if !is_prepared || !lock.set_prepared_start() {
                lock.set_state(&starting()?).map_err(failed(unrecorded))?;
            }
            None
        }
    };
    KillPoint::SupervisorAnnounced.pass_with_parent(state_dir);
    let mut prepared = prepare(&accepted.start, accepted.permit.as_ref(), standby.host, &standby.hiding)?;
    let limits = AppliedLimits::new(&accepted.start.request.limits, standby.cgroup.as_ref(), &standby.name)
        .map_err(|error| NotStarted::of_limit(&error))?;
    bound_processes(standby, &accepted.start.request, &mut prepared.plan);
    let stdio = stdio(standby, &accepted)?;
    let answered = match handed_over.sync {
        Sync::Here => Answer::Ended,
        Sync::AtAgent(answered) => answered.unwrap_or_else(answer),
    };
    match answered {
        Answer::Confirmed => {}
        Answer::Refused => return Err(NotStarted::unrecorded(unrecorded)),
        Answer::Ended => {
            // Written anew where the agent has ended, so that the block reaches the disk whatever happened to it before.
            let announced = match announced {
                Some(announced) => announced,
                None => lock.announce_start(&starting()?).map_err(failed(unrecorded))?,
            };
            announced.sync().map_err(failed(unrecorded))?;
        }
    }
    let (step, error) = execute(&prepared.plan, &stdio, limits.join_files(), || reporter.executing());
    // What was created is the supervisor's to remove.
    std::mem::forget(limits);
    Err(NotStarted::Failed(prepared.explain(step, &error)))
}

/// Bounds the processes of a restricted command that sets no limit: by its control group, which counts only its own. Otherwise by
/// the kernel's limit for its user, unless that is the agent's own, whose other processes count too.
fn bound_processes(standby: &Standby, request: &RunRequest, plan: &mut ExecPlan) {
    if request.sandbox() == Sandbox::Restricted && request.limits.pids.is_none() {
        let is_bound =
            standby.cgroup.as_ref().is_some_and(|cgroup| cgroup.bound_own_processes(sandbox::PIDS));
        let is_own_user = plan.credentials.is_none();
        plan.most_processes = (!is_bound && !is_own_user).then_some(sandbox::PIDS.into());
    }
}

/// The command's standard input, output and error.
fn stdio(standby: &Standby, accepted: &Accepted) -> Result<[OwnedFd; 3], NotStarted> {
    let RunRequest { stdin, output, .. } = &accepted.start.request;
    let pipes = standby.pipes().map_err(failed("no pipe could be created"))?;
    let clone = |fd: &OwnedFd| fd.try_clone().map_err(failed("a descriptor could not be duplicated"));
    let stdin = if stdin.is_empty() {
        File::open("/dev/null").map(OwnedFd::from).map_err(failed("/dev/null could not be opened"))?
    } else {
        clone(&pipes.stdin_end)?
    };
    let stderr = if output.merge { &pipes.stdout_end } else { &pipes.stderr_end };
    Ok([stdin, clone(&pipes.stdout_end)?, clone(stderr)?])
}

#[cfg(test)]
mod tests {
    use super::super::invocation::HostNamespaces;
    use super::super::sandbox::Hiding;
    use super::*;

    #[test]
    fn the_rehearsed_request_is_valid() {
        let accepted = Accepted::from_json(REHEARSED).unwrap();
        assert!(prepare(&accepted.start, None, HostNamespaces::OfInit, &Hiding::default()).is_ok());
    }
}
