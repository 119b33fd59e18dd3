//! Why a Presence store failed. Never carries a URL, which may hold a password.

use std::time::Duration;

/// Why Presence did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The URL does not address Redis.
    #[error("invalid Redis URL: {message}")]
    InvalidUrl {
        /// What is wrong with it.
        message: String,
    },
    /// Redis could not be reached, or failed.
    #[error(
        "unable to {action}: Redis at {host}: {source}{}{}",
        if advice.is_some() { "; " } else { "" }, advice.as_deref().unwrap_or_default()
    )]
    Redis {
        /// What was attempted.
        action: &'static str,
        /// The server.
        host: String,
        /// What to do, where that is known.
        advice: Option<String>,
        /// The client's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Redis failed a moment ago; the circuit breaker lets nothing through.
    #[error("unable to {action}: Redis at {host} failed; the next attempt is in {} ms", retry_in.as_millis())]
    CircuitOpen {
        /// What was attempted.
        action: &'static str,
        /// The server.
        host: String,
        /// How long the circuit stays open.
        retry_in: Duration,
    },
    /// A record could not be serialized.
    #[error("failed to serialize the presence of a node")]
    Unserializable {
        /// The serializer's error.
        #[source]
        source: serde_json::Error,
    },
}

impl PresenceError {
    /// Every category: the values of the metric label.
    pub const CATEGORIES: [&'static str; 4] = ["InvalidUrl", "Redis", "CircuitOpen", "Unserializable"];

    /// The kind of error: metric label, one of [`PresenceError::CATEGORIES`].
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => "InvalidUrl",
            Self::Redis { .. } => "Redis",
            Self::CircuitOpen { .. } => "CircuitOpen",
            Self::Unserializable { .. } => "Unserializable",
        }
    }

    /// Whether the same operation can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Redis { .. } | Self::CircuitOpen { .. } => true,
            Self::InvalidUrl { .. } | Self::Unserializable { .. } => false,
        }
    }
}
