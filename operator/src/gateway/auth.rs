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

use crate::identity::AuthError;
use crate::identity::credentials::{TokenHash, hash};

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
