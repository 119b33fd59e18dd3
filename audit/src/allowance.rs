//! How many records a party may cause by what leads to nothing: refused requests, specs that are invalid, reads.
//!
//! Retention removes the oldest records, so a party that can cause any number of new ones could remove what is known of it. What is
//! run is always recorded; of the rest each party has an allowance, and what exceeds it is counted.

use std::time::Duration;

/// What may be used at once, and how much of it comes back in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Units at once.
    pub at_once: u64,
    /// Units that come back per hour. More than 0.
    pub per_hour: u64,
}

/// What one party has left.
#[derive(Debug, Clone)]
pub struct Allowance {
    left: u64,
    /// Up to when the units that came back are counted, by a monotonic clock.
    counted_to: Duration,
}

const HOUR_MILLIS: u128 = 3_600_000;

impl Allowance {
    /// Nothing of it is used. `now` is a time of a monotonic clock, as in every later call.
    pub fn full(terms: Terms, now: Duration) -> Self {
        Self { left: terms.at_once, counted_to: now }
    }

    /// Whether so many units are left, which are used then.
    pub fn take(&mut self, terms: Terms, now: Duration, units: u64) -> bool {
        self.refill(terms, now);
        let left = self.left.checked_sub(units);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Whether nothing of it is used.
    pub fn is_full(&mut self, terms: Terms, now: Duration) -> bool {
        self.refill(terms, now);
        self.left == terms.at_once
    }

    fn refill(&mut self, terms: Terms, now: Duration) {
        let elapsed = now.saturating_sub(self.counted_to).as_millis();
        let back = elapsed * u128::from(terms.per_hour) / HOUR_MILLIS;
        self.left = self.left.saturating_add(u64::try_from(back).unwrap_or(u64::MAX)).min(terms.at_once);
        // Only the time for whole units: what is asked often comes back too.
        let counted = (back * HOUR_MILLIS).div_ceil(u128::from(terms.per_hour.max(1)));
        self.counted_to += Duration::from_millis(u64::try_from(counted).unwrap_or(u64::MAX));
        if self.left == terms.at_once {
            self.counted_to = self.counted_to.max(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { at_once: 10, per_hour: 60 };

    #[test]
    fn what_is_used_comes_back_by_the_hour_and_no_more_than_there_was() {
        let mut allowance = Allowance::full(TERMS, Duration::ZERO);
        let mut taken =
            |at: u64| (0..100).filter(|_| allowance.take(TERMS, Duration::from_secs(at), 1)).count();
        assert_eq!(
            [taken(0), taken(59), taken(60), taken(61), taken(120), taken(100_000)],
            [10, 0, 1, 0, 1, 10]
        );
        assert!(!allowance.take(TERMS, Duration::from_secs(50), 1), "an earlier time gives nothing");
        assert!(allowance.is_full(TERMS, Duration::from_secs(100_600)));
        assert!(
            !allowance.take(TERMS, Duration::from_secs(100_600), 11)
                && allowance.is_full(TERMS, Duration::MAX)
        );
    }

    proptest! {
        /// However it is asked: no more than at once and what came back since, and no less if everything is always taken.
        #[test]
        fn never_gives_more_than_its_terms(
            at_once in 1_u64..50,
            per_hour in 1_u64..10_000,
            steps in proptest::collection::vec((0_u64..400_000, 1_u64..5), 1..200),
        ) {
            let terms = Terms { at_once, per_hour };
            let mut allowance = Allowance::full(terms, Duration::ZERO);
            let (mut now, mut taken) = (0, 0_u64);
            for (millis, units) in steps {
                now += millis;
                if allowance.take(terms, Duration::from_millis(now), units) {
                    taken += units;
                }
                prop_assert!(taken <= at_once + now * per_hour / 3_600_000);
            }
        }
    }
}
