//! The mounts that a command sees: a mount namespace of its own, which nothing in it can change.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sentinel_protocol::request::RootFilesystem;

use super::hidden::{Hidden, Kind, MountPoint, mounts};

/// Where the kernel's settings are. Root may write there without any capability, so they are read-only, as in a container; `/sys` has
/// the control groups too.
const SYS: &CStr = c"/sys";
const SETTINGS: [&CStr; 5] = [c"/proc/sys", c"/proc/sysrq-trigger", c"/proc/irq", c"/proc/bus", c"/proc/fs"];

/// Shows the memory of the kernel.
const KERNEL_MEMORY: &CStr = c"/proc/kcore";

/// Directories that stay writable with a read-only root: empty, and gone with the command.
const SCRATCH: [&CStr; 2] = [c"/tmp", c"/dev/shm"];

/// Size of each, in the form of tmpfs.
const SCRATCH_OPTIONS: &CStr = c"mode=1777,size=64m";

/// What hides a directory.
const EMPTY_OPTIONS: &CStr = c"mode=0555,size=4k,nr_inodes=1";

/// From `linux/mount.h`.
const MOUNT_ATTR_RDONLY: u64 = 1;

/// Whether this directory is empty and the command's own where there are such.
pub(in crate::supervisor) fn is_scratch(directory: &str) -> bool {
    SCRATCH.iter().any(|scratch| scratch.to_bytes() == directory.as_bytes())
}

/// Mounts of a command that differ from those of its environment.
#[derive(Debug)]
pub(super) struct View {
    hidden: Vec<Hidden>,
    settings: Settings,
    root: RootFilesystem,
}

/// The kernel's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settings {
    ReadOnly,
    AsTheyAre,
}

impl View {
    /// Without these files, and with settings that cannot be changed.
    pub(super) fn confined(hidden: Vec<Hidden>, root: RootFilesystem) -> Self {
        Self { hidden, settings: Settings::ReadOnly, root }
    }

    /// Everything as it is, but read-only.
    pub(super) fn read_only() -> Self {
        Self { hidden: Vec::new(), settings: Settings::AsTheyAre, root: RootFilesystem::ReadOnly }
    }

    /// Whether it has empty scratch directories.
    pub(super) fn has_own_scratch(&self) -> bool {
        self.root == RootFilesystem::ReadOnly
    }

    /// Moves this process to a new mount namespace that has it.
    #[expect(
        unsafe_code,
        reason = "unshare of a descriptor table would be unsafe; this one has no such flag"
    )]
    pub(super) fn enter(&self) -> Result<(), Errno> {
        // SAFETY: no descriptor table is shared or unshared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        // Mounts that are made later outside appear here; those that are made here do not appear outside.
        mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        if self.root == RootFilesystem::ReadOnly {
            set_read_only(c"/")?;
            for directory in SCRATCH {
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                where_there_is(mount(c"tmpfs", directory, c"tmpfs", flags, Some(SCRATCH_OPTIONS)))?;
            }
        }
        for hidden in &self.hidden {
            where_there_is(hide(hidden))?;
        }
        if self.settings == Settings::ReadOnly {
            where_there_is(set_read_only(SYS))?;
            for settings in SETTINGS {
                where_there_is(
                    mount_bind_recursive(settings, settings).and_then(|()| set_read_only(settings)),
                )?;
            }
            where_there_is(mount_bind(c"/dev/null", KERNEL_MEMORY))?;
        }
        Ok(())
    }
}

/// What does not exist need not be changed; nor is a directory a mount, in a root without `/sys`.
fn where_there_is(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => Ok(()),
        done => done,
    }
}

fn hide(hidden: &Hidden) -> Result<(), Errno> {
    match hidden.kind {
        Kind::Directory => {
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount(c"tmpfs", &*hidden.path, c"tmpfs", flags, Some(EMPTY_OPTIONS))
        }
        Kind::File => mount_bind(c"/dev/null", &*hidden.path),
    }
}

/// Makes the mount at this path read-only, and all below it.
fn set_read_only(path: &CStr) -> Result<(), Errno> {
    match set_read_only_at_once(path) {
        Err(Errno::NOSYS) => set_read_only_one_by_one(path),
        done => done,
    }
}

/// Since Linux 5.12.
#[expect(unsafe_code, reason = "mount_setattr has no safe interface")]
fn set_read_only_at_once(path: &CStr) -> Result<(), Errno> {
    // `struct mount_attr`: to set, to clear, propagation, user namespace.
    let attributes = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: the kernel reads a path and a struct of this size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

/// For kernels that cannot do it at once. Each remount has to repeat the flags that the mount has.
fn set_read_only_one_by_one(path: &CStr) -> Result<(), Errno> {
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let top = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let below: Vec<MountPoint> = mounts(&text).filter(|mount| mount.at.starts_with(top)).collect();
    if !below.iter().any(|mount| mount.at == top) {
        return Err(Errno::INVAL);
    }
    for mount in below {
        let at = CString::new(mount.at.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | flags_of(&mount.options);
        // One that is mounted over cannot be reached, here or by the command.
        where_there_is(mount_remount(&*at, flags, c""))?;
    }
    Ok(())
}

fn flags_of(options: &str) -> MountFlags {
    let known = [
        ("nosuid", MountFlags::NOSUID),
        ("nodev", MountFlags::NODEV),
        ("noexec", MountFlags::NOEXEC),
        ("noatime", MountFlags::NOATIME),
        ("nodiratime", MountFlags::NODIRATIME),
        ("relatime", MountFlags::RELATIME),
    ];
    let flag = |option| known.iter().find(|(name, _)| *name == option).map(|(_, flag)| *flag);
    options.split(',').filter_map(flag).collect()
}
