//! What a rule does.

use serde::Deserialize;

/// What a rule does with a request that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Effect {
    /// It may run.
    Allow,
    /// It is refused.
    Deny,
}
