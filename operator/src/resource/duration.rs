//! Durations as Kubernetes writes them: `1h30m`, `10s`, `500ms`.

use std::fmt::Write;
use std::time::Duration;

/// The milliseconds that a duration says; `None` when it is none. Hours, minutes, seconds and milliseconds, each at
/// most once and in this order, as whole numbers of at most 5, 5, 6 and 8 digits, as the definition of a Task has them.
pub fn parse(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64, usize); 4] =
        [("h", 3_600_000, 5), ("m", 60_000, 5), ("s", 1000, 6), ("ms", 1, 8)];
    let mut rest = text;
    let mut total: u64 = 0;
    let mut from = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = after.get(..end)?;
        let at = UNITS.iter().skip(from).position(|(name, ..)| *name == unit)? + from;
        let (_, millis, most) = UNITS.get(at)?;
        if digits > *most {
            return None;
        }
        total = total.checked_add(number.checked_mul(*millis)?)?;
        from = at + 1;
        rest = after.get(end..)?;
    }
    (!text.is_empty()).then_some(total)
}

/// The duration as one would write it: `1h30m`; `0s` for none.
pub fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        let number = rest / millis;
        rest %= millis;
        if number > 0 {
            let _ = write!(text, "{number}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        for (text, millis) in [
            ("0s", 0),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("10s", 10_000),
            ("1m500ms", 60_500),
            ("99999h", 359_996_400_000),
            ("007s", 7000),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_none() {
        for text in [
            "",
            "5",
            "5 minutes",
            "-5m",
            "+5m",
            "1.5h",
            "5m1h",
            "5s5s",
            "1d",
            "5M",
            "m",
            "h5",
            " 5m",
            "5m ",
            "1e3s",
            "0000001s",
            "99999999999999999999s",
            "18446744073709551615h",
            "5µs",
            "５m",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_shown_duration_reads_as_itself() {
        for millis in [0, 1, 1000, 90_000, 3_600_000, 5_400_250] {
            assert_eq!(parse(&show(Duration::from_millis(millis))), Some(millis));
        }
    }
}
