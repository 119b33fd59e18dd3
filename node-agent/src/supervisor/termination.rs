//! When and why a command's tree is ended, and when its Attempt is over. Decisions only: signals, pipes and records are
//! the business of [`super::supervision`]. All times are milliseconds of the boot clock.

use sentinel_protocol::exit::ClockEnd;
use sentinel_protocol::limits::DRAIN_MS;
use sentinel_protocol::request::Leftovers;

use super::clocks::Clocks;
use super::exit_record::EndReason;
use super::output::ReadProgress;
use super::reap::{ExitStatus, Reaped};
use crate::spool::Room;

/// How long killed processes may take to end, milliseconds.
const KILLED_MS: u64 = 5_000;

/// How often the kill is repeated meanwhile, milliseconds: a process may have been forked between listing and killing.
const KILL_AGAIN_MS: u64 = 20;

/// How long a process may take to end after it closed its output, milliseconds, before it counts as left behind: many
/// programs flush and close their output as the last thing they do.
const SETTLE_MS: u64 = 100;

/// The tree is being ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Termination {
    pub(super) reason: EndReason,
    pub(super) clock: Option<ClockEnd>,
    kill_at: u64,
    killed_at: Option<u64>,
}

impl Termination {
    /// Whether KILL was sent.
    pub(super) fn is_killed(&self) -> bool {
        self.killed_at.is_some()
    }
}

/// What to do about a tree that is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escalation {
    /// Wait until this time.
    Wait(u64),
    /// Kill it, and check again at this time.
    Kill(u64),
    /// It did not end after KILL.
    GiveUp,
}

/// How far a command, its tree and its output have ended.
#[derive(Debug)]
pub(super) struct EndState {
    leftovers: Leftovers,
    cancelled: bool,
    /// How and when the command ended.
    exited: Option<(ExitStatus, u64)>,
    tree_is_empty: bool,
    /// When the tree was first found empty.
    gone_at: Option<u64>,
    /// When the output was first found closed by the whole tree.
    closed_at: Option<u64>,
    termination: Option<Termination>,
    /// How long after the command's end an output pipe was still open when it was no longer waited for.
    held_open_ms: Option<u64>,
}

impl EndState {
    pub(super) fn new(leftovers: Leftovers) -> Self {
        Self {
            leftovers,
            cancelled: false,
            exited: None,
            tree_is_empty: false,
            gone_at: None,
            closed_at: None,
            termination: None,
            held_open_ms: None,
        }
    }

    pub(super) fn on_cancel(&mut self) {
        self.cancelled = true;
    }

    pub(super) fn on_reaped(&mut self, reaped: Reaped, now: u64) {
        self.tree_is_empty = reaped.tree_is_empty;
        if let Some(status) = reaped.command {
            self.exited = Some((status, now));
        }
    }

    pub(super) fn on_output_closed(&mut self, now: u64) {
        self.closed_at.get_or_insert(now);
    }

    /// Whether the tree is found empty for the first time.
    pub(super) fn just_gone(&mut self, now: u64) -> bool {
        let just_gone = self.is_gone() && self.gone_at.is_none();
        if just_gone {
            self.gone_at = Some(now);
        }
        just_gone
    }

    /// How the command ended; `None` while it runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.exited.map(|(status, _)| status)
    }

    pub(super) fn tree_is_empty(&self) -> bool {
        self.tree_is_empty
    }

    pub(super) fn termination(&self) -> Option<Termination> {
        self.termination
    }

    pub(super) fn held_open_ms(&self) -> Option<u64> {
        self.held_open_ms
    }

    /// Whether nothing of the command's tree is left.
    pub(super) fn is_gone(&self) -> bool {
        self.exited.is_some() && self.tree_is_empty
    }

    /// Starts ending the tree if there is a reason to; returns it then.
    pub(super) fn begin_termination(&mut self, now: u64, room: Room, clocks: &Clocks) -> Option<EndReason> {
        let (reason, clock) = self.reason_to_end(now, room, clocks)?;
        let kill_at = clocks.kill_at(now);
        self.termination = Some(Termination { reason, clock, kill_at, killed_at: None });
        Some(reason)
    }

    fn reason_to_end(
        &mut self,
        now: u64,
        room: Room,
        clocks: &Clocks,
    ) -> Option<(EndReason, Option<ClockEnd>)> {
        if self.termination.is_some() {
            return None;
        }
        match self.exited {
            None if self.cancelled => Some((EndReason::Cancelled, None)),
            None => {
                let run = clocks.run_over(now).map(|clock| (EndReason::TimedOut, Some(clock)));
                let idle = clocks.idle_over(now).filter(|_| room == Room::Open);
                run.or(idle.map(|clock| (EndReason::IdleTimedOut, Some(clock))))
            }
            Some(_) if self.tree_is_empty || self.keeps_leftovers() => None,
            Some((_, exited_at)) => {
                self.output_is_over(now, exited_at, room).then_some((EndReason::Leftovers, None))
            }
        }
    }

    /// Whether leftover processes are kept: a Cancel before the end is recorded ends them all the same.
    fn keeps_leftovers(&self) -> bool {
        self.leftovers == Leftovers::Keep && !self.cancelled
    }

    /// Whether the output of leftover processes is not waited for any longer: it is closed, the Attempt is cancelled, or
    /// the time for it is over.
    fn output_is_over(&mut self, now: u64, exited_at: u64, room: Room) -> bool {
        if let Some(closed_at) = self.closed_at {
            return self.cancelled || now >= closed_at.max(exited_at).saturating_add(SETTLE_MS);
        }
        let drained = now >= exited_at.saturating_add(DRAIN_MS) && room == Room::Open;
        if drained {
            self.held_open_ms = Some(now.saturating_sub(exited_at));
        }
        drained || self.cancelled
    }

    /// Whether the command has ended on its own and the Attempt is over though processes of it remain.
    pub(super) fn is_over_with_leftovers(&mut self, now: u64, room: Room) -> bool {
        let ended_on_its_own = self.keeps_leftovers() && self.termination.is_none();
        let Some((_, exited_at)) = self.exited.filter(|_| ended_on_its_own && !self.tree_is_empty) else {
            return false;
        };
        self.output_is_over(now, exited_at, room)
    }

    /// Whether neither processes nor output are left, or no more output is waited for.
    pub(super) fn is_over(&mut self, now: u64, room: Room, last_read: ReadProgress) -> bool {
        let Some((_, exited_at)) = self.exited.filter(|_| self.is_gone()) else { return false };
        if self.closed_at.is_some() {
            return true;
        }
        // A process outside the tree holds a pipe. What was written before is in the pipe, and is read; but a process
        // that continues to write is not waited for.
        let waited = self.termination.is_some() || now >= exited_at.saturating_add(DRAIN_MS);
        let too_long = self.gone_at.is_some_and(|gone_at| now >= gone_at.saturating_add(DRAIN_MS));
        room == Room::Open && (too_long || waited && last_read == ReadProgress::Empty)
    }

    /// What was in the pipes has been read: if they are at end-of-file now, only reading took long.
    pub(super) fn on_rest_read(&mut self, now: u64, is_closed: bool) {
        let Some((_, exited_at)) = self.exited else { return };
        if !is_closed {
            self.held_open_ms.get_or_insert(now.saturating_sub(exited_at));
        } else if self.termination.is_none() {
            self.held_open_ms = None;
        }
    }

    /// What to do about the tree that is being ended.
    pub(super) fn escalate(&mut self, now: u64) -> Option<Escalation> {
        let termination = self.termination.as_mut()?;
        if now < termination.kill_at {
            return Some(Escalation::Wait(termination.kill_at));
        }
        let killed_at = *termination.killed_at.get_or_insert(now);
        if now >= killed_at.saturating_add(KILLED_MS) {
            return Some(Escalation::GiveUp);
        }
        Some(Escalation::Kill(now.saturating_add(KILL_AGAIN_MS)))
    }

    /// When the output of a command that has ended is not waited for any longer.
    pub(super) fn drained_at(&self, room: Room) -> Option<u64> {
        let (_, exited_at) = self.exited.filter(|_| self.termination.is_none())?;
        match self.closed_at {
            Some(closed_at) => Some(closed_at.max(exited_at).saturating_add(SETTLE_MS)),
            None => Some(exited_at.saturating_add(DRAIN_MS)).filter(|_| room == Room::Open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Accepted;
    use sentinel_protocol::time::UnixMillis;

    /// Clocks of a command that started at 0 and may run for 500 ms, with a grace of 70 ms.
    fn clocks() -> Clocks {
        let start = serde_json::json!({
            "attempt": "u/1/n/1", "specHash": "0".repeat(64), "epoch": 1, "task": {"namespace": "a", "name": "b"},
            "request": {"program": {"command": ["true"]}, "workingDir": "/", "umask": 18, "environment": "Container",
                "successExitCodes": [0], "output": {"limit": 1, "spool": 1, "maxBlockMs": 1}},
            "deadlines": {"startMs": 9_000, "runMs": 500, "graceMs": 70}, "credit": 0
        });
        let start = serde_json::from_value(start).unwrap();
        let accepted = Accepted {
            start,
            accepted_at: UnixMillis(0),
            boot_id: "b".into(),
            boot_ms: 0,
            slot: None,
            permit: None,
        };
        let mut clocks = Clocks::new(&accepted, "b", 0);
        clocks.started(0);
        clocks
    }

    fn exited(leftovers: Leftovers, tree_is_empty: bool) -> EndState {
        let mut state = EndState::new(leftovers);
        state.on_reaped(Reaped { command: Some(ExitStatus::Exited(0)), tree_is_empty }, 100);
        state
    }

    #[test]
    fn term_then_kill_then_give_up() {
        let mut state = EndState::new(Leftovers::End);
        assert_eq!(state.begin_termination(499, Room::Open, &clocks()), None);
        assert_eq!(state.begin_termination(500, Room::Open, &clocks()), Some(EndReason::TimedOut));
        assert_eq!(state.escalate(569), Some(Escalation::Wait(570)));
        assert_eq!(state.escalate(570), Some(Escalation::Kill(590)));
        assert!(state.termination().unwrap().is_killed());
        assert_eq!(state.escalate(5_570), Some(Escalation::GiveUp));
    }

    #[test]
    fn leftovers_are_ended_after_settling_or_kept() {
        for (leftovers, reason) in [(Leftovers::End, Some(EndReason::Leftovers)), (Leftovers::Keep, None)] {
            let mut state = exited(leftovers, false);
            state.on_output_closed(100);
            assert_eq!(state.begin_termination(199, Room::Open, &clocks()), None);
            assert_eq!(state.begin_termination(200, Room::Open, &clocks()), reason);
            assert_eq!(state.is_over_with_leftovers(200, Room::Open), reason.is_none());
        }
    }

    #[test]
    fn a_cancel_ends_leftovers_that_would_be_kept() {
        let mut state = exited(Leftovers::Keep, false);
        state.on_cancel();
        assert_eq!(state.begin_termination(101, Room::Open, &clocks()), Some(EndReason::Leftovers));
    }

    #[test]
    fn output_held_by_an_outsider_is_awaited_until_the_drain() {
        let mut state = exited(Leftovers::End, true);
        assert!(state.just_gone(100) && !state.just_gone(101));
        assert!(!state.is_over(99 + DRAIN_MS, Room::Open, ReadProgress::Empty));
        assert!(state.is_over(100 + DRAIN_MS, Room::Open, ReadProgress::Empty));
        state.on_rest_read(100 + DRAIN_MS, false);
        assert_eq!(state.held_open_ms(), Some(DRAIN_MS));
    }

    #[test]
    fn output_that_took_long_to_read_was_not_held_open() {
        let mut state = exited(Leftovers::End, true);
        assert!(state.just_gone(100));
        assert!(state.is_over(100 + DRAIN_MS, Room::Open, ReadProgress::Data));
        state.on_rest_read(100 + DRAIN_MS, true);
        assert_eq!(state.held_open_ms(), None);
    }
}
