//! Which protocol the two ends speak.
//!
//! The agent offers every version it speaks in its first message; the gateway chooses the highest common one or
//! refuses with [`crate::refusal::SessionRefusal::Version`]. The shape of these first messages never changes, so
//! that any two releases can at least tell each other that they do not fit.

use serde::{Deserialize, Serialize};

/// A version of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

/// The versions that this build speaks, lowest first.
///
/// * 1: the first.
/// * 2: `run.limits` and `timeouts.idle`. The messages are those of 1 with fields that were not there before; a
///   `Start` that uses one of them needs an agent that speaks 2.
/// * 3: `run.output.merge`, `run.leftovers`, `run.limits.nofile`, `run.limits.core`, and the argument of a script's
///   interpreter; again fields that were not there before. What a command did at its end is reported by agents of
///   this release whatever the version, as readers ignore fields that they do not know.
pub const SPOKEN: &[Version] = &[Version(1), Version(2), Version(3)];

/// The highest version that both sides speak.
pub fn choose(offered: &[Version], spoken: &[Version]) -> Option<Version> {
    offered.iter().filter(|v| spoken.contains(v)).max().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        let v = |n: &[u16]| n.iter().map(|&n| Version(n)).collect::<Vec<_>>();
        assert_eq!(choose(&v(&[1, 2, 3]), &v(&[2, 3, 4])), Some(Version(3)));
        assert_eq!(choose(&v(&[5]), &v(&[1, 2])), None);
        assert_eq!(choose(&[], &v(&[1])), None);
    }
}
