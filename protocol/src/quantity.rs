//! Amounts as Kubernetes writes them: of bytes, `64Mi`, `1G`, `4096`; of CPUs, `500m`, `2`.

/// The bytes of a quantity of at most 12 digits; `None` when it is invalid or too large.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok().filter(|_| digits <= 12)?;
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The thousandths of an amount of CPU such as `500m` or `2`; `None` when it is invalid or too large.
pub fn parse_millis(text: &str) -> Option<u32> {
    let (digits, factor) = match text.strip_suffix('m') {
        Some(digits) => (digits, 1),
        None => (text, 1000),
    };
    let number: u32 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_quantities_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1000),
            ("64Mi", 64 << 20),
            ("1Gi", 1 << 30),
            ("2T", 2_000_000_000_000),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn parses_cpus_whole_or_in_thousandths() {
        for (text, millis) in [("500m", 500), ("2", 2000), ("1024", 1_024_000), ("0", 0)] {
            assert_eq!(parse_millis(text), Some(millis), "{text}");
        }
        for text in ["", "m", "0.5", "+5m", "-1", "5 m", "1k", "9999999", "99999999999m"] {
            assert_eq!(parse_millis(text), None, "{text:?}");
        }
    }

    #[test]
    fn rejects_other_text() {
        for text in [
            "",
            "Mi",
            "1.5Gi",
            "-1Mi",
            "+1",
            "1 Mi",
            "1mi",
            "1K",
            "5M1",
            "10Ei",
            "18446744073709551615Ki",
            "0x10",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
