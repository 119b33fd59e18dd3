//! Whether an Execution whose Attempt has ended is tried once more, and after which wait.

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::outcome::Outcome;
use sha2::{Digest, Sha256};

/// How often and after what an Execution is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first, at most.
    pub limit: u32,
    /// The wait before each.
    pub backoff: Backoff,
    /// After which Outcomes. Whatever is not named is final, above all `Lost`: who names it accepts that a command may
    /// have run twice.
    pub causes: Vec<Cause>,
}

/// Waits that grow, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second Attempt.
    pub initial_ms: u64,
    /// How many times longer each wait is than the one before it.
    pub factor: u32,
    /// The longest wait.
    pub max_ms: u64,
}

/// An Outcome after which an Execution may be tried again. What somebody asked for (`Cancelled`, `NotStarted`), what
/// would only come again (`Skipped`) and what still runs (`CancelFailed`) is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The command exited with a code that is no success.
    Failed,
    /// A signal that we did not send ended the command.
    Signaled,
    /// The command could not be started.
    StartFailed,
    /// The command was not started in time.
    StartTimedOut,
    /// The command ran longer than it may.
    TimedOut,
    /// The command wrote nothing for too long.
    IdleTimedOut,
    /// The command used more memory than it may.
    OomKilled,
    /// The agent declined.
    Refused,
    /// We or the node cut it off.
    Interrupted,
    /// Nobody can know how it ended.
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

    /// The causes when none are named: the command itself went wrong, and nobody cut it off.
    pub const USUAL: [Self; 5] =
        [Self::Failed, Self::Signaled, Self::TimedOut, Self::IdleTimedOut, Self::OomKilled];

    /// Its name, that of the Outcome.
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

    /// The cause of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

impl Retry {
    /// No second Attempt, whatever happens.
    pub fn never() -> Self {
        let backoff = Backoff { initial_ms: 1000, factor: 2, max_ms: 60_000 };
        Self { limit: 0, backoff, causes: Cause::USUAL.to_vec() }
    }

    /// Whether another Attempt follows the one of this number after `outcome`.
    pub fn allows(&self, attempt: u32, outcome: &Outcome) -> bool {
        attempt <= self.limit && self.causes.iter().any(|cause| cause.name() == outcome.name())
    }

    /// How long the next Attempt waits after this one, in milliseconds: its backoff less up to a quarter. The share
    /// follows from the Attempt's id, so that nodes that failed together do not come back together, and whoever asks
    /// again is told the same.
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
    fn only_a_named_outcome_is_tried_again_and_only_so_often() {
        let retry = retry(2, &[Cause::Failed]);
        let failed = Outcome::Failed { exit_code: 1 };
        assert_eq!([1, 2, 3].map(|n| retry.allows(n, &failed)), [true, true, false]);
        assert!(!retry.allows(1, &Outcome::TimedOut));
        assert!(!Retry::never().allows(1, &failed));
    }

    #[test]
    fn lost_is_not_tried_again_unless_it_is_named() {
        let lost = Outcome::Lost { reason: LostReason::NodeUnreachable };
        assert!(!retry(5, &Cause::USUAL).allows(1, &lost));
        assert!(retry(5, &[Cause::Lost]).allows(1, &lost));
    }

    #[test]
    fn each_cause_is_found_by_its_name_and_no_other_word_is() {
        assert!(Cause::ALL.into_iter().all(|cause| Cause::named(cause.name()) == Some(cause)));
        assert!(
            ["", "failed", "Cancelled", "NotStarted", "Succeeded"]
                .map(Cause::named)
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn nodes_that_fail_together_do_not_come_back_together() {
        let retry = retry(1, &Cause::USUAL);
        let waits: std::collections::BTreeSet<u64> =
            (0..64).map(|n| retry.wait_ms(&attempt(&format!("n{n}"), 1))).collect();
        assert!(waits.len() > 32, "{waits:?}");
    }

    proptest! {
        #[test]
        fn waits_grow_from_the_first_to_the_longest_less_a_quarter(
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
