//! Protocol versions and their negotiation.
//!
//! The agent offers all versions that it speaks in its Hello. The gateway chooses the highest common one, or refuses
//! with [`crate::refusal::SessionRefusal::Version`]. The shape of Hello, Welcome and Refuse is frozen, so that any two
//! releases can at least find out that they are incompatible.

use serde::{Deserialize, Serialize};

/// A version of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

/// The versions that this build speaks, lowest first.
///
/// * 1: the first version.
/// * 2: adds the fields `run.limits` and `timeouts.idle` to `Start`. A `Start` that uses one of them needs an agent
///   that speaks 2.
/// * 3: adds `run.output.merge`, `run.leftovers`, `run.limits.nofile`, `run.limits.core` and the argument of a script's
///   interpreter.
/// * 4: adds `run.sandbox`, `run.readOnlyRootFilesystem`, `run.env.valueFrom` and `run.stdinFrom`.
///
/// Fields that only inform, such as [`crate::exit::ExitDetails`], need no version: a receiver ignores unknown fields.
pub const SPOKEN: &[Version] = &[Version(1), Version(2), Version(3), Version(4)];

/// The highest version that both sides speak.
pub fn choose(offered: &[Version], spoken: &[Version]) -> Option<Version> {
    offered.iter().filter(|v| spoken.contains(v)).max().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_the_highest_common_version() {
        let v = |n: &[u16]| n.iter().map(|&n| Version(n)).collect::<Vec<_>>();
        assert_eq!(choose(&v(&[1, 2, 3]), &v(&[2, 3, 4])), Some(Version(3)));
        assert_eq!(choose(&v(&[5]), &v(&[1, 2])), None);
        assert_eq!(choose(&[], &v(&[1])), None);
    }
}
