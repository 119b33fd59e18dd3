//! Authentication of agents by bearer token; nothing that an agent reports about itself counts.
//!
//! [`TokenReviews`](super::TokenReviews) asks the API server; [`StaticTokens`] is for dev mode, where each agent is given
//! a random secret when it starts.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use sentinel_protocol::ids::NodeName;
use sha2::{Digest, Sha256};

/// Longest accepted token, bytes. A bound service account's token has about 1 KiB.
pub const MAX_TOKEN: usize = 8 << 10;

/// An authenticated agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The node it runs on, by its token.
    pub node: NodeName,
    /// Uid of that Node object.
    pub node_uid: Option<String>,
    /// Uid of the agent's pod.
    pub pod_uid: Option<String>,
}

/// Why an agent was not authenticated.
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

/// Authenticates agents.
pub trait Authenticate: Send + Sync + 'static {
    /// The agent that holds this token.
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>>;

    /// The agent that holds this token, for a connection from this address.
    fn agent_at<'a>(
        &'a self,
        bearer: &'a str,
        from: Option<IpAddr>,
    ) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        let _ = from;
        self.agent(bearer)
    }
}

/// The bearer token of a request, from its `Authorization` header.
///
/// # Errors
/// [`AuthError::Missing`] without a header, [`AuthError::Malformed`] for anything but exactly one bearer token.
pub fn bearer(headers: &http::HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed("the header occurs more than once"));
    }
    let value = value.to_str().map_err(|_| AuthError::Malformed("it is not plain text"))?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::Malformed("the token is missing"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Malformed("its scheme is not Bearer"));
    }
    let token = token.trim();
    if token.is_empty() {
        return Err(AuthError::Malformed("the token is empty"));
    }
    if token.len() > MAX_TOKEN {
        return Err(AuthError::Malformed("the token is longer than 8 KiB"));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AuthError::Malformed("the token contains characters that are not allowed in one"));
    }
    Ok(token)
}

pub(super) type TokenHash = [u8; 32];

/// Tokens are kept only as digests.
pub(super) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Random secrets, each for one node. For dev mode and tests.
#[derive(Clone, Default)]
pub struct StaticTokens(Arc<Mutex<HashMap<TokenHash, NodeName>>>);

impl StaticTokens {
    /// Without any secret.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new secret for the node's agent; earlier ones stay valid.
    pub fn issue(&self, node: &NodeName) -> String {
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        self.lock().insert(hash(&token), node.clone());
        token
    }

    /// Invalidates every secret of this node.
    pub fn revoke(&self, node: &NodeName) {
        self.lock().retain(|_, owner| owner != node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, NodeName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticTokens")
    }
}

impl Authenticate for StaticTokens {
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        let node = self.lock().get(&hash(bearer)).cloned();
        Box::pin(async move {
            node.map(|node| AgentIdentity { node, node_uid: None, pod_uid: None })
                .ok_or_else(|| AuthError::Invalid("it was not issued by this operator".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> http::HeaderMap {
        values.iter().map(|v| (http::header::AUTHORIZATION, v.parse().unwrap())).collect()
    }

    #[test]
    fn accepts_exactly_one_bearer_token() {
        assert_eq!(bearer(&headers(&["Bearer abc"])).unwrap(), "abc");
        assert_eq!(bearer(&headers(&["bearer  abc "])).unwrap(), "abc");
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for bad in [
            &[][..],
            &["Bearer "],
            &["Bearer"],
            &[""],
            &["Basic abc"],
            &["Bearer a b"],
            &["Bearer a", "Bearer a"],
            &[long.as_str()],
        ] {
            let error = bearer(&headers(bad)).unwrap_err();
            assert_eq!(error.status(), http::StatusCode::UNAUTHORIZED, "{bad:?}: {error}");
            assert!(!error.is_retryable(), "{bad:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_static_token_authenticates_its_node_until_it_is_revoked() {
        let tokens = StaticTokens::new();
        let node = NodeName::new("n-1").unwrap();
        let token = tokens.issue(&node);
        assert_eq!(tokens.agent(&token).await.unwrap().node, node);
        assert_eq!(tokens.agent("unknown").await.unwrap_err().category(), "Invalid");
        tokens.revoke(&node);
        assert_eq!(tokens.agent(&token).await.unwrap_err().category(), "Invalid");
    }
}
