//! System calls by their numbers, with nothing between the trial and the kernel.

use std::ffi::{CStr, c_long};
use std::io;

use super::Trial;

/// Numbers of system calls: on x86-64, and on other architectures.
pub(crate) mod number {
    const IS_X86_64: bool = cfg!(target_arch = "x86_64");

    const fn number(x86_64: i64, other: i64) -> i64 {
        if IS_X86_64 { x86_64 } else { other }
    }

    pub(crate) const PTRACE: i64 = number(101, 117);
    pub(crate) const PROCESS_VM_READV: i64 = number(310, 270);
    pub(crate) const KILL: i64 = number(62, 129);
    pub(crate) const GETPPID: i64 = number(110, 173);
    pub(crate) const CAPSET: i64 = number(126, 91);
    pub(crate) const PRCTL: i64 = number(157, 167);
    pub(crate) const PRLIMIT: i64 = number(302, 261);
    pub(crate) const SETGROUPS: i64 = number(116, 159);
    pub(crate) const SETRESUID: i64 = number(117, 147);
    pub(crate) const SETRESGID: i64 = number(119, 149);
    pub(crate) const MOUNT: i64 = number(165, 40);
    pub(crate) const UMOUNT: i64 = number(166, 39);
    pub(crate) const PIVOT_ROOT: i64 = number(155, 41);
    pub(crate) const CHROOT: i64 = number(161, 51);
    pub(crate) const UNSHARE: i64 = number(272, 97);
    pub(crate) const SETNS: i64 = number(308, 268);
    pub(crate) const CLONE: i64 = number(56, 220);
    pub(crate) const KEYCTL: i64 = number(250, 219);
    pub(crate) const ADD_KEY: i64 = number(248, 217);
    pub(crate) const BPF: i64 = number(321, 280);
    pub(crate) const PERF: i64 = number(298, 241);
    pub(crate) const USERFAULTFD: i64 = number(323, 282);
    pub(crate) const KEXEC: i64 = number(246, 104);
    pub(crate) const INIT_MODULE: i64 = number(175, 105);
    pub(crate) const DELETE_MODULE: i64 = number(176, 106);
    pub(crate) const REBOOT: i64 = number(169, 142);
    pub(crate) const SWAPOFF: i64 = number(168, 225);
    pub(crate) const SETTIMEOFDAY: i64 = number(164, 170);
    pub(crate) const SETHOSTNAME: i64 = number(170, 161);
    pub(crate) const SYSLOG: i64 = number(103, 116);
    pub(crate) const OPEN_BY_HANDLE: i64 = number(304, 265);
    pub(crate) const FANOTIFY: i64 = number(300, 262);
    pub(crate) const QUOTACTL: i64 = number(179, 60);
    pub(crate) const ACCT: i64 = number(163, 89);
    pub(crate) const MKNODAT: i64 = number(259, 33);
}

/// The same for all architectures.
pub(crate) const PIDFD_OPEN: i64 = 434;
pub(crate) const PIDFD_GETFD: i64 = 438;
pub(crate) const IO_URING_SETUP: i64 = 425;
pub(crate) const OPEN_TREE: i64 = 428;
pub(crate) const FSOPEN: i64 = 430;
pub(crate) const CLONE3: i64 = 435;
pub(crate) const MOUNT_SETATTR: i64 = 442;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

pub(crate) fn call(number: i64, arguments: [i64; 5]) -> io::Result<i64> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the arguments are numbers, or addresses of what lives until it returns.
    let done = unsafe { syscall(number as c_long, a, b, c, d, e) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// A call that would fail for another reason than the caller's rights.
pub(crate) fn reaches(number: i64, arguments: [i64; 5]) -> Trial {
    match call(number, arguments) {
        Ok(_) => got("done"),
        Err(error) => match error.raw_os_error() {
            // EPERM, EACCES, ENOSYS
            Some(1 | 13 | 38) => Err(error),
            _ => got(&format!("the kernel examines it: {error}")),
        },
    }
}

pub(crate) fn got(what: &str) -> Trial {
    Ok(what.to_owned())
}

pub(crate) fn address(text: &CStr) -> i64 {
    text.as_ptr() as i64
}

/// A call by the other ABI of the processor.
#[cfg(target_arch = "x86_64")]
pub(crate) fn i386(number: i32, a: i32, b: i32, c: i32) -> Trial {
    let done: i32;
    // SAFETY: the kernel returns, or ends this process where it has no such ABI; arguments are numbers.
    unsafe {
        std::arch::asm!(
            "xchg {b:r}, rbx", "int 0x80", "xchg {b:r}, rbx",
            b = inout(reg) i64::from(a) => _, inlateout("eax") number => done, in("ecx") b, in("edx") c,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if done < 0 { Err(io::Error::from_raw_os_error(-done)) } else { got("done") }
}
