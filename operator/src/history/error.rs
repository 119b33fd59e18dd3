//! What can go wrong between us and an archive.

use std::path::PathBuf;
use std::time::Duration;

/// Why History did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be opened or made.
    #[error("failed to open the history file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite failed.
    #[error("unable to {action} in the history file: {source}")]
    Sqlite {
        /// What was attempted.
        action: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The URI is not one of MongoDB. Never contains the URI itself, which may hold a password.
    #[error("failed to understand the MongoDB URI: {message}")]
    InvalidUri {
        /// What is wrong with it.
        message: String,
    },
    /// No server answered.
    #[error("unable to {action}: MongoDB at {host} is not reachable: {message}")]
    Unreachable {
        /// What was attempted.
        action: &'static str,
        /// Where.
        host: String,
        /// In one line.
        message: String,
    },
    /// A server answered, with an error.
    #[error("unable to {action}: MongoDB at {host} said: {message}")]
    Mongo {
        /// What was attempted.
        action: &'static str,
        /// Where.
        host: String,
        /// In one line.
        message: String,
        /// All of it.
        #[source]
        source: Box<mongodb::error::Error>,
    },
    /// The store took too long. What was asked may still happen; asking again is harmless.
    #[error("unable to {action}: {store} did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// What was attempted.
        action: &'static str,
        /// Which store.
        store: String,
        /// The limit.
        after: Duration,
    },
    /// Others wrote the same records again and again while we tried to.
    #[error("unable to {action}: others keep changing the same records")]
    Contended {
        /// What was attempted.
        action: &'static str,
    },
    /// The store was closed.
    #[error("failed to {action}: the history is closed")]
    Closed {
        /// What was attempted.
        action: &'static str,
    },
    /// What is stored cannot be read.
    #[error("failed to read {what}: {message}")]
    Unreadable {
        /// Which record.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// What is to be stored cannot be.
    #[error("failed to store {what}: {message}")]
    Unstorable {
        /// Which record.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// The question makes no sense; the message is for whoever asked.
    #[error("{message}")]
    InvalidQuery {
        /// What was asked, and what is allowed.
        message: String,
    },
}

/// Whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After a while.
    Later,
    /// Not with the same words.
    Never,
}

impl HistoryError {
    /// The kind of error as one word: metric label and event reason.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::Sqlite { .. } => "File",
            Self::InvalidUri { .. } => "InvalidUri",
            Self::Unreachable { .. } => "Unreachable",
            Self::Mongo { .. } => "Server",
            Self::TimedOut { .. } => "TimedOut",
            Self::Contended { .. } => "Contended",
            Self::Closed { .. } => "Closed",
            Self::Unreadable { .. } => "Unreadable",
            Self::Unstorable { .. } => "Unstorable",
            Self::InvalidQuery { .. } => "InvalidQuery",
        }
    }

    /// Whether asking again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unstorable { .. }
            | Self::Unreadable { .. }
            | Self::InvalidQuery { .. }
            | Self::InvalidUri { .. } => Retry::Never,
            _ => Retry::Later,
        }
    }
}
