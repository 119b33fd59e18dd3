//! What a dev mode left that was killed: temporary state, commands that still run, sockets. Found at the next start.
//!
//! Only what no process holds is removed: a directory that dev mode made for itself, whose lock is free and in which no
//! process has a file open.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sentinel_operator::lock::Lock;

use super::state::{TEMPORARY, is_temporary};
use crate::client::local;
use crate::output::escape::escaped;
use crate::output::format::note;

/// A directory without a lock is being made, unless it is older than this.
const MADE_WITHIN: Duration = Duration::from_mins(1);

/// Finds it, says what there is, and removes what is safe to remove.
pub(super) fn find() {
    for socket in local::tidy() {
        say(&format!("removed {}, left by a dev mode that was killed", socket.display()));
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY))
            && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == local::me());
        if is_ours {
            look(&entry.path());
        }
    }
}

fn look(directory: &Path) {
    if !is_temporary(directory) || (!Lock::is_in(directory) && !is_old(directory)) {
        return;
    }
    // A dev mode that runs has it.
    let Ok(_lock) = Lock::take(directory) else { return };
    // One that was given this directory may have run, and ended, in between.
    if !is_temporary(directory) {
        return;
    }
    let shown = directory.display();
    let running = users_of(directory);
    if running.is_empty() {
        match std::fs::remove_dir_all(directory) {
            Ok(()) => say(&format!("removed {shown}, left by a dev mode that was killed")),
            Err(error) => {
                say(&format!("unable to remove {shown}, left by a dev mode that was killed: {error}"));
            }
        }
        return;
    }
    let pids: Vec<String> = running.iter().map(ToString::to_string).collect();
    say(&format!(
        "a dev mode that was killed left commands running (supervisors: {}) and its state in {shown}; take them over with: sentinel dev --state {shown}",
        pids.join(", ")
    ));
}

fn is_old(directory: &Path) -> bool {
    let modified = directory.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > MADE_WITHIN))
}

/// The processes other than this one that have a file in the directory open, or are in it: supervisors.
fn users_of(directory: &Path) -> Vec<u32> {
    let inside = |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let descriptors = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        if inside(entry.path().join("cwd")) || descriptors.into_iter().any(|fd| inside(fd.path())) {
            pids.push(pid);
        }
    }
    pids
}

fn say(text: &str) {
    note(&format!("sentinel: {}", escaped(text)));
}
