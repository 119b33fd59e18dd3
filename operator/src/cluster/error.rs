//! What can go wrong between the operator and a cluster.

use std::time::Duration;

/// Why a call to a cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object has changed since it was read: read it again.
    #[error("unable to {doing}: the object has changed meanwhile")]
    Conflict {
        /// What was attempted, on what.
        doing: String,
    },
    /// The object does not exist (any more).
    #[error("unable to {doing}: there is no such object")]
    Gone {
        /// What was attempted, on what.
        doing: String,
    },
    /// An object of that name exists already.
    #[error("failed to {doing}: there is one of that name already")]
    Exists {
        /// What was attempted, on what.
        doing: String,
    },
    /// The object is invalid, or the caller is not allowed to do this.
    #[error("failed to {doing}: {message}")]
    Refused {
        /// What was attempted, on what.
        doing: String,
        /// The HTTP status that fits.
        code: u16,
        /// The cluster's message.
        message: String,
    },
    /// The cluster did not answer in time; it may or may not have done it.
    #[error("unable to {doing}: no answer within {}", sentinel_protocol::duration::format(*.within))]
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
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A frozen target list differs from what the status records: a part of it was removed or replaced.
    #[error("failed to read the frozen target list of {task}: {wrong}")]
    TargetsDamaged {
        /// The Task.
        task: String,
        /// What differs.
        wrong: String,
    },
}

impl ClusterError {
    /// A label for logs and metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Gone { .. } => "gone",
            Self::Exists { .. } => "exists",
            Self::Refused { .. } => "refused",
            Self::TimedOut { .. } => "timed_out",
            Self::Unavailable { .. } => "unavailable",
            Self::TargetsDamaged { .. } => "targets_damaged",
        }
    }

    /// Whether a retry, after reading the object again, may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::TimedOut { .. } | Self::Unavailable { .. })
    }
}

/// A call of the API server about one object failed: it refused, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} {kind} {name}")]
pub struct CallError {
    doing: &'static str,
    kind: &'static str,
    name: String,
    source: Box<kube::Error>,
}

impl CallError {
    /// What was attempted, on which object, for the cause that follows.
    pub fn of(doing: &'static str, kind: &'static str, name: &str) -> impl Fn(kube::Error) -> Self + use<> {
        let name = name.to_owned();
        move |source| Self { doing, kind, name: name.clone(), source: Box::new(source) }
    }
}
