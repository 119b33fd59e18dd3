//! Time as the state machines see it: a monotonic clock for spans, a wall clock for people.

use sentinel_protocol::time::UnixMillis;

/// A reading of this process's monotonic clock, in milliseconds since an arbitrary start. Only readings of the same
/// clock can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Milliseconds from `earlier` to this reading; 0 when `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This reading plus `millis`.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// The current time on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For decisions about spans of time.
    pub monotonic: Monotonic,
    /// For people and records.
    pub wall: UnixMillis,
}
