//! What can go wrong between the operator and a cluster.

use std::time::Duration;

/// Why a cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object has changed since it was seen; look again.
    #[error("unable to {doing}: the object has changed meanwhile")]
    Conflict {
        /// What was attempted, on what.
        doing: String,
    },
    /// There is no such object (any more).
    #[error("unable to {doing}: there is no such object")]
    Gone {
        /// What was attempted, on what.
        doing: String,
    },
    /// There is an object of that name already.
    #[error("failed to {doing}: there is one of that name already")]
    Exists {
        /// What was attempted, on what.
        doing: String,
    },
    /// The object, or who asks, is not acceptable; asking again will not help.
    #[error("failed to {doing}: {message}")]
    Refused {
        /// What was attempted, on what.
        doing: String,
        /// The HTTP status that fits.
        code: u16,
        /// The cluster's words.
        message: String,
    },
    /// The cluster did not answer in time; whether it has done it is not known.
    #[error("unable to {doing}: no answer within {}", crate::resource::duration::show(*.within))]
    TimedOut {
        /// What was attempted, on what.
        doing: String,
        /// The time it had.
        within: Duration,
    },
    /// The cluster could not be reached, or could not answer now.
    #[error("unable to {doing}")]
    Unavailable {
        /// What was attempted, on what.
        doing: String,
        /// What stood in the way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A frozen target list is not what the status says it is: somebody has removed or replaced a part of it.
    #[error("failed to read the frozen target list of {task}: {wrong}")]
    TargetsDamaged {
        /// The Task.
        task: String,
        /// What does not fit.
        wrong: String,
    },
}

impl ClusterError {
    /// Whether asking again, after a look at the object as it is now, may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::TimedOut { .. } | Self::Unavailable { .. })
    }
}
