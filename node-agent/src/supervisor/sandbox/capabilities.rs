//! Capabilities of a command (`capabilities(7)`).

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits as Bits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

/// The capabilities that a command may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    set: CapabilitySet,
    /// Whether root is a user like any other.
    secure_bits: Bits,
}

/// None, forever: neither a program's file nor uid 0 gives one.
pub(super) fn none() -> Allowed {
    let secure_bits = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Allowed { set: CapabilitySet::empty(), secure_bits }
}

/// Those that containerd and Docker give root in a container by default.
pub(super) fn of_containers() -> Allowed {
    let set = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::NET_RAW
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::MKNOD
        | CapabilitySet::AUDIT_WRITE
        | CapabilitySet::SETFCAP;
    Allowed { set, secure_bits: Bits::empty() }
}

impl Allowed {
    /// Limits what a later exec can give, and locks how. Where `CAP_SETPCAP` is missing neither is possible, and `no_new_privs` alone
    /// keeps an exec from giving any.
    pub(super) fn limit(self) -> Result<(), Errno> {
        if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
            return Ok(());
        }
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            if self.set.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The kernel has no more.
                Err(Errno::INVAL) => break,
                Err(errno) => return Err(errno),
            }
        }
        if self.secure_bits.is_empty() { Ok(()) } else { set_capabilities_secure_bits(self.secure_bits) }
    }

    /// Drops all others.
    pub(super) fn keep(self) -> Result<(), Errno> {
        let had = capabilities(None)?;
        let kept = had.permitted & self.set;
        // Kernels before 4.3 have no ambient set.
        let _ = clear_ambient_capability_set();
        set_capabilities(
            None,
            CapabilitySets {
                effective: had.effective & kept,
                permitted: kept,
                inheritable: CapabilitySet::empty(),
            },
        )
    }
}
