//! The life of one Attempt, from *accepted* to its exit record.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use sentinel_protocol::exit::{ClockEnd, ExitDetails, Fate, LeftBehind};
use sentinel_protocol::limits::DRAIN_MS;
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::request::Leftovers;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary};

use super::Host;
use super::cgroup::{Cgroup, join_supervisors};
use super::clocks::Clocks;
use super::entry::{Moved, note};
use super::exit_record::{self, Why};
use super::kill;
use super::leftovers::left_behind;
use super::limits::Limited;
use super::output::{Brought, Output, Streams};
use super::reap::{ExitStatus, Tree, reap};
use super::spawn::{StartError, prepare};
use super::stdin::StdinFeed;
use crate::host::{self, boot_clock_ms};
use crate::journal::{
    Accepted, AttemptDir, AttemptLock, AttemptState, Changed, Hand, JournalError, SupervisorBell,
};
use crate::kill_point::KillPoint;
use crate::process::ProcessIdentity;
use crate::spool::{Room, Writer};

/// How long killed processes are awaited, milliseconds.
const KILLED_MS: u64 = 5_000;
/// How often the kill is repeated meanwhile, milliseconds: a process may have been born between look and kill.
const KILL_AGAIN_MS: u64 = 20;

/// How long a process may take to end after it closed its output, milliseconds, before it counts as left behind: many
/// programs flush and close their output as the last thing they do.
const SETTLE_MS: u64 = 100;

/// How often the pipes are read once more when a kept process holds them open: more than a full pipe holds.
const LAST_READS: usize = 8;

/// How often the agent is rung for new output at most, milliseconds.
const RING_EVERY_MS: u64 = 10;

/// How often the directory is looked at for a cancel request and for released output, milliseconds: with a bell, in
/// case an agent of another release does not ring it, and without one.
const LOOK_EVERY_MS: u64 = 1_000;
const LOOK_UNRUNG_MS: u64 = 100;

/// How long a command has run before its supervisor moves to the others, milliseconds.
const MOVE_AFTER_MS: u64 = 200;

/// A failure that leaves the Attempt without an exit record.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuperviseError {
    #[error("failed to use the journal of the attempt")]
    Journal(#[source] JournalError),
    #[error("failed to {doing}")]
    System { doing: &'static str, source: io::Error },
}

/// Carries an Attempt to its end, unless it is another's or no longer to be started.
pub(super) fn supervise(
    attempt: &AttemptDir,
    cgroup: Option<&Cgroup>,
    moved: Moved,
    host: Host,
) -> Result<(), SuperviseError> {
    let lock = attempt.lock().map_err(SuperviseError::Journal)?;
    // Read under the lock: whoever had it before may have given the Attempt up, or carried it to its end.
    if lock.exit().map_err(SuperviseError::Journal)?.is_some()
        || attempt.state().map_err(SuperviseError::Journal)? != AttemptState::Accepted
    {
        return Ok(());
    }
    let Some(accepted) = attempt.accepted().map_err(SuperviseError::Journal)? else { return Ok(()) };
    let nothing = ExitDetails::default();
    let (outcome, exit) = match begin(&lock, &accepted, cgroup, moved, host) {
        Ok(mut supervision) => return supervision.carry_on(&lock, &accepted),
        Err(NotBegun::TooLate(clock)) => {
            (Outcome::StartTimedOut { why: None }, ExitDetails { clock: Some(clock), ..nothing })
        }
        Err(NotBegun::Cancelled) => (Outcome::Cancelled, nothing),
        Err(NotBegun::Failed(error)) => (exit_record::start_failed(error.reason, &error.message), nothing),
    };
    record(&lock, exit_record::ended(outcome, None, OutputSummary::default(), exit))
}

/// Why no command was started.
enum NotBegun {
    TooLate(ClockEnd),
    Cancelled,
    Failed(StartError),
}

fn record(lock: &AttemptLock, ended: Ended) -> Result<(), SuperviseError> {
    let recorded = lock.record_exit(ended);
    Hand::of(lock.attempt()).ring(Changed::Record);
    recorded.map(drop).map_err(SuperviseError::Journal)
}

/// A command that runs, and all that is watched about it.
struct Supervision<'a> {
    attempt: &'a AttemptDir,
    cgroup: Option<&'a Cgroup>,
    limited: Limited,
    command: Pid,
    started_at: UnixMillis,
    clocks: Clocks,
    output: Output,
    stdin: Option<StdinFeed>,
    signals: SignalFd,
    /// Rung by the agent; `None` where there is no such thing.
    bell: Option<SupervisorBell>,
    /// The agent's bell.
    agent: Hand,
    /// When the agent is to be rung for new output, and when it was rung last.
    ring_at: Option<u64>,
    rung_at: u64,
    /// When to look for what the agent may have left without ringing.
    look_at: u64,
    /// How and when the command ended.
    exited: Option<(ExitStatus, u64)>,
    tree: Tree,
    /// When the last process of the tree was found gone.
    gone_at: Option<u64>,
    /// When the output was found closed by all of the tree.
    closed_at: Option<u64>,
    cancel: bool,
    ending: Option<Ending>,
    /// What becomes of processes that outlive the command.
    leftovers: Leftovers,
    /// The processes that did.
    left: Option<LeftBehind>,
    /// How long after the command's end an output pipe was still held open when its end was no longer awaited.
    held_open_ms: Option<u64>,
    /// What the last look at the pipes brought.
    pipes: Brought,
    /// When to move to the other supervisors: not for a command that ends at once.
    move_at: Option<u64>,
}

/// The tree is being ended.
#[derive(Debug, Clone, Copy)]
struct Ending {
    why: Why,
    clock: Option<ClockEnd>,
    kill_at: u64,
    killed_at: Option<u64>,
}

/// Checks, notes `Starting`, and starts the command.
fn begin<'a>(
    lock: &'a AttemptLock,
    accepted: &Accepted,
    cgroup: Option<&'a Cgroup>,
    moved: Moved,
    host: Host,
) -> Result<Supervision<'a>, NotBegun> {
    let attempt = lock.attempt();
    // Nothing has been started, and nothing will be: what the node lacks is how the Attempt ends, and not a riddle in a
    // log while others are launched for it in vain.
    let system = |doing: &'static str| {
        move |source: io::Error| {
            NotBegun::Failed(StartError::out_of_resources(&format!("failed to {doing}"), &source))
        }
    };
    let boot_id = host::boot_id().map_err(system("read the boot id"))?;
    let mut clocks = Clocks::new(accepted, &boot_id, boot_clock_ms());
    if let Some(clock) = clocks.too_late_to_start(boot_clock_ms()) {
        return Err(NotBegun::TooLate(clock));
    }
    let signals = watch_signals().map_err(system("watch for signals"))?;
    // Without one, or with an agent that rings none, the directory is looked at from time to time.
    let bell = SupervisorBell::open(attempt).ok();
    if attempt.is_cancel_requested() {
        return Err(NotBegun::Cancelled);
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| system("become the subreaper")(errno.into()))?;
    let failed = |doing: &'static str| {
        move |error: &(dyn std::error::Error + 'static)| {
            NotBegun::Failed(StartError::out_of_resources(doing, error))
        }
    };
    let prepared = prepare(&accepted.start, host).map_err(NotBegun::Failed)?;
    let writer = Writer::create(&attempt.log(), accepted.start.request.output)
        .map_err(|e| failed("the node has no room for output")(&e))?;
    let merge = accepted.start.request.output.merge;
    let streams = if merge { Streams::Merged } else { Streams::Separate };
    let (output, outputs) = Output::new(writer, streams).map_err(|e| failed("no pipe could be made")(&e))?;
    let (stdin, stdin_end) =
        stdin(&accepted.start.request.stdin).map_err(|e| failed("no pipe could be made")(&e))?;
    let supervisor = ProcessIdentity::of_self().map_err(system("read /proc"))?;
    let cgroup_path = cgroup.map(|cgroup| cgroup.path().to_string_lossy().into_owned());
    let starting = AttemptState::Starting { supervisor: supervisor.clone(), cgroup: cgroup_path.clone() };
    let pass = |place: KillPoint| place.pass(attempt.state_dir());
    pass(KillPoint::SupervisorLocked);
    lock.announce_start(&starting).map_err(|e| failed("the start could not be noted")(&e))?;
    pass(KillPoint::SupervisorAnnounced);
    let limited = Limited::new(&accepted.start.request.limits, cgroup)
        .map_err(|error| NotBegun::Failed(StartError::new(StartFailure::Other, error.to_string())))?;
    let pid = prepared.start(cgroup, &limited, stdin_end, outputs).map_err(NotBegun::Failed)?;
    pass(KillPoint::SupervisorSpawned);
    clocks.started(boot_clock_ms());
    let started_at = host::wall_clock();
    let command = Pid::from_raw(pid).ok_or_else(|| {
        NotBegun::Failed(StartError::new(StartFailure::Other, "the kernel gave the process no number"))
    })?;
    // It is not reaped yet, so it is in /proc even when it has ended.
    let running = ProcessIdentity::of(pid).map_err(JournalErrorOrIo::Io).and_then(|command| {
        let running = AttemptState::Running { supervisor, command, started_at, cgroup: cgroup_path };
        lock.set_state(&running).map_err(JournalErrorOrIo::Journal)
    });
    let mut agent = Hand::of(attempt);
    agent.ring(Changed::Record);
    if let Err(error) = running {
        // The command runs; what is on disk says that it may. It is carried to its end all the same.
        note(&format!("unable to note that the command runs: {error}"));
    }
    Ok(Supervision {
        attempt,
        cgroup,
        limited,
        command,
        started_at,
        clocks,
        output,
        stdin: stdin.and_then(StdinFeed::feed),
        signals,
        bell,
        agent,
        ring_at: None,
        rung_at: 0,
        look_at: 0,
        exited: None,
        tree: Tree::Populated,
        gone_at: None,
        closed_at: None,
        cancel: false,
        ending: None,
        leftovers: accepted.start.request.leftovers,
        left: None,
        held_open_ms: None,
        pipes: Brought::More,
        move_at: (moved == Moved::NotYet).then(|| boot_clock_ms().saturating_add(MOVE_AFTER_MS)),
    })
}

#[derive(Debug, thiserror::Error)]
enum JournalErrorOrIo {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Journal(JournalError),
}

fn stdin(text: &str) -> io::Result<(Option<StdinFeed>, Option<OwnedFd>)> {
    if text.is_empty() {
        return Ok((None, None));
    }
    let (feed, end) = StdinFeed::new(text.as_bytes().to_vec())?;
    Ok((Some(feed), Some(end)))
}

/// Children that end are seen through a descriptor. Polite signals to us are never delivered: a supervisor ends when
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

/// What the loop does next.
enum Next {
    /// Wait for something to happen, at most until this moment.
    Wait(Option<u64>, Room),
    /// The Attempt is over; these processes would not end.
    Over(Vec<i32>),
}

impl Supervision<'_> {
    /// select → step → perform, until it is over; then the exit record.
    fn carry_on(&mut self, lock: &AttemptLock, accepted: &Accepted) -> Result<(), SuperviseError> {
        let left = loop {
            match self.step(boot_clock_ms()) {
                Next::Over(left) => break left,
                Next::Wait(until, room) => self.wait(until, room)?,
            }
        };
        let mut summary = self.output.finish(boot_clock_ms());
        summary.held_open = self.held_open_ms.is_some();
        let status = self.exited.map(|(status, _)| status);
        let why = self.ending.map(|ending| ending.why);
        let exit = self.exit_details(status);
        let outcome = exit_record::outcome(
            status,
            why,
            left,
            &accepted.start.request.success_exit_codes,
            self.limited.out_of_memory(),
        );
        KillPoint::SupervisorSawExit.pass(self.attempt.state_dir());
        let recorded = record(lock, exit_record::ended(outcome, Some(self.started_at), summary, exit));
        KillPoint::SupervisorRecorded.pass(self.attempt.state_dir());
        // After the record, as it may take long: a loss here would show as a hole.
        self.output.sync();
        recorded
    }

    /// What the command did at its end, beside the Outcome.
    fn exit_details(&mut self, status: Option<ExitStatus>) -> ExitDetails {
        let (code, signal) = match status {
            Some(ExitStatus::Exited(code)) => (Some(code), None),
            Some(ExitStatus::Signaled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        ExitDetails {
            code,
            signal,
            killed: self.ending.is_some_and(|ending| ending.killed_at.is_some()),
            clock: self.ending.and_then(|ending| ending.clock),
            left: self.left.take(),
            output_held_ms: self.held_open_ms,
        }
    }

    /// Looks at the children and the clocks, ends what is to be ended.
    fn step(&mut self, now: u64) -> Next {
        let reaped = reap(self.command);
        self.tree = reaped.tree;
        if let Some(status) = reaped.command {
            self.exited = Some((status, now));
        }
        if self.output.is_closed() {
            self.closed_at.get_or_insert(now);
        }
        if self.is_gone() && self.gone_at.is_none() {
            self.gone_at = Some(now);
            // Its last words may have come after the last look.
            self.pipes = Brought::More;
        }
        if self.move_at.is_some_and(|at| now >= at) {
            self.move_at = None;
            // Without it we live and end with the agent's own group.
            let _ = join_supervisors();
        }
        if self.ring_at.is_some_and(|at| now >= at) {
            (self.ring_at, self.rung_at) = (None, now);
            self.agent.ring(Changed::Output);
        }
        if now >= self.look_at {
            self.look_at_directory(now);
        }
        let room = self.output.room(now);
        if let Some((why, clock)) = self.should_end(now, room) {
            self.ending = Some(Ending { why, clock, kill_at: self.clocks.kill_at(now), killed_at: None });
            if why == Why::Leftovers {
                self.left = left_behind(self.cgroup, Fate::Ended);
            }
            if self.tree == Tree::Populated {
                kill::terminate(self.cgroup);
            }
        }
        if self.is_over(now, room) {
            return Next::Over(Vec::new());
        }
        let deadline = match self.ending {
            None if self.exited.is_some() => None,
            None => [self.clocks.run_until(), self.idle_until(room)].into_iter().flatten().min(),
            // Only the pipes are left to look at once more, when they may be.
            Some(_) if self.is_gone() => Some(now).filter(|_| room == Room::Open),
            Some(ending) => match self.press(ending, now) {
                Some(deadline) => Some(deadline),
                None => return Next::Over(kill::pids(self.cgroup)),
            },
        };
        let stalled = match room {
            Room::Blocked { until_ms } => Some(until_ms),
            Room::Open => None,
        };
        let exited_at = self.exited.filter(|_| self.ending.is_none()).map(|(_, at)| at);
        let drained = exited_at.and_then(|exited_at| match self.closed_at {
            Some(closed_at) => Some(closed_at.max(exited_at).saturating_add(SETTLE_MS)),
            None => Some(exited_at.saturating_add(DRAIN_MS)).filter(|_| stalled.is_none()),
        });
        let looks = [self.ring_at, Some(self.look_at)];
        Next::Wait([deadline, drained, stalled, self.move_at].into_iter().chain(looks).flatten().min(), room)
    }

    /// When the command is without output for too long; never while it is held up on a full pipe.
    fn idle_until(&self, room: Room) -> Option<u64> {
        self.clocks.idle_until().filter(|_| room == Room::Open)
    }

    /// Whether nothing of the command's tree is left.
    fn is_gone(&self) -> bool {
        self.exited.is_some() && self.tree == Tree::Empty
    }

    /// Why the tree is to be ended now, if it is and is not being ended already.
    fn should_end(&mut self, now: u64, room: Room) -> Option<(Why, Option<ClockEnd>)> {
        if self.ending.is_some() {
            return None;
        }
        match self.exited {
            None if self.cancel => Some((Why::Cancelled, None)),
            None => {
                let run = self.clocks.run_over(now).map(|clock| (Why::TimedOut, Some(clock)));
                let idle = self.clocks.idle_over(now).filter(|_| room == Room::Open);
                run.or(idle.map(|clock| (Why::IdleTimedOut, Some(clock))))
            }
            Some(_) if self.tree == Tree::Empty || self.may_keep() => None,
            Some((_, exited_at)) => {
                self.output_is_over(now, exited_at, room).then_some((Why::Leftovers, None))
            }
        }
    }

    /// Whether what the command leaves is to be left alone: a Cancel before its end is recorded ends it all the same.
    fn may_keep(&self) -> bool {
        self.leftovers == Leftovers::Keep && !self.cancel
    }

    /// Whether no more output is awaited of a command that has ended by itself and left processes: nothing can come any
    /// more, it was cancelled, or the time for it is over.
    fn output_is_over(&mut self, now: u64, exited_at: u64, room: Room) -> bool {
        if let Some(closed_at) = self.closed_at {
            return self.cancel || now >= closed_at.max(exited_at).saturating_add(SETTLE_MS);
        }
        let drained = now >= exited_at.saturating_add(DRAIN_MS) && room == Room::Open;
        if drained {
            self.held_open_ms = Some(now.saturating_sub(exited_at));
        }
        drained || self.cancel
    }

    /// Whether the command has ended by itself and what it left is to be left alone.
    fn is_kept(&mut self, now: u64, room: Room) -> bool {
        let by_itself = self.may_keep() && self.ending.is_none();
        let Some((_, exited_at)) = self.exited.filter(|_| by_itself && self.tree == Tree::Populated) else {
            return false;
        };
        if !self.output_is_over(now, exited_at, room) {
            return false;
        }
        if !self.output.is_closed() {
            self.held_open_ms = Some(now.saturating_sub(exited_at));
            self.take_what_is_in_the_pipes(now);
        }
        self.left = left_behind(self.cgroup, Fate::Kept);
        true
    }

    /// What was written before our side is closed; one that goes on writing is not waited for.
    fn take_what_is_in_the_pipes(&mut self, now: u64) {
        for _ in 0..LAST_READS {
            if self.output.room(now) != Room::Open || self.output.read() == Brought::Nothing {
                return;
            }
        }
    }

    /// Whether nothing is left, neither processes nor output, or what is left is to be left alone.
    fn is_over(&mut self, now: u64, room: Room) -> bool {
        if self.is_kept(now, room) {
            return true;
        }
        let Some((_, exited_at)) = self.exited.filter(|_| self.is_gone()) else { return false };
        if self.output.is_closed() {
            return true;
        }
        // A process outside the tree holds a pipe. What was written before is in the pipe already, and is taken;
        // but one that goes on writing is not waited for.
        let waited = self.ending.is_some() || now >= exited_at.saturating_add(DRAIN_MS);
        let too_long = self.gone_at.is_some_and(|gone_at| now >= gone_at.saturating_add(DRAIN_MS));
        let outsider = room == Room::Open && (too_long || waited && self.pipes == Brought::Nothing);
        if outsider {
            self.held_open_ms.get_or_insert(now.saturating_sub(exited_at));
        }
        outsider
    }

    /// Goes on ending the tree; returns when to look again, `None` when it would not die.
    fn press(&mut self, mut ending: Ending, now: u64) -> Option<u64> {
        if now < ending.kill_at {
            return Some(ending.kill_at);
        }
        let killed_at = *ending.killed_at.get_or_insert(now);
        self.ending = Some(ending);
        if now >= killed_at.saturating_add(KILLED_MS) {
            return None;
        }
        kill::kill(self.cgroup);
        Some(now.saturating_add(KILL_AGAIN_MS))
    }

    /// Waits until something happens or the moment has come, and takes what came.
    fn wait(&mut self, until: Option<u64>, room: Room) -> Result<(), SuperviseError> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.bell.as_ref().map(|bell| PollFd::new(bell, PollFlags::IN)));
        if room == Room::Open {
            fds.extend(self.output.pipes().map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
        }
        fds.extend(self.stdin.as_ref().map(|stdin| PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT)));
        let timeout = until.map(|until| timespec(until.saturating_sub(boot_clock_ms())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(SuperviseError::System { doing: "poll", source: errno.into() }),
        }
        let children = !fds[0].revents().is_empty();
        let rung = self.bell.is_some() && !fds[1].revents().is_empty();
        drop(fds);
        if children {
            while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        }
        if let Some(bell) = self.bell.as_mut().filter(|_| rung) {
            bell.hush();
            self.look_at_directory(boot_clock_ms());
        }
        match room {
            Room::Open => {
                self.pipes = self.output.read();
                if self.pipes == Brought::More {
                    let now = boot_clock_ms();
                    self.clocks.heard(now);
                    // The first output is told at once, a flood of it a hundred times a second.
                    self.ring_at.get_or_insert(now.max(self.rung_at.saturating_add(RING_EVERY_MS)));
                }
            }
            // The command may have been held up until now.
            Room::Blocked { .. } => self.clocks.heard(boot_clock_ms()),
        }
        self.stdin = self.stdin.take().and_then(StdinFeed::feed);
        Ok(())
    }

    fn look_at_directory(&mut self, now: u64) {
        let pause = if self.bell.is_some() { LOOK_EVERY_MS } else { LOOK_UNRUNG_MS };
        self.look_at = now.saturating_add(pause);
        self.cancel |= self.attempt.is_cancel_requested();
        self.output.notice_released(now);
    }
}

fn timespec(millis: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}
