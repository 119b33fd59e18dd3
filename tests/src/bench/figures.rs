//! Numbers out of samples.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Median and 99th percentile of times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Half are not longer.
    pub(super) p50: Duration,
    /// 99 of 100 are not longer; with fewer samples than 100, the longest.
    pub(super) p99: Duration,
    /// How many there were.
    pub(super) count: usize,
}

impl Times {
    pub(super) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |share: f64| {
            let rank = (samples.len() as f64 * share).ceil() as usize;
            samples.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50: at(0.5), p99: at(0.99), count: samples.len() }
    }
}

/// The middle one; of an even number, the upper one of the middle.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Nanoseconds since the Unix epoch, by the clock that `date` prints.
pub(super) fn clock() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos()
}

/// From a reading of [`clock`] to what a command printed with `date +%s%N`.
pub(super) fn until_printed(begun: u128, printed: &str) -> Duration {
    let at: u128 = printed.trim().parse().unwrap_or_else(|_| panic!("{printed:?} is not a time"));
    Duration::from_nanos(at.saturating_sub(begun).try_into().expect("a short time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_and_not_between_them() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((times.p50.as_millis(), times.p99.as_millis(), times.count), (100, 198, 200));
        let few = Times::of(vec![Duration::from_millis(1), Duration::from_millis(9)]);
        assert_eq!((few.p50.as_millis(), few.p99.as_millis()), (1, 9));
    }
}
