//! What can go wrong with the Spool.

use std::io;
use std::path::PathBuf;

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
        /// What the system said.
        source: io::Error,
    },
    /// The Attempt's exit record is unreadable.
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
}
