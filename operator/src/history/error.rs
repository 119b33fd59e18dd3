//! Why a store did not do what it was asked, and whether to ask again.

use std::path::PathBuf;
use std::time::Duration;

/// Why History did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be opened or created.
    #[error("failed to open the history file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite failed.
    #[error("unable to {action} in the history file: {source}")]
    Sqlite {
        /// What was attempted.
        action: &'static str,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// The URI does not address MongoDB. Never contains the URI itself, which may hold a password.
    #[error("invalid MongoDB URI: {message}")]
    InvalidUri {
        /// What is wrong with it.
        message: String,
    },
    /// No server answered.
    #[error("unable to {action}: MongoDB at {host} is not reachable: {message}")]
    Unreachable {
        /// What was attempted.
        action: &'static str,
        /// The server.
        host: String,
        /// In one line.
        message: String,
    },
    /// A server answered, with an error.
    #[error("unable to {action}: MongoDB at {host} returned an error: {message}")]
    Mongo {
        /// What was attempted.
        action: &'static str,
        /// The server.
        host: String,
        /// In one line.
        message: String,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store took too long. The write may still happen; repeating it is harmless.
    #[error("unable to {action}: {store} did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// What was attempted.
        action: &'static str,
        /// Which store.
        store: String,
        /// The limit.
        after: Duration,
    },
    /// Other writers changed the same records in every round.
    #[error("unable to {action}: other writers keep changing the same records")]
    Contended {
        /// What was attempted.
        action: &'static str,
    },
    /// The task that carried the operation out panicked.
    #[error("unable to {action}: the operation panicked")]
    Panicked {
        /// What was attempted.
        action: &'static str,
    },
    /// The store's own thread has ended: nothing will ever be stored by this process again.
    #[error("failed to {action}: the history is closed")]
    Closed {
        /// What was attempted.
        action: &'static str,
    },
    /// A stored record cannot be read.
    #[error("failed to read {what}: {message}")]
    Unreadable {
        /// Which record.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A record cannot be stored.
    #[error("failed to store {what}: {message}")]
    Unstorable {
        /// Which record.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// The query is invalid; the message is for the client.
    #[error("{message}")]
    InvalidQuery {
        /// The value, and what is allowed.
        message: String,
    },
}

impl HistoryError {
    /// Every category: the values of the metric label.
    pub const CATEGORIES: [&'static str; 11] = [
        "File",
        "InvalidUri",
        "Unreachable",
        "Server",
        "TimedOut",
        "Contended",
        "Panicked",
        "Closed",
        "Unreadable",
        "Unstorable",
        "InvalidQuery",
    ];

    /// The kind of error: metric label and event reason, one of [`HistoryError::CATEGORIES`].
    pub fn category(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::Sqlite { .. } => "File",
            Self::InvalidUri { .. } => "InvalidUri",
            Self::Unreachable { .. } => "Unreachable",
            Self::Mongo { .. } => "Server",
            Self::TimedOut { .. } => "TimedOut",
            Self::Contended { .. } => "Contended",
            Self::Panicked { .. } => "Panicked",
            Self::Closed { .. } => "Closed",
            Self::Unreadable { .. } => "Unreadable",
            Self::Unstorable { .. } => "Unstorable",
            Self::InvalidQuery { .. } => "InvalidQuery",
        }
    }

    /// Whether the same operation can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Open { .. }
            | Self::Sqlite { .. }
            | Self::Unreachable { .. }
            | Self::Mongo { .. }
            | Self::TimedOut { .. }
            | Self::Contended { .. }
            | Self::Panicked { .. } => true,
            Self::Closed { .. }
            | Self::Unstorable { .. }
            | Self::Unreadable { .. }
            | Self::InvalidQuery { .. }
            | Self::InvalidUri { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_known_category() {
        let after = Duration::ZERO;
        let errors = [
            HistoryError::InvalidUri { message: String::new() },
            HistoryError::TimedOut { action: "x", store: String::new(), after },
            HistoryError::Panicked { action: "x" },
            HistoryError::Closed { action: "x" },
            HistoryError::Unstorable { what: String::new(), message: String::new() },
        ];
        for error in errors {
            assert!(HistoryError::CATEGORIES.contains(&error.category()), "{error:?}");
        }
    }
}
