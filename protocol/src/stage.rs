//! How far an Attempt is; both directions of the protocol name it.

use serde::{Deserialize, Serialize};

/// The stages of an Attempt, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Recorded in the Journal and not started yet.
    Accepted,
    /// The command is running.
    Running,
    /// The Attempt has ended.
    Ended,
}
