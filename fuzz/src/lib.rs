//! A function for each decoder of what another party writes: it takes any bytes, and panics if the decoder does, or if something
//! does not hold that holds for every input. `scripts/fuzz` searches for such bytes, guided by coverage; the test `corpus` runs
//! what it has found.
//!
//! * [`wire`]: messages and records, in both directions;
//! * [`disk`]: the files of a node: journal, write-ahead log, tombstones, spool;
//! * [`documents`]: policies, manifests, audit records, signed statements, values of Secrets;
//! * [`signed`]: stamps, approvals and what asks for a stamp, ceilings, signatures, sealed boxes.

pub mod disk;
pub mod documents;
pub mod signed;
pub mod wire;

/// A decoder.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Tries an input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "to-agent", run: wire::to_agent },
    Target { name: "to-operator", run: wire::to_operator },
    Target { name: "log-control", run: wire::log_control },
    Target { name: "log-record", run: wire::log_record },
    Target { name: "journal", run: disk::journal },
    Target { name: "state-dir", run: disk::state_dir },
    Target { name: "spool", run: disk::spool },
    Target { name: "audit-line", run: documents::audit_line },
    Target { name: "audit-chain", run: documents::audit_chain },
    Target { name: "policy", run: documents::policy },
    Target { name: "verdict", run: documents::verdict },
    Target { name: "statement", run: documents::statement },
    Target { name: "secrets", run: documents::secrets },
    Target { name: "manifest", run: documents::manifest },
    Target { name: "approval", run: signed::approval },
    Target { name: "stamp", run: signed::stamp },
    Target { name: "admission", run: signed::admission },
    Target { name: "ceilings", run: signed::ceilings },
    Target { name: "ssh-signature", run: signed::ssh_signature },
    Target { name: "sealed", run: signed::sealed },
];

/// The first byte, which selects what the others are, and the others.
fn selected(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}
