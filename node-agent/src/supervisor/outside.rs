//! Out of the control groups of the agent's pod.
//!
//! When a pod ends, the container runtime and the kubelet end every process in its groups, whichever namespace it is
//! in. A command that is to outlive the agent's pod must therefore be in none of them. With v2 it is born in a group of
//! its own; in the hierarchies of v1 it inherits its supervisor's, so the supervisor leaves those before it starts it.
//!
//! A pod sees its own part of the hierarchies at best. Where it sees the node's process 1 (`hostPID`), the whole is
//! found by way of that process. Elsewhere nothing is left: a service of the node's init system is not ended so.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// The same as the node's process 1 has it.
const NODES_GROUPS: &str = "/proc/1/root/sys/fs/cgroup";

/// The group of supervisors, below a hierarchy's root.
const SUPERVISORS: [&str; 2] = ["sentinel", "supervisors"];

/// Where the node's control groups are.
pub(super) fn groups() -> PathBuf {
    PathBuf::from(if is_in_pod() { NODES_GROUPS } else { GROUPS })
}

/// Whether a command would inherit groups of the pod from its supervisor.
pub(super) fn is_inherited() -> bool {
    is_in_pod() && !hierarchies(Path::new(NODES_GROUPS)).is_empty()
}

/// Moves this process out of the pod's groups of v1, if there are any.
///
/// # Errors
/// What stood in the way in one of the hierarchies; the others are left all the same.
pub(super) fn leave() -> io::Result<()> {
    if !is_in_pod() {
        return Ok(());
    }
    leave_to(&hierarchies(Path::new(NODES_GROUPS)))
}

/// Makes the groups of v1 into which [`leave`] moves, and moves nobody.
///
/// # Errors
/// What stood in the way in one of the hierarchies.
pub(super) fn make_groups() -> io::Result<()> {
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

/// The group of supervisors in a hierarchy, made if it is not there.
fn group(hierarchy: &Path) -> io::Result<PathBuf> {
    let mut path = hierarchy.to_owned();
    for name in SUPERVISORS {
        let above = path.clone();
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A new group of this controller has no processor and no memory, and takes nobody.
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

/// Whether the node's process 1 is seen from a container: it has other mounts than ours.
pub(super) fn is_in_pod() -> bool {
    let mounts = |process: &str| {
        let place = fs::metadata(format!("/proc/{process}/ns/mnt")).ok()?;
        Some((place.dev(), place.ino()))
    };
    matches!((mounts("1"), mounts("self")), (Some(node), Some(ours)) if node != ours)
        && Path::new(NODES_GROUPS).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_group_gets_the_processors_of_the_one_above() {
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
    fn one_hierarchy_that_cannot_be_left_does_not_keep_us_in_the_others() {
        let root = tempfile::tempdir().unwrap();
        let (good, bad) = (root.path().join("good"), root.path().join("bad"));
        fs::create_dir_all(good.join("sentinel/supervisors")).unwrap();
        let error = leave_to(&[bad, good.clone()]).unwrap_err();
        assert!(error.to_string().contains("bad"), "{error}");
        assert_eq!(fs::read_to_string(good.join("sentinel/supervisors/cgroup.procs")).unwrap(), "0");
    }
}
