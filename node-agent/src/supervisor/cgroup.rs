//! The control group (v2) of a command. What limits it is in [`super::limits`].
//!
//! The command is created in it. The supervisor is never in it: supervisors share `sentinel/supervisors`, outside the
//! agent's own group, so that what ends the agent does not end them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::cgroup_v1;
use super::pod_cgroup::{self, FOLDER};
use crate::process;

/// A control group.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// Creates a group for the command of this supervisor.
    pub(super) fn new() -> io::Result<Self> {
        let path = folder()?.join(own_name()?);
        fs::create_dir_all(&path)?;
        let directory = File::open(&path)?.into();
        Ok(Self { path, directory })
    }

    /// Its directory, for `clone3`.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Enables a controller in this group.
    ///
    /// # Errors
    /// `NotFound` when the hierarchy does not have it, or it cannot limit here; otherwise the kernel's error.
    pub(super) fn enable(&self, controller: &str) -> io::Result<()> {
        if self.has_files_of(controller) {
            return Ok(());
        }
        let mount = mount()?;
        if !has_controller(&mount, controller) {
            return Err(io::ErrorKind::NotFound.into());
        }
        for parent in [mount.clone(), mount.join(FOLDER)] {
            fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        if self.has_files_of(controller) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Whether this controller limits the group. While another process enables it, it is listed before its files exist.
    fn has_files_of(&self, controller: &str) -> bool {
        self.path.join(format!("{controller}.max")).exists()
    }

    /// Bounds the number of processes and threads in it, if it can and this process is in it. It is not joined for that: where the
    /// command is not created in it, that would stall every fork of the machine.
    pub(super) fn bound_own_processes(&self, most: u32) -> bool {
        self.enable("pids").is_ok()
            && fs::write(self.path.join("pids.max"), most.to_string()).is_ok()
            && self.pids().contains(&std::process::id().cast_signed())
    }

    /// Its path, for the state record.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Processes in it.
    pub(super) fn pids(&self) -> Vec<i32> {
        pids(&self.path)
    }

    /// Kills everything in it, safe against processes that fork meanwhile.
    pub(super) fn kill(&self) -> io::Result<()> {
        kill(&self.path)
    }

    /// Removes it; it must be empty.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

fn has_controller(group: &Path, controller: &str) -> bool {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|name| name == controller)
}

/// The name of the groups of this supervisor's command: a pid and a start time that no other process has.
pub(super) fn own_name() -> io::Result<String> {
    let me = std::process::id();
    Ok(format!("{me}.{}", process::stat(me.cast_signed())?.start_time))
}

/// Processes in the group at this path.
pub(super) fn pids(path: &Path) -> Vec<i32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills everything in the group at this path.
pub(super) fn kill(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.kill"), "1")
}

/// Removes the group at this path.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Which group this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// That of the supervisors, or it cannot be moved there.
    WithSupervisors,
    /// The agent's, until it is moved.
    WithAgent,
}

/// Moves this process to the other supervisors. The kernel may take milliseconds, in which nothing on the machine can
/// fork; so it is done when no start is waiting.
pub(super) fn join_supervisors() -> io::Result<()> {
    let left = pod_cgroup::leave();
    let path = folder()?.join("supervisors");
    fs::create_dir_all(&path)?;
    fs::write(path.join("cgroup.procs"), "0").and(left)
}

/// Removes groups of supervisors that were killed; those with processes stay.
pub(super) fn sweep() {
    for folder in folders() {
        // Harmless when it fails: an empty group costs little.
        let _ = sweep_in(&folder, |_| true);
    }
}

/// Removes the groups of these supervisors, which have ended, and drops those without a group from the set: processes
/// that a command left may have ended by now.
pub(super) fn sweep_ended(supervisors: &mut HashSet<u32>) {
    if supervisors.is_empty() {
        return;
    }
    let mut left = HashSet::new();
    for folder in folders() {
        left.extend(sweep_in(&folder, |pid| supervisors.contains(&pid)).unwrap_or_default());
    }
    *supervisors = left;
}

fn folders() -> impl Iterator<Item = PathBuf> {
    mount().map(|mount| mount.join(FOLDER)).into_iter().chain(cgroup_v1::folders())
}

/// Removes the empty groups of dead supervisors for which `wanted` holds; returns the supervisors whose groups stay.
fn sweep_in(folder: &Path, wanted: impl Fn(u32) -> bool) -> io::Result<Vec<u32>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((pid, start_time)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(pid) = pid.parse::<u32>() else { continue };
        let lives =
            process::stat(pid.cast_signed()).is_ok_and(|stat| stat.start_time.to_string() == start_time);
        // A group with processes belongs to an Attempt that recovery decides about, or they are kept.
        if wanted(pid) && !lives && remove(&entry.path()).is_err() {
            left.push(pid);
        }
    }
    Ok(left)
}

/// The folder of the groups of commands.
pub(super) fn folder() -> io::Result<PathBuf> {
    Ok(mount()?.join(FOLDER))
}

/// The mount of control groups v2: alone, or beside v1.
fn mount() -> io::Result<PathBuf> {
    let groups = pod_cgroup::groups();
    [groups.clone(), groups.join("unified")]
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists() && !path.join("tasks").exists())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "control groups v2 are not mounted"))
}
