//! Follows a child until it is the command of the Attempt: *starting*, exec, *running*.

use std::error::Error;
use std::io;
use std::sync::Arc;

use nix::sys::signalfd::SignalFd;
use rustix::process::Pid;
use sentinel_protocol::time::UnixMillis;

use sentinel_secrets::values::SecretValues;

use super::child::Resumed;
use super::clocks::Clocks;
use super::limits::AppliedLimits;
use super::mask::Patterns;
use super::output::{Output, Streams};
use super::progress::Progress;
use super::standby::{LockedSince, Pipes, Standby};
use super::start_error::{NotStarted, failed};
use super::stdin::StdinFeed;
use super::zygote::Zygote;
use super::{log, scheduling};
use crate::host::{self, boot_clock_ms};
use crate::journal::{Accepted, AttemptLock, AttemptState, SupervisorWakeups};
use crate::kill_point::KillPoint;
use crate::process::ProcessIdentity;
use crate::spool::Writer;

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

/// Opens the Spool. Where its reserve was not prepared there may be no room for it, and the child must wait.
pub(super) fn open_spool(
    lock: &AttemptLock,
    accepted: &Accepted,
    since: LockedSince,
) -> Result<Writer, NotStarted> {
    let (log, rules) = (lock.attempt().log(), accepted.start.request.output);
    match since {
        LockedSince::Creation => Ok(Writer::over_reserve(&log, rules)),
        LockedSince::Now => Writer::create(&log, rules).map_err(failed("the node has no room for output")),
    }
}

/// Waits until the child is the command, and records it.
pub(super) fn follow(
    lock: &AttemptLock,
    accepted: &Accepted,
    secrets: Option<&SecretValues>,
    standby: &mut Standby,
    child: Zygote,
    spool: Writer,
    wakeups: Option<SupervisorWakeups>,
) -> Result<RunningCommand, NotStarted> {
    let attempt = lock.attempt();
    let request = &accepted.start.request;
    let supervisor = standby.identity().map_err(failed("failed to read /proc"))?.clone();
    let mut clocks = Clocks::new(accepted, &supervisor.boot_id, boot_clock_ms());
    let signals = standby.take_signals().map_err(failed("failed to watch for signals"))?;
    let limits = || AppliedLimits::entered(&request.limits, standby.cgroup.as_ref(), &standby.name);
    let masked = secrets.filter(|_| request.output.mask);
    let patterns = masked.and_then(Patterns::of).map(Arc::new);
    // Dropped on failure, which removes what the child has created.
    let command = until_executed(standby, lock, secrets, child).inspect_err(|_| drop(limits()))?;
    let limits = limits();
    KillPoint::SupervisorSpawned.pass(attempt.state_dir());
    clocks.started(boot_clock_ms());
    let started_at = host::wall_clock();
    scheduling::step_up();
    if let Err(error) = record_running(lock, supervisor, command, started_at, standby.cgroup_path()) {
        // *starting* is recorded, so the Attempt is run to its end all the same.
        log::write_line(&format!("unable to record that the command is running: {error}"));
    }
    // This closes the supervisor's copies of the command's ends, so that end-of-file means that the command closed them.
    let Pipes { stdin, stdout, stderr, .. } =
        standby.take_pipes().map_err(failed("no pipe could be created"))?;
    let streams = if request.output.merge { Streams::Merged } else { Streams::Separate };
    let output = Output::new(spool, streams, [stdout, stderr], patterns.as_ref());
    let input = match &request.stdin_from {
        None => Some(request.stdin.clone().into_bytes()),
        Some(reference) => secrets.and_then(|all| all.get(reference)).map(|value| value.expose().to_vec()),
    };
    let feed = input.filter(|input| !input.is_empty()).map(|input| StdinFeed::new(stdin, input));
    let stdin = feed.and_then(StdinFeed::feed);
    Ok(RunningCommand { command, started_at, clocks, limits, output, stdin, signals, wakeups })
}

/// Waits until the child has executed the command. One that ends before has started nothing, and is replaced once.
fn until_executed(
    standby: &Standby,
    lock: &AttemptLock,
    secrets: Option<&SecretValues>,
    child: Zygote,
) -> Result<Pid, NotStarted> {
    let ended = |error| failed("the node could not create a process")(error);
    let mut replaced = false;
    let mut child = child;
    loop {
        let mut only_exec_is_left = false;
        loop {
            match child.follower().progress() {
                Progress::Executing => only_exec_is_left = true,
                Progress::NotStarted(why) => return Err(why),
                Progress::Closed => break,
                // Only the lock is waited for, which this process holds.
                Progress::Attempt(..) => child.follower().note_locked(),
            }
        }
        if only_exec_is_left {
            return Ok(child.into_command());
        }
        if std::mem::replace(&mut replaced, true) {
            return Err(ended(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        let resumed = Resumed { attempt: lock.attempt(), secrets };
        child = Zygote::fork(standby, Some(resumed)).map_err(ended)?;
    }
}

fn record_running(
    lock: &AttemptLock,
    supervisor: ProcessIdentity,
    command: Pid,
    started_at: UnixMillis,
    cgroup: Option<String>,
) -> Result<(), Box<dyn Error>> {
    // It is not reaped yet, so it is in /proc even when it has ended.
    let command = ProcessIdentity::of(command.as_raw_pid())?;
    Ok(lock.set_state(&AttemptState::Running { supervisor, command, started_at, cgroup })?)
}
