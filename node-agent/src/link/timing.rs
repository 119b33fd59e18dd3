//! Deadlines of the link, and the backoff between connections.
//!
//! The wait is a random part of a bound that doubles from 100 ms to 15 s ("full jitter"), so that a thousand agents
//! that lost the same operator do not reconnect at the same moment. The bound is reset only by a Session that lasted.
//!
//! An operator that does not lead is not a network failure, and another one leads within seconds: after its answer the
//! bound is at most one second. The wait before dialling the leader that it names is short, once; should that one not
//! lead either, the wait is that of any other failure.
//!
//! `backon` is not used: its jitter is added to the delay, so that no wait is ever short, and its schedule is an iterator
//! that cannot be narrowed or reset by how a Session ended.

use std::time::Duration;

/// Durations of a link; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Bound of the first wait before dialling again.
    pub first_wait: Duration,
    /// Largest bound.
    pub longest_wait: Duration,
    /// Largest bound while operators answer and none of them leads.
    pub leaderless_wait: Duration,
    /// How soon the Welcome has to follow the Hello.
    pub welcome_within: Duration,
    /// A Session that lasted this long resets the backoff.
    pub settled_after: Duration,
    /// How long the log socket stays open without output.
    pub log_idle: Duration,
}

impl Timing {
    /// Whether a Session of this length resets the backoff. Such a Session's operator was the leader, so the leader that
    /// it names at its end is dialled as any other operator's is.
    pub fn is_settled(&self, lasted: Duration) -> bool {
        lasted >= self.settled_after
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(15),
            leaderless_wait: Duration::from_secs(1),
            welcome_within: Duration::from_millis(sentinel_protocol::limits::HELLO_WITHIN_MS),
            settled_after: Duration::from_secs(5),
            log_idle: Duration::from_secs(5),
        }
    }
}

/// Exponential backoff with full jitter. Randomness is an argument, so that it can be tested.
#[derive(Debug)]
pub struct ReconnectBackoff {
    bound: Duration,
    timing: Timing,
}

impl ReconnectBackoff {
    /// A backoff whose first wait is short.
    pub fn new(timing: Timing) -> Self {
        Self { bound: timing.first_wait, timing }
    }

    /// The next wait; `random` is from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.bound.mul_f64(random.clamp(0.0, 1.0));
        self.bound = (self.bound * 2).min(self.timing.longest_wait);
        wait
    }

    /// The wait before a leader is dialled that an operator has just named; `random` is from 0 to 1. It does not grow.
    pub fn advised(&self, random: f64) -> Duration {
        self.timing.first_wait.mul_f64(random.clamp(0.0, 1.0))
    }

    /// An operator answered, and does not lead.
    pub fn leaderless(&mut self) {
        self.bound = self.bound.min(self.timing.leaderless_wait);
    }

    /// A connection that lasted this long has ended.
    pub fn settle(&mut self, lasted: Duration) {
        if self.timing.is_settled(lasted) {
            self.reset();
        }
    }

    /// The next wait is short again.
    pub fn reset(&mut self) {
        self.bound = self.timing.first_wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_doubles_up_to_the_limit_with_full_jitter() {
        let mut backoff = ReconnectBackoff::new(Timing::default());
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        assert_eq!(backoff.next(0.5).as_millis(), 7500);
        assert_eq!(backoff.next(0.0).as_millis(), 0);
    }

    #[test]
    fn only_a_session_that_lasted_resets_the_backoff() {
        let mut backoff = ReconnectBackoff::new(Timing::default());
        for _ in 0..8 {
            backoff.next(1.0);
        }
        backoff.settle(Duration::from_secs(4));
        assert_eq!(backoff.next(1.0).as_secs(), 15);
        backoff.settle(Duration::from_secs(5));
        assert_eq!(backoff.next(1.0).as_millis(), 100);
    }

    /// A thousand agents had waited up to 15 s each, for a leader that was elected after 3 s.
    #[test]
    fn wait_is_bounded_by_a_second_while_no_operator_leads() {
        let mut backoff = ReconnectBackoff::new(Timing::default());
        let waits: Vec<u128> = (0..8)
            .map(|_| {
                backoff.leaderless();
                backoff.next(1.0).as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        assert_eq!((backoff.advised(1.0).as_millis(), backoff.advised(0.5).as_millis()), (100, 50));
        // Operators that do not answer at all are waited for longer.
        assert_eq!([backoff.next(1.0).as_millis(), backoff.next(1.0).as_millis()], [2000, 4000]);
    }
}
