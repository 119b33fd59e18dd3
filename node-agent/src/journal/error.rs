//! What can go wrong with the Journal.

use std::io;
use std::path::{Path, PathBuf};

use crate::error_category::ErrorCategory;
use crate::private_dir::Untrusted;

/// A failure of the Journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent uses this state directory.
    #[error("the state directory {root} is in use by another agent")]
    Locked {
        /// The state directory.
        root: PathBuf,
    },
    /// A directory that others can change.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Something on disk could not be read, created or removed; nothing else is in doubt.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// An fsync failed. What the disk holds now is unknown, so no new Attempt is accepted.
    #[error("failed to sync {path}; the journal cannot be trusted")]
    Unsafe {
        /// The file or directory that was synced.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// A record is damaged.
    #[error("{path} is unreadable: {why}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A value could not be encoded.
    #[error("failed to encode {path}")]
    Encode {
        /// The file it was for.
        path: PathBuf,
        /// The encoder's error.
        source: serde_json::Error,
    },
    /// The Attempt is already in the Journal.
    #[error("attempt {name} is already in the journal")]
    Exists {
        /// Name of its directory.
        name: String,
    },
}

impl JournalError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Locked { .. } => ErrorCategory::Configuration,
            Self::Untrusted(error) => error.category(),
            Self::Io { source, .. } | Self::Unsafe { source, .. } => ErrorCategory::of_io(source),
            Self::Corrupt { .. } => ErrorCategory::Corrupt,
            Self::Encode { .. } | Self::Exists { .. } => ErrorCategory::Internal,
        }
    }

    /// Whether the same operation may succeed later. A failed fsync is never retried on the same file.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Locked { .. })
    }

    /// Whether the disk was full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Unsafe { source, .. } => is_full(source),
            Self::Untrusted(Untrusted::Io { source, .. }) => is_full(source),
            _ => false,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
