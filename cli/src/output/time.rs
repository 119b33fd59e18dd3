//! Times and amounts as people read them.

use jiff::Timestamp;

/// How long ago, in one or two units, as kubectl has it: `8s`, `3m20s`, `5h`, `2d`.
pub(crate) fn ago(at: Option<&str>) -> String {
    let Some(then) = at.and_then(|text| text.parse::<Timestamp>().ok()) else { return "-".to_owned() };
    let seconds = Timestamp::now().as_second().saturating_sub(then.as_second()).max(0) as u64;
    if seconds < 10 { format!("{seconds}s") } else { span(seconds * 1000) }
}

/// A span of milliseconds, in one or two units.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..=9 => format!("{}.{}s", seconds, millis % 1000 / 100),
        10..=119 => format!("{seconds}s"),
        120..=599 if !seconds.is_multiple_of(60) => format!("{}m{}s", seconds / 60, seconds % 60),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// An amount of bytes, in the unit that leaves one to three digits before the point.
pub(crate) fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if amount < 1024 {
        return format!("{amount}B");
    }
    let mut value = amount as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_precision_that_people_want() {
        let cases = [
            (7, "7ms"),
            (1_500, "1.5s"),
            (59_000, "59s"),
            (125_000, "2m5s"),
            (600_000, "10m"),
            (7_200_000, "2h"),
            (172_800_000, "2d"),
        ];
        for (millis, expected) in cases {
            assert_eq!(span(millis), expected);
        }
    }

    #[test]
    fn amounts_have_a_unit() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(1_048_575), bytes(1 << 30)],
            ["0B", "1023B", "1.0KiB", "1.0MiB", "1.0GiB"]
        );
    }
}
