//! The clocks as arguments, so that expiry, retention and deadlines can be tested without waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::time::UnixMillis;
use tokio::time::Instant;

/// The wall clock and a monotonic clock. Clones are the same clock; monotonic readings of two different ones cannot be
/// compared, so an operator has one.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    start: Instant,
}

impl Clock {
    /// The clocks of this machine.
    pub fn system() -> Self {
        Self::from_fn(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
        })
    }

    /// A clock whose wall time is what `now` returns.
    pub fn from_fn(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(now), start: Instant::now() }
    }

    /// The wall time, for records and people.
    pub fn now(&self) -> UnixMillis {
        (self.wall)()
    }

    /// The monotonic time, for spans: milliseconds since this clock was made.
    pub fn monotonic(&self) -> Monotonic {
        Monotonic(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Both times, read together.
    pub fn reading(&self) -> Now {
        Now { monotonic: self.monotonic(), wall: self.now() }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now().0)
    }
}
