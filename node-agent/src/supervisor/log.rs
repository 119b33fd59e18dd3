//! The supervisor's own log: standard error, which is the Attempt's `supervisor.log`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes this file the log.
pub(super) fn write_to(path: &Path) {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    // A full disk must not keep the Attempt from being recorded.
    if let Ok(log) = log.or_else(|_| OpenOptions::new().write(true).open("/dev/null")) {
        let _: Result<(), _> = rustix::stdio::dup2_stderr(&log as &File);
    }
}

/// Writes a line with a timestamp. Unlike the print macros it never panics.
pub(super) fn write_line(message: &str) {
    let _ = writeln!(io::stderr(), "{} {message}", crate::host::wall_clock().0);
}
