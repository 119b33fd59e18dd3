//! When an Attempt's time is up. All moments are milliseconds of the boot clock.

use sentinel_protocol::request::Deadlines;

use crate::journal::Accepted;

/// The clocks of one Attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    deadlines: Deadlines,
    start_by: u64,
    /// When the Run's time is over.
    total_until: Option<u64>,
    run_until: Option<u64>,
    /// When output came last; the start counts as output.
    heard_at: u64,
}

impl Clocks {
    /// What is left to start and to the Run counts from the acceptance; in another boot, where that moment means
    /// nothing, from now.
    pub(super) fn new(accepted: &Accepted, boot_id: &str, now: u64) -> Self {
        let from = if accepted.boot_id == boot_id { accepted.boot_ms } else { now };
        let deadlines = accepted.start.deadlines;
        Self {
            deadlines,
            start_by: from.saturating_add(deadlines.start_ms),
            total_until: deadlines.total_ms.map(|total| from.saturating_add(total)),
            run_until: None,
            heard_at: now,
        }
    }

    /// Whether it is too late to start.
    pub(super) fn is_too_late_to_start(&self, now: u64) -> bool {
        now >= self.start_by || self.total_until.is_some_and(|until| now >= until)
    }

    /// The command was started.
    pub(super) fn started(&mut self, now: u64) {
        let run_until = self.deadlines.run_ms.map(|run| now.saturating_add(run));
        self.run_until = [run_until, self.total_until].into_iter().flatten().min();
        self.heard_at = now;
    }

    /// Output came, or could not come because there was no room for it.
    pub(super) fn heard(&mut self, now: u64) {
        self.heard_at = now;
    }

    /// When the command has been without output for too long, if none comes.
    pub(super) fn idle_until(&self) -> Option<u64> {
        self.deadlines.idle_ms.map(|idle| self.heard_at.saturating_add(idle))
    }

    /// When the command must have ended: by its own time, or by the Run's.
    pub(super) fn run_until(&self) -> Option<u64> {
        self.run_until
    }

    /// When a command that is asked to end now is made to.
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
        Accepted { start, accepted_at: UnixMillis(0), boot_id: "b".into(), boot_ms: 1_000 }
    }

    #[test]
    fn the_start_deadline_counts_from_acceptance_in_the_same_boot_and_from_now_in_another() {
        let same = Clocks::new(&accepted(100), "b", 9_000);
        assert!(!same.is_too_late_to_start(1_099) && same.is_too_late_to_start(1_100));
        let other = Clocks::new(&accepted(100), "c", 9_000);
        assert!(!other.is_too_late_to_start(9_099) && other.is_too_late_to_start(9_100));
    }

    #[test]
    fn what_is_left_of_the_run_counts_from_acceptance_and_ends_the_shorter_of_two_clocks() {
        let mut accepted = accepted(u64::MAX);
        accepted.start.deadlines.total_ms = Some(1_200);
        let mut clocks = Clocks::new(&accepted, "b", 1_000);
        clocks.started(1_500);
        assert_eq!(clocks.run_until(), Some(2_000));
        clocks.started(1_900);
        assert_eq!(clocks.run_until(), Some(2_200));
        assert!(!clocks.is_too_late_to_start(2_199) && clocks.is_too_late_to_start(2_200));
    }

    #[test]
    fn the_idle_clock_begins_anew_with_every_output() {
        let mut accepted = accepted(u64::MAX);
        assert_eq!(Clocks::new(&accepted, "b", 0).idle_until(), None);
        accepted.start.deadlines.idle_ms = Some(100);
        let mut clocks = Clocks::new(&accepted, "b", 0);
        clocks.started(2_000);
        assert_eq!(clocks.idle_until(), Some(2_100));
        clocks.heard(2_050);
        assert_eq!(clocks.idle_until(), Some(2_150));
    }

    #[test]
    fn the_run_deadline_counts_from_the_start() {
        let mut clocks = Clocks::new(&accepted(u64::MAX), "b", 0);
        assert_eq!(clocks.run_until(), None);
        clocks.started(2_000);
        assert_eq!((clocks.run_until(), clocks.kill_at(5)), (Some(2_500), 75));
    }
}
