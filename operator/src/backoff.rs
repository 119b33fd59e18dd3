//! Exponential backoff with jitter, so that many clients that failed together do not retry together.
//! Source: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
//!
//! Its own few lines rather than `backon`: callers keep the number of failures themselves (in a cache, in a loop that
//! also does other things) and ask for the next delay; `backon` owns the loop or an iterator that has to be kept.

use std::time::Duration;

/// Delays that double from `first` up to `max`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub first: Duration,
    /// Upper bound of every delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row (1, 2, 3 …): between half of the current bound and all of it, so
    /// that it is never zero.
    pub fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let bound = self.first.saturating_mul(1 << doublings).min(self.max);
        bound / 2 + jitter(bound / 2)
    }
}

/// A random duration between zero and `max`.
pub fn jitter(max: Duration) -> Duration {
    max.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_are_bounded() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(5) };
        for (failures, full) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (u32::MAX, 300)] {
            for _ in 0..50 {
                let delay = backoff.after(failures).as_secs_f64();
                let full = f64::from(full);
                assert!((full / 2.0..=full).contains(&delay), "{delay} after {failures}");
            }
        }
    }
}
