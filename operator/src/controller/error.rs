//! Why a reconcile failed.

use crate::cluster::ClusterError;
use crate::resource::Invalid;

/// Why a reconcile failed. It is retried with backoff.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call to the cluster failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The status was not written by an operator.
    #[error("failed to read the status of the Task: {0}")]
    Status(Invalid),
    /// The Task's uid is missing or invalid.
    #[error("failed to reconcile the Task: invalid metadata.uid")]
    Uid,
    /// A bug of this operator.
    #[error("failed to reconcile the Task: panicked: {0}")]
    Panicked(String),
}

impl ReconcileError {
    /// A label for logs, metrics and cluster events; one of [`ReconcileError::CATEGORIES`].
    pub fn category(&self) -> &'static str {
        match self {
            Self::Cluster(error) => error.category(),
            Self::Status(_) => "status",
            Self::Uid => "uid",
            Self::Panicked(_) => "panic",
        }
    }

    /// Whether a retry alone may succeed. If not, a person has to change something first.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Cluster(error) => error.is_retryable(),
            Self::Status(_) | Self::Uid | Self::Panicked(_) => false,
        }
    }

    /// Every category, and whether a retry alone may help there.
    pub const CATEGORIES: [(&'static str, bool); 10] = [
        ("conflict", true),
        ("gone", false),
        ("exists", false),
        ("refused", false),
        ("timed_out", true),
        ("unavailable", true),
        ("targets_damaged", false),
        ("status", false),
        ("uid", false),
        ("panic", false),
    ];
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_error_has_a_listed_category() {
        let doing = || "read Task a/b".to_owned();
        let errors = [
            ClusterError::Conflict { doing: doing() }.into(),
            ClusterError::Gone { doing: doing() }.into(),
            ClusterError::Exists { doing: doing() }.into(),
            ClusterError::Refused { doing: doing(), code: 403, message: String::new() }.into(),
            ClusterError::TimedOut { doing: doing(), within: Duration::ZERO }.into(),
            ClusterError::Unavailable { doing: doing(), source: "x".into() }.into(),
            ClusterError::TargetsDamaged { task: doing(), wrong: String::new() }.into(),
            ReconcileError::Uid,
            ReconcileError::Panicked(String::new()),
        ];
        for error in errors {
            let known = (error.category(), error.is_retryable());
            assert!(ReconcileError::CATEGORIES.contains(&known), "{known:?}");
        }
    }
}
