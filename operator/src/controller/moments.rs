//! The two clocks of this process, read together.

use sentinel_core::time::{Monotonic, Now};
use tokio::time::Instant;

use crate::clock::Clock;

/// Says what time it is, on both clocks. One for the whole process: moments of two of them cannot be compared.
#[derive(Debug, Clone)]
pub struct Moments {
    start: Instant,
    wall: Clock,
}

impl Moments {
    /// Begins to count now.
    pub fn new(wall: Clock) -> Self {
        Self { start: Instant::now(), wall }
    }

    /// The moment on the monotonic clock.
    pub fn moment(&self) -> Monotonic {
        Monotonic(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The same instant on both clocks.
    pub fn now(&self) -> Now {
        Now { monotonic: self.moment(), wall: self.wall.now() }
    }
}
