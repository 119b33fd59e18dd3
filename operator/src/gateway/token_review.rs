//! Bearer tokens reviewed by the API server (`TokenReview`).
//!
//! Strangers must not be able to exhaust the API server, or the review slots of agents: a token that cannot be an agent's
//! is refused without a review, a refusal is cached for a while, a token that was an agent's is reviewed first, and the
//! others have a rate per address and one in total.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use sentinel_protocol::ids::NodeName;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::auth::{AgentIdentity, AuthError, Authenticate, TokenHash, hash};
use super::claims::check_claims;
use super::rates::Buckets;
use super::token_rules::TokenRules;
use crate::clock::Clock;
use crate::metrics::{Counter, Registry as MetricsRegistry};

/// Accepted tokens that are cached; beyond that each one is reviewed every time.
const MAX_ACCEPTED: usize = 40_000;

/// How long a token that was an agent's keeps its priority over unknown ones; tokens are renewed within the hour.
const KNOWN_FOR: Duration = Duration::from_hours(2);

/// Refused tokens that are cached; beyond that the oldest is dropped.
const MAX_REFUSED: usize = 10_000;

/// How long a refusal is cached. Short, since a new pod may not be known to every API server yet.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Concurrent reviews of tokens that were an agent's before; further ones wait.
const MAX_KNOWN_REVIEWS: usize = 32;

/// Concurrent reviews of other tokens; further ones wait.
const MAX_REVIEWS: usize = 32;

/// Longest error text of the API server that is passed on, bytes.
const MAX_ERROR: usize = 256;

/// Tokens reviewed by the API server. See the module.
pub struct TokenReviews {
    api: Api<TokenReview>,
    rules: TokenRules,
    clock: Clock,
    known_reviews: Semaphore,
    reviews: Semaphore,
    unknown: Mutex<Buckets>,
    accepted: Mutex<AcceptedTokens>,
    refused: Mutex<RefusedTokens>,
    requests: Counter,
    failures: Counter,
    spared: Counter,
}

type AcceptedTokens = HashMap<TokenHash, (Instant, AgentIdentity)>;

/// Tokens that the API server refused, oldest first.
#[derive(Debug, Default)]
struct RefusedTokens {
    errors: HashMap<TokenHash, AuthError>,
    order: VecDeque<(Instant, TokenHash)>,
}

impl RefusedTokens {
    fn evict(&mut self, room_for: usize) {
        while let Some((at, _)) = self.order.front()
            && (at.elapsed() >= REFUSED_FOR || self.order.len() + room_for > MAX_REFUSED)
        {
            if let Some((_, key)) = self.order.pop_front() {
                self.errors.remove(&key);
            }
        }
    }

    fn add(&mut self, key: TokenHash, error: AuthError) {
        self.evict(1);
        if self.errors.insert(key, error).is_none() {
            self.order.push_back((Instant::now(), key));
        }
    }

    fn find(&mut self, key: &TokenHash) -> Option<AuthError> {
        self.evict(0);
        self.errors.get(key).cloned()
    }
}

impl TokenReviews {
    /// Reviews tokens through this client.
    pub fn new(client: Client, rules: TokenRules, metrics: &MetricsRegistry) -> Self {
        Self {
            api: Api::all(client),
            clock: Clock::system(),
            known_reviews: Semaphore::new(MAX_KNOWN_REVIEWS),
            reviews: Semaphore::new(MAX_REVIEWS),
            unknown: Mutex::new(Buckets::new(rules.rates, Instant::now())),
            rules,
            accepted: Mutex::default(),
            refused: Mutex::default(),
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
        }
    }

    async fn review(&self, token: &str, from: Option<IpAddr>) -> Result<AgentIdentity, AuthError> {
        let key = hash(token);
        let known = match self.cached(&key) {
            Some(Cached::Fresh(identity)) => return Ok(identity),
            Some(Cached::Known) => true,
            None => false,
        };
        if !known {
            self.admit(token, &key, from).inspect_err(|_| self.spared.add(1))?;
        }
        let slots = if known { &self.known_reviews } else { &self.reviews };
        let response = tokio::time::timeout(self.rules.timeout, self.request(token, slots));
        let status = response.await.unwrap_or_else(|_| {
            let after = self.rules.timeout.as_millis();
            Err(AuthError::Unavailable(format!("the API server did not answer within {after} ms")))
        });
        if status.is_err() {
            self.failures.add(1);
        }
        match identity(&status?, &self.rules) {
            Ok(identity) => {
                self.accept(key, identity.clone());
                Ok(identity)
            }
            Err(error) => {
                self.accepted().remove(&key);
                self.refused().add(key, error.clone());
                Err(error)
            }
        }
    }

    /// Whether an unknown token may be reviewed.
    fn admit(&self, token: &str, key: &TokenHash, from: Option<IpAddr>) -> Result<(), AuthError> {
        check_claims(token, &self.rules, self.clock.now())?;
        if let Some(error) = self.refused().find(key) {
            return Err(error);
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.take(from, Instant::now()) { Ok(()) } else { Err(AuthError::Busy) }
    }

    fn refused(&self) -> MutexGuard<'_, RefusedTokens> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> MutexGuard<'_, AcceptedTokens> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, token: &str, slots: &Semaphore) -> Result<TokenReviewStatus, AuthError> {
        let unavailable = |message: String| AuthError::Unavailable(message);
        let _slot = slots.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        self.requests.add(1);
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.rules.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let response = self.api.create(&PostParams::default(), &review).await;
        Ok(response.map_err(|error| unavailable(error.to_string()))?.status.unwrap_or_default())
    }

    fn cached(&self, key: &TokenHash) -> Option<Cached> {
        let accepted = self.accepted();
        let (at, identity) = accepted.get(key)?;
        match at.elapsed() {
            age if age < self.rules.believe => Some(Cached::Fresh(identity.clone())),
            age if age < KNOWN_FOR => Some(Cached::Known),
            _ => None,
        }
    }

    fn accept(&self, key: TokenHash, identity: AgentIdentity) {
        let mut accepted = self.accepted();
        if accepted.len() >= MAX_ACCEPTED {
            accepted.retain(|_, (at, _)| at.elapsed() < KNOWN_FOR);
        }
        if accepted.len() >= MAX_ACCEPTED {
            accepted.retain(|_, (at, _)| at.elapsed() < self.rules.believe);
        }
        if accepted.len() < MAX_ACCEPTED {
            accepted.insert(key, (Instant::now(), identity));
        }
    }
}

/// What the cache holds of a token.
enum Cached {
    /// A review that is recent enough to count.
    Fresh(AgentIdentity),
    /// It was an agent's recently, and is to be reviewed again.
    Known,
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Authenticate for TokenReviews {
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        Box::pin(self.review(bearer, None))
    }

    fn agent_at<'a>(
        &'a self,
        bearer: &'a str,
        from: Option<IpAddr>,
    ) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        Box::pin(self.review(bearer, from))
    }
}

/// The agent that a review identifies, by the rules.
fn identity(status: &TokenReviewStatus, rules: &TokenRules) -> Result<AgentIdentity, AuthError> {
    if status.authenticated != Some(true) {
        // The API server's own text, for example which audiences the token is for; never the token itself.
        let text = status.error.as_deref().filter(|error| !error.is_empty());
        let text = text.map(|text| text[..text.floor_char_boundary(MAX_ERROR)].to_owned());
        return Err(AuthError::Invalid(text.unwrap_or_else(|| "the API server does not know it".to_owned())));
    }
    // A server without audience support authenticates the token and returns no audiences.
    if !status.audiences.iter().flatten().any(|audience| *audience == rules.audience) {
        let audience = &rules.audience;
        return Err(AuthError::Invalid(format!("it was not reviewed for the audience {audience:?}")));
    }
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
            identity(&review(username, audiences, extra), &rules)
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
        let error = identity(&status, &TokenRules::new("a", "b")).unwrap_err();
        assert_eq!((error.category(), error.to_string().contains("expired")), ("Invalid", true));
    }
}
