//! The control group (v2) of a command.
//!
//! Moving a process into a group can take the kernel tens of milliseconds. So a supervisor moves *itself* into the
//! group while it waits for its Attempt; the command is born in it; and the supervisor leaves it only to have it
//! killed, or at the end. Supervisors that left sit together in `sentinel/supervisors`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process;

/// A control group.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group and moves this process into it.
    pub(super) fn enter_new() -> io::Result<Self> {
        let me = std::process::id();
        let start_time = process::stat(me.cast_signed())?.start_time;
        let path = mount()?.join(format!("sentinel/{me}.{start_time}"));
        fs::create_dir_all(&path)?;
        let cgroup = Self { path };
        cgroup.take_in_this_process().inspect_err(|_| {
            let _ = fs::remove_dir(&cgroup.path);
        })?;
        Ok(cgroup)
    }

    /// The group noted in a state record.
    pub(super) fn at(path: &str) -> Self {
        Self { path: PathBuf::from(path) }
    }

    /// Its path, for the state record.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn take_in_this_process(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), "0")
    }

    /// Processes in it, this one left out.
    pub(super) fn pids(&self) -> Vec<i32> {
        let me = std::process::id().cast_signed();
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != me).collect()
    }

    /// Leaves it, if this process is in it.
    pub(super) fn leave(&self) -> io::Result<()> {
        let outside = Self { path: self.path.with_file_name("supervisors") };
        fs::create_dir_all(&outside.path)?;
        outside.take_in_this_process()
    }

    /// Kills everything in it, safe against processes that fork meanwhile. Leave it first.
    pub(super) fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Removes it; it must be empty.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Leaves and removes it.
    pub(super) fn leave_and_remove(&self) -> io::Result<()> {
        self.leave()?;
        self.remove()
    }
}

/// Where control groups v2 are mounted: alone, or beside v1.
fn mount() -> io::Result<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cgroup.procs").exists() && !path.join("tasks").exists())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "control groups v2 are not mounted"))
}
