//! Parsers of durations and times on the command line.

use std::time::Duration;

use sentinel_protocol::ids::NodeName;

use crate::client::Since;

/// A duration of at least a millisecond, such as `90s` or `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = duration_or_zero(text)?;
    if duration.is_zero() {
        Err("must be longer than 0; omit the flag for no limit".to_owned())
    } else {
        Ok(duration)
    }
}

/// How long a signature is valid: ten years at most, so that a slip of a unit does not last.
pub(super) fn validity(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_hours(3650 * 24);
    let duration = duration_or_zero(text)?;
    if duration.is_zero() || duration > MOST {
        return Err("must be longer than 0 and at most 3650d".to_owned());
    }
    Ok(duration)
}

/// The name of a node.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    NodeName::new(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// A duration, which may be zero.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    sentinel_operator::config::parse_duration(text)
}

/// A timestamp, or how long ago.
pub(super) fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::At(time));
    }
    duration_or_zero(text).map(Since::Ago).map_err(|_| {
        "expected a time such as 2026-11-28T03:00:00Z, or how long ago, such as 5m or 1h30m".to_owned()
    })
}
