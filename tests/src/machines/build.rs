//! The node agent as one static program.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::repository;

/// Builds the static agent, unless it is built, and returns where it is.
///
/// # Panics
/// When it does not build.
pub fn static_agent() -> PathBuf {
    let output = Command::new(repository().join("tests/static-agent")).output().expect("bash starts");
    let output_text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the static agent does not build:\n{output_text}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}
