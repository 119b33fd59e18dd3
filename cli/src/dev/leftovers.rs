//! What a killed dev mode left behind: temporary state, running commands, sockets. Found at the next startup.
//!
//! Only unused things are removed: a directory that dev mode created itself, whose lock is free, and in which no process
//! has an open file.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sentinel_api::client::dev_socket::remove_stale;
use sentinel_api::client::peer::effective_uid;
use sentinel_operator::lock::Lock;

use super::state::{TEMPORARY, is_temporary};
use crate::output::escape::escaped;
use crate::output::format::note;

/// A directory without a lock may be one that is being created, unless it is older than this.
const CREATION_TIMEOUT: Duration = Duration::from_mins(1);

/// Reports what was left behind, and removes what is unused.
pub(super) fn clean_up() {
    for socket in remove_stale() {
        report(&format!("removed {}, left by a dev mode that was killed", socket.display()));
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY))
            && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == effective_uid());
        if is_ours {
            clean_up_state(&entry.path());
        }
    }
}

fn clean_up_state(directory: &Path) {
    if !is_temporary(directory) || (!Lock::is_in(directory) && !is_old(directory)) {
        return;
    }
    // A running dev mode holds the lock.
    let Ok(_lock) = Lock::take(directory) else { return };
    // Another dev mode may have taken the directory over, with --state, before we had the lock.
    if !is_temporary(directory) {
        return;
    }
    let path = directory.display();
    let supervisors = users_of(directory);
    if supervisors.is_empty() {
        match std::fs::remove_dir_all(directory) {
            Ok(()) => report(&format!("removed {path}, left by a dev mode that was killed")),
            Err(error) => {
                report(&format!("unable to remove {path}, left by a dev mode that was killed: {error}"));
            }
        }
        return;
    }
    let pids: Vec<String> = supervisors.iter().map(ToString::to_string).collect();
    report(&format!(
        "a dev mode that was killed left commands running (supervisors: {}) and its state in {path}; take them over with: sentinel dev --state {path}",
        pids.join(", ")
    ));
}

fn is_old(directory: &Path) -> bool {
    let modified = directory.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > CREATION_TIMEOUT))
}

/// The other processes that have an open file or their working directory in the directory: supervisors.
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

fn report(text: &str) {
    note(&format!("sentinel: {}", escaped(text)));
}
