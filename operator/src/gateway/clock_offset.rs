//! How far the clock of a node is from the operator's, by its heartbeats.
//!
//! A heartbeat has the node's time when it was sent; the difference to the time of its receipt is the offset and the delay. A delay
//! only adds, so the least of some differences is the closest to the offset. As long as they are few, all may have been delayed: the
//! first heartbeat of a Session was sent after that began, which bounds the offset from below.

use std::collections::VecDeque;

use sentinel_protocol::time::UnixMillis;

/// Heartbeats that count: after so many, a clock that was set back is measured anew. 384 bytes for each node.
const SAMPLES: usize = 16;

/// The offset of one node.
#[derive(Debug, Default)]
pub(super) struct ClockOffset {
    /// When its Session began, by the operator's clock. Only for the first heartbeat: for later ones it is too long ago.
    begun: Option<UnixMillis>,
    samples: VecDeque<Sample>,
}

/// What a heartbeat tells of the offset, milliseconds.
#[derive(Debug)]
struct Sample {
    /// It is not less than this.
    least: Option<i64>,
    /// It is not more than this.
    greatest: i64,
}

impl ClockOffset {
    /// A Session begins: its agent has not been answered yet.
    pub(super) fn begin(&mut self, at: UnixMillis) {
        self.begun = Some(at);
    }

    /// A heartbeat of the Session was received.
    pub(super) fn add(&mut self, sent: UnixMillis, received: UnixMillis) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let least = self.begun.take().map(|begun| begun.0.saturating_sub(sent.0));
        self.samples.push_back(Sample { least, greatest: received.0.saturating_sub(sent.0) });
    }

    /// What is added to the node's time to have that of the operator, milliseconds; `None` before the first heartbeat. It is 0 while
    /// nothing contradicts that: what appears to be another clock is then the delay of the heartbeats.
    pub(super) fn millis(&self) -> Option<i64> {
        let greatest = self.samples.iter().map(|sample| sample.greatest).min()?;
        let least = self.samples.iter().filter_map(|sample| sample.least).max();
        Some(if least.is_some_and(|least| (least..=greatest).contains(&0)) { 0 } else { greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: i64 = 1_000_000;

    /// The offset of a node whose clock is this far behind, after heartbeats that were sent and received so long after the Session began.
    fn measured(behind: i64, heartbeats: &[(i64, i64)]) -> Option<i64> {
        let mut offset = ClockOffset::default();
        offset.begin(UnixMillis(NODE + behind));
        for (sent, received) in heartbeats {
            offset.add(UnixMillis(NODE + sent), UnixMillis(NODE + behind + received));
        }
        offset.millis()
    }

    #[test]
    fn delay_does_not_count_and_a_clock_that_was_set_is_measured_anew() {
        let mut offset = ClockOffset::default();
        assert_eq!(offset.millis(), None);
        for delay in [900, 3, 40, 2_000] {
            offset.add(UnixMillis(1_000), UnixMillis(1_000 - 3_600_000 + delay));
        }
        assert_eq!(offset.millis(), Some(-3_600_000 + 3));
        for _ in 0..SAMPLES {
            offset.add(UnixMillis(1_000), UnixMillis(1_007));
        }
        assert_eq!(offset.millis(), Some(7));
        offset.add(UnixMillis(i64::MAX), UnixMillis(i64::MIN));
        assert_eq!(offset.millis(), Some(i64::MIN));
    }

    #[test]
    fn a_heartbeat_that_took_long_is_not_taken_for_another_clock() {
        // With the delay alone, the lines of this node were 170 ms late among those of others.
        assert_eq!(measured(0, &[(5, 175)]), Some(0));
        assert_eq!(measured(0, &[(5, 175), (10_005, 10_006)]), Some(0));
        assert_eq!(measured(3_600_000, &[(5, 175), (10_005, 10_006)]), Some(3_600_001));
        assert_eq!(measured(-300, &[(5, 175)]), Some(-130), "the clock is ahead by 130 ms at least");
        assert_eq!(measured(60, &[(1, 2)]), Some(61));
        // When the first heartbeat does not count any more, there were enough others.
        let later: Vec<_> =
            (0..40).map(|n| (5 + 5_000 * n, 5 + 5_000 * n + if n == 0 { 170 } else { 3 })).collect();
        for n in 1..=40 {
            let offset = measured(30_000, &later[..n]).unwrap();
            assert!((30_003..=30_170).contains(&offset), "{offset} after {n} heartbeats");
            assert!(measured(0, &later[..n]).unwrap() <= 3, "after {n} heartbeats");
        }
    }
}
