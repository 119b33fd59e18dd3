//! Ends a command's whole tree: TERM, then KILL.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::{self, Cgroup};
use crate::journal::AttemptState;
use crate::process::{self, Stat};

/// Sends TERM to every process of this supervisor's tree, and CONT, so that a stopped one receives it.
pub(super) fn terminate(cgroup: Option<&Cgroup>) {
    for (pid, stat) in tree(cgroup) {
        signal(pid, &stat, Signal::TERM);
        signal(pid, &stat, Signal::CONT);
    }
}

/// Sends KILL to every process of this supervisor's tree.
pub(super) fn kill(cgroup: Option<&Cgroup>) {
    if let Some(cgroup) = cgroup {
        // `cgroup.kill` includes processes that are being forked. Before Linux 5.14 the loop over the tree, repeated, does.
        let _ = cgroup.kill();
    }
    for (pid, stat) in tree(cgroup) {
        signal(pid, &stat, Signal::KILL);
    }
}

/// Living processes of this supervisor's tree: those in the group, and its descendants, as a process may have left the
/// group, or there may be none.
pub(super) fn pids(cgroup: Option<&Cgroup>) -> Vec<i32> {
    tree(cgroup).into_iter().map(|(pid, _)| pid).collect()
}

fn tree(cgroup: Option<&Cgroup>) -> Vec<(i32, Stat)> {
    let mut found = descendants(std::process::id().cast_signed());
    let in_group = cgroup.map(Cgroup::pids).unwrap_or_default();
    found.extend(in_group.into_iter().filter_map(|pid| Some((pid, process::stat(pid).ok()?))));
    found.retain(|(_, stat)| !stat.is_dead());
    found.sort_unstable_by_key(|(pid, _)| *pid);
    found.dedup_by_key(|(pid, _)| *pid);
    found
}

/// Living processes that descend from `ancestor`.
fn descendants(ancestor: i32) -> Vec<(i32, Stat)> {
    let mut others = all_processes();
    let mut found: Vec<(i32, Stat)> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        others.retain(|(pid, stat)| {
            if stat.parent == parent {
                parents.push(*pid);
                found.push((*pid, *stat));
            }
            stat.parent != parent
        });
    }
    found.retain(|(_, stat)| !stat.is_dead());
    found
}

fn all_processes() -> Vec<(i32, Stat)> {
    let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
    proc.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, process::stat(pid).ok()?)))
        .collect()
}

/// Sends a signal to exactly this process: a pidfd is not affected by the reuse of the pid.
fn signal(pid: i32, stat: &Stat, signal: Signal) {
    let send = || -> io::Result<()> {
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        if process::stat(pid)?.start_time == stat.start_time {
            pidfd_send_signal(&pidfd, signal)?;
        }
        Ok(())
    };
    // A process that has ended needs no signal; one that may not be signalled is found by the check for survivors.
    let _ = send();
}

/// Living processes of a command whose supervisor is dead: those in its group and those of its session.
pub(super) fn orphans(state: &AttemptState) -> Vec<i32> {
    orphaned(state).into_iter().map(|(pid, _)| pid).collect()
}

fn orphaned(state: &AttemptState) -> Vec<(i32, Stat)> {
    let (supervisor, cgroup, command) = match state {
        AttemptState::Accepted | AttemptState::Abandoned { .. } => return Vec::new(),
        AttemptState::Starting { supervisor, cgroup, command } => (supervisor, cgroup, command.as_ref()),
        AttemptState::Running { supervisor, cgroup, command, .. } => (supervisor, cgroup, Some(command)),
    };
    let Ok(boot_id) = crate::host::boot_id() else { return Vec::new() };
    if supervisor.boot_id != boot_id {
        return Vec::new();
    }
    let in_group = cgroup.as_deref().map(|path| cgroup::pids(Path::new(path))).unwrap_or_default();
    let mut found: Vec<(i32, Stat)> =
        in_group.into_iter().filter_map(|pid| Some((pid, process::stat(pid).ok()?))).collect();
    if let Some(command) = command {
        // A session keeps its id while it has a process, so it is the command's unless all its processes have ended and the
        // pid was reused: then its leader is younger than the command.
        let leader = process::stat(command.pid).ok();
        if leader.is_none_or(|leader| leader.start_time == command.start_time) {
            let in_session = |stat: &Stat| stat.session == command.pid || stat.group == command.pid;
            found.extend(all_processes().into_iter().filter(|(_, stat)| in_session(stat)));
            found.sort_unstable_by_key(|(pid, _)| *pid);
            found.dedup_by_key(|(pid, _)| *pid);
        }
    }
    found.retain(|(_, stat)| !stat.is_dead());
    found
}

/// Kills the tree of a command whose supervisor is dead, by its control group and its session, and blocks up to
/// `patience` until it has ended. Returns the processes that survived. Only for an Attempt whose lock is free.
pub fn end_tree(state: &AttemptState, patience: Duration) -> Vec<i32> {
    let until = Instant::now() + patience;
    let group = match state {
        AttemptState::Starting { cgroup, .. } | AttemptState::Running { cgroup, .. } => cgroup.as_deref(),
        _ => None,
    };
    loop {
        let left = orphaned(state);
        if left.is_empty() {
            if let Some(path) = group {
                // Harmless when it fails: an empty group costs little.
                let _ = cgroup::remove(Path::new(path));
            }
            return Vec::new();
        }
        if Instant::now() >= until {
            return left.into_iter().map(|(pid, _)| pid).collect();
        }
        if let Some(path) = group {
            let _ = cgroup::kill(Path::new(path));
        }
        for (pid, stat) in &left {
            signal(*pid, stat, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
