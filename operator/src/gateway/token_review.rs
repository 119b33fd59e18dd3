//! Agents' tokens, reviewed by the API server.

use std::net::IpAddr;

use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use kube::Client;
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::time::UnixMillis;

use super::auth::{AgentIdentity, Authenticate};
use super::claims::check_claims;
use super::token_rules::TokenRules;
use crate::identity::AuthError;
use crate::identity::token_review::{self, ReviewCounters, ReviewLimits, TokenPolicy};
use crate::metrics::Registry as MetricsRegistry;

/// Agents' tokens, reviewed by the API server.
#[derive(Debug)]
pub struct TokenReviews(token_review::TokenReviews<TokenRules>);

impl TokenReviews {
    /// Reviews tokens through this client.
    pub fn new(client: Client, rules: TokenRules, metrics: &MetricsRegistry) -> Self {
        let counters = ReviewCounters {
            requests: metrics
                .counter("sentinel_gateway_token_reviews_total", "TokenReviews sent to the API server."),
            failures: metrics.counter(
                "sentinel_gateway_token_reviews_failed_total",
                "TokenReviews that failed.",
            ),
            spared: metrics.counter(
                "sentinel_gateway_token_reviews_spared_total",
                "Tokens refused without a TokenReview: not an agent's by their claims, refused recently, or beyond the \
                 rate of unknown tokens.",
            ),
        };
        let limits = ReviewLimits { believe: rules.believe, timeout: rules.timeout, rates: rules.rates };
        Self(token_review::TokenReviews::new(client, rules, limits, counters))
    }
}

impl Authenticate for TokenReviews {
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        Box::pin(self.0.review(bearer, None))
    }

    fn agent_at<'a>(
        &'a self,
        bearer: &'a str,
        from: Option<IpAddr>,
    ) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        Box::pin(self.0.review(bearer, from))
    }
}

impl TokenPolicy for TokenRules {
    type Subject = AgentIdentity;

    fn audience(&self) -> Option<&str> {
        Some(&self.audience)
    }

    fn check(&self, token: &str, now: UnixMillis) -> Result<(), AuthError> {
        check_claims(token, self, now)
    }

    fn subject(&self, status: &TokenReviewStatus) -> Result<AgentIdentity, AuthError> {
        identity(status, self)
    }
}

/// The agent that an authenticated token identifies, by the rules.
fn identity(status: &TokenReviewStatus, rules: &TokenRules) -> Result<AgentIdentity, AuthError> {
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.clone().unwrap_or_default();
    if name.strip_prefix("system:serviceaccount:") != Some(rules.service_account.as_str()) {
        let allowed = &rules.service_account;
        return Err(AuthError::NotAnAgent(format!(
            "it belongs to {name:?}, agents are system:serviceaccount:{allowed}"
        )));
    }
    let node = claim(&user, "authentication.kubernetes.io/node-name")
        .ok_or_else(|| AuthError::NotAnAgent("it is not bound to a pod on a node".to_owned()))?;
    let node = NodeName::new(node).map_err(|error| AuthError::NotAnAgent(error.to_string()))?;
    Ok(AgentIdentity {
        node,
        node_uid: claim(&user, "authentication.kubernetes.io/node-uid"),
        pod_uid: claim(&user, "authentication.kubernetes.io/pod-uid"),
    })
}

/// The value of an extra claim with exactly one.
fn claim(user: &UserInfo, key: &str) -> Option<String> {
    match user.extra.as_ref()?.get(key)?.as_slice() {
        [value] => Some(value.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn review(username: &str, audiences: &[&str], extra: &[(&str, &[&str])]) -> TokenReviewStatus {
        let strings = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let extra: BTreeMap<_, _> = extra.iter().map(|(k, v)| ((*k).to_owned(), strings(v))).collect();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(strings(audiences)),
            user: Some(UserInfo {
                username: Some(username.to_owned()),
                extra: Some(extra),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn requires_the_audience_account_and_node_of_an_agent() {
        const AGENT: &str = "system:serviceaccount:sentinel:agent";
        const NODE: &str = "authentication.kubernetes.io/node-name";
        let rules = TokenRules::new("sentinel", "agent");
        let identified = |username, audiences: &[&str], extra: &[(&str, &[&str])]| {
            let status = review(username, audiences, extra);
            token_review::authenticated(&status, rules.audience())
                .and_then(|()| identity(&status, &rules))
                .map(|identity| identity.node.to_string())
                .map_err(|error| error.category())
        };
        let ours: &[&str] = &["sentinel-operator"];
        assert_eq!(identified(AGENT, ours, &[(NODE, &["n-1"])]), Ok("n-1".to_owned()));
        assert_eq!(identified(AGENT, &["other"], &[(NODE, &["n-1"])]), Err("Invalid"));
        assert_eq!(identified(AGENT, &[], &[(NODE, &["n-1"])]), Err("Invalid"));
        assert_eq!(
            identified("system:serviceaccount:sentinel:x", ours, &[(NODE, &["n-1"])]),
            Err("NotAnAgent")
        );
        assert_eq!(identified("sentinel:agent", ours, &[(NODE, &["n-1"])]), Err("NotAnAgent"));
        assert_eq!(identified(AGENT, ours, &[]), Err("NotAnAgent"));
        assert_eq!(identified(AGENT, ours, &[(NODE, &["n-1", "n-2"])]), Err("NotAnAgent"));
        assert_eq!(identified(AGENT, ours, &[(NODE, &["../n"])]), Err("NotAnAgent"));
    }

    #[test]
    fn refuses_an_unauthenticated_token_with_the_error_of_the_api_server() {
        let status = TokenReviewStatus { error: Some("expired".to_owned()), ..TokenReviewStatus::default() };
        let error = token_review::authenticated(&status, Some("a")).unwrap_err();
        assert_eq!((error.category(), error.to_string().contains("expired")), ("Invalid", true));
    }
}
