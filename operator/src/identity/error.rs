//! Why a client was not authenticated.

/// Why a client was not authenticated.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// The request has no token.
    #[error("an Authorization header with a bearer token is required")]
    Missing,
    /// The header is not exactly one bearer token.
    #[error("the Authorization header is not one bearer token: {0}")]
    Malformed(&'static str),
    /// The token is not valid.
    #[error("the token was not accepted: {0}")]
    Invalid(String),
    /// The token is valid, but not an agent's service account.
    #[error("the token is not an agent's: {0}")]
    NotAnAgent(String),
    /// The token could not be reviewed.
    #[error("unable to have the token reviewed: {0}")]
    Unavailable(String),
    /// The token is unknown, and too many unknown tokens were sent.
    #[error(
        "unable to review the token now: too many unknown tokens, from this address or in all; try again later"
    )]
    Busy,
}

impl AuthError {
    /// The kind of error, one of a fixed set: reason in responses, metric label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::Malformed(_) => "Malformed",
            Self::Invalid(_) => "Invalid",
            Self::NotAnAgent(_) => "NotAnAgent",
            Self::Unavailable(_) => "Unavailable",
            Self::Busy => "TooManyRequests",
        }
    }

    /// Whether the same token may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy)
    }

    /// The HTTP status of the response.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Missing | Self::Malformed(_) | Self::Invalid(_) => http::StatusCode::UNAUTHORIZED,
            Self::NotAnAgent(_) => http::StatusCode::FORBIDDEN,
            Self::Unavailable(_) => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Busy => http::StatusCode::TOO_MANY_REQUESTS,
        }
    }
}
