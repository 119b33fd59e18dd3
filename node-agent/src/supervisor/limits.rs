//! Enforces the limits of a command by control groups: v2, and v1 for a controller that the machine has only there.
//!
//! With v2 it is the group that the command is created in anyway. With v1 each controller has a hierarchy of its own, and
//! the command joins a group there before exec. A limit is enforced or the command does not start.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sentinel_protocol::request::ResourceLimits;

use super::cgroup::{self, Cgroup};
use super::cgroup_v1;

/// Period of the CPU quota, microseconds; the kernel's default.
const PERIOD_US: u64 = 100_000;

/// A limit that this node cannot enforce.
#[derive(Debug, thiserror::Error)]
pub(super) enum LimitError {
    /// The controller is missing, or cannot be used.
    #[error(
        "{field} cannot be held on this node: its control groups have no {controller} controller for the agent{why}"
    )]
    NoController { field: &'static str, controller: &'static str, why: String },
    /// A group could not be created or configured.
    #[error("{field} cannot be held on this node: {file}: {source}", file = file.display())]
    Refused { field: &'static str, file: PathBuf, source: io::Error },
}

/// Processes that the kernel killed for the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfMemory {
    /// Peak usage, bytes, where the kernel reports it.
    pub(super) peak: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A group in which a limit is set.
#[derive(Debug)]
struct LimitGroup {
    field: &'static str,
    path: PathBuf,
    version: Version,
}

/// The groups that enforce a command's limits. Those created for it are removed when this is dropped.
#[derive(Debug, Default)]
pub(super) struct AppliedLimits {
    /// The name of the groups in hierarchies of v1.
    name: String,
    join_files: Vec<OwnedFd>,
    memory: Option<LimitGroup>,
    created: Vec<PathBuf>,
}

impl AppliedLimits {
    fn named(name: &str) -> Self {
        let mut limited = Self::default();
        name.clone_into(&mut limited.name);
        limited
    }

    /// Sets the limits. `cgroup` is the v2 group of the command, if it has one; `name` is that of its groups in hierarchies of v1.
    pub(super) fn new(
        limits: &ResourceLimits,
        cgroup: Option<&Cgroup>,
        name: &str,
    ) -> Result<Self, LimitError> {
        let mut limited = Self::named(name);
        if let Some(millis) = limits.cpu_millis {
            let group = limited.group("run.limits.cpu", "cpu", cgroup)?;
            group.set_cpu(u64::from(millis))?;
            limited.add_join_file(&group)?;
        }
        if let Some(bytes) = limits.memory {
            let group = limited.group("run.limits.memory", "memory", cgroup)?;
            group.set_memory(bytes)?;
            limited.add_join_file(&group)?;
            limited.memory = Some(group);
        }
        if let Some(count) = limits.pids {
            let group = limited.group("run.limits.pids", "pids", cgroup)?;
            group.set("pids.max", &count.to_string())?;
            limited.add_join_file(&group)?;
        }
        Ok(limited)
    }

    /// The limits that the command has, which its process has set.
    pub(super) fn entered(limits: &ResourceLimits, cgroup: Option<&Cgroup>, name: &str) -> Self {
        let mut limited = Self::named(name);
        let wanted = [
            ("run.limits.cpu", "cpu", limits.cpu_millis.is_some()),
            ("run.limits.memory", "memory", limits.memory.is_some()),
            ("run.limits.pids", "pids", limits.pids.is_some()),
        ];
        for (field, controller, _) in wanted.into_iter().filter(|(_, _, is_set)| *is_set) {
            // It exists, so that this changes nothing.
            let group = limited.group(field, controller, cgroup).ok();
            if controller == "memory" {
                limited.memory = group;
            }
        }
        limited
    }

    /// The files by which a process joins the groups.
    pub(super) fn join_files(&self) -> &[OwnedFd] {
        &self.join_files
    }

    /// Whether the kernel killed for the memory limit. A group is created for one command, so its counters are the command's.
    pub(super) fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.memory.as_ref()?.out_of_memory()
    }

    fn group(
        &mut self,
        field: &'static str,
        controller: &'static str,
        cgroup: Option<&Cgroup>,
    ) -> Result<LimitGroup, LimitError> {
        let why = match cgroup.map(|cgroup| (cgroup, cgroup.enable(controller))) {
            Some((cgroup, Ok(()))) => {
                return Ok(LimitGroup { field, path: cgroup.path().to_owned(), version: Version::V2 });
            }
            Some((_, Err(error))) if error.kind() != io::ErrorKind::NotFound => format!(" ({error})"),
            _ => String::new(),
        };
        let Some(folder) = cgroup_v1::folder(controller) else {
            return Err(LimitError::NoController { field, controller, why });
        };
        let refused = |file: &Path, source| LimitError::Refused { field, file: file.to_owned(), source };
        let path = folder.join(&self.name);
        fs::create_dir_all(&path).map_err(|error| refused(&path, error))?;
        // Two controllers can share a hierarchy, as cpu and cpuacct do.
        if !self.created.contains(&path) {
            self.created.push(path.clone());
        }
        Ok(LimitGroup { field, path, version: Version::V1 })
    }

    /// The v2 group too: a kernel without `CLONE_INTO_CGROUP` does not create the child in it.
    fn add_join_file(&mut self, group: &LimitGroup) -> Result<(), LimitError> {
        let file = group.path.join("cgroup.procs");
        match OpenOptions::new().write(true).open(&file) {
            Ok(procs) => self.join_files.push(procs.into()),
            Err(source) => return Err(LimitError::Refused { field: group.field, file, source }),
        }
        Ok(())
    }
}

impl Drop for AppliedLimits {
    fn drop(&mut self) {
        for path in &self.created {
            // With processes in it, it stays, and the agent removes it later.
            let _ = cgroup::remove(path);
        }
    }
}

impl LimitGroup {
    fn set(&self, file: &str, value: &str) -> Result<(), LimitError> {
        let file = self.path.join(file);
        fs::write(&file, value).map_err(|source| LimitError::Refused { field: self.field, file, source })
    }

    fn set_cpu(&self, millis: u64) -> Result<(), LimitError> {
        let quota = millis * PERIOD_US / 1000;
        match self.version {
            Version::V2 => self.set("cpu.max", &format!("{quota} {PERIOD_US}")),
            Version::V1 => {
                self.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.set("cpu.cfs_quota_us", &quota.to_string())
            }
        }
    }

    fn set_memory(&self, bytes: u64) -> Result<(), LimitError> {
        // Swap would only delay the end; where the kernel does not account for it, nothing can be set.
        match self.version {
            Version::V2 => {
                self.set("memory.max", &bytes.to_string())?;
                let _ = self.set("memory.swap.max", "0");
                // Kill the whole command; kernels before 4.19 kill one process.
                let _ = self.set("memory.oom.group", "1");
            }
            Version::V1 => {
                self.set("memory.limit_in_bytes", &bytes.to_string())?;
                let _ = self.set("memory.memsw.limit_in_bytes", &bytes.to_string());
            }
        }
        Ok(())
    }

    /// A process killed because the whole machine was out of memory was not killed for the limit, so with v2 both are
    /// read: whether the limit was hit, and whether a process was killed. With v1 hits are not counted once swap is
    /// limited too, so a kill is enough.
    fn out_of_memory(&self) -> Option<OutOfMemory> {
        let (killed, hit, peak) = match self.version {
            Version::V2 => {
                let events = self.read("memory.events");
                (count(&events, "oom_kill"), count(&events, "oom"), "memory.peak")
            }
            Version::V1 => {
                let killed = count(&self.read("memory.oom_control"), "oom_kill");
                (killed, killed, "memory.max_usage_in_bytes")
            }
        };
        let is_oom = killed.is_some_and(|n| n > 0) && hit.is_some_and(|n| n > 0);
        is_oom.then(|| OutOfMemory { peak: number(&self.read(peak)) })
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number after a name in a file of lines.
fn count(text: &str, key: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == key).and_then(|(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_counters_by_their_whole_name() {
        let events = "low 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\n";
        assert_eq!((count(events, "oom"), count(events, "oom_kill")), (Some(2), Some(1)));
        assert_eq!(count("", "oom"), None);
    }

    #[test]
    fn names_the_limit_without_a_controller() {
        let error = LimitError::NoController {
            field: "run.limits.memory",
            controller: "memory",
            why: " (Device or resource busy (os error 16))".to_owned(),
        };
        let expected = "run.limits.memory cannot be held on this node: its control groups have no memory controller \
            for the agent (Device or resource busy (os error 16))";
        assert_eq!(error.to_string(), expected);
    }
}
