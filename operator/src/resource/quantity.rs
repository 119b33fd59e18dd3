//! Amounts of bytes as Kubernetes writes them: `64Mi`, `1G`, `4096`.

/// The bytes that a quantity says; `None` when it is none, or more than fits.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
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
    fn what_is_no_quantity_is_none() {
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
