//! Why a look at a Task failed.

use std::sync::Arc;

use crate::cluster::ClusterError;
use crate::resource::Invalid;

/// Why a look at a Task failed. It is looked at again, later and later.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookError {
    /// The cluster did not do its part.
    #[error(transparent)]
    Cluster(Arc<ClusterError>),
    /// The status is not one that an operator wrote.
    #[error("failed to read the status of the Task: {0}")]
    Status(Invalid),
    /// The Task has no uid, or one that is none.
    #[error("failed to look at the Task: its metadata.uid is not valid")]
    Uid,
    /// Something in us is wrong.
    #[error("failed to look at the Task: the look panicked: {0}")]
    Panicked(String),
}

impl From<ClusterError> for LookError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(Arc::new(error))
    }
}
