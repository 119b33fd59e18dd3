//! Where the gateway reads the time.

use sentinel_core::moment::{Moment, Now};
use tokio::time::Instant;

use crate::clock::Clock;

/// Both clocks: the monotonic one that spans are reckoned with, and the wall clock. Copies agree with each other.
#[derive(Debug, Clone)]
pub struct Timepiece {
    start: Instant,
    wall: Clock,
}

impl Timepiece {
    /// The machine's clocks. Moments count from now on, a second in: 0 is before everything.
    pub fn system() -> Self {
        Self::new(Clock::system())
    }

    /// With another wall clock.
    pub fn new(wall: Clock) -> Self {
        Self { start: Instant::now(), wall }
    }

    /// The time.
    pub fn now(&self) -> Now {
        Now { moment: self.moment(), wall: self.wall.now() }
    }

    /// The monotonic time.
    pub fn moment(&self) -> Moment {
        Moment(1000 + self.start.elapsed().as_millis() as u64)
    }
}
