//! The deadlines of an Attempt. All times are milliseconds of the boot clock.

use sentinel_protocol::exit::{Clock, ClockEnd};
use sentinel_protocol::request::Deadlines;

use crate::journal::Accepted;

/// The clocks of one Attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    deadlines: Deadlines,
    /// When the start and total clocks began to count.
    from: u64,
    start_by: u64,
    /// When the total clock runs out.
    total_until: Option<u64>,
    started_at: u64,
    run_until: Option<u64>,
    /// When output was last observed; the start counts as output.
    last_output_at: u64,
}

impl Clocks {
    /// The start and total clocks count from the acceptance; after a reboot, where that time means nothing, from now.
    pub(super) fn new(accepted: &Accepted, boot_id: &str, now: u64) -> Self {
        let from = if accepted.boot_id == boot_id { accepted.boot_ms } else { now };
        let deadlines = accepted.start.deadlines;
        Self {
            deadlines,
            from,
            started_at: now,
            start_by: from.saturating_add(deadlines.start_ms),
            total_until: deadlines.total_ms.map(|total| from.saturating_add(total)),
            run_until: None,
            last_output_at: now,
        }
    }

    /// The clock that has run out before the start, if one has.
    pub(super) fn too_late_to_start(&self, now: u64) -> Option<ClockEnd> {
        let after_ms = now.saturating_sub(self.from);
        let total = self.total_until.filter(|until| now >= *until).map(|_| Clock::Total);
        let name = if now >= self.start_by { Some(Clock::Start) } else { total };
        name.map(|name| ClockEnd { name, after_ms })
    }

    /// The command was started.
    pub(super) fn started(&mut self, now: u64) {
        self.started_at = now;
        self.run_until = self.deadlines.run_ms.map(|run| now.saturating_add(run));
        self.last_output_at = now;
    }

    /// Output was observed, or the command was blocked for lack of room for it.
    pub(super) fn on_output(&mut self, now: u64) {
        self.last_output_at = now;
    }

    /// When the idle clock runs out if there is no output until then.
    pub(super) fn idle_until(&self) -> Option<u64> {
        self.deadlines.idle_ms.map(|idle| self.last_output_at.saturating_add(idle))
    }

    /// When the run or total clock runs out, whichever is first.
    pub(super) fn run_until(&self) -> Option<u64> {
        [self.run_until, self.total_until].into_iter().flatten().min()
    }

    /// The run or total clock that has run out, whichever was first.
    pub(super) fn run_over(&self, now: u64) -> Option<ClockEnd> {
        let until = self.run_until().filter(|until| now >= *until)?;
        let name = if self.run_until == Some(until) { Clock::Run } else { Clock::Total };
        Some(ClockEnd { name, after_ms: now.saturating_sub(self.started_at) })
    }

    /// The idle clock, when it has run out.
    pub(super) fn idle_over(&self, now: u64) -> Option<ClockEnd> {
        self.idle_until().filter(|until| now >= *until)?;
        Some(ClockEnd { name: Clock::Idle, after_ms: now.saturating_sub(self.last_output_at) })
    }

    /// When a command that receives TERM now is killed.
    pub(super) fn kill_at(&self, now: u64) -> u64 {
        now.saturating_add(self.deadlines.grace_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_protocol::time::UnixMillis;

    fn accepted(start_ms: u64) -> Accepted {
        let start = serde_json::json!({
            "attempt": "u/1/n/1", "specHash": "0".repeat(64), "epoch": 1, "task": {"namespace": "a", "name": "b"},
            "request": {"program": {"command": ["true"]}, "workingDir": "/", "umask": 18, "environment": "Container",
                "successExitCodes": [0], "output": {"limit": 1, "spool": 1, "maxBlockMs": 1}},
            "deadlines": {"startMs": start_ms, "runMs": 500, "graceMs": 70}, "credit": 0
        });
        let start = serde_json::from_value(start).unwrap();
        Accepted {
            start,
            accepted_at: UnixMillis(0),
            boot_id: "b".into(),
            boot_ms: 1_000,
            slot: None,
            permit: None,
        }
    }

    #[test]
    fn start_clock_counts_from_acceptance_or_the_reboot() {
        let late = |after_ms| Some(ClockEnd { name: Clock::Start, after_ms });
        let same = Clocks::new(&accepted(100), "b", 9_000);
        assert_eq!([same.too_late_to_start(1_099), same.too_late_to_start(1_101)], [None, late(101)]);
        let other = Clocks::new(&accepted(100), "c", 9_000);
        assert_eq!([other.too_late_to_start(9_099), other.too_late_to_start(9_100)], [None, late(100)]);
    }

    #[test]
    fn total_clock_counts_from_acceptance_and_the_first_clock_wins() {
        let mut accepted = accepted(u64::MAX);
        accepted.start.deadlines.total_ms = Some(1_200);
        let mut clocks = Clocks::new(&accepted, "b", 1_000);
        clocks.started(1_500);
        assert_eq!((clocks.run_until(), clocks.run_over(1_999)), (Some(2_000), None));
        assert_eq!(clocks.run_over(2_001), Some(ClockEnd { name: Clock::Run, after_ms: 501 }));
        clocks.started(1_900);
        assert_eq!((clocks.run_until(), clocks.run_over(2_199)), (Some(2_200), None));
        assert_eq!(clocks.run_over(2_200), Some(ClockEnd { name: Clock::Total, after_ms: 300 }));
        let late = Some(ClockEnd { name: Clock::Total, after_ms: 1_200 });
        assert_eq!([clocks.too_late_to_start(2_199), clocks.too_late_to_start(2_200)], [None, late]);
    }

    #[test]
    fn idle_clock_restarts_with_every_output() {
        let mut accepted = accepted(u64::MAX);
        assert_eq!(Clocks::new(&accepted, "b", 0).idle_until(), None);
        accepted.start.deadlines.idle_ms = Some(100);
        let mut clocks = Clocks::new(&accepted, "b", 0);
        clocks.started(2_000);
        assert_eq!(clocks.idle_until(), Some(2_100));
        clocks.on_output(2_050);
        assert_eq!((clocks.idle_until(), clocks.idle_over(2_149)), (Some(2_150), None));
        assert_eq!(clocks.idle_over(2_151), Some(ClockEnd { name: Clock::Idle, after_ms: 101 }));
    }

    #[test]
    fn run_clock_counts_from_the_start() {
        let mut clocks = Clocks::new(&accepted(u64::MAX), "b", 0);
        assert_eq!(clocks.run_until(), None);
        clocks.started(2_000);
        assert_eq!((clocks.run_until(), clocks.kill_at(5)), (Some(2_500), 75));
    }
}
