//! How often a node is tried again.

use sentinel_core::reconcile::retry::{Backoff, Cause, Retry};

use super::{HOUR, span};
use crate::resource::invalid::Problems;
use crate::resource::retry::{self as spec, RetryCause};

const ALLOWED: &str = "100ms to 24h";
const WAITS: (u64, u64) = (100, 24 * HOUR);

pub(super) fn retry(said: &spec::Retry, problems: &mut Problems) -> Option<Retry> {
    let limit = number("spec.retry.limit", said.limit, 0, spec::MAX_RETRIES, problems);
    let backoff = &said.backoff;
    let initial = span("spec.retry.backoff.initial", &backoff.initial, WAITS, ALLOWED, problems);
    let factor = number("spec.retry.backoff.factor", backoff.factor, 1, spec::MAX_FACTOR, problems);
    let max = span("spec.retry.backoff.max", &backoff.max, WAITS, ALLOWED, problems);
    if initial.zip(max).is_some_and(|(initial, max)| initial > max) {
        let rule = "must be at most spec.retry.backoff.max";
        problems.value("spec.retry.backoff.initial", &backoff.initial, rule);
    }
    if said.causes.is_empty() {
        problems.field("spec.retry.causes", "must name at least one outcome; retry.limit 0 is no retry");
    }
    for (at, named) in said.causes.iter().enumerate() {
        if said.causes.iter().take(at).any(|before| before == named) {
            problems.value("spec.retry.causes", cause(*named).name(), "must name each outcome once");
        }
    }
    let backoff = Backoff { initial_ms: initial?, factor: factor?, max_ms: max? };
    Some(Retry { limit: limit?, backoff, causes: said.causes.iter().copied().map(cause).collect() })
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
    fn what_is_said_when_nothing_is_said_is_the_cores_word_for_never() {
        let mut problems = Problems::default();
        assert_eq!(retry(&spec::Retry::default(), &mut problems), Some(Retry::never()));
        assert!(problems.is_empty());
    }
}
