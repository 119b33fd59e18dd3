//! Sizes and durations for people: one form, in messages and in tables.

/// A number of bytes: `12 MiB`, `1.5 GiB`. Rounded down, so that what is short of a limit never reads as if it had
/// reached it.
pub fn human_bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let power = (bytes.ilog2() / 10).min(6);
    let scale = 1_u64 << (10 * power);
    let (whole, tenths) = (bytes / scale, bytes % scale / (scale / 10).max(1));
    let unit = units[power as usize - 1];
    if whole >= 10 || tenths == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{} {unit}", tenths.min(9))
    }
}

/// A duration in milliseconds: at most two units, and a fraction only below a minute: `7ms`, `1.5s`, `2m5s`, `3h`,
/// `2d4h`.
pub fn human_duration(millis: u64) -> String {
    let (seconds, fraction) = (millis / 1000, millis % 1000);
    let two = |unit: &str, size: u64, next: &str, next_size: u64| match seconds % size / next_size {
        0 => format!("{}{unit}", seconds / size),
        rest => format!("{}{unit}{rest}{next}", seconds / size),
    };
    match seconds {
        0 if fraction == 0 => "0s".to_owned(),
        0 => format!("{fraction}ms"),
        1..60 if fraction >= 100 => format!("{seconds}.{}s", fraction / 100),
        1..60 => format!("{seconds}s"),
        60..3_600 => two("m", 60, "s", 1),
        3_600..86_400 => two("h", 3_600, "m", 60),
        _ => two("d", 86_400, "h", 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_largest_unit_and_are_never_rounded_up() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((64 << 20) - 1, "63 MiB"),
            (64 << 20, "64 MiB"),
            ((10 << 20) - 1, "9.9 MiB"),
            (3 << 30, "3 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (millis, expected) in [
            (0, "0s"),
            (7, "7ms"),
            (1_000, "1s"),
            (2_450, "2.4s"),
            (59_999, "59.9s"),
            (60_000, "1m"),
            (61_000, "1m1s"),
            (125_000, "2m5s"),
            (3_600_000, "1h"),
            (5_400_000, "1h30m"),
            (86_399_000, "23h59m"),
            (86_400_000, "1d"),
            (187_200_000, "2d4h"),
        ] {
            assert_eq!(human_duration(millis), expected, "{millis}");
        }
    }
}
