//! The filter of system calls (`seccomp(2)`): those that reconfigure the node, or inspect other processes.
//!
//! The list follows the default profile of containerd and Docker; what they tie to a capability that no command has is denied. A denied
//! call fails with EPERM, as it does without privilege, so that programs cope; `clone3`, whose flags a filter cannot read, with ENOSYS,
//! after which libraries use `clone`.
//!
//! A filter sees numbers, and another ABI has others for the same calls. So each ABI of the architecture has a list of its own, and of
//! those without one every call is denied. `docs/decisions/0022-own-seccomp-filter.md` has why no library writes it.

use std::sync::OnceLock;

use nix::libc::{self, sock_filter};
use rustix::io::Errno;

/// The namespaces that `clone` can create: mount, cgroup, UTS, IPC, user, PID, network and time. A process in a user namespace of its
/// own has all capabilities there, and with them the attack surface of root.
const NEW_NAMESPACES: u32 = 0x7e02_0080;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
#[cfg(target_endian = "little")]
const FIRST_ARGUMENT: u32 = 16;

/// Set in the number of a call of the x32 ABI, which has the architecture of x86-64.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Newer than the constants of libc, and the same for all architectures.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

/// Missing in libc for one of the targets.
#[cfg(target_arch = "x86_64")]
const SYS_KEXEC_FILE_LOAD: libc::c_long = 320;
#[cfg(target_arch = "aarch64")]
const SYS_KEXEC_FILE_LOAD: libc::c_long = 294;

/// Denied on every architecture.
const DENIED: &[libc::c_long] = &[
    // Keys, which no namespace separates.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    // Parts of the kernel with a large attack surface.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    libc::SYS_syslog,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The node.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    SYS_KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Denied besides, where these calls exist.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// The ABI of 32-bit programs on x86-64.
#[cfg(target_arch = "x86_64")]
mod i386 {
    pub(super) const ARCHITECTURE: u32 = 0x4000_0003;
    pub(super) const CLONE: u32 = 120;
    pub(super) const CLONE3: u32 = 435;

    /// The same calls as above, and those that only this ABI has, by the numbers of `unistd_32.h`.
    pub(super) const DENIED: &[u32] = &[
        286, 287, 288, // add_key, request_key, keyctl
        26, 347, 348, 349, 438,
        336, // ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd, perf_event_open
        357, 374, 425, 426, 427, // bpf, userfaultfd, io_uring_setup, io_uring_enter, io_uring_register
        338, 253, 169, 111, 103, // fanotify_init, lookup_dcookie, nfsservctl, vhangup, syslog
        21, 22, 52, 217, // mount, umount, umount2, pivot_root
        430, 431, 432, 433, 428, 467, 429,
        442, // fsopen, fsconfig, fsmount, fspick, open_tree, open_tree_attr, move_mount, mount_setattr
        342, 310, 346, // open_by_handle_at, unshare, setns
        128, 350, 129, // init_module, finit_module, delete_module
        283, 88, 87, 115, 51, 131,
        443, // kexec_load, reboot, swapon, swapoff, acct, quotactl, quotactl_fd
        25, 79, 264, 404, // stime, settimeofday, clock_settime, clock_settime64
        74, 121, // sethostname, setdomainname
        110, 101, 113, 166, 86, 62, 135,
        149, // iopl, ioperm, vm86old, vm86, uselib, ustat, sysfs, _sysctl
    ];
}

/// A compiled filter.
#[derive(Debug)]
pub(super) struct Filter(Vec<sock_filter>);

/// The filter of this process; it is compiled once, and every process that is forked later has it.
pub(super) fn filter() -> &'static Filter {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    FILTER.get_or_init(Filter::compile)
}

impl Filter {
    fn compile() -> Self {
        let mut filter = Self(Vec::with_capacity(256));
        let native: Vec<u32> = DENIED.iter().chain(DENIED_HERE).map(|number| *number as u32).collect();
        let mut block = Self(Vec::new());
        block.load(NUMBER);
        #[cfg(target_arch = "x86_64")]
        block.if_at_least(X32, errno(libc::ENOSYS));
        block.calls(&native, libc::SYS_clone as u32, libc::SYS_clone3 as u32);
        filter.load(ARCHITECTURE);
        filter.of_architecture(NATIVE, block);
        #[cfg(target_arch = "x86_64")]
        {
            let mut block = Self(Vec::new());
            block.load(NUMBER);
            block.calls(i386::DENIED, i386::CLONE, i386::CLONE3);
            filter.of_architecture(i386::ARCHITECTURE, block);
        }
        filter.end(errno(libc::EPERM));
        filter
    }

    /// Has the kernel apply it to this process, and to all that follow from it. `no_new_privs` is set.
    #[expect(unsafe_code, reason = "filters have no safe interface")]
    pub(super) fn install(&self) -> Result<(), Errno> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // Without the mitigation of a side channel between the parts of one program, which halves the speed of some.
        for flags in [libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0] {
            // SAFETY: the kernel reads the program, which lives as long as this process, and does not change it.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
                    flags,
                    &raw const program,
                )
            };
            if done == 0 {
                return Ok(());
            }
        }
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }

    /// The rules of one ABI, to the end.
    fn calls(&mut self, denied: &[u32], clone: u32, clone3: u32) {
        for number in denied {
            self.if_equal(*number, errno(libc::EPERM));
        }
        self.if_equal(clone3, errno(libc::ENOSYS));
        // Only `clone` is decided by an argument.
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, clone);
        self.end(libc::SECCOMP_RET_ALLOW);
        self.load(FIRST_ARGUMENT);
        self.push(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, NEW_NAMESPACES);
        self.end(errno(libc::EPERM));
        self.end(libc::SECCOMP_RET_ALLOW);
    }

    /// Appends what only calls of this architecture reach; it ends with an answer.
    fn of_architecture(&mut self, architecture: u32, block: Self) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, architecture);
        // The jumps of a comparison reach 255 instructions, this one all.
        self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, block.0.len() as u32);
        self.0.extend(block.0);
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    }

    fn if_equal(&mut self, value: u32, answer: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value);
        self.end(answer);
    }

    #[cfg(target_arch = "x86_64")]
    fn if_at_least(&mut self, value: u32, answer: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, value);
        self.end(answer);
    }

    fn end(&mut self, answer: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, 0, 0, answer);
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) {
        self.0.push(sock_filter { code: code as u16, jt, jf, k });
    }
}

fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers: the same machine as the kernel's, for the instructions in use.
    fn answer(architecture: u32, number: u32, argument: u32) -> u32 {
        let program = &filter().0;
        let (mut at, mut value) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            let k = instruction.k;
            let jump = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
            match u32::from(instruction.code) {
                0x20 => {
                    value = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => argument,
                        _ => panic!("it reads another field"),
                    }
                }
                0x15 => at += jump(value == k),
                0x35 => at += jump(value >= k),
                0x45 => at += jump(value & k != 0),
                0x05 => at += k as usize,
                0x06 => return k,
                code => panic!("it has an instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn every_abi_is_filtered_and_ordinary_calls_are_not() {
        let (allowed, denied) = (libc::SECCOMP_RET_ALLOW, errno(libc::EPERM));
        for number in DENIED.iter().chain(DENIED_HERE) {
            assert_eq!(answer(NATIVE, *number as u32, 0), denied, "{number}");
        }
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_exit_group] {
            assert_eq!(answer(NATIVE, number as u32, u32::MAX), allowed, "{number}");
        }
        let clone = libc::SYS_clone as u32;
        assert_eq!(answer(NATIVE, clone, libc::SIGCHLD as u32), allowed);
        assert_eq!(answer(NATIVE, clone, 0x003d_0f00), allowed, "a thread");
        for namespace in
            [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
        {
            assert_eq!(answer(NATIVE, clone, namespace | libc::SIGCHLD as u32), denied, "{namespace:#x}");
        }
        assert_eq!(answer(NATIVE, libc::SYS_clone3 as u32, 0), errno(libc::ENOSYS));
        assert_eq!(answer(0x4000_0028, libc::SYS_read as u32, 0), denied, "an unknown architecture");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn another_abi_of_this_architecture_is_filtered_too() {
        let denied = errno(libc::EPERM);
        assert_eq!(answer(NATIVE, X32 | libc::SYS_ptrace as u32, 0), errno(libc::ENOSYS));
        for number in i386::DENIED {
            assert_eq!(answer(i386::ARCHITECTURE, *number, 0), denied, "{number}");
        }
        // Each call that is denied natively is denied there too, but for those that i386 does not have.
        let only_native = [SYS_KEXEC_FILE_LOAD];
        let native = DENIED.iter().chain(DENIED_HERE).filter(|number| !only_native.contains(number)).count();
        assert!(i386::DENIED.len() >= native, "{} of {native}", i386::DENIED.len());
        assert_eq!(answer(i386::ARCHITECTURE, 3, 0), libc::SECCOMP_RET_ALLOW, "read");
        assert_eq!(answer(i386::ARCHITECTURE, i386::CLONE, 0x1000_0000), denied);
        assert_eq!(answer(i386::ARCHITECTURE, i386::CLONE3, 0), errno(libc::ENOSYS));
    }
}
