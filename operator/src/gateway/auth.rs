//! Who an agent is: its bearer token, and nothing that it says.
//!
//! [`TokenReviews`] asks the API server; [`StaticTokens`] is the dev mode's, where each agent is handed a random secret
//! at birth.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use sentinel_protocol::ids::NodeName;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::claims::plausible;
use super::rates::{Buckets, Rates};
use crate::clock::Clock;
use crate::metrics::{Counter, Registry as MetricsRegistry};

/// Longest token that is looked at, bytes. A bound service account's token has about 1 KiB.
pub const MAX_TOKEN: usize = 8 << 10;

/// An agent whose token was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The node it runs on, by its token.
    pub node: NodeName,
    /// Uid of that Node object.
    pub node_uid: Option<String>,
    /// Uid of the agent's pod.
    pub pod_uid: Option<String>,
}

/// Why an agent was not believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("an Authorization header with a bearer token is required")]
    Missing,
    /// There is a header, and it is not one bearer token.
    #[error("the Authorization header is not one bearer token: {0}")]
    Malformed(&'static str),
    /// The token is not valid.
    #[error("the token was not accepted: {0}")]
    Invalid(String),
    /// The token is valid and belongs to somebody who is no agent.
    #[error("the token is not an agent's: {0}")]
    NotAnAgent(String),
    /// Nobody can tell right now.
    #[error("unable to have the token reviewed: {0}")]
    Unavailable(String),
    /// The token is not known yet, and too many such tokens came.
    #[error(
        "unable to review the token now: too many unknown tokens, from this address or in all; try again later"
    )]
    Busy,
}

impl AuthError {
    /// The kind of error as one word: reason in answers, metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::Malformed(_) => "Malformed",
            Self::Invalid(_) => "Invalid",
            Self::NotAnAgent(_) => "NotAnAgent",
            Self::Unavailable(_) => "Unavailable",
            Self::Busy => "TooManyRequests",
        }
    }

    /// The HTTP status that says it.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Missing | Self::Malformed(_) | Self::Invalid(_) => http::StatusCode::UNAUTHORIZED,
            Self::NotAnAgent(_) => http::StatusCode::FORBIDDEN,
            Self::Unavailable(_) => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Busy => http::StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// Turns a bearer token into an agent.
pub trait Authenticate: Send + Sync + 'static {
    /// Who holds this token.
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>>;

    /// Who holds this token, asked for a connection from this address.
    fn agent_at<'a>(
        &'a self,
        bearer: &'a str,
        from: Option<IpAddr>,
    ) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        let _ = from;
        self.agent(bearer)
    }
}

/// The one bearer token of a request, out of its `Authorization` headers.
///
/// # Errors
/// [`AuthError`] when there is none, or anything else than exactly one.
pub fn bearer(headers: &http::HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed("the header is there more than once"));
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
        return Err(AuthError::Malformed("the token holds characters that no token has"));
    }
    Ok(token)
}

type TokenHash = [u8; 32];

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Random secrets, each for one node. For dev mode and tests.
#[derive(Clone, Default)]
pub struct StaticTokens(Arc<Mutex<HashMap<TokenHash, NodeName>>>);

impl StaticTokens {
    /// Nobody is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new secret for the node's agent; earlier ones stay good.
    pub fn issue(&self, node: &NodeName) -> String {
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hash(&token), node.clone());
        token
    }

    /// No secret of this node is good any more.
    pub fn revoke(&self, node: &NodeName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner != node);
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticTokens")
    }
}

impl Authenticate for StaticTokens {
    fn agent<'a>(&'a self, bearer: &'a str) -> BoxFuture<'a, Result<AgentIdentity, AuthError>> {
        let node = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&hash(bearer)).cloned();
        Box::pin(async move {
            node.map(|node| AgentIdentity { node, node_uid: None, pod_uid: None })
                .ok_or_else(|| AuthError::Invalid("nobody was given this token".to_owned()))
        })
    }
}

/// What a token must be to be an agent's.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// The audience that it must be for.
    pub audience: String,
    /// The service account that it must belong to, as `<namespace>:<name>`.
    pub service_account: String,
    /// For how long an answer of the API server is believed.
    pub believe: Duration,
    /// After how long an answer is given up.
    pub timeout: Duration,
    /// How many tokens that are not known yet are reviewed.
    pub rates: Rates,
}

impl TokenRules {
    /// The audience that the chart and the documentation use.
    pub const DEFAULT_AUDIENCE: &'static str = "sentinel-operator";

    /// The rules for agents of this service account.
    pub fn new(namespace: &str, service_account: &str) -> Self {
        Self {
            audience: Self::DEFAULT_AUDIENCE.to_owned(),
            service_account: format!("{namespace}:{service_account}"),
            believe: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            rates: Rates::default(),
        }
    }
}

/// Answers remembered at most; beyond that the API server is asked each time.
const MAX_REMEMBERED: usize = 40_000;

/// How long a token that was an agent's is reviewed before those of strangers; tokens are renewed within the hour.
const KNOWN_FOR: Duration = Duration::from_hours(2);

/// Tokens remembered as refused, at most; beyond, the oldest is forgotten.
const MAX_DENIED: usize = 10_000;

/// How long a refusal stands. Short, since a pod that was just made may not be known to every API server yet.
const DENIED_FOR: Duration = Duration::from_secs(10);

/// Reviews under way at once of tokens that were an agent's before; more wait.
const MAX_ASKING_KNOWN: usize = 32;

/// Reviews under way at once of other tokens; more wait.
const MAX_ASKING: usize = 32;

/// Longest explanation of the API server that is passed on, bytes.
const MAX_WORDS: usize = 256;

/// Tokens reviewed by the API server.
///
/// Strangers must not be able to use up the API server's patience, or the places of agents: what cannot be an agent's
/// token is refused unreviewed, a refusal is remembered for a while, what was an agent's before is reviewed first, and
/// the rest has a rate for each address and one in all.
pub struct TokenReviews {
    api: Api<TokenReview>,
    rules: TokenRules,
    clock: Clock,
    asking_known: Semaphore,
    asking: Semaphore,
    strangers: Mutex<Buckets>,
    remembered: Mutex<HashMap<TokenHash, (Instant, AgentIdentity)>>,
    denied: Mutex<Denied>,
    asked: Counter,
    failed: Counter,
    spared: Counter,
}

/// Refusals of the API server, oldest first.
#[derive(Debug, Default)]
struct Denied {
    errors: HashMap<TokenHash, AuthError>,
    order: VecDeque<(Instant, TokenHash)>,
}

impl Denied {
    fn drop_old(&mut self, room_for: usize) {
        while let Some((at, _)) = self.order.front()
            && (at.elapsed() >= DENIED_FOR || self.order.len() + room_for > MAX_DENIED)
        {
            if let Some((_, key)) = self.order.pop_front() {
                self.errors.remove(&key);
            }
        }
    }

    fn add(&mut self, key: TokenHash, error: AuthError) {
        self.drop_old(1);
        if self.errors.insert(key, error).is_none() {
            self.order.push_back((Instant::now(), key));
        }
    }

    fn find(&mut self, key: &TokenHash) -> Option<AuthError> {
        self.drop_old(0);
        self.errors.get(key).cloned()
    }
}

impl TokenReviews {
    /// Asks through this client.
    pub fn new(client: Client, rules: TokenRules, metrics: &MetricsRegistry) -> Self {
        Self {
            api: Api::all(client),
            clock: Clock::system(),
            asking_known: Semaphore::new(MAX_ASKING_KNOWN),
            asking: Semaphore::new(MAX_ASKING),
            strangers: Mutex::new(Buckets::new(rules.rates, Instant::now())),
            rules,
            remembered: Mutex::default(),
            denied: Mutex::default(),
            asked: metrics
                .counter("sentinel_gateway_token_reviews_total", "TokenReviews asked of the API server."),
            failed: metrics.counter(
                "sentinel_gateway_token_reviews_failed_total",
                "TokenReviews that the API server did not answer.",
            ),
            spared: metrics.counter(
                "sentinel_gateway_token_reviews_spared_total",
                "Tokens refused without a TokenReview: not an agent's by their own claims, refused a moment ago, or \
                 beyond the rate of unknown tokens.",
            ),
        }
    }

    async fn review(&self, token: &str, from: Option<IpAddr>) -> Result<AgentIdentity, AuthError> {
        let key = hash(token);
        let known = match self.recall(&key) {
            Some(Recalled::Fresh(identity)) => return Ok(identity),
            Some(Recalled::Known) => true,
            None => false,
        };
        if !known {
            self.may_ask(token, &key, from).inspect_err(|_| self.spared.add(1))?;
        }
        let asking = if known { &self.asking_known } else { &self.asking };
        let asked = tokio::time::timeout(self.rules.timeout, self.ask(token, asking));
        let status = asked.await.unwrap_or_else(|_| {
            let after = self.rules.timeout.as_millis();
            Err(AuthError::Unavailable(format!("the API server did not answer within {after} ms")))
        });
        if status.is_err() {
            self.failed.add(1);
        }
        match judge(&status?, &self.rules) {
            Ok(identity) => {
                self.remember(key, identity.clone());
                Ok(identity)
            }
            Err(error) => {
                self.remembered().remove(&key);
                self.denied().add(key, error.clone());
                Err(error)
            }
        }
    }

    /// Whether a token that is not known is worth a review.
    fn may_ask(&self, token: &str, key: &TokenHash, from: Option<IpAddr>) -> Result<(), AuthError> {
        plausible(token, &self.rules, self.clock.now())?;
        if let Some(error) = self.denied().find(key) {
            return Err(error);
        }
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.take(from, Instant::now()) { Ok(()) } else { Err(AuthError::Busy) }
    }

    fn denied(&self) -> std::sync::MutexGuard<'_, Denied> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<TokenHash, (Instant, AgentIdentity)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, token: &str, asking: &Semaphore) -> Result<TokenReviewStatus, AuthError> {
        let unavailable = |message: String| AuthError::Unavailable(message);
        let _turn = asking.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        self.asked.add(1);
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.rules.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let answer = self.api.create(&PostParams::default(), &review).await;
        Ok(answer.map_err(|error| unavailable(error.to_string()))?.status.unwrap_or_default())
    }

    fn recall(&self, key: &TokenHash) -> Option<Recalled> {
        let remembered = self.remembered();
        let (at, identity) = remembered.get(key)?;
        match at.elapsed() {
            age if age < self.rules.believe => Some(Recalled::Fresh(identity.clone())),
            age if age < KNOWN_FOR => Some(Recalled::Known),
            _ => None,
        }
    }

    fn remember(&self, key: TokenHash, identity: AgentIdentity) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, (at, _)| at.elapsed() < KNOWN_FOR);
        }
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, (at, _)| at.elapsed() < self.rules.believe);
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(key, (Instant::now(), identity));
        }
    }
}

/// What is remembered of a token.
enum Recalled {
    /// The answer, new enough to be believed.
    Fresh(AgentIdentity),
    /// That it was an agent's not long ago.
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

/// What an answer of the API server means, by the rules, in order.
fn judge(status: &TokenReviewStatus, rules: &TokenRules) -> Result<AgentIdentity, AuthError> {
    if status.authenticated != Some(true) {
        // The API server's words, for example which audiences the token is for; never the token itself.
        let words = status.error.as_deref().filter(|error| !error.is_empty());
        let words = words.map(|words| words[..words.floor_char_boundary(MAX_WORDS)].to_owned());
        return Err(AuthError::Invalid(
            words.unwrap_or_else(|| "the API server does not know it".to_owned()),
        ));
    }
    // A server without audience support answers "authenticated" and leaves the audiences out.
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

/// The one value of an extra claim; several are none.
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

    fn headers(values: &[&str]) -> http::HeaderMap {
        values.iter().map(|v| (http::header::AUTHORIZATION, v.parse().unwrap())).collect()
    }

    #[test]
    fn exactly_one_bearer_token_is_taken() {
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
        }
    }

    fn answer(username: &str, audiences: &[&str], extra: &[(&str, &[&str])]) -> TokenReviewStatus {
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
    fn an_answer_is_an_agent_only_when_audience_account_and_node_are_right() {
        const AGENT: &str = "system:serviceaccount:sentinel:agent";
        const NODE: &str = "authentication.kubernetes.io/node-name";
        let rules = TokenRules::new("sentinel", "agent");
        let judged = |username, audiences: &[&str], extra: &[(&str, &[&str])]| {
            judge(&answer(username, audiences, extra), &rules)
                .map(|identity| identity.node.to_string())
                .map_err(|error| error.reason())
        };
        let ours: &[&str] = &["sentinel-operator"];
        assert_eq!(judged(AGENT, ours, &[(NODE, &["n-1"])]), Ok("n-1".to_owned()));
        assert_eq!(judged(AGENT, &["other"], &[(NODE, &["n-1"])]), Err("Invalid"));
        assert_eq!(judged(AGENT, &[], &[(NODE, &["n-1"])]), Err("Invalid"));
        assert_eq!(judged("system:serviceaccount:sentinel:x", ours, &[(NODE, &["n-1"])]), Err("NotAnAgent"));
        assert_eq!(judged("sentinel:agent", ours, &[(NODE, &["n-1"])]), Err("NotAnAgent"));
        assert_eq!(judged(AGENT, ours, &[]), Err("NotAnAgent"));
        assert_eq!(judged(AGENT, ours, &[(NODE, &["n-1", "n-2"])]), Err("NotAnAgent"));
        assert_eq!(judged(AGENT, ours, &[(NODE, &["../n"])]), Err("NotAnAgent"));
    }

    #[test]
    fn a_token_that_was_not_authenticated_is_refused_in_the_words_of_the_api_server() {
        let status = TokenReviewStatus { error: Some("expired".to_owned()), ..TokenReviewStatus::default() };
        let error = judge(&status, &TokenRules::new("a", "b")).unwrap_err();
        assert_eq!((error.reason(), error.to_string().contains("expired")), ("Invalid", true));
    }

    #[tokio::test]
    async fn a_static_token_names_its_node_until_it_is_revoked() {
        let tokens = StaticTokens::new();
        let node = NodeName::new("n-1").unwrap();
        let token = tokens.issue(&node);
        assert_eq!(tokens.agent(&token).await.unwrap().node, node);
        assert_eq!(tokens.agent("nothing").await.unwrap_err().reason(), "Invalid");
        tokens.revoke(&node);
        assert_eq!(tokens.agent(&token).await.unwrap_err().reason(), "Invalid");
    }
}
