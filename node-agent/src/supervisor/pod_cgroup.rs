//! Leaves the control groups of the agent's pod.
//!
//! When a pod ends, the container runtime and the kubelet end every process in its groups, whichever namespace it is
//! in. A command that has to outlive the agent's pod must therefore be in none of them. With v2 it is created in a group of
//! its own; in the hierarchies of v1 it inherits its supervisor's, so the supervisor leaves those first.
//!
//! A pod sees at best its own part of the hierarchies. Where it sees the node's process 1 (`hostPID`), the whole is found
//! through that process. Outside a pod nothing has to be left: an init system does not end a service this way.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mount of control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The same, as process 1 of the node sees it.
const NODES_GROUPS: &str = "/proc/1/root/sys/fs/cgroup";

/// The agent's folder in a hierarchy.
pub(super) const FOLDER: &str = "sentinel";

/// The group of supervisors, below a hierarchy's root.
const SUPERVISORS: [&str; 2] = [FOLDER, "supervisors"];

/// The mount of the node's control groups.
pub(super) fn groups() -> PathBuf {
    PathBuf::from(if is_in_pod() { NODES_GROUPS } else { GROUPS })
}

/// Whether a command would inherit the pod's groups from its supervisor.
pub(super) fn is_inherited() -> bool {
    is_in_pod() && !hierarchies(Path::new(NODES_GROUPS)).is_empty()
}

/// Moves this process out of the pod's groups of v1, if it has any.
///
/// # Errors
/// The first failure in a hierarchy; the others are left all the same.
pub(super) fn leave() -> io::Result<()> {
    if !is_in_pod() {
        return Ok(());
    }
    leave_to(&hierarchies(Path::new(NODES_GROUPS)))
}

/// Creates the groups of v1 into which [`leave`] moves, without moving.
///
/// # Errors
/// The first failure in a hierarchy.
pub(super) fn create_groups() -> io::Result<()> {
    hierarchies(Path::new(NODES_GROUPS)).iter().try_for_each(|hierarchy| group(hierarchy).map(drop))
}

fn leave_to(hierarchies: &[PathBuf]) -> io::Result<()> {
    let mut done = Ok(());
    for hierarchy in hierarchies {
        let joined = join(hierarchy)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", hierarchy.display())));
        done = done.and(joined);
    }
    done
}

/// The roots of the hierarchies of v1, each once.
fn hierarchies(groups: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(groups) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("tasks").exists() && path.join("cgroup.procs").exists())
        // `cpu` and `cpu,cpuacct` may be one.
        .filter_map(|path| Some((fs::metadata(&path).ok()?.dev(), path)))
        .collect();
    found.sort();
    found.dedup_by_key(|(device, _)| *device);
    found.into_iter().map(|(_, path)| path).collect()
}

fn join(hierarchy: &Path) -> io::Result<()> {
    fs::write(group(hierarchy)?.join("cgroup.procs"), "0")
}

/// The group of supervisors in a hierarchy, created where it is missing.
fn group(hierarchy: &Path) -> io::Result<PathBuf> {
    let mut path = hierarchy.to_owned();
    for name in SUPERVISORS {
        let above = path.clone();
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A new group of this controller has no processor and no memory node, and accepts no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(&above, &path, file)?;
        }
    }
    Ok(path)
}

fn inherit(above: &Path, group: &Path, file: &str) -> io::Result<()> {
    match fs::read_to_string(group.join(file)) {
        Ok(own) if own.trim().is_empty() => {
            fs::write(group.join(file), fs::read_to_string(above.join(file))?)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether this process is in a container that sees the node's process 1: that one has another mount namespace.
pub(super) fn is_in_pod() -> bool {
    let mounts = |process: &str| {
        let namespace = fs::metadata(format!("/proc/{process}/ns/mnt")).ok()?;
        Some((namespace.dev(), namespace.ino()))
    };
    matches!((mounts("1"), mounts("self")), (Some(node), Some(ours)) if node != ours)
        && Path::new(NODES_GROUPS).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_group_inherits_the_processors_of_its_parent() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = root.path().join("cpuset");
        let group = hierarchy.join("sentinel/supervisors");
        fs::create_dir_all(&group).unwrap();
        for (directory, cpus) in [(&hierarchy, "0-1\n"), (&hierarchy.join("sentinel"), "\n"), (&group, "\n")]
        {
            fs::write(directory.join("cpuset.cpus"), cpus).unwrap();
            fs::write(directory.join("cpuset.mems"), "0\n").unwrap();
            fs::write(directory.join("cgroup.procs"), "").unwrap();
            fs::write(directory.join("tasks"), "").unwrap();
        }
        assert_eq!(hierarchies(root.path()), std::slice::from_ref(&hierarchy));
        leave_to(std::slice::from_ref(&hierarchy)).unwrap();
        assert_eq!(fs::read_to_string(group.join("cpuset.cpus")).unwrap(), "0-1\n");
        assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), "0");
    }

    #[test]
    fn leaves_the_other_hierarchies_when_one_fails() {
        let root = tempfile::tempdir().unwrap();
        let (good, bad) = (root.path().join("good"), root.path().join("bad"));
        fs::create_dir_all(good.join("sentinel/supervisors")).unwrap();
        let error = leave_to(&[bad, good.clone()]).unwrap_err();
        assert!(error.to_string().contains("bad"), "{error}");
        assert_eq!(fs::read_to_string(good.join("sentinel/supervisors/cgroup.procs")).unwrap(), "0");
    }
}
