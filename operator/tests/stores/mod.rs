//! What the tests of stores share: the addresses of real ones, a manual clock, a store with faults, and fixtures.
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::print_stderr, reason = "a test that cannot run reports it")]

pub(crate) mod faulty;
pub(crate) mod fixtures;
pub(crate) mod parts;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sentinel_operator::clock::Clock;
use sentinel_protocol::time::UnixMillis;

const DAY: Duration = Duration::from_hours(24);

/// A clock that starts at the next midnight (UTC) and moves only by [`ManualClock::advance`].
///
/// At a midnight, because what is kept of a day or of an hour must not depend on when a test runs. At the next one, because a real
/// server removes what has expired by its own clock.
#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn new() -> Self {
        let day = DAY.as_millis() as i64;
        Self(Arc::new(AtomicI64::new((Clock::system().now().0 / day + 1) * day)))
    }

    pub(crate) fn clock(&self) -> Clock {
        let at = Arc::clone(&self.0);
        Clock::from_fn(move || UnixMillis(at.load(Ordering::SeqCst)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

/// Waits until the condition holds; fails after ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
