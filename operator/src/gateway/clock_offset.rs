//! How far the clock of a node is from the operator's, by its heartbeats.
//!
//! A heartbeat has the node's time when it was sent; the difference to the time of its receipt is the offset and the delay.
//! A delay only adds, so the least of some differences is the closest to the offset.

use std::collections::VecDeque;

use sentinel_protocol::time::UnixMillis;

/// Heartbeats that count: after so many, a clock that was set back is measured anew. 128 bytes for each node.
const SAMPLES: usize = 16;

/// The offset of one node.
#[derive(Debug, Default)]
pub(super) struct ClockOffset(VecDeque<i64>);

impl ClockOffset {
    /// A heartbeat was received.
    pub(super) fn add(&mut self, sent: UnixMillis, received: UnixMillis) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(received.0.saturating_sub(sent.0));
    }

    /// What is added to the node's time to have that of the operator, milliseconds; `None` before the first heartbeat.
    pub(super) fn millis(&self) -> Option<i64> {
        self.0.iter().copied().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
