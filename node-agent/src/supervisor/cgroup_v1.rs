//! The hierarchies of control groups v1, where a machine has controllers only there.

use std::fs;
use std::path::PathBuf;

use super::pod_cgroup::FOLDER;

/// The agent's folder in the hierarchy of a controller.
pub(super) fn folder(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mount_of(&mounts, controller).map(|mount| mount.join(FOLDER))
}

/// The agent's folders in all hierarchies in which groups are created.
pub(super) fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["cpu", "memory", "pids"].into_iter().filter_map(folder).collect();
    folders.dedup();
    folders
}

fn mount_of(mounts: &str, controller: &str) -> Option<PathBuf> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let has = kind == "cgroup" && options.split(',').any(|option| option == controller);
        has.then(|| PathBuf::from(path))
    };
    mounts.lines().find_map(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_controller_in_its_own_and_in_a_shared_hierarchy() {
        let mounts = "proc /proc proc rw,nosuid 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,memory 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n";
        let at = |controller| mount_of(mounts, controller).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(at("cpu").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(at("memory").as_deref(), Some("/sys/fs/cgroup/memory"));
        assert_eq!(at("pids"), None);
    }
}
