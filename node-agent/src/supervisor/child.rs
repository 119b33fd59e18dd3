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
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::{RunRequest, Sandbox};
use sentinel_protocol::secret::MAX_SECRET_VALUES;
use sentinel_secrets::values::SecretValues;
use zeroize::Zeroizing;

use super::clocks::Clocks;
use super::exec_plan::{ExecPlan, execute};
use super::invocation::{CONFIRMED, LOGGED};
use super::limits::AppliedLimits;
use super::progress::Reporter;
use super::sandbox;
use super::scheduling;
use super::spawn::prepare;
use super::standby::Standby;
use super::start_error::{NotStarted, StartError, failed};
use crate::host::boot_clock_ms;
use crate::journal::{Accepted, AttemptDir, AttemptLock};
use crate::kill_point::KillPoint;

/// Longest line that is read, bytes: a path and a length.
const MAX_LINE: usize = 4200;

/// Most bytes of the values of Secrets, with their names and lengths.
const MAX_VALUES: usize = 2 * MAX_SECRET_VALUES;

/// A typical request, never executed. Its path is absolute: a search would open directories that may be on a server that hangs.
const REHEARSED: &[u8] = br#"{"start":{"attempt":"rehearsal/1/node/1","specHash":"0000000000000000000000000000000000000000000000000000000000000000","epoch":1,"task":{"namespace":"default","name":"rehearsal"},"request":{"program":{"command":["/bin/sh","-c",":"]},"env":[],"workingDir":"/","umask":18,"stdin":"","environment":"Container","successExitCodes":[0],"output":{"limit":1,"spool":1,"maxBlockMs":1}},"deadlines":{"startMs":1,"graceMs":1},"credit":0},"acceptedAt":0,"bootId":"","bootMs":0}"#;

/// An Attempt as the agent hands it over.
pub(super) struct HandedOver {
    pub(super) attempt: AttemptDir,
    pub(super) sync: Sync,
    /// The values of the Secrets that its command needs; `None` where it needs none.
    pub(super) secrets: Option<SecretValues>,
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

/// An Attempt that was handed over before, to a child that has ended without becoming the command.
#[derive(Clone, Copy)]
pub(super) struct Resumed<'a> {
    pub(super) attempt: &'a AttemptDir,
    pub(super) secrets: Option<&'a SecretValues>,
}

/// Becomes the command of the Attempt that the agent hands over, or of one that was handed over before; never returns.
pub(super) fn run(standby: &Standby, reporter: &Reporter, resumed: Option<Resumed<'_>>) -> ! {
    if resumed.is_none() {
        rehearse(standby);
    }
    become_independent();
    let resumed = resumed.map(|Resumed { attempt, secrets }| HandedOver {
        attempt: attempt.clone(),
        sync: Sync::Here,
        secrets: secrets.cloned(),
    });
    if let Some(handed_over) = resumed.or_else(|| receive(reporter)) {
        let is_prepared = standby.is_prepared_for(&handed_over.attempt);
        if reporter.attempt(&handed_over.attempt, handed_over.secrets.as_ref(), is_prepared)
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
        let _ = prepare(&accepted.start, None, None, standby.host, &standby.hiding);
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
    let mut line = Zeroizing::new(Vec::with_capacity(256));
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
        match parse(&line) {
            Parsed::Whole(handed_over) => return Some(*handed_over),
            Parsed::Incomplete => {}
            Parsed::Malformed => return None,
        }
    }
}

enum Parsed {
    Whole(Box<HandedOver>),
    Incomplete,
    Malformed,
}

/// What was handed over, once it is complete.
fn parse(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > MAX_LINE { Parsed::Malformed } else { Parsed::Incomplete };
    };
    let mut parts = bytes[..end].splitn(2, |byte| *byte == 0);
    let Some((kind, path)) = parts.next().and_then(<[u8]>::split_first) else { return Parsed::Malformed };
    let (secrets, rest) = match parts.next() {
        None => (None, &bytes[end + 1..]),
        Some(len) => {
            let len = std::str::from_utf8(len).ok().and_then(|len| len.parse().ok());
            let Some(len) = len.filter(|len| *len <= MAX_VALUES) else { return Parsed::Malformed };
            let Some((values, rest)) = bytes[end + 1..].split_at_checked(len) else {
                return Parsed::Incomplete;
            };
            let Ok(values) = SecretValues::decode(values) else { return Parsed::Malformed };
            (Some(values), rest)
        }
    };
    let sync = match *kind {
        LOGGED => Sync::AtAgent(rest.first().map(|byte| answer_of(*byte))),
        _ => Sync::Here,
    };
    let attempt = AttemptDir::at(OsString::from_vec(path.to_vec()));
    Parsed::Whole(Box::new(HandedOver { attempt, sync, secrets }))
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
    let request = &accepted.start.request;
    if request.needs_secrets() {
        let secrets = handed_over.secrets.as_ref();
        let missing = || "the values of its secrets were not handed over".to_owned();
        let checked = secrets.ok_or_else(missing).and_then(|secrets| secrets.check(request));
        checked.map_err(|why| NotStarted::Failed(StartError::new(StartFailure::Other, why)))?;
    }
    standby.check()?;
    let supervisor = standby.identity().map_err(failed("failed to read /proc"))?;
    let clocks = Clocks::new(&accepted, &supervisor.boot_id, boot_clock_ms());
    may_start(&clocks, attempt)?;
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
    let secrets = handed_over.secrets.as_ref();
    let mut prepared =
        prepare(&accepted.start, secrets, accepted.permit.as_ref(), standby.host, &standby.hiding)?;
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
    // The file system of the program or directory, or the disk of the agent, may have answered late.
    may_start(&clocks, attempt)?;
    let (step, error) = execute(&prepared.plan, &stdio, limits.join_files(), || reporter.executing());
    // What was created is the supervisor's to remove.
    std::mem::forget(limits);
    Err(NotStarted::Failed(prepared.explain(step, &error)))
}

/// Whether it may start now.
fn may_start(clocks: &Clocks, attempt: &AttemptDir) -> Result<(), NotStarted> {
    if let Some(clock) = clocks.too_late_to_start(boot_clock_ms()) {
        return Err(NotStarted::TooLate(clock));
    }
    if attempt.is_cancel_requested() { Err(NotStarted::Cancelled) } else { Ok(()) }
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
    let RunRequest { stdin, stdin_from, output, .. } = &accepted.start.request;
    let pipes = standby.pipes().map_err(failed("no pipe could be created"))?;
    let clone = |fd: &OwnedFd| fd.try_clone().map_err(failed("a descriptor could not be duplicated"));
    let stdin = if stdin.is_empty() && stdin_from.is_none() {
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
    fn what_the_agent_hands_over_is_read_whole_or_not_at_all() {
        let reference =
            sentinel_protocol::secret::SecretKeyRef { name: "s".into(), key: "k".into(), optional: false };
        let mut values = SecretValues::default();
        values.insert(&reference, sentinel_secrets::values::SecretValue::new(b"a\n\0b".to_vec()));
        let encoded = values.encode();
        let mut line = format!("L/state/a\0{}\n", encoded.len()).into_bytes();
        line.extend_from_slice(&encoded);
        for end in 0..line.len() {
            assert!(matches!(parse(&line[..end]), Parsed::Incomplete), "{end}");
        }
        let whole = |line: &[u8]| match parse(line) {
            Parsed::Whole(handed_over) => *handed_over,
            _ => panic!("not whole"),
        };
        let handed_over = whole(&line);
        assert_eq!(handed_over.attempt.path(), std::path::Path::new("/state/a"));
        assert_eq!((handed_over.sync, handed_over.secrets), (Sync::AtAgent(None), Some(values)));
        line.push(CONFIRMED);
        assert_eq!(whole(&line).sync, Sync::AtAgent(Some(Answer::Confirmed)));
        let plain = whole(b"P/state/a\n");
        assert!(plain.secrets.is_none() && plain.sync == Sync::Here);
        for malformed in [&b"P/a\0x\n"[..], b"P/a\0999999999\n", b"P/a\x003\nabc", b"\n", &[b'x'; 5000]] {
            assert!(matches!(parse(malformed), Parsed::Malformed));
        }
    }

    #[test]
    fn the_rehearsed_request_is_valid() {
        let accepted = Accepted::from_json(REHEARSED).unwrap();
        assert!(prepare(&accepted.start, None, None, HostNamespaces::OfInit, &Hiding::default()).is_ok());
    }
}
