//! Whether an Execution is retried after an Attempt has ended, and after which backoff.

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::outcome::Outcome;
use sha2::{Digest, Sha256};

/// The retry policy of a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Retries per Execution at most.
    pub limit: u32,
    /// The backoff before each.
    pub backoff: Backoff,
    /// Outcomes that are retried. Naming `Lost` accepts that a command may run twice.
    pub causes: Vec<Cause>,
}

/// Exponential backoff, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second Attempt.
    pub initial_ms: u64,
    /// Factor from one wait to the next.
    pub factor: u32,
    /// The longest wait.
    pub max_ms: u64,
}

/// An Outcome that can be retried. Requested ones (`Cancelled`, `NotStarted`) cannot, nor those that would only repeat
/// (`Skipped`) or still run (`CancelFailed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The command exited with a failure code.
    Failed,
    /// A signal that was not sent by the agent ended the command.
    Signaled,
    /// The command could not be started.
    StartFailed,
    /// The command was not started in time.
    StartTimedOut,
    /// The command exceeded `timeouts.run`.
    TimedOut,
    /// The command exceeded `timeouts.idle`.
    IdleTimedOut,
    /// The command exceeded its memory limit.
    OomKilled,
    /// The agent declined.
    Refused,
    /// The agent or the node cut it off.
    Interrupted,
    /// How it ended is unknown.
    Lost,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Failed,
        Self::Signaled,
        Self::StartFailed,
        Self::StartTimedOut,
        Self::TimedOut,
        Self::IdleTimedOut,
        Self::OomKilled,
        Self::Refused,
        Self::Interrupted,
        Self::Lost,
    ];

    /// The default causes: the command itself failed.
    pub const USUAL: [Self; 5] =
        [Self::Failed, Self::Signaled, Self::TimedOut, Self::IdleTimedOut, Self::OomKilled];

    /// The name of the Outcome.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Signaled => "Signaled",
            Self::StartFailed => "StartFailed",
            Self::StartTimedOut => "StartTimedOut",
            Self::TimedOut => "TimedOut",
            Self::IdleTimedOut => "IdleTimedOut",
            Self::OomKilled => "OomKilled",
            Self::Refused => "Refused",
            Self::Interrupted => "Interrupted",
            Self::Lost => "Lost",
        }
    }

    /// The cause that an Outcome is; `None` for one that is never retried.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Signaled { .. } => Self::Signaled,
            Outcome::StartFailed { .. } => Self::StartFailed,
            Outcome::StartTimedOut { .. } => Self::StartTimedOut,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::IdleTimedOut => Self::IdleTimedOut,
            Outcome::OomKilled { .. } => Self::OomKilled,
            Outcome::Refused { .. } => Self::Refused,
            Outcome::Interrupted { .. } => Self::Interrupted,
            Outcome::Lost { .. } => Self::Lost,
            Outcome::Succeeded { .. }
            | Outcome::Cancelled
            | Outcome::CancelFailed { .. }
            | Outcome::NotStarted
            | Outcome::Skipped { .. } => return None,
        })
    }

    /// The cause with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

impl Retry {
    /// No retries.
    pub fn never() -> Self {
        let backoff = Backoff { initial_ms: 1000, factor: 2, max_ms: 60_000 };
        Self { limit: 0, backoff, causes: Cause::USUAL.to_vec() }
    }

    /// Whether the Attempt with this number is retried after `outcome`.
    pub fn allows(&self, attempt: u32, outcome: &Outcome) -> bool {
        attempt <= self.limit && Cause::of(outcome).is_some_and(|cause| self.causes.contains(&cause))
    }

    /// The backoff after this Attempt, in milliseconds, less a jitter of up to a quarter. The jitter is derived from the
    /// Attempt's id: nodes that failed together retry apart, and the result is the same on every call.
    pub fn wait_ms(&self, ended: &AttemptId) -> u64 {
        let Backoff { initial_ms, factor, max_ms } = self.backoff;
        let growth = u64::from(factor).saturating_pow(ended.attempt.saturating_sub(1));
        let whole = initial_ms.saturating_mul(growth).min(max_ms);
        let digest = Sha256::digest(ended.to_string().as_bytes());
        let share = u64::from(digest.first().copied().unwrap_or(0));
        whole - whole / 4 * share / 255
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sentinel_protocol::outcome::LostReason;

    use super::*;

    fn retry(limit: u32, causes: &[Cause]) -> Retry {
        Retry { limit, causes: causes.to_vec(), ..Retry::never() }
    }

    fn attempt(node: &str, attempt: u32) -> AttemptId {
        format!("u/1/{node}/{attempt}").parse().unwrap()
    }

    #[test]
    fn retries_named_outcomes_up_to_the_limit() {
        let retry = retry(2, &[Cause::Failed]);
        let failed = Outcome::Failed { exit_code: 1 };
        assert_eq!([1, 2, 3].map(|n| retry.allows(n, &failed)), [true, true, false]);
        assert!(!retry.allows(1, &Outcome::TimedOut));
        assert!(!Retry::never().allows(1, &failed));
    }

    #[test]
    fn lost_is_retried_only_if_named() {
        let lost = Outcome::Lost { reason: LostReason::NodeUnreachable };
        assert!(!retry(5, &Cause::USUAL).allows(1, &lost));
        assert!(retry(5, &[Cause::Lost]).allows(1, &lost));
    }

    #[test]
    fn causes_are_parsed_by_exact_name() {
        assert!(Cause::ALL.into_iter().all(|cause| Cause::named(cause.name()) == Some(cause)));
        assert!(
            ["", "failed", "Cancelled", "NotStarted", "Succeeded"]
                .map(Cause::named)
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn nodes_that_fail_together_retry_apart() {
        let retry = retry(1, &Cause::USUAL);
        let waits: std::collections::BTreeSet<u64> =
            (0..64).map(|n| retry.wait_ms(&attempt(&format!("n{n}"), 1))).collect();
        assert!(waits.len() > 32, "{waits:?}");
    }

    proptest! {
        #[test]
        fn backoff_grows_to_its_maximum_less_a_quarter(
            initial_ms in 1..3_600_000_u64, factor in 1..=10_u32, max_ms in 1..86_400_000_u64, n in 1..=20_u32,
        ) {
            let retry = Retry { backoff: Backoff { initial_ms, factor, max_ms }, ..Retry::never() };
            let whole = u128::from(initial_ms) * u128::from(factor).saturating_pow(n - 1);
            let whole = whole.min(u128::from(max_ms));
            let wait = u128::from(retry.wait_ms(&attempt("n", n)));
            prop_assert!(wait <= whole && wait * 4 + 4 >= whole * 3, "{wait} of {whole}");
        }
    }
}
