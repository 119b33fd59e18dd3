//! Moments on a clock that never goes back.

use sentinel_protocol::time::UnixMillis;

/// A moment on the reader's own monotonic clock, in milliseconds since some start. Only ever compared with moments
/// of the same process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and `millis` more.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// The same instant on both clocks: the one to reckon with and the one to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For every decision about spans of time.
    pub moment: Moment,
    /// For people and records.
    pub wall: UnixMillis,
}
