//! The supervisor's own log: standard error, which is the Attempt's `supervisor.log`.

use std::io::{self, Write};

/// Writes a line with a timestamp. Unlike the print macros it never panics.
pub(super) fn write_line(message: &str) {
    let _ = writeln!(io::stderr(), "{} {message}", crate::host::wall_clock().0);
}
