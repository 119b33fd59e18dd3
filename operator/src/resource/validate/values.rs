//! Values that several fields have: durations, amounts of bytes, strings for the kernel.

use sentinel_protocol::duration::parse_in_task;

use crate::resource::invalid::Problems;
use sentinel_protocol::quantity;

/// Milliseconds of a second.
pub(super) const SECOND: u64 = 1000;
/// Milliseconds of an hour.
pub(super) const HOUR: u64 = 3600 * SECOND;

/// The milliseconds of a duration within `range`, which `allowed` describes.
pub(in crate::resource) fn duration(
    field: &str,
    text: &str,
    range: (u64, u64),
    allowed: &str,
    problems: &mut Problems,
) -> Option<u64> {
    let Some(millis) = parse_in_task(text) else {
        problems.value(field, text, format!("must be a duration of {allowed}, such as 5m, 1h30m or 500ms"));
        return None;
    };
    if millis < range.0 || millis > range.1 {
        problems.value(field, text, format!("must be {allowed}"));
        return None;
    }
    Some(millis)
}

/// The bytes of an amount within `range`, which `allowed` describes.
pub(super) fn bytes(
    field: &str,
    text: &str,
    range: (u64, u64),
    allowed: &str,
    problems: &mut Problems,
) -> Option<u64> {
    let Some(amount) = quantity::parse(text) else {
        problems.value(field, text, format!("must be an amount of {allowed} bytes, such as 64Mi or 1G"));
        return None;
    };
    if amount < range.0 || amount > range.1 {
        problems.value(field, text, format!("must be {allowed}"));
        return None;
    }
    Some(amount)
}

/// The kernel ends a string at a zero byte.
pub(super) fn no_zero_byte(field: &str, text: &str, problems: &mut Problems) {
    if let Some(at) = text.find('\0') {
        let allowed =
            format!("must not contain a zero byte, as at offset {at}; the kernel cannot pass it on");
        problems.value(field, text, allowed);
    }
}
