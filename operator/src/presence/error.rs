//! What can go wrong between us and a Presence store. Never carries a URL, which may hold a password.

use std::time::Duration;

/// Why Presence did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The URL is not one of Redis.
    #[error("failed to understand the Redis URL: {message}")]
    InvalidUrl {
        /// What is wrong with it.
        message: String,
    },
    /// Redis could not be reached, or failed.
    #[error("unable to {action}: Redis at {host}: {source}")]
    Redis {
        /// What was attempted.
        action: &'static str,
        /// Where.
        host: String,
        /// What the client said.
        #[source]
        source: ::redis::RedisError,
    },
    /// Redis failed a moment ago and is not asked again just yet.
    #[error("unable to {action}: Redis at {host} failed; it is tried again in {} ms", again_in.as_millis())]
    Away {
        /// What was attempted.
        action: &'static str,
        /// Where.
        host: String,
        /// When it is.
        again_in: Duration,
    },
    /// A record could not be turned into text.
    #[error("failed to write the presence of a node")]
    Unwritable {
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl PresenceError {
    /// The kind of error as one word: metric label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => "InvalidUrl",
            Self::Redis { .. } => "Redis",
            Self::Away { .. } => "Away",
            Self::Unwritable { .. } => "Unwritable",
        }
    }
}
