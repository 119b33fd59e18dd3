//! Timestamps. Nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// A wall clock time, in milliseconds since the Unix epoch. For display and records only: no decision compares the wall
/// clocks of two machines.
///
/// Decoding clamps a time to the years 1970 to 9999, which every calendar library can represent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub struct UnixMillis(pub i64);

impl From<i64> for UnixMillis {
    fn from(millis: i64) -> Self {
        Self(millis.clamp(0, Self::LAST.0))
    }
}

impl From<UnixMillis> for i64 {
    fn from(time: UnixMillis) -> Self {
        time.0
    }
}

impl UnixMillis {
    /// The latest time: near the end of the year 9999.
    pub const LAST: Self = Self(253_402_207_200_000);

    /// Milliseconds from `earlier` to this time; 0 when `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// This time plus `millis` milliseconds.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
    }
}
