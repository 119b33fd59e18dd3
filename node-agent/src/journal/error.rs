//! What can go wrong with the Journal.

use std::io;
use std::path::{Path, PathBuf};

use crate::private_dir::Untrusted;

/// A failure of the Journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent works in this state directory.
    #[error("the state directory {root} is in use by another agent")]
    Locked {
        /// The state directory.
        root: PathBuf,
    },
    /// A directory that others can change.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Something on disk could not be read, made or removed; nothing else is in doubt.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk did not take what it was given to keep. What it holds now is unknown: take nothing new.
    #[error("the disk failed to keep {path}; the journal cannot be trusted")]
    Unsafe {
        /// The file or directory that was synced.
        path: PathBuf,
        /// What the system said.
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
    /// A value that cannot be written down.
    #[error("failed to encode {path}")]
    Encode {
        /// The file it was for.
        path: PathBuf,
        /// What the encoder said.
        source: serde_json::Error,
    },
    /// The Attempt is in the Journal already.
    #[error("attempt {name} is in the journal already")]
    Exists {
        /// Name of its directory.
        name: String,
    },
}

impl JournalError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
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
