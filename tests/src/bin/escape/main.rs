//! A command that does its worst: each trial tries to get at what its sandbox keeps from it, and prints whether it did.
//!
//! ```text
//! escape token=FILE state=DIR socket=FILE setuid=FILE scratch=DIR [volumes=FILE:FILE]
//! no  read-token: Permission denied (os error 13)
//! yes mount: ok
//! ```
//!
//! Every trial is a process of its own, and changes nothing that it does not put back, so that it is harmless without a sandbox too. It
//! needs only the standard library, so that `rustc` alone makes a static program of it for machines and images that have nothing else.

#![allow(unsafe_code, reason = "system calls that no library makes")]

mod calls;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use calls::*;

/// How a trial ended: what it got, or what has stopped it.
type Trial = io::Result<String>;

/// A trial with its name.
type Named = (&'static str, fn(&Place) -> Trial);

/// Where everything is.
struct Place(BTreeMap<String, String>);

impl Place {
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        self.0.get(name).map(PathBuf::from).ok_or_else(|| io::Error::other("not given"))
    }

    fn scratch(&self) -> PathBuf {
        self.path("scratch").unwrap_or_else(|_| "/tmp".into())
    }
}

/// The processes of Sentinel Node that can be seen: agents, fork servers, supervisors.
fn ours(place: &Place) -> Vec<i32> {
    let mut ours: Vec<i32> =
        place.path("parent").ok().and_then(|pid| pid.to_str()?.parse().ok()).into_iter().collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if ["node-agent", "fork-server", "supervisor"].contains(&name.trim()) {
            ours.push(pid);
        }
    }
    ours
}

/// The first of our processes for which it works; otherwise why it did not for the last.
fn any_of_ours(place: &Place, trial: impl Fn(i32) -> Trial) -> Trial {
    let mut last = io::Error::other("none is seen");
    // Process 1 too: on the host it is the node's.
    for pid in ours(place).into_iter().chain([1]) {
        match trial(pid) {
            Ok(done) => return Ok(format!("of process {pid}: {done}")),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn in_proc(pid: i32, entry: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{entry}"))
}

fn read(path: &Path) -> Trial {
    let mut bytes = [0; 256];
    let read = File::open(path)?.read(&mut bytes)?;
    if read == 0 { Err(io::Error::other("it is empty")) } else { got(&format!("{read} bytes")) }
}

fn list(path: &Path) -> Trial {
    let names: Vec<_> = fs::read_dir(path)?.flatten().collect();
    if names.is_empty() {
        Err(io::Error::other("it is empty"))
    } else {
        got(&format!("{} entries", names.len()))
    }
}

fn opens_to_write(path: &Path) -> Trial {
    OpenOptions::new().write(true).open(path).and_then(|_| got("opened"))
}

/// The agent's files, by their paths and through its processes.
const FILES: &[Named] = &[
    ("read-token", |place| read(&place.path("token")?)),
    // Where the kubelet keeps it, on the node: of each node, separated by colons.
    ("read-volume", |place| {
        let volumes = place.path("volumes")?;
        let read = volumes.to_str().unwrap_or_default().split(':').map(|volume| read(Path::new(volume)));
        read.reduce(Result::or).unwrap_or_else(|| Err(io::Error::other("not given")))
    }),
    ("list-state", |place| list(&place.path("state")?)),
    ("write-state", |place| {
        let file = place.path("state")?.join("escaped");
        File::create(&file)?.write_all(b"x")?;
        fs::remove_file(file).and_then(|()| got("written"))
    }),
    ("connect-socket", |place| UnixStream::connect(place.path("socket")?).and_then(|_| got("connected"))),
    ("bind-socket", |place| {
        let socket = place.path("socket")?.with_extension("escaped");
        UnixListener::bind(&socket)?;
        fs::remove_file(socket).and_then(|()| got("bound"))
    }),
    ("token-by-root", |place| {
        let token = place.path("token")?;
        any_of_ours(place, |pid| read(&in_proc(pid, "root").join(token.strip_prefix("/").unwrap_or(&token))))
    }),
    ("root", |place| any_of_ours(place, |pid| list(&in_proc(pid, "root")))),
    ("cwd", |place| any_of_ours(place, |pid| list(&in_proc(pid, "cwd")))),
    ("descriptors", |place| {
        any_of_ours(place, |pid| {
            let mut open =
                fs::read_dir(in_proc(pid, "fd"))?.flatten().map(|entry| fs::read_link(entry.path()));
            open.next()
                .unwrap_or_else(|| Err(io::Error::other("none")))
                .map(|target| target.display().to_string())
        })
    }),
    ("environment", |place| {
        any_of_ours(place, |pid| {
            File::open(in_proc(pid, "environ"))?.read(&mut [0]).and_then(|_| got("read"))
        })
    }),
    ("memory", |place| any_of_ours(place, |pid| File::open(in_proc(pid, "mem")).and_then(|_| got("opened")))),
    ("memory-map", |place| any_of_ours(place, |pid| read(&in_proc(pid, "maps")))),
    ("program", |place| any_of_ours(place, |pid| opens_to_write(&in_proc(pid, "exe")))),
    ("inherited", |_| {
        let others: Vec<_> = fs::read_dir("/proc/self/fd")?
            .flatten()
            .filter_map(|entry| {
                Some((entry.file_name().to_str()?.parse::<i32>().ok()?, fs::read_link(entry.path()).ok()?))
            })
            .filter(|(number, target)| *number > 2 && !target.starts_with("/proc"))
            .collect();
        if others.is_empty() { Err(io::Error::other("none")) } else { got(&format!("{others:?}")) }
    }),
];

/// Other processes.
const PROCESSES: &[Named] = &[
    // PTRACE_SEIZE does not stop it, and ends with this process.
    ("ptrace", |place| {
        any_of_ours(place, |pid| {
            call(number::PTRACE, [0x4206, pid.into(), 0, 0, 0]).and_then(|_| got("attached"))
        })
    }),
    ("ptrace-self", |_| call(number::PTRACE, [0, 0, 0, 0, 0]).and_then(|_| got("may be traced"))),
    ("process-vm", |place| {
        any_of_ours(place, |pid| reaches(number::PROCESS_VM_READV, [pid.into(), 0, 0, 0, 0]))
    }),
    ("pidfd-getfd", |place| {
        any_of_ours(place, |pid| {
            let pidfd = call(PIDFD_OPEN, [pid.into(), 0, 0, 0, 0])?;
            call(PIDFD_GETFD, [pidfd, 0, 0, 0, 0]).and_then(|_| got("taken"))
        })
    }),
    ("signal", |place| {
        any_of_ours(place, |pid| call(number::KILL, [pid.into(), 0, 0, 0, 0]).and_then(|_| got("allowed")))
    }),
    ("fork-bomb", fork_bomb),
];

/// Ends after 4,200 processes; more than a restricted command may have. Without a sandbox it is not tried.
fn fork_bomb(place: &Place) -> Trial {
    if place.path("bomb").is_err() {
        return Err(io::Error::other("not tried"));
    }
    let mut children = Vec::new();
    let mut ended = Ok("4200 processes".to_owned());
    for _ in 0..4200 {
        // SIGCHLD, and nothing else: a fork.
        match call(number::CLONE, [17, 0, 0, 0, 0]) {
            Ok(0) => loop {
                std::thread::park();
            },
            Ok(pid) => children.push(pid),
            Err(error) => {
                ended = Err(io::Error::other(format!("after {}: {error}", children.len())));
                break;
            }
        }
    }
    for pid in children {
        let _ = call(number::KILL, [pid, 9, 0, 0, 0]);
    }
    ended
}

/// Rights that this process gives itself.
const RIGHTS: &[Named] = &[
    ("capabilities", |_| {
        let status = fs::read_to_string("/proc/self/status")?;
        let held = |name| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        let sets = [held("CapPrm:"), held("CapInh:"), held("CapAmb:")];
        if sets.iter().all(|set| set.bytes().all(|digit| digit == b'0')) {
            return Err(io::Error::other("none"));
        }
        got(&format!("permitted, inheritable, ambient: {sets:?}"))
    }),
    // Those beyond a container's: all but the bits of 0xa80425fb.
    ("more-capabilities", |_| {
        let status = fs::read_to_string("/proc/self/status")?;
        let mut beyond = Vec::new();
        for line in status.lines().filter(|line| line.starts_with("CapPrm:") || line.starts_with("CapBnd:")) {
            let set = u64::from_str_radix(line[7..].trim(), 16).map_err(io::Error::other)?;
            if set & !0xa804_25fb != 0 {
                beyond.push(line.to_owned());
            }
        }
        if beyond.is_empty() { Err(io::Error::other("none")) } else { got(&format!("{beyond:?}")) }
    }),
    ("capset", |_| {
        let header = [0x2008_0522_u32, 0];
        // Effective, permitted, inheritable; twice: CAP_SYS_ADMIN.
        let sets = [1_u32 << 21, 1 << 21, 0, 0, 0, 0];
        call(number::CAPSET, [header.as_ptr() as i64, sets.as_ptr() as i64, 0, 0, 0])
            .and_then(|_| got("taken"))
    }),
    ("secure-bits", |_| call(number::PRCTL, [28, 0, 0, 0, 0]).and_then(|_| got("cleared"))),
    ("new-privileges", |_| {
        let status = fs::read_to_string("/proc/self/status")?;
        if status.contains("NoNewPrivs:\t1") { Err(io::Error::other("forbidden")) } else { got("possible") }
    }),
    ("setuid", |_| {
        call(number::SETRESUID, [0, 0, 0, 0, 0])?;
        if fs::metadata("/proc/self")?.uid() == 0 {
            got("uid 0")
        } else {
            Err(io::Error::other("still another"))
        }
    }),
    ("setgid", |_| call(number::SETRESGID, [0, 0, 0, 0, 0]).and_then(|_| got("gid 0"))),
    ("setgroups", |_| {
        call(number::SETGROUPS, [1, [0_u32].as_ptr() as i64, 0, 0, 0]).and_then(|_| got("group 0"))
    }),
    ("setuid-program", |place| {
        let output = Command::new(place.path("setuid")?).arg("whoami").output()?;
        let uid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if uid == "0" { got("it runs as root") } else { Err(io::Error::other(format!("it runs as {uid}"))) }
    }),
    ("core-file", |_| {
        let unlimited = [u64::MAX; 2];
        call(number::PRLIMIT, [0, 4, unlimited.as_ptr() as i64, 0, 0]).and_then(|_| got("unlimited"))
    }),
];

/// Mounts and namespaces.
const MOUNTS: &[Named] = &[
    ("mount", |place| {
        let target =
            CString::new(place.scratch().to_string_lossy().into_owned()).map_err(io::Error::other)?;
        let tmpfs = address(c"tmpfs");
        call(number::MOUNT, [tmpfs, address(&target), tmpfs, 0, 0])?;
        call(number::UMOUNT, [address(&target), 2, 0, 0, 0]).and_then(|_| got("mounted"))
    }),
    // MNT_EXPIRE: what is in use stays, and the first call only marks what is not.
    ("unhide", |place| {
        let state =
            CString::new(place.path("state")?.to_string_lossy().into_owned()).map_err(io::Error::other)?;
        reaches(number::UMOUNT, [address(&state), 4, 0, 0, 0])
    }),
    ("pivot-root", |_| reaches(number::PIVOT_ROOT, [address(c"/"), address(c"/"), 0, 0, 0])),
    ("open-tree", |_| call(OPEN_TREE, [-100, address(c"/"), 1, 0, 0]).and_then(|_| got("cloned"))),
    ("fsopen", |_| call(FSOPEN, [address(c"tmpfs"), 0, 0, 0, 0]).and_then(|_| got("opened"))),
    ("mount-setattr", |_| {
        reaches(MOUNT_SETATTR, [-100, address(c"/nowhere"), 0, [0_u64; 4].as_ptr() as i64, 32])
    }),
    ("chroot", |_| call(number::CHROOT, [address(c"/"), 0, 0, 0, 0]).and_then(|_| got("changed"))),
    ("user-namespace", |_| call(number::UNSHARE, [0x1000_0000, 0, 0, 0, 0]).and_then(|_| got("made"))),
    ("mount-namespace", |_| call(number::UNSHARE, [0x2_0000, 0, 0, 0, 0]).and_then(|_| got("made"))),
    ("clone-user-namespace", |_| match call(number::CLONE, [0x1000_0000 | 17, 0, 0, 0, 0])? {
        0 => std::process::exit(0),
        _ => got("made"),
    }),
    ("clone3-user-namespace", |_| {
        let mut arguments = [0_u64; 8];
        (arguments[0], arguments[4]) = (0x1000_0000, 17);
        match call(CLONE3, [arguments.as_ptr() as i64, 64, 0, 0, 0])? {
            0 => std::process::exit(0),
            _ => got("made"),
        }
    }),
    ("enter-namespace", |_| {
        let namespace = File::open("/proc/self/ns/uts")?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&namespace);
        call(number::SETNS, [number.into(), 0, 0, 0, 0]).and_then(|_| got("entered"))
    }),
    ("file-by-handle", |_| {
        reaches(number::OPEN_BY_HANDLE, [-100, [8_u32, 1, 0, 0].as_ptr() as i64, 0, 0, 0])
    }),
];

/// The kernel, and the node.
const NODE: &[Named] = &[
    ("keyring", |_| call(number::KEYCTL, [0, -3, 1, 0, 0]).and_then(|_| got("joined"))),
    ("add-key", |_| {
        call(number::ADD_KEY, [address(c"user"), address(c"escape"), address(c"x"), 1, -2])
            .and_then(|_| got("added"))
    }),
    ("bpf", |_| reaches(number::BPF, [0, 0, 0, 0, 0])),
    ("perf", |_| reaches(number::PERF, [0, 0, -1, -1, 0])),
    ("userfaultfd", |_| call(number::USERFAULTFD, [1, 0, 0, 0, 0]).and_then(|_| got("opened"))),
    ("io-uring", |_| reaches(IO_URING_SETUP, [1, 0, 0, 0, 0])),
    ("kexec", |_| reaches(number::KEXEC, [0, 0, 0, -1, 0])),
    ("load-module", |_| reaches(number::INIT_MODULE, [0, 0, address(c""), 0, 0])),
    ("unload-module", |_| reaches(number::DELETE_MODULE, [address(c"no_such_module"), 0, 0, 0, 0])),
    // Without its magic numbers.
    ("reboot", |_| reaches(number::REBOOT, [0, 0, 0, 0, 0])),
    ("swapoff", |_| reaches(number::SWAPOFF, [address(c"/nowhere"), 0, 0, 0, 0])),
    ("set-time", |_| reaches(number::SETTIMEOFDAY, [0, [0_i32, 0].as_ptr() as i64, 0, 0, 0])),
    ("set-hostname", |_| reaches(number::SETHOSTNAME, [0, -1, 0, 0, 0])),
    ("kernel-log", |_| reaches(number::SYSLOG, [10, 0, 0, 0, 0])),
    ("fanotify", |_| call(number::FANOTIFY, [0, 0, 0, 0, 0]).and_then(|_| got("opened"))),
    ("quota", |_| reaches(number::QUOTACTL, [0x80_0002 << 8, 0, 0, 0, 0])),
    ("accounting", |_| reaches(number::ACCT, [address(c"/nowhere"), 0, 0, 0, 0])),
    #[cfg(target_arch = "x86_64")]
    ("ports", |_| call(172, [3, 0, 0, 0, 0]).and_then(|_| got("open"))),
    #[cfg(target_arch = "x86_64")]
    ("keyring-of-i386", |_| i386(288, 0, -3, 1)),
    #[cfg(target_arch = "x86_64")]
    ("keyring-of-x32", |_| reaches(0x4000_0000 | number::KEYCTL, [0, -3, 1, 0, 0])),
    ("core-pattern", |_| opens_to_write(Path::new("/proc/sys/kernel/core_pattern"))),
    ("sysrq", |_| opens_to_write(Path::new("/proc/sysrq-trigger"))),
    ("sys", |_| opens_to_write(Path::new("/sys/kernel/mm/transparent_hugepage/enabled"))),
    ("kernel-memory", |_| read(Path::new("/proc/kcore"))),
    ("leave-cgroup", leave_cgroup),
    ("new-cgroup", |_| {
        cgroups()
            .into_iter()
            .find_map(|group| {
                let made = group.join("escaped");
                fs::create_dir(&made).ok()?;
                let _ = fs::remove_dir(&made);
                Some(group.display().to_string())
            })
            .ok_or_else(|| io::Error::other("refused in all"))
    }),
    ("shadow", |_| read(Path::new("/etc/shadow"))),
    ("write-etc", |_| {
        let file = Path::new("/etc/sentinel-escaped");
        File::create(file)?;
        fs::remove_file(file).and_then(|()| got("written"))
    }),
    ("disk", disk),
];

/// The control groups that this process is in, by their mounts.
fn cgroups() -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let folders = match controllers {
            "" => vec!["/sys/fs/cgroup".to_owned(), "/sys/fs/cgroup/unified".to_owned()],
            controllers => vec![format!("/sys/fs/cgroup/{}", controllers.trim_start_matches("name="))],
        };
        found.extend(
            folders
                .iter()
                .map(|folder| PathBuf::from(format!("{folder}{path}")))
                .filter(|path| path.is_dir()),
        );
    }
    found
}

/// Into the group above: it stays in its hierarchy, and leaves its limits.
fn leave_cgroup(_: &Place) -> Trial {
    let mut last = io::Error::other("none is seen");
    for group in cgroups() {
        match opens_to_write(&group.join("../cgroup.procs")) {
            Ok(_) => return Ok(group.display().to_string()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The node's disk, by a device file of its own.
fn disk(place: &Place) -> Trial {
    let blocks = fs::read_dir("/dev")?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()));
    for entry in blocks {
        let device = entry.metadata()?.rdev();
        let node = place.scratch().join("escaped-disk");
        let name = CString::new(node.to_string_lossy().into_owned()).map_err(io::Error::other)?;
        call(number::MKNODAT, [-100, address(&name), 0o60_600, device as i64, 0])?;
        let read = read(&node);
        fs::remove_file(node)?;
        if read.is_ok() {
            return Ok(format!("{} by another name", entry.path().display()));
        }
    }
    Err(io::Error::other("no block device can be read"))
}

fn trials() -> impl Iterator<Item = &'static Named> {
    [FILES, PROCESSES, RIGHTS, MOUNTS, NODE].into_iter().flatten()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "whoami") {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        println!("{}", uids.split_whitespace().nth(1).unwrap_or("unknown"));
        return ExitCode::SUCCESS;
    }
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    let place = Place(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    if let Ok(only) = place.path("trial") {
        let Some((name, trial)) = trials().find(|(name, _)| Path::new(name) == only) else {
            return ExitCode::FAILURE;
        };
        match trial(&place) {
            Ok(how) => println!("yes {name}: {how}"),
            Err(why) => println!("no  {name}: {why}"),
        }
        return ExitCode::SUCCESS;
    }
    let parent = call(number::GETPPID, [0; 5]).unwrap_or(0);
    let me = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    for (name, _) in trials() {
        let output = Command::new(&me)
            .args(&words)
            .arg(format!("parent={parent}"))
            .arg(format!("trial={name}"))
            .output();
        match output {
            Ok(output) if output.status.success() => print!("{}", String::from_utf8_lossy(&output.stdout)),
            Ok(output) => println!("no  {name}: its process ended with {}", output.status),
            Err(error) => println!("no  {name}: cannot be tried: {error}"),
        }
    }
    println!("{} trials", trials().count());
    ExitCode::SUCCESS
}
