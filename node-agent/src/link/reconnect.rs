//! When to dial, and whom.
//!
//! ```text
//!          ┌──────────── the Session ended ───────────┐
//!          ▼                                          │
//!       Waiting ──(a random part of the backoff)──▶ Dialling ──(Welcome)──▶ in Session
//!          ▲                                          │
//!          └───────── declined or unreachable ────────┘
//! ```
//!
//! The wait is a random part of a bound that doubles from 100 ms to 15 s ("full jitter"), so that a thousand agents
//! that lost the same operator do not come back in one moment. The bound falls back only after a Session that lasted.
//!
//! An operator that does not lead is no failure of the network, and another leads within seconds: after its answer the
//! bound is a second at most. To the leader that it names the way is short, once; should nobody lead there, the wait
//! is that of any other failure.

use std::sync::Arc;
use std::time::Duration;

use sentinel_protocol::ids::SessionId;
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::request::Environment;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::control::{self, SessionError};
use super::dial::Dialer;
use crate::agent::{Mailbox, chain};
use crate::health::StatusFile;
use crate::heartbeat::Sampler;
use crate::vitals::Vitals;

/// The spans of time of a link, for tests to shorten.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Bound of the first wait before dialling again.
    pub first_wait: Duration,
    /// Bound of the longest.
    pub longest_wait: Duration,
    /// Bound of the longest while operators answer and none of them leads.
    pub leaderless_wait: Duration,
    /// Time for the Welcome to follow the Hello.
    pub welcome_within: Duration,
    /// A Session that lasted this long was a good one: the next wait is short again.
    pub settled_after: Duration,
    /// How long the log socket stays open without output.
    pub log_idle: Duration,
}

impl Timing {
    /// Whether a Session of this length was a good one. The leader's own word about the next one, at its end, is no
    /// less than that of any other operator.
    pub fn is_settled(&self, lasted: Duration) -> bool {
        lasted >= self.settled_after
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(15),
            leaderless_wait: Duration::from_secs(1),
            welcome_within: Duration::from_millis(sentinel_protocol::limits::HELLO_WITHIN_MS),
            settled_after: Duration::from_secs(5),
            log_idle: Duration::from_secs(5),
        }
    }
}

/// The growing bound of the wait. Randomness comes in as an argument.
#[derive(Debug)]
pub struct Backoff {
    bound: Duration,
    timing: Timing,
}

impl Backoff {
    /// The first wait is short.
    pub fn new(timing: Timing) -> Self {
        Self { bound: timing.first_wait, timing }
    }

    /// The next wait; `random` is from 0 to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.bound.mul_f64(random.clamp(0.0, 1.0));
        self.bound = (self.bound * 2).min(self.timing.longest_wait);
        wait
    }

    /// The wait before the leader is dialled whom an operator has just named; it does not grow.
    pub fn advised(&self, random: f64) -> Duration {
        self.timing.first_wait.mul_f64(random.clamp(0.0, 1.0))
    }

    /// An operator answered, and does not lead.
    pub fn leaderless(&mut self) {
        self.bound = self.bound.min(self.timing.leaderless_wait);
    }

    /// A Session ended that lasted so long.
    pub fn settle(&mut self, lasted: Duration) {
        if self.timing.is_settled(lasted) {
            self.bound = self.timing.first_wait;
        }
    }
}

/// A Session that stands, as the log socket needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The address it was dialled at, when it is not the configured one.
    pub(crate) at: Option<String>,
    pub(crate) dead_after: Duration,
}

/// All that the link needs.
pub(crate) struct Link {
    pub(crate) dialer: Dialer,
    pub(crate) timing: Timing,
    pub(crate) mailbox: Mailbox,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) sampler: Sampler,
    pub(crate) status: StatusFile,
    pub(crate) session: watch::Sender<Option<Session>>,
    pub(crate) boot_id: String,
    pub(crate) state_id: String,
    pub(crate) kernel: String,
    pub(crate) environments: Vec<Environment>,
    /// A number from 0 to 1 each time.
    pub(crate) random: fn() -> f64,
}

/// Keeps a Session until it is stopped, or the agent's thread is gone.
pub(crate) async fn keep_connected(mut link: Link, stop: &CancellationToken) {
    let mut backoff = Backoff::new(link.timing);
    // Another replica's address is advice for one attempt; the configured one is always the way back.
    let mut hint: Option<String> = None;
    loop {
        let began = Instant::now();
        let at = hint.take();
        let ended = control::session(&mut link, at.as_deref(), stop).await;
        link.session.send_replace(None);
        link.status.write_disconnected().await;
        backoff.settle(began.elapsed());
        match &ended {
            SessionError::Stopped => return,
            SessionError::AgentGone => {
                return tracing::error!("the agent's thread has ended; so does the link");
            }
            SessionError::Refused(SessionRefusal::NotLeader { leader: Some(leader) })
                if at.is_none() || link.timing.is_settled(began.elapsed()) =>
            {
                tracing::info!(leader, "this operator does not lead; dialling the leader");
                backoff.leaderless();
                hint = Some(leader.clone());
            }
            SessionError::Refused(SessionRefusal::NotLeader { .. }) => {
                tracing::info!("this operator does not lead, and none that does is known yet");
                backoff.leaderless();
            }
            error => tracing::warn!(operator = %link.dialer.endpoint, error = chain(error), "no session"),
        }
        let random = (link.random)();
        let wait = if hint.is_some() { backoff.advised(random) } else { backoff.next(random) };
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_is_a_random_part_of_it() {
        let mut backoff = Backoff::new(Timing::default());
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        assert_eq!(backoff.next(0.5).as_millis(), 7500);
        assert_eq!(backoff.next(0.0).as_millis(), 0);
    }

    #[test]
    fn only_a_session_that_lasted_makes_the_next_wait_short() {
        let mut backoff = Backoff::new(Timing::default());
        for _ in 0..8 {
            backoff.next(1.0);
        }
        backoff.settle(Duration::from_secs(4));
        assert_eq!(backoff.next(1.0).as_secs(), 15);
        backoff.settle(Duration::from_secs(5));
        assert_eq!(backoff.next(1.0).as_millis(), 100);
    }
    /// A thousand agents had waited up to 15 s each, for a leader that was there after 3 s.
    #[test]
    fn while_nobody_leads_the_wait_is_a_second_at_most_and_the_way_to_a_named_leader_is_short() {
        let mut backoff = Backoff::new(Timing::default());
        let waits: Vec<u128> = (0..8)
            .map(|_| {
                backoff.leaderless();
                backoff.next(1.0).as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        assert_eq!((backoff.advised(1.0).as_millis(), backoff.advised(0.5).as_millis()), (100, 50));
        // Operators that do not answer at all are another matter.
        assert_eq!([backoff.next(1.0).as_millis(), backoff.next(1.0).as_millis()], [2000, 4000]);
    }
}
