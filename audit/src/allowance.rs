//! How much space parties may take with minor records.
//!
//! A *minor record* is of what starts and stops nothing: a refusal, a spec that is invalid, a cancel of nothing, a reading. Retention
//! removes the oldest records, and a party can cause any number of minor ones, so each has an allowance in bytes. What exceeds it is
//! counted, and recorded as left out ([`Record::Omitted`](crate::Record::Omitted)).

use std::time::Duration;

const DAY_MILLIS: u128 = 86_400_000;

/// How much may be used at once, and how much of it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes at once, or what else is counted.
    pub at_once: u64,
    /// How many of them come back in a day.
    pub per_day: u64,
}

/// What is left of an allowance.
#[derive(Debug, Clone)]
pub struct Allowance {
    terms: Terms,
    left: u64,
    /// What has come back of the next one, times the milliseconds of a day.
    part: u128,
    /// Up to when is counted what has come back, milliseconds of a monotonic clock.
    counted_to: u128,
}

impl Allowance {
    /// Nothing of it is used. `now` is a time of a monotonic clock, as in every other call.
    pub fn full(terms: Terms, now: Duration) -> Self {
        Self { terms, left: terms.at_once, part: 0, counted_to: now.as_millis() }
    }

    /// Whether so many are left.
    pub fn has(&mut self, bytes: u64, now: Duration) -> bool {
        self.refill(now);
        self.left >= bytes
    }

    /// Whether so many are left, which are used then.
    pub fn take(&mut self, bytes: u64, now: Duration) -> bool {
        let has = self.has(bytes, now);
        if has {
            self.left -= bytes;
        }
        has
    }

    /// Whether nothing of it is used.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.has(self.terms.at_once, now)
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.as_millis().saturating_sub(self.counted_to);
        self.counted_to += elapsed;
        let back = self.part.saturating_add(elapsed.saturating_mul(self.terms.per_day.into()));
        let bytes = u64::try_from(back / DAY_MILLIS).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(bytes).min(self.terms.at_once);
        self.part = if self.left == self.terms.at_once { 0 } else { back % DAY_MILLIS };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn what_is_used_comes_back_and_no_more_than_there_was() {
        let mut allowance = Allowance::full(Terms { at_once: 10, per_day: 24 }, HOUR);
        let mut taken = |hours: f64| (0..100).filter(|_| allowance.take(1, HOUR.mul_f64(hours))).count();
        let at = [1.0, 1.9, 2.0, 2.5, 3.1, 4.0, 1_000.0];
        assert_eq!(at.map(&mut taken), [10, 0, 1, 0, 1, 1, 10]);
        assert!(!allowance.take(1, HOUR), "an earlier time gives nothing");
        assert!(!allowance.is_full(1_009 * HOUR) && allowance.is_full(1_010 * HOUR));
        assert!(!allowance.take(11, Duration::MAX) && allowance.is_full(Duration::MAX));
        let mut most = Allowance::full(Terms { at_once: 1, per_day: u64::MAX }, Duration::ZERO);
        assert!(most.take(1, Duration::ZERO) && !most.take(1, Duration::ZERO) && most.take(1, Duration::MAX));
    }

    proptest! {
        /// However it is asked: exactly what was there and what came back, if everything is always taken.
        #[test]
        fn gives_its_terms_and_no_more(
            at_once in 1_u64..50,
            per_day in 0_u64..10_000_000,
            steps in proptest::collection::vec(0_u64..5_000, 1..200),
        ) {
            let mut allowance = Allowance::full(Terms { at_once, per_day }, Duration::ZERO);
            let (mut now, mut taken, mut expected, mut part) = (0, 0_u64, 0_u64, 0_u64);
            for millis in steps {
                now += millis;
                part += millis * per_day;
                let back = part / 86_400_000;
                // What is not used within `at_once` is forfeited.
                part = if back >= at_once { 0 } else { part % 86_400_000 };
                expected += if expected == 0 { at_once } else { back.min(at_once) };
                if expected == at_once && taken == 0 {
                    part = 0;
                }
                while allowance.take(1, Duration::from_millis(now)) {
                    taken += 1;
                }
                prop_assert_eq!(taken, expected);
            }
        }
    }
}
