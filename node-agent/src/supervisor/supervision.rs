//! Watches a running command: children, pipes, clocks, cancel requests. When and why its tree is ended is decided by
//! [`EndState`].

use std::io;
use std::os::fd::AsFd;

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use sentinel_protocol::exit::{ExitDetails, Fate, LeftBehind};
use sentinel_protocol::text::Name;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;

use super::cgroup::{Cgroup, Placement, join_supervisors};
use super::clocks::Clocks;
use super::exit_record::{self, EndReason};
use super::kill;
use super::leftovers::left_behind;
use super::limits::AppliedLimits;
use super::output::{Output, ReadProgress};
use super::reap::{ExitStatus, reap};
use super::start::RunningCommand;
use super::stdin::StdinFeed;
use super::termination::{EndState, Escalation};
use crate::host::boot_clock_ms;
use crate::journal::{Accepted, AgentWaker, AttemptDir, Change, SupervisorWakeups};
use crate::spool::Room;

/// Shortest time between two wake-ups of the agent for new output, milliseconds.
const WAKE_EVERY_MS: u64 = 10;

/// How long after its start the agent learns that the command runs, milliseconds, unless it writes before: most programs are loaded by
/// then, and that needs the processors.
const BEGUN_AFTER_MS: u64 = 3;

/// How often the directory is polled for a cancel request and for released output, milliseconds: with wake-ups, in case
/// an agent of another release does not send them, and without.
const POLL_EVERY_MS: u64 = 1_000;
const POLL_WITHOUT_WAKEUPS_MS: u64 = 100;

/// How long a command has run before its supervisor moves to the others, milliseconds: not for one that ends at once.
const MOVE_AFTER_MS: u64 = 200;

/// A running command under supervision.
pub(super) struct Supervision<'a> {
    attempt: &'a AttemptDir,
    cgroup: Option<&'a Cgroup>,
    success_exit_codes: &'a [u8],
    command: Pid,
    started_at: UnixMillis,
    limits: AppliedLimits,
    clocks: Clocks,
    state: EndState,
    output: Output,
    /// What the last read of the pipes returned.
    last_read: ReadProgress,
    stdin: Option<StdinFeed>,
    signals: SignalFd,
    wakeups: Option<SupervisorWakeups>,
    agent: AgentWaker,
    /// When the agent is to be woken because the command runs.
    begun_at: Option<u64>,
    /// When the agent is to be woken for new output, and when it was last woken for it.
    wake_at: Option<u64>,
    woken_at: u64,
    /// When to poll the directory.
    poll_at: u64,
    /// When to move to the other supervisors.
    move_at: Option<u64>,
    /// The processes that outlived the command.
    left: Option<LeftBehind>,
    /// Who had signed the Task.
    signer: Option<Name>,
}

/// What the loop does next.
enum Next {
    /// Wait for an event, at the longest until this time.
    Wait(Option<u64>, Room),
    /// The Attempt is over; these processes survived KILL.
    Over(Vec<i32>),
}

impl<'a> Supervision<'a> {
    pub(super) fn new(
        attempt: &'a AttemptDir,
        cgroup: Option<&'a Cgroup>,
        running: RunningCommand,
        accepted: &'a Accepted,
        placement: Placement,
    ) -> Self {
        let RunningCommand { command, started_at, clocks, limits, output, stdin, signals, wakeups } = running;
        let moves = placement == Placement::WithAgent;
        Self {
            attempt,
            cgroup,
            success_exit_codes: &accepted.start.request.success_exit_codes,
            command,
            started_at,
            limits,
            clocks,
            state: EndState::new(accepted.start.request.leftovers),
            output,
            last_read: ReadProgress::Data,
            stdin,
            signals,
            wakeups,
            agent: attempt.agent_waker(),
            begun_at: Some(boot_clock_ms().saturating_add(BEGUN_AFTER_MS)),
            wake_at: None,
            woken_at: 0,
            poll_at: 0,
            move_at: moves.then(|| boot_clock_ms().saturating_add(MOVE_AFTER_MS)),
            left: None,
            signer: accepted.permit.as_ref().and_then(|permit| Some(permit.signed.as_ref()?.signer.clone())),
        }
    }

    /// select → step → perform, until the Attempt is over; returns the processes that survived KILL.
    pub(super) fn run(&mut self) -> io::Result<Vec<i32>> {
        loop {
            match self.step(boot_clock_ms()) {
                Next::Over(survivors) => return Ok(survivors),
                Next::Wait(until, room) => self.wait(until, room)?,
            }
        }
    }

    /// Closes the output and sums up how the Attempt ended.
    pub(super) fn finish(&mut self, survivors: Vec<i32>) -> Ended {
        let now = boot_clock_ms();
        if !self.output.is_closed() {
            self.output.read_rest(now);
            self.state.on_rest_read(now, self.output.is_closed());
        }
        let mut summary = self.output.finish(now);
        summary.held_open = self.state.held_open_ms().is_some();
        let status = self.state.status();
        let termination = self.state.termination();
        let (code, signal) = match status {
            Some(ExitStatus::Exited(code)) => (Some(code), None),
            Some(ExitStatus::Signaled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let exit = ExitDetails {
            code,
            signal,
            killed: termination.is_some_and(|termination| termination.is_killed()),
            clock: termination.and_then(|termination| termination.clock),
            left: self.left.take(),
            output_held_ms: self.state.held_open_ms(),
            signed_by: self.signer.clone(),
            masked: self.output.marks(),
        };
        let outcome = exit_record::outcome(
            status,
            termination.map(|termination| termination.reason),
            survivors,
            self.success_exit_codes,
            self.limits.out_of_memory(),
        );
        exit_record::ended(outcome, Some(self.started_at), summary, exit)
    }

    /// Syncs the output, best effort.
    pub(super) fn sync_output(&mut self) {
        self.output.sync();
    }

    /// Checks children and clocks, and ends what has to be ended.
    fn step(&mut self, now: u64) -> Next {
        self.state.on_reaped(reap(self.command), now);
        if self.output.is_closed() {
            self.state.on_output_closed(now);
        }
        if self.state.just_gone(now) {
            // Its last output may have come after the last read.
            self.last_read = ReadProgress::Data;
        }
        self.run_timers(now);
        let room = self.output.room(now);
        if let Some(reason) = self.state.begin_termination(now, room, &self.clocks) {
            if reason == EndReason::Leftovers {
                self.left = left_behind(self.cgroup, Fate::Ended);
            }
            if !self.state.tree_is_empty() {
                kill::terminate(self.cgroup);
            }
        }
        if self.is_over(now, room) {
            return Next::Over(Vec::new());
        }
        let deadline = if self.state.is_gone() && self.state.termination().is_some() {
            // Only the pipes are left to be read once more, when they may be.
            Some(now).filter(|_| room == Room::Open)
        } else {
            match self.state.escalate(now) {
                None if self.state.status().is_some() => None,
                None => [self.clocks.run_until(), self.idle_until(room)].into_iter().flatten().min(),
                Some(Escalation::Wait(until)) => Some(until),
                Some(Escalation::Kill(again_at)) => {
                    kill::kill(self.cgroup);
                    Some(again_at)
                }
                Some(Escalation::GiveUp) => return Next::Over(kill::pids(self.cgroup)),
            }
        };
        let stalled = match room {
            Room::Blocked { until_ms } => Some(until_ms),
            Room::Open => None,
        };
        let drained = self.state.drained_at(room);
        let timers = [
            deadline,
            drained,
            stalled,
            self.move_at,
            self.begun_at,
            self.wake_at,
            self.output.release_at(),
            Some(self.poll_at),
        ];
        Next::Wait(timers.into_iter().flatten().min(), room)
    }

    /// Moves to the other supervisors, wakes the agent and polls the directory when it is time.
    fn run_timers(&mut self, now: u64) {
        if self.move_at.is_some_and(|at| now >= at) {
            self.move_at = None;
            // Where this fails, the supervisor ends with the agent's own group.
            let _ = join_supervisors();
        }
        if self.output.release_held(now) {
            self.wake_at.get_or_insert(now);
        }
        let writes = self.wake_at.is_some_and(|at| now >= at);
        if self.begun_at.is_some_and(|at| writes || now >= at) {
            self.begun_at = None;
            self.agent.wake(Change::Record);
        }
        if writes {
            (self.wake_at, self.woken_at) = (None, now);
            self.agent.wake(Change::Output);
        }
        if now >= self.poll_at {
            self.poll_directory(now);
        }
    }

    /// When the idle clock runs out; never while the command is blocked on a full pipe.
    fn idle_until(&self, room: Room) -> Option<u64> {
        self.clocks.idle_until().filter(|_| room == Room::Open)
    }

    fn is_over(&mut self, now: u64, room: Room) -> bool {
        if self.state.is_over_with_leftovers(now, room) {
            self.left = left_behind(self.cgroup, Fate::Kept);
            return true;
        }
        self.state.is_over(now, room, self.last_read)
    }

    /// Waits for an event or until this time, and processes what arrived.
    fn wait(&mut self, until: Option<u64>, room: Room) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.wakeups.as_ref().map(|wakeups| PollFd::new(wakeups, PollFlags::IN)));
        if room == Room::Open {
            fds.extend(self.output.pipes().map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
        }
        fds.extend(self.stdin.as_ref().map(|stdin| PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT)));
        let timeout = until.map(|until| timespec(until.saturating_sub(boot_clock_ms())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_signal = !fds[0].revents().is_empty();
        let is_woken = self.wakeups.is_some() && !fds[1].revents().is_empty();
        drop(fds);
        if has_signal {
            while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        }
        if let Some(wakeups) = self.wakeups.as_mut().filter(|_| is_woken) {
            wakeups.drain();
            self.poll_directory(boot_clock_ms());
        }
        match room {
            Room::Open => self.read_output(),
            // The command may have been blocked until now.
            Room::Blocked { .. } => self.clocks.on_output(boot_clock_ms()),
        }
        self.stdin = self.stdin.take().and_then(StdinFeed::feed);
        Ok(())
    }

    fn read_output(&mut self) {
        self.last_read = self.output.read();
        if self.last_read == ReadProgress::Data {
            let now = boot_clock_ms();
            self.clocks.on_output(now);
            // The agent is woken at once for the first output, and a hundred times a second for a flood of it.
            self.wake_at.get_or_insert(now.max(self.woken_at.saturating_add(WAKE_EVERY_MS)));
        }
    }

    fn poll_directory(&mut self, now: u64) {
        let pause = if self.wakeups.is_some() { POLL_EVERY_MS } else { POLL_WITHOUT_WAKEUPS_MS };
        self.poll_at = now.saturating_add(pause);
        if self.attempt.is_cancel_requested() {
            self.state.on_cancel();
        }
        self.output.detect_released(now);
    }
}

fn timespec(millis: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}
