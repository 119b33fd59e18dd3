//! The flags of audit records.

use std::path::PathBuf;

use clap::Args;
use sentinel_audit::directory::MIN_KEPT;

use super::values::Storage;
use crate::audit::{AuditOptions, Destination};

/// Where audit records are kept and copied to.
#[derive(Debug, Args)]
pub(super) struct AuditFlags {
    /// Directory of the audit records, for this operator alone. Without it: `audit` in --data-dir, with --storage embedded.
    #[arg(long = "audit-dir", env = "SENTINEL_AUDIT_DIR", value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Audit records to keep in that directory; beyond, the oldest are removed. At least 1Mi, for example 512Mi or 4Gi.
    #[arg(long = "audit-keep", env = "SENTINEL_AUDIT_KEEP", default_value = "1Gi", value_name = "SIZE", value_parser = parse_kept)]
    kept: u64,

    /// Also write audit records, as JSON lines, to a file, to standard output (`-`), or to the local syslog (`syslog`, or
    /// `syslog:SOCKET`). A file that was renamed is created again.
    #[arg(long = "audit-log", env = "SENTINEL_AUDIT_LOG", value_name = "DESTINATION", value_parser = str::parse::<Destination>)]
    copy: Option<Destination>,
}

impl AuditFlags {
    pub(super) fn options(self, storage: &Storage) -> AuditOptions {
        let beside_history = match storage {
            Storage::Embedded { directory } => Some(directory.join("audit")),
            Storage::Mongodb { .. } => None,
        };
        AuditOptions { directory: self.directory.or(beside_history), kept: self.kept, stream: self.copy }
    }
}

/// A number of bytes: `1048576`, `64Mi`, `1Gi`.
fn parse_kept(text: &str) -> Result<u64, String> {
    let units = [("Mi", 20), ("Gi", 30), ("Ti", 40)];
    let unit = units.iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?, *power)));
    let (digits, power) = unit.unwrap_or((text, 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    let kept = number.and_then(|number| number.checked_mul(1 << power)).filter(|kept| *kept >= MIN_KEPT);
    kept.ok_or_else(|| {
        "at least 1Mi are kept: a number of bytes, or one with Mi, Gi or Ti, as in 512Mi".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_and_a_least_value() {
        assert_eq!((parse_kept("1Mi"), parse_kept("4Gi")), (Ok(1 << 20), Ok(4 << 30)));
        for bad in ["", "1", "1023", "-1", "1.5Gi", "64MB", "Mi", "99999999999999Ti"] {
            assert!(parse_kept(bad).unwrap_err().contains("1Mi"), "{bad:?}");
        }
    }
}
