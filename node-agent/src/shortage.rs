//! What a node has run out of: from an error code and a path to the resource, its limit and how to raise it.
//!
//! `Resource temporarily unavailable` may be due to five limits and names none. Each is read here, and the one that is
//! reached is named.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfs;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sentinel_protocol::human::human_bytes;

use crate::journal::JournalError;

/// An error with its sources in one line, and the resource that the node has run out of, if that is the cause.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut path = None;
    let mut lack = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(JournalError::Io { path: at, .. } | JournalError::Unsafe { path: at, .. }) =
            error.downcast_ref::<JournalError>()
        {
            path = Some(at.clone());
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            lack = explain(error, path.as_deref()).or(lack);
        }
        next = error.source();
        if let Some(cause) = next {
            text = format!("{text}: {cause}");
        }
    }
    match lack {
        Some(lack) => format!("{text}: {lack}"),
        None => text,
    }
}

/// The same for a single system error.
pub(crate) fn describe_io(error: &io::Error) -> String {
    explain(error, None).map_or_else(|| error.to_string(), |lack| format!("{error}: {lack}"))
}

/// The resource, its limit, and how to raise it; `None` when the error is not about a resource. `at` is the file or
/// directory that was used.
pub fn explain(error: &io::Error, at: Option<&Path>) -> Option<String> {
    match Errno::from_raw_os_error(error.raw_os_error()?) {
        Errno::MFILE => Some(descriptors()),
        Errno::NFILE => Some(format!(
            "the machine has no file descriptor left (fs.file-max is {}); raise it with sysctl -w fs.file-max=N",
            sysctl("fs/file-max")
        )),
        Errno::AGAIN => Some(processes()),
        Errno::NOMEM => Some(memory()),
        Errno::NOSPC => at.map(disk),
        Errno::DQUOT => Some(format!(
            "the disk quota of uid {} {}is used up; raise it with setquota, or free space",
            rustix::process::geteuid().as_raw(),
            at.map(|at| format!("for {} ", at.display())).unwrap_or_default()
        )),
        Errno::FBIG => Some(
            "files may not grow further (ulimit -f, or a limit of the file system); raise it with ulimit -f unlimited"
                .to_owned(),
        ),
        _ => None,
    }
}

fn descriptors() -> String {
    let limit = number(getrlimit(Resource::Nofile).current);
    format!(
        "this process has no file descriptor left of its {limit} (ulimit -n); raise it with ulimit -n or LimitNOFILE= of the unit"
    )
}

/// The limit of processes that is reached; all of them, where none is found to be.
fn processes() -> String {
    if let Some(found) = full_pids_group() {
        return found;
    }
    let uid = rustix::process::getuid().as_raw();
    if let Some(limit) = getrlimit(Resource::Nproc).current
        && uid != 0
        && threads_of(uid) >= limit
    {
        return format!(
            "uid {uid} has as many processes and threads as it may, {limit} (ulimit -u); raise it with ulimit -u or LimitNPROC= of the unit"
        );
    }
    let threads = threads_of_machine();
    for (name, file) in [("kernel.threads-max", "kernel/threads-max"), ("kernel.pid_max", "kernel/pid_max")] {
        if let (Some(threads), Ok(limit)) = (threads, sysctl(file).parse::<u64>())
            && threads.saturating_mul(100) >= limit.saturating_mul(99)
        {
            return format!(
                "the machine has {threads} processes and threads, and {name} is {limit}; raise it with sysctl -w {name}=N"
            );
        }
    }
    format!(
        "no process can be created; one of these limits is reached: ulimit -u ({}), kernel.threads-max ({}), kernel.pid_max ({}), pids.max of a control group",
        number(getrlimit(Resource::Nproc).current),
        sysctl("kernel/threads-max"),
        sysctl("kernel/pid_max")
    )
}

/// The control group of this process, or a parent of it, that has reached its limit of processes.
fn full_pids_group() -> Option<String> {
    for group in groups("pids") {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        if let (Some(limit), Some(current)) = (read("pids.max"), read("pids.current"))
            && current >= limit
        {
            return Some(format!(
                "the control group {} has {current} processes and threads of {limit} (pids.max); raise TasksMax= of the unit, or podPidsLimit of the kubelet",
                group.display()
            ));
        }
    }
    None
}

fn memory() -> String {
    if let Some(limit) = getrlimit(Resource::As).current {
        return format!(
            "the address space limit of {} is reached (ulimit -v); raise it with ulimit -v unlimited",
            human_bytes(limit)
        );
    }
    for group in groups("memory") {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        if let (Some(limit), Some(current)) = (read("memory.max"), read("memory.current"))
            && current.saturating_mul(100) >= limit.saturating_mul(95)
        {
            return format!(
                "the control group {} uses {} of {} of memory (memory.max); raise MemoryMax= of the unit, or the pod's memory limit",
                group.display(),
                human_bytes(current),
                human_bytes(limit)
            );
        }
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.map_or_else(|| "an unknown amount".to_owned(), |kib| human_bytes(kib.saturating_mul(1024)))
    };
    format!(
        "the machine has {} of {} of memory available (vm.overcommit_memory is {}); free memory, or add some",
        field("MemAvailable"),
        field("MemTotal"),
        sysctl("vm/overcommit_memory")
    )
}

/// What the file system at this path has run out of. The path itself may not exist.
fn disk(at: &Path) -> String {
    let Some((mounted, stat)) = at.ancestors().find_map(|path| Some((path, rustix::fs::statvfs(path).ok()?)))
    else {
        return format!("the file system of {} is full; free space there", at.display());
    };
    let place = mounted.display();
    if lacks_inodes(&stat) {
        let left = match stat.f_favail {
            0 => "no inode".to_owned(),
            1 => "1 inode".to_owned(),
            more => format!("{more} inodes"),
        };
        return format!(
            "the file system of {place} has {left} left of {}; remove files there, or recreate it with more inodes",
            stat.f_files
        );
    }
    let bytes = |blocks: u64| human_bytes(blocks.saturating_mul(stat.f_frsize));
    format!(
        "the file system of {place} has {} free of {}; free space there, or make it larger",
        bytes(stat.f_bavail),
        bytes(stat.f_blocks)
    )
}

/// Whether a file system has run out of inodes rather than space.
pub(crate) fn is_out_of_inodes(at: &Path) -> bool {
    rustix::fs::statvfs(at).is_ok_and(|stat| lacks_inodes(&stat))
}

/// Inodes that an Attempt takes. What could not be created whole was removed again, so that some are left.
const INODES_OF_ATTEMPT: u64 = 16;

/// Space that an Attempt takes at least, bytes: with less, that is what it lacks.
const SPACE_OF_ATTEMPT: u64 = 1 << 20;

fn lacks_inodes(stat: &StatVfs) -> bool {
    let space = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = if space < SPACE_OF_ATTEMPT { 1 } else { INODES_OF_ATTEMPT };
    stat.f_files > 0 && stat.f_favail < needed
}

/// The control group of this process with this controller, and its parents, innermost first.
fn groups(controller: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let root = Path::new("/sys/fs/cgroup");
        let roots = if controllers.is_empty() {
            [root.to_owned(), root.join("unified")]
        } else if controllers.split(',').any(|name| name == controller) {
            [root.join(controllers), root.join(controller)]
        } else {
            continue;
        };
        for root in roots {
            let group = root.join(path.trim_start_matches('/'));
            found.extend(group.ancestors().take_while(|group| group.starts_with(&root)).map(Path::to_owned));
        }
    }
    found
}

fn threads_of(uid: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let mut threads = 0;
    for process in processes.flatten() {
        let is_theirs = process.metadata().is_ok_and(|metadata| metadata.uid() == uid);
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_theirs && is_process {
            threads += fs::read_dir(process.path().join("task")).map_or(1, |tasks| tasks.count() as u64);
        }
    }
    threads
}

fn threads_of_machine() -> Option<u64> {
    // "0.00 0.01 0.05 1/123 4567": 123 exist.
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys").join(name))
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// What many agents in one process, and their commands, need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Files that this process opens.
    pub descriptors: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Needs {
    /// The first resource that is insufficient, with its limit; `None` when all are sufficient, as far as is known.
    pub fn lacking(self) -> Option<String> {
        let Self { descriptors, processes, memory } = self;
        if let Ok(Some(left)) = crate::baseline::descriptors_left()
            && left < descriptors
        {
            return Some(format!(
                "about {descriptors} more file descriptors are needed, and this process may open {left} more of its {} (hard limit, ulimit -Hn)",
                number(getrlimit(Resource::Nofile).current)
            ));
        }
        let uid = rustix::process::getuid().as_raw();
        if let Some(limit) = getrlimit(Resource::Nproc).current.filter(|_| uid != 0) {
            let left = limit.saturating_sub(threads_of(uid));
            if left < processes {
                return Some(format!(
                    "about {processes} more processes and threads are needed, and uid {uid} may have {left} more of its {limit} (ulimit -u)"
                ));
            }
        }
        for group in groups("pids") {
            let read = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
            if let (Some(limit), Some(current)) = (read("pids.max"), read("pids.current"))
                && limit.saturating_sub(current) < processes
            {
                return Some(format!(
                    "about {processes} more processes and threads are needed, and the control group {} may have {} more of its {limit} (pids.max)",
                    group.display(),
                    limit.saturating_sub(current)
                ));
            }
        }
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let available =
            available.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        let available =
            available.map(|kib| kib.saturating_mul(1024)).filter(|available| *available < memory)?;
        Some(format!(
            "about {} of memory is needed, and the machine has {} available",
            human_bytes(memory),
            human_bytes(available)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn names_each_resource_with_its_limit_and_how_to_raise_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = &directory.path().join("no/such/file");
        let of_disk = format!("the file system of {} has", directory.path().display());
        for (code, words) in [
            (Errno::MFILE, &["file descriptor", "ulimit -n", "LimitNOFILE="][..]),
            (Errno::NFILE, &["fs.file-max is ", "sysctl -w"]),
            (Errno::AGAIN, &["process"]),
            (Errno::NOMEM, &["memory", "of"]),
            (Errno::NOSPC, &[of_disk.as_str(), "free of"]),
            (Errno::DQUOT, &["disk quota of uid", "setquota"]),
            (Errno::FBIG, &["ulimit -f"]),
        ] {
            let text = explain(&errno(code), Some(at)).unwrap();
            for word in words {
                assert!(text.contains(word), "{text:?} does not contain {word:?}");
            }
        }
        assert_eq!(explain(&errno(Errno::NOENT), Some(at)), None);
        assert_eq!(explain(&io::Error::other("no code"), None), None);
    }

    #[test]
    fn describes_a_journal_error_with_the_state_of_its_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (there, missing) = (directory.path().display(), directory.path().join("attempt/request"));
        let error = JournalError::io("create", &missing, Errno::NOSPC);
        let text = describe(&error);
        let expected = format!("failed to create {}: No space left on device", missing.display());
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.contains(&format!("the file system of {there} has")), "{text}");
    }

    #[test]
    fn names_the_limit_that_needs_exceed() {
        let enough = Needs { descriptors: 1, processes: 1, memory: 1 };
        assert_eq!(enough.lacking(), None);
        let memory = Needs { memory: u64::MAX, ..enough }.lacking().unwrap();
        assert!(memory.contains("memory is needed"), "{memory}");
        let descriptors = Needs { descriptors: u64::MAX, ..enough }.lacking().unwrap();
        assert!(descriptors.contains("file descriptors are needed"), "{descriptors}");
    }
}
