//! What can go wrong with the Spool.

use std::io;
use std::path::{Path, PathBuf};

use crate::error_category::ErrorCategory;
use crate::journal::JournalError;

/// A failure of the Spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Something on disk could not be read, written or removed.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// The Attempt's exit record could not be read.
    #[error("failed to read the exit record of the attempt")]
    Exit(#[source] JournalError),
}

impl SpoolError {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Io { source, .. } => ErrorCategory::of_io(source),
            Self::Exit(error) => error.category(),
        }
    }

    /// Whether the same operation may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Exit(error) => error.is_retryable(),
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }
}
