//! Starts the command of an Attempt: checks, *starting*, fork and exec, *running*.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Pid;
use sentinel_protocol::exit::ClockEnd;
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::time::UnixMillis;

use super::cgroup::Cgroup;
use super::clocks::Clocks;
use super::invocation::HostNamespaces;
use super::limits::AppliedLimits;
use super::log;
use super::output::{Output, Streams};
use super::spawn::{Prepared, prepare};
use super::start_error::StartError;
use super::stdin::StdinFeed;
use crate::host::{self, boot_clock_ms};
use crate::journal::{Accepted, AttemptLock, AttemptState, Change, SupervisorWakeups};
use crate::kill_point::KillPoint;
use crate::process::ProcessIdentity;
use crate::spool::Writer;

/// Why no command was started.
pub(super) enum NotStarted {
    TooLate(ClockEnd),
    Cancelled,
    Failed(StartError),
}

/// A command that runs, and what its supervisor needs to watch it.
pub(super) struct RunningCommand {
    pub(super) command: Pid,
    pub(super) started_at: UnixMillis,
    pub(super) clocks: Clocks,
    pub(super) limits: AppliedLimits,
    pub(super) output: Output,
    pub(super) stdin: Option<StdinFeed>,
    pub(super) signals: SignalFd,
    /// `None` where the file system has no named pipes.
    pub(super) wakeups: Option<SupervisorWakeups>,
}

/// Descriptors between supervisor and command.
struct Pipes {
    output: Output,
    output_ends: [OwnedFd; 2],
    stdin: Option<StdinFeed>,
    stdin_end: Option<OwnedFd>,
}

/// Checks the request, records *starting*, and starts the command.
///
/// Until then nothing was started, and a failure is how the Attempt ends; otherwise it would be launched again and again.
pub(super) fn start(
    lock: &AttemptLock,
    accepted: &Accepted,
    cgroup: Option<&Cgroup>,
    host: HostNamespaces,
) -> Result<RunningCommand, NotStarted> {
    let attempt = lock.attempt();
    let boot_id = host::boot_id().map_err(failed("failed to read the boot id"))?;
    let mut clocks = Clocks::new(accepted, &boot_id, boot_clock_ms());
    if let Some(clock) = clocks.too_late_to_start(boot_clock_ms()) {
        return Err(NotStarted::TooLate(clock));
    }
    let signals = watch_signals().map_err(failed("failed to watch for signals"))?;
    // Without it, and with an agent that does not use it, the directory is polled.
    let wakeups = attempt.supervisor_wakeups().ok();
    if attempt.is_cancel_requested() {
        return Err(NotStarted::Cancelled);
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| failed("failed to become the subreaper")(io::Error::from(errno)))?;
    let prepared = prepare(&accepted.start, host).map_err(NotStarted::Failed)?;
    let pipes = Pipes::new(lock, accepted)?;
    let supervisor = ProcessIdentity::of_self().map_err(failed("failed to read /proc"))?;
    let (limits, pid) =
        spawn(lock, accepted, cgroup, &supervisor, prepared, pipes.output_ends, pipes.stdin_end)?;
    clocks.started(boot_clock_ms());
    let started_at = host::wall_clock();
    let command = Pid::from_raw(pid).ok_or_else(|| {
        NotStarted::Failed(StartError::new(StartFailure::Other, "the kernel returned an invalid pid"))
    })?;
    if let Err(error) = record_running(lock, supervisor, pid, started_at, cgroup) {
        // *starting* is on disk, so the Attempt is run to its end all the same.
        log::write_line(&format!("unable to record that the command is running: {error}"));
    }
    attempt.agent_waker().wake(Change::Record);
    let (output, stdin) = (pipes.output, pipes.stdin.and_then(StdinFeed::feed));
    Ok(RunningCommand { command, started_at, clocks, limits, output, stdin, signals, wakeups })
}

/// Records *starting*, then forks. Returns the limits that the command has, and its pid.
fn spawn(
    lock: &AttemptLock,
    accepted: &Accepted,
    cgroup: Option<&Cgroup>,
    supervisor: &ProcessIdentity,
    prepared: Prepared,
    outputs: [OwnedFd; 2],
    stdin: Option<OwnedFd>,
) -> Result<(AppliedLimits, i32), NotStarted> {
    let state_dir = lock.attempt().state_dir();
    let starting = AttemptState::Starting { supervisor: supervisor.clone(), cgroup: path_of(cgroup) };
    KillPoint::SupervisorLocked.pass(state_dir);
    lock.announce_start(&starting).map_err(failed("the start could not be recorded"))?;
    KillPoint::SupervisorAnnounced.pass(state_dir);
    let limits = AppliedLimits::new(&accepted.start.request.limits, cgroup)
        .map_err(|error| NotStarted::Failed(StartError::new(StartFailure::Other, error.to_string())))?;
    let pid = prepared.start(cgroup, &limits, stdin, outputs).map_err(NotStarted::Failed)?;
    KillPoint::SupervisorSpawned.pass(state_dir);
    Ok((limits, pid))
}

fn record_running(
    lock: &AttemptLock,
    supervisor: ProcessIdentity,
    pid: i32,
    started_at: UnixMillis,
    cgroup: Option<&Cgroup>,
) -> Result<(), Box<dyn Error>> {
    // It is not reaped yet, so it is in /proc even when it has ended.
    let command = ProcessIdentity::of(pid)?;
    let running = AttemptState::Running { supervisor, command, started_at, cgroup: path_of(cgroup) };
    Ok(lock.set_state(&running)?)
}

fn path_of(cgroup: Option<&Cgroup>) -> Option<String> {
    cgroup.map(|cgroup| cgroup.path().to_string_lossy().into_owned())
}

impl Pipes {
    fn new(lock: &AttemptLock, accepted: &Accepted) -> Result<Self, NotStarted> {
        let request = &accepted.start.request;
        let writer = Writer::create(&lock.attempt().log(), request.output)
            .map_err(failed("the node has no room for output"))?;
        let streams = if request.output.merge { Streams::Merged } else { Streams::Separate };
        let (output, output_ends) =
            Output::new(writer, streams).map_err(failed("no pipe could be created"))?;
        let (stdin, stdin_end) = match request.stdin.as_str() {
            "" => (None, None),
            text => {
                let feed = StdinFeed::new(text.as_bytes().to_vec());
                let (feed, end) = feed.map_err(failed("no pipe could be created"))?;
                (Some(feed), Some(end))
            }
        };
        Ok(Self { output, output_ends, stdin, stdin_end })
    }
}

/// The node lacks what is needed to start anything.
fn failed<E: Error + 'static>(doing: &'static str) -> impl FnOnce(E) -> NotStarted {
    move |error| NotStarted::Failed(StartError::out_of_resources(doing, &error))
}

/// Children that end are observed through a descriptor. Termination signals to the supervisor are blocked: it ends when
/// its Attempt has.
fn watch_signals() -> io::Result<SignalFd> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let mut blocked = children;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        blocked.add(signal);
    }
    blocked.thread_block()?;
    Ok(SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
