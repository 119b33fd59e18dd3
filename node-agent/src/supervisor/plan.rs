//! What the process that becomes the command has to do, in memory that it shares with the supervisor: it was forked before the
//! request was known.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use nix::libc;
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::LinkNameSpaceType;

use super::identity::Credentials;
use super::root::Namespace;

/// Descriptors that are passed at most: three standard streams, control groups of three controllers, five namespaces, the
/// script.
pub(super) const MAX_FDS: usize = 16;

/// Bytes that an arena reserves of the address space; a request has at most 4 MiB, and only what is written takes memory.
const ARENA_SIZE: usize = 64 << 20;

/// What the command is, as the supervisor prepared it.
#[derive(Debug)]
pub(super) struct ExecPlan {
    pub(super) path: CString,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    pub(super) directory: CString,
    pub(super) umask: Mode,
    pub(super) credentials: Option<Credentials>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) script: Option<OwnedFd>,
    /// Limits of each process, soft and hard.
    pub(super) nofile: Option<u64>,
    pub(super) core: Option<u64>,
}

/// The descriptors that the command gets besides those of its plan.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    /// Standard input, output and error.
    pub(super) stdio: [OwnedFd; 3],
    /// The `cgroup.procs` of every control group that limits it.
    pub(super) join_files: &'a [OwnedFd],
}

/// A plan in an arena. The addresses in it point into the same arena.
#[repr(C)]
pub(super) struct Plan {
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    directory: *const c_char,
    groups: *const Gid,
    group_count: usize,
    kinds: [Option<LinkNameSpaceType>; 5],
    credentials: Option<(Uid, Gid)>,
    umask: u32,
    nofile: Option<u64>,
    core: Option<u64>,
    join_files: usize,
    has_script: bool,
}

/// The descriptors of a plan, as they were received.
pub(super) struct PlanFds<'a> {
    pub(super) stdio: &'a [Option<OwnedFd>],
    pub(super) join_files: &'a [Option<OwnedFd>],
    pub(super) namespaces: &'a [Option<OwnedFd>],
    pub(super) script: Option<BorrowedFd<'a>>,
}

impl Plan {
    /// Which of the received descriptors is what; the order is that of [`Arena::store`].
    pub(super) fn fds<'a>(&self, fds: &'a [Option<OwnedFd>; MAX_FDS]) -> PlanFds<'a> {
        let (stdio, rest) = fds.split_at(3);
        let (join_files, rest) = rest.split_at(self.join_files.min(rest.len()));
        let (namespaces, rest) = rest.split_at(self.namespaces().count().min(rest.len()));
        let mut rest = rest.iter().map(|fd| fd.as_ref().map(AsFd::as_fd));
        let script = if self.has_script { rest.next().flatten() } else { None };
        PlanFds { stdio, join_files, namespaces, script }
    }

    pub(super) fn path(&self) -> *const c_char {
        self.path
    }

    pub(super) fn argv(&self) -> *const *const c_char {
        self.argv
    }

    pub(super) fn envp(&self) -> *const *const c_char {
        self.envp
    }

    #[expect(unsafe_code, reason = "the plan is in memory that outlives it")]
    pub(super) fn directory(&self) -> &CStr {
        // SAFETY: stored with its NUL in the arena that this plan is in.
        unsafe { CStr::from_ptr(self.directory) }
    }

    pub(super) fn umask(&self) -> Mode {
        Mode::from_raw_mode(self.umask)
    }

    pub(super) fn nofile(&self) -> Option<u64> {
        self.nofile
    }

    pub(super) fn core(&self) -> Option<u64> {
        self.core
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = LinkNameSpaceType> {
        self.kinds.iter().flatten().copied()
    }

    #[expect(unsafe_code, reason = "the plan is in memory that outlives it")]
    pub(super) fn credentials(&self) -> Option<(Uid, Gid, &[Gid])> {
        // SAFETY: stored in the arena that this plan is in, with this length.
        let groups = unsafe { std::slice::from_raw_parts(self.groups, self.group_count) };
        self.credentials.map(|(uid, gid)| (uid, gid, groups))
    }
}

/// Memory that a process and those forked from it share, at the same address. What is stored is never moved or dropped.
#[derive(Debug)]
pub(super) struct Arena {
    base: NonNull<Plan>,
    used: usize,
}

impl Arena {
    /// An empty one, with room for the plan at its beginning.
    #[expect(unsafe_code, reason = "an anonymous mapping has no safe interface")]
    pub(super) fn new() -> io::Result<Self> {
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(ptr::null_mut(), ARENA_SIZE, access, flags, -1, 0) };
        let base = NonNull::new(base.cast::<Plan>()).filter(|_| base != libc::MAP_FAILED);
        let base = base.ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, used: size_of::<Plan>() })
    }

    /// Where the plan is.
    pub(super) fn plan(&self) -> *const Plan {
        self.base.as_ptr()
    }

    /// Stores a plan; returns the descriptors that have to be sent with it.
    #[expect(unsafe_code, reason = "see `Arena`")]
    pub(super) fn store<'a>(
        &mut self,
        plan: &'a ExecPlan,
        inherited: &'a Inherited<'_>,
    ) -> io::Result<Vec<BorrowedFd<'a>>> {
        let mut fds: Vec<BorrowedFd<'a>> = inherited.stdio.iter().map(AsFd::as_fd).collect();
        fds.extend(inherited.join_files.iter().map(AsFd::as_fd));
        fds.extend(plan.namespaces.iter().map(|namespace| namespace.fd.as_fd()));
        fds.extend(plan.script.iter().map(AsFd::as_fd));
        let mut kinds = [None; 5];
        if fds.len() > MAX_FDS || plan.namespaces.len() > kinds.len() {
            return Err(io::Error::other("too many descriptors"));
        }
        for (kind, namespace) in kinds.iter_mut().zip(&plan.namespaces) {
            *kind = Some(namespace.kind);
        }
        let groups = plan.credentials.as_ref().map_or(&[][..], |credentials| &credentials.groups);
        let stored = Plan {
            path: self.put_string(&plan.path)?,
            argv: self.put_strings(&plan.argv)?,
            envp: self.put_strings(&plan.envp)?,
            directory: self.put_string(&plan.directory)?,
            groups: self.put(groups)?,
            group_count: groups.len(),
            kinds,
            credentials: plan.credentials.as_ref().map(|credentials| (credentials.uid, credentials.gid)),
            umask: plan.umask.as_raw_mode(),
            nofile: plan.nofile,
            core: plan.core,
            join_files: inherited.join_files.len(),
            has_script: plan.script.is_some(),
        };
        // SAFETY: the mapping is aligned to a page, and begins with room for a plan.
        unsafe { self.base.as_ptr().write(stored) };
        Ok(fds)
    }

    fn put_strings(&mut self, strings: &[CString]) -> io::Result<*const *const c_char> {
        let mut addresses = Vec::with_capacity(strings.len() + 1);
        for string in strings {
            addresses.push(self.put_string(string)?);
        }
        addresses.push(ptr::null());
        self.put(&addresses)
    }

    fn put_string(&mut self, string: &CStr) -> io::Result<*const c_char> {
        Ok(self.put(string.to_bytes_with_nul())?.cast())
    }

    #[expect(unsafe_code, reason = "see `Arena`")]
    fn put<T: Copy>(&mut self, values: &[T]) -> io::Result<*const T> {
        let start = self.used.next_multiple_of(align_of::<T>());
        let end = start.saturating_add(size_of_val(values));
        if end > ARENA_SIZE {
            return Err(io::Error::other("the request is too long"));
        }
        self.used = end;
        // SAFETY: within the mapping and aligned; nothing was stored there before.
        unsafe {
            let place = self.base.as_ptr().byte_add(start).cast::<T>();
            ptr::copy_nonoverlapping(values.as_ptr(), place, values.len());
            Ok(place)
        }
    }
}

impl Drop for Arena {
    #[expect(unsafe_code, reason = "see `Arena::new`")]
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; nothing refers to it any more in this process.
        unsafe { libc::munmap(self.base.as_ptr().cast(), ARENA_SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_refuses_what_it_has_no_room_for() {
        let mut arena = Arena::new().unwrap();
        assert!(arena.put(&vec![0_u8; ARENA_SIZE]).is_err());
        let address = arena.put(&[1_u64, 2]).unwrap();
        assert!(address.is_aligned());
    }
}
