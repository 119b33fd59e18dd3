//! `spec.retry`.

use sentinel_core::reconcile::retry::{Backoff, Cause, Retry};

use super::values::{HOUR, duration};
use crate::resource::invalid::Problems;
use crate::resource::task::retry::{self as spec, RetryCause};

const ALLOWED: &str = "100ms to 24h";
const DELAYS: (u64, u64) = (100, 24 * HOUR);

pub(super) fn retry(given: &spec::Retry, problems: &mut Problems) -> Option<Retry> {
    let limit = number("spec.retry.limit", given.limit, 0, spec::MAX_RETRIES, problems);
    let backoff = &given.backoff;
    let initial = duration("spec.retry.backoff.initial", &backoff.initial, DELAYS, ALLOWED, problems);
    let factor = number("spec.retry.backoff.factor", backoff.factor, 1, spec::MAX_FACTOR, problems);
    let max = duration("spec.retry.backoff.max", &backoff.max, DELAYS, ALLOWED, problems);
    if initial.zip(max).is_some_and(|(initial, max)| initial > max) {
        let rule = "must be at most spec.retry.backoff.max";
        problems.value("spec.retry.backoff.initial", &backoff.initial, rule);
    }
    if given.causes.is_empty() {
        problems.field("spec.retry.causes", "must name at least one Outcome; retry.limit 0 disables retries");
    }
    for (at, named) in given.causes.iter().enumerate() {
        if given.causes.iter().take(at).any(|before| before == named) {
            problems.value("spec.retry.causes", cause(*named).name(), "must name each Outcome once");
        }
    }
    let backoff = Backoff { initial_ms: initial?, factor: factor?, max_ms: max? };
    Some(Retry { limit: limit?, backoff, causes: given.causes.iter().copied().map(cause).collect() })
}

fn number(field: &str, value: i32, least: i32, most: i32, problems: &mut Problems) -> Option<u32> {
    if !(least..=most).contains(&value) {
        problems.value(field, &value.to_string(), format!("must be {least} to {most}"));
    }
    u32::try_from(value).ok()
}

fn cause(named: RetryCause) -> Cause {
    match named {
        RetryCause::Failed => Cause::Failed,
        RetryCause::Signaled => Cause::Signaled,
        RetryCause::StartFailed => Cause::StartFailed,
        RetryCause::StartTimedOut => Cause::StartTimedOut,
        RetryCause::TimedOut => Cause::TimedOut,
        RetryCause::IdleTimedOut => Cause::IdleTimedOut,
        RetryCause::OomKilled => Cause::OomKilled,
        RetryCause::Refused => Cause::Refused,
        RetryCause::Interrupted => Cause::Interrupted,
        RetryCause::Lost => Cause::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_nothing_by_default() {
        let mut problems = Problems::default();
        assert_eq!(retry(&spec::Retry::default(), &mut problems), Some(Retry::never()));
        assert!(problems.is_empty());
    }
}
