//! How long to wait before something is tried again: exponential, with full jitter, so that many who failed together
//! do not come back together. Source: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::time::Duration;

use uuid::Uuid;

/// A span of which the waits grow: `first`, then twice as long each time, at most `most`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait at all.
    pub most: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1, 2, 3 …): anything between half of the full span and all of it,
    /// so that a wait is never nothing.
    pub fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let span = self.first.saturating_mul(1 << doublings).min(self.most);
        span / 2 + jitter(span / 2)
    }
}

/// Anything from nothing to `most`.
pub fn jitter(most: Duration) -> Duration {
    // The low bits of a random UUID are random.
    let random = Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff;
    most.mul_f64(random as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(5) };
        for (failures, full) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (u32::MAX, 300)] {
            for _ in 0..50 {
                let wait = backoff.after(failures).as_secs_f64();
                let full = f64::from(full);
                assert!((full / 2.0..=full).contains(&wait), "{wait} after {failures}");
            }
        }
    }
}
