//! The control group (v2) of a command.
//!
//! The command is born in it. The supervisor is never in it: supervisors sit together in `sentinel/supervisors`,
//! outside the agent's own group, so that what ends the agent does not end them.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::outside;
use crate::process;

/// A control group.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// Makes a group for the command of this supervisor.
    pub(super) fn new() -> io::Result<Self> {
        let me = std::process::id();
        let start_time = process::stat(me.cast_signed())?.start_time;
        let path = mount()?.join(format!("sentinel/{me}.{start_time}"));
        fs::create_dir_all(&path)?;
        let directory = File::open(&path)?.into();
        Ok(Self { path, directory })
    }

    /// Its directory, for a child to be born in.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
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

/// Processes in the group at this path, as a state record has it.
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

/// Moves this process to the other supervisors. It may take the kernel milliseconds, in which nothing on the machine
/// can fork; so it is done when there is time.
pub(super) fn join_supervisors() -> io::Result<()> {
    let left = outside::leave();
    let path = mount()?.join("sentinel/supervisors");
    fs::create_dir_all(&path)?;
    fs::write(path.join("cgroup.procs"), "0").and(left)
}

/// Removes groups of supervisors that were killed; those in which something lives stay.
pub(super) fn sweep() -> io::Result<()> {
    for entry in fs::read_dir(mount()?.join("sentinel"))? {
        let entry = entry?;
        let name = entry.file_name();
        let supervisor = name.to_str().and_then(|name| name.split_once('.'));
        let is_dead = supervisor.is_some_and(|(pid, start_time)| {
            let stat = pid.parse().map(process::stat);
            !matches!(stat, Ok(Ok(stat)) if stat.start_time.to_string() == start_time)
        });
        if is_dead {
            // Not empty: its command lives, and the recovery of its Attempt decides.
            let _ = remove(&entry.path());
        }
    }
    Ok(())
}

/// Where control groups v2 are mounted: alone, or beside v1.
fn mount() -> io::Result<PathBuf> {
    let groups = outside::groups();
    [groups.clone(), groups.join("unified")]
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists() && !path.join("tasks").exists())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "control groups v2 are not mounted"))
}
