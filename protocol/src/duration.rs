//! Durations as text: parsed from fields of a Task, flags and queries, and written so that they parse again.
//!
//! For a form that is rounded for people, see `human`.

use std::fmt::Write as _;
use std::time::Duration;

/// A unit: its name, its length in milliseconds, and the largest number of digits before it.
type Unit = (&'static str, u64, usize);

/// Of a field of a Task. The digits are bounded as in its definition, where CEL could not add up larger numbers.
const IN_TASKS: &[Unit] = &[("h", 3_600_000, 5), ("m", 60_000, 5), ("s", 1000, 6), ("ms", 1, 8)];

/// Of flags, environment variables and queries.
const IN_ARGUMENTS: &[Unit] =
    &[("d", 86_400_000, 20), ("h", 3_600_000, 20), ("m", 60_000, 20), ("s", 1000, 20), ("ms", 1, 20)];

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; expected numbers with units (ms, s, m, h, d), for example 90s or 1h30m")]
pub struct InvalidDuration(String);

/// A duration of a flag or a query: `90s`, `1h30m`, `30d`. Units in decreasing order, each at most once.
///
/// # Errors
/// [`InvalidDuration`] with what is expected.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    sum(text, IN_ARGUMENTS).map(Duration::from_millis).ok_or_else(|| InvalidDuration(text.to_owned()))
}

/// The milliseconds of a duration in a field of a Task, as Kubernetes writes it: `1h30m`, `10s`, `500ms`. Hours,
/// minutes, seconds and milliseconds in this order, each at most once, as whole numbers of at most 5, 5, 6 and 8
/// digits. `None` for any other text.
pub fn parse_in_task(text: &str) -> Option<u64> {
    sum(text, IN_TASKS)
}

/// The duration in units of a Task, such as `1h30m`; `0s` for zero. It parses as itself.
pub fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis, _) in IN_TASKS {
        let number = rest / millis;
        rest %= millis;
        if number > 0 {
            let _ = write!(text, "{number}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn sum(text: &str, units: &[Unit]) -> Option<u64> {
    let mut units = units.iter();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (name, next) = after.split_at_checked(end)?;
        // Continues after the previous unit, so that a larger one, or the same, is not found.
        let (_, millis, most) = units.find(|(unit, ..)| *unit == name)?;
        if digits > *most {
            return None;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_durations_as_kubernetes_writes_them() {
        for (text, millis) in [
            ("0s", 0),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("10s", 10_000),
            ("1m500ms", 60_500),
            ("99999h", 359_996_400_000),
            ("007s", 7000),
        ] {
            assert_eq!(parse_in_task(text), Some(millis), "{text}");
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("30d12h"), Ok(Duration::from_hours(732)));
        assert_eq!(parse("1000000s"), Ok(Duration::from_secs(1_000_000)));
    }

    #[test]
    fn rejects_any_other_text() {
        for text in [
            "",
            "5",
            "5 minutes",
            "-5m",
            "+5m",
            "1.5h",
            "5m1h",
            "5s5s",
            "5M",
            "m",
            "h5",
            " 5m",
            "5m ",
            "1e3s",
            "1ms1s",
            "99999999999999999999s",
            "18446744073709551615h",
            "5µs",
            "５m",
            "1h1d",
        ] {
            assert_eq!(parse_in_task(text), None, "{text:?}");
            assert!(parse(text).unwrap_err().to_string().contains("is not a duration"), "{text:?}");
        }
        for text in ["1d", "0000001s", "100000h"] {
            assert_eq!(parse_in_task(text), None, "{text:?}");
        }
    }

    #[test]
    fn formatted_duration_parses_as_itself() {
        for millis in [0, 1, 1000, 90_000, 3_600_000, 5_400_250] {
            assert_eq!(parse_in_task(&format(Duration::from_millis(millis))), Some(millis));
        }
    }
}
