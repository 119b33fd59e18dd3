//! Starts the command of an Attempt: checks, *starting*, exec, *running*.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signalfd::SignalFd;
use rustix::process::Pid;
use sentinel_protocol::exit::ClockEnd;
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::time::UnixMillis;

use super::cgroup::Cgroup;
use super::clocks::Clocks;
use super::limits::AppliedLimits;
use super::log;
use super::output::{Output, Streams};
use super::plan::Inherited;
use super::spawn::prepare;
use super::standby::Standby;
use super::start_error::StartError;
use super::stdin::StdinFeed;
use super::zygote::Zygote;
use crate::host::{self, boot_clock_ms};
use crate::journal::{Accepted, Announced, AttemptLock, AttemptState, Change, SupervisorWakeups};
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
    stdin: Option<StdinFeed>,
    /// The command's ends: standard input, output and error.
    ends: [OwnedFd; 3],
}

/// Checks the request, records *starting*, and starts the command.
///
/// Until then nothing was started, and a failure is how the Attempt ends; otherwise it would be launched again and again.
pub(super) fn start(
    lock: &AttemptLock,
    accepted: &Accepted,
    standby: &mut Standby,
    wakeups: Option<SupervisorWakeups>,
) -> Result<RunningCommand, NotStarted> {
    let attempt = lock.attempt();
    let supervisor = standby.take_identity().map_err(failed("failed to read /proc"))?;
    let mut clocks = Clocks::new(accepted, &supervisor.boot_id, boot_clock_ms());
    if let Some(clock) = clocks.too_late_to_start(boot_clock_ms()) {
        return Err(NotStarted::TooLate(clock));
    }
    let signals = standby.take_signals().map_err(failed("failed to watch for signals"))?;
    if attempt.is_cancel_requested() {
        return Err(NotStarted::Cancelled);
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| failed("failed to become the subreaper")(io::Error::from(errno)))?;
    let announced = announce(lock, standby.cgroup.as_ref(), &supervisor)?;
    let (command, limits, output, stdin) = execute(lock, accepted, standby, &announced)?;
    clocks.started(boot_clock_ms());
    let started_at = host::wall_clock();
    if let Err(error) = record_running(lock, supervisor, command, started_at, standby.cgroup.as_ref()) {
        // *starting* is recorded, so the Attempt is run to its end all the same.
        log::write_line(&format!("unable to record that the command is running: {error}"));
    }
    attempt.agent_waker().wake(Change::Record);
    let stdin = stdin.and_then(StdinFeed::feed);
    Ok(RunningCommand { command, started_at, clocks, limits, output, stdin, signals, wakeups })
}

/// Records *starting*; nothing may be started before that is durable. From here on a crash means that the command may have run.
fn announce<'a>(
    lock: &'a AttemptLock,
    cgroup: Option<&Cgroup>,
    supervisor: &ProcessIdentity,
) -> Result<Announced<'a>, NotStarted> {
    let starting = AttemptState::Starting { supervisor: supervisor.clone(), cgroup: path_of(cgroup) };
    KillPoint::SupervisorLocked.pass(lock.attempt().state_dir());
    lock.announce_start(&starting).map_err(failed("the start could not be recorded"))
}

/// Prepares the command while the start is made durable, and starts it then.
fn execute(
    lock: &AttemptLock,
    accepted: &Accepted,
    standby: &mut Standby,
    announced: &Announced<'_>,
) -> Result<(Pid, AppliedLimits, Output, Option<StdinFeed>), NotStarted> {
    let state_dir = lock.attempt().state_dir();
    let zygote = zygote(standby, announced).map_err(failed("the node could not create a process"))?;
    KillPoint::SupervisorAnnounced.pass(state_dir);
    let prepared = prepare(&accepted.start, standby.host).map_err(NotStarted::Failed)?;
    let pipes = Pipes::new(lock, accepted)?;
    let limits = AppliedLimits::new(&accepted.start.request.limits, standby.cgroup.as_ref())
        .map_err(|error| NotStarted::Failed(StartError::new(StartFailure::Other, error.to_string())))?;
    let inherited = Inherited { stdio: pipes.ends, join_files: limits.join_files() };
    let another = || self::zygote(standby, announced);
    let command = prepared.start(zygote, another, &inherited).map_err(NotStarted::Failed)?;
    // This closes the supervisor's copies of the command's ends, so that end-of-file means that the command closed them.
    drop(inherited);
    KillPoint::SupervisorSpawned.pass(state_dir);
    Ok((command, limits, pipes.output, pipes.stdin))
}

/// The process that becomes the command, which is making the announced start durable.
fn zygote(standby: &mut Standby, announced: &Announced<'_>) -> io::Result<Zygote> {
    let sync = |zygote: &Zygote| announced.to_sync().map_or(Ok(()), |log| zygote.sync(log));
    // It may have ended while it waited.
    if let Some(zygote) = standby.zygote.take().filter(|zygote| sync(zygote).is_ok()) {
        return Ok(zygote);
    }
    let zygote = Zygote::fork(standby.cgroup.as_ref())?;
    sync(&zygote).map(|()| zygote)
}

fn record_running(
    lock: &AttemptLock,
    supervisor: ProcessIdentity,
    command: Pid,
    started_at: UnixMillis,
    cgroup: Option<&Cgroup>,
) -> Result<(), Box<dyn Error>> {
    // It is not reaped yet, so it is in /proc even when it has ended.
    let command = ProcessIdentity::of(command.as_raw_pid())?;
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
        let (output, [stdout, stderr]) =
            Output::new(writer, streams).map_err(failed("no pipe could be created"))?;
        let (stdin, stdin_end) = match request.stdin.as_str() {
            "" => (
                None,
                File::open("/dev/null")
                    .map(OwnedFd::from)
                    .map_err(failed("/dev/null could not be opened"))?,
            ),
            text => {
                let feed = StdinFeed::new(text.as_bytes().to_vec());
                let (feed, end) = feed.map_err(failed("no pipe could be created"))?;
                (Some(feed), end)
            }
        };
        Ok(Self { output, stdin, ends: [stdin_end, stdout, stderr] })
    }
}

/// The node lacks what is needed to start anything.
fn failed<E: Error + 'static>(doing: &'static str) -> impl FnOnce(E) -> NotStarted {
    move |error| NotStarted::Failed(StartError::out_of_resources(doing, &error))
}
