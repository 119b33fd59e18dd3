//! Ages. Durations and sizes are formatted by [`sentinel_protocol::human`], as in the messages of operator and agent.

use jiff::Timestamp;
use sentinel_protocol::human::human_duration;

/// How long ago a timestamp was: `8s`, `3m20s`, `5h10m`, `2d`; `-` without one.
pub(crate) fn age(timestamp: Option<&str>) -> String {
    let Some(then) = timestamp.and_then(|text| text.parse::<Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let seconds = Timestamp::now().as_second().saturating_sub(then.as_second()).max(0) as u64;
    human_duration(seconds * 1000)
}
