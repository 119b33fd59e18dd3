//! The program that tries to escape from its sandbox, and what it may achieve.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::repository;

/// Builds it as one static program in this directory, which every user may enter.
///
/// # Panics
/// When it does not build.
pub fn build_escape(directory: &Path) -> PathBuf {
    let program = directory.join("escape");
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition",
            "2024",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .arg(&program)
        .arg(repository().join("tests/src/bin/escape/main.rs"))
        .output()
        .expect("rustc starts");
    assert!(output.status.success(), "it does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
    program
}

/// The trials that have succeeded, by what it printed.
///
/// # Panics
/// When it has not come to its end.
pub fn successes(printed: &str) -> BTreeSet<&str> {
    let lines = || printed.lines().filter(|line| line.starts_with("yes ") || line.starts_with("no  "));
    let announced = printed.lines().last().and_then(|line| line.strip_suffix(" trials")?.parse().ok());
    assert_eq!(announced, Some(lines().count()), "it has not come to its end:\n{printed}");
    lines().filter_map(|line| line.strip_prefix("yes ")?.split(':').next()).collect()
}

/// What root may do with the profile `Baseline`, as in a container: the files of others, their processes, and devices, by the
/// capabilities that it has. All of it is in `docs/sandbox.md`.
pub const BASELINE_AS_ROOT: [&str; 11] = [
    "capabilities",
    "chroot",
    "secure-bits",
    "setgid",
    "setgroups",
    "setuid",
    "setuid-program",
    "shadow",
    "signal",
    "write-etc",
    "disk",
];
