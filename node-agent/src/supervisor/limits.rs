//! The limits of a command, held by control groups: v2, and v1 for a controller that the machine has only there.
//!
//! With v2 the group is the one that the command is born in anyway. With v1 each controller has a tree of its own,
//! and the command moves to a group there before it becomes its program. A limit is held or the command does not
//! start; nothing is tried halfway.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sentinel_protocol::request::ResourceLimits;

use super::cgroup::{self, Cgroup, SUPERVISED};

/// Length of the span in which CPU time is counted out, microseconds; the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// A limit that this node cannot hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum LimitError {
    /// The controller is nowhere, or not for us.
    #[error(
        "{field} cannot be held on this node: its control groups have no {controller} controller for the agent{why}"
    )]
    NoController { field: &'static str, controller: &'static str, why: String },
    /// A group could not be made or set.
    #[error("{field} cannot be held on this node: {file}: {source}", file = file.display())]
    Refused { field: &'static str, file: PathBuf, source: io::Error },
}

/// Processes that the kernel killed for the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfMemory {
    /// The most that was used at once, bytes, where the kernel tells.
    pub(super) peak: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A group in which a limit is set.
#[derive(Debug)]
struct Place {
    field: &'static str,
    path: PathBuf,
    version: Version,
}

/// The groups that hold a command to its limits. Those that were made for it go with this.
#[derive(Debug, Default)]
pub(super) struct Limited {
    joins: Vec<OwnedFd>,
    memory: Option<Place>,
    made: Vec<PathBuf>,
}

impl Limited {
    /// Sets the limits. `cgroup` is the v2 group of the command, if it has one.
    pub(super) fn new(limits: &ResourceLimits, cgroup: Option<&Cgroup>) -> Result<Self, LimitError> {
        let mut limited = Self::default();
        if let Some(millis) = limits.cpu_millis {
            let place = limited.place("run.limits.cpu", "cpu", cgroup)?;
            place.set_cpu(u64::from(millis))?;
            limited.join(&place)?;
        }
        if let Some(bytes) = limits.memory {
            let place = limited.place("run.limits.memory", "memory", cgroup)?;
            place.set_memory(bytes)?;
            limited.join(&place)?;
            limited.memory = Some(place);
        }
        if let Some(count) = limits.pids {
            let place = limited.place("run.limits.pids", "pids", cgroup)?;
            place.set("pids.max", &count.to_string())?;
            limited.join(&place)?;
        }
        Ok(limited)
    }

    /// The files by which a process moves itself into the groups.
    pub(super) fn joins(&self) -> &[OwnedFd] {
        &self.joins
    }

    /// Whether the kernel killed for the memory limit. Groups are made for one command, so all that they count is its.
    pub(super) fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.memory.as_ref()?.out_of_memory()
    }

    fn place(
        &mut self,
        field: &'static str,
        controller: &'static str,
        cgroup: Option<&Cgroup>,
    ) -> Result<Place, LimitError> {
        let why = match cgroup.map(|cgroup| (cgroup, cgroup.enable(controller))) {
            Some((cgroup, Ok(()))) => {
                return Ok(Place { field, path: cgroup.path().to_owned(), version: Version::V2 });
            }
            Some((_, Err(error))) if error.kind() != io::ErrorKind::NotFound => format!(" ({error})"),
            _ => String::new(),
        };
        let Some(tree) = v1_tree(controller) else {
            return Err(LimitError::NoController { field, controller, why });
        };
        let refused = |file: &Path, source| LimitError::Refused { field, file: file.to_owned(), source };
        let name = cgroup::name_of_ours().map_err(|error| refused(Path::new("/proc/self/stat"), error))?;
        let path = tree.join(name);
        fs::create_dir_all(&path).map_err(|error| refused(&path, error))?;
        // Two controllers can share a tree, as cpu and cpuacct do.
        if !self.made.contains(&path) {
            self.made.push(path.clone());
        }
        Ok(Place { field, path, version: Version::V1 })
    }

    /// Also into the v2 group: where the kernel cannot have a child born in it, it would be outside.
    fn join(&mut self, place: &Place) -> Result<(), LimitError> {
        let file = place.path.join("cgroup.procs");
        match OpenOptions::new().write(true).open(&file) {
            Ok(procs) => self.joins.push(procs.into()),
            Err(source) => return Err(LimitError::Refused { field: place.field, file, source }),
        }
        Ok(())
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        for path in &self.made {
            // Not empty when the tree would not die; swept up later.
            let _ = cgroup::remove(path);
        }
    }
}

impl Place {
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
        // Swap would only put the end off; where a kernel does not count it, there is nothing to be set.
        match self.version {
            Version::V2 => {
                self.set("memory.max", &bytes.to_string())?;
                let _ = self.set("memory.swap.max", "0");
                // All of the command or none of it; kernels before 4.19 kill one process.
                let _ = self.set("memory.oom.group", "1");
            }
            Version::V1 => {
                self.set("memory.limit_in_bytes", &bytes.to_string())?;
                let _ = self.set("memory.memsw.limit_in_bytes", &bytes.to_string());
            }
        }
        Ok(())
    }

    /// A process killed because the whole machine was out of memory was not killed for the limit, so v2 is asked for
    /// both: whether the limit was hit, and whether somebody was killed. With v1 the hits are not counted once swap is
    /// limited too, and a kill has to do.
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
        let happened = killed.is_some_and(|n| n > 0) && hit.is_some_and(|n| n > 0);
        happened.then(|| OutOfMemory { peak: number(&self.read(peak)) })
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind a word in a file of lines.
fn count(text: &str, word: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == word).and_then(|(_, value)| number(value))
}

/// Our folder in the v1 tree of a controller.
fn v1_tree(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    v1_mount(&mounts, controller).map(|mount| mount.join(SUPERVISED))
}

fn v1_mount(mounts: &str, controller: &str) -> Option<PathBuf> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let has = kind == "cgroup" && options.split(',').any(|option| option == controller);
        has.then(|| PathBuf::from(path))
    };
    mounts.lines().find_map(mount)
}

/// Our folders in all v1 trees in which groups are made.
pub(super) fn v1_trees() -> Vec<PathBuf> {
    let mut trees: Vec<PathBuf> = ["cpu", "memory", "pids"].into_iter().filter_map(v1_tree).collect();
    trees.dedup();
    trees
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_found_in_its_own_tree_and_in_a_shared_one() {
        let mounts = "proc /proc proc rw,nosuid 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,memory 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n";
        let at = |controller| v1_mount(mounts, controller).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(at("cpu").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(at("memory").as_deref(), Some("/sys/fs/cgroup/memory"));
        assert_eq!(at("pids"), None);
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let events = "low 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\n";
        assert_eq!((count(events, "oom"), count(events, "oom_kill")), (Some(2), Some(1)));
        assert_eq!(count("", "oom"), None);
    }

    #[test]
    fn a_limit_without_a_controller_is_named() {
        let error = LimitError::NoController {
            field: "run.limits.memory",
            controller: "memory",
            why: " (Device or resource busy (os error 16))".to_owned(),
        };
        let words = "run.limits.memory cannot be held on this node: its control groups have no memory controller \
            for the agent (Device or resource busy (os error 16))";
        assert_eq!(error.to_string(), words);
    }
}
