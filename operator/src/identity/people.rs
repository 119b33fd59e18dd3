//! People and programs that use the HTTP API: who they are and what they may, as the API server decides.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use kube::Client;
use sentinel_protocol::time::UnixMillis;

use super::access_review::{AccessReviews, Action, Unanswered, Verdict};
use super::credentials::bearer_of_person;
use super::error::AuthError;
use super::principal::Principal;
use super::proxy::ProxyRules;
use super::rates::{Rate, Rates};
use super::token_review::{ReviewCounters, ReviewLimits, TokenPolicy, TokenReviews};
use crate::metrics::Registry as MetricsRegistry;
use crate::server::Peer;

/// How long an accepted token is not reviewed again.
const BELIEVE: Duration = Duration::from_secs(10);

/// Timeout of a review.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Unknown tokens that are reviewed: people are few beside agents.
const RATES: Rates =
    Rates { all: Rate { per_second: 100.0, burst: 500.0 }, address: Rate { per_second: 20.0, burst: 100.0 } };

/// A person or program that made a request.
#[derive(Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The token that proved it; `None` where a proxy did.
    pub token: Option<Arc<str>>,
}

impl fmt::Debug for Caller {
    /// Never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// How callers of a listener prove who they are.
enum Proof {
    /// By a bearer token, or through a proxy that an administrator trusts.
    Token { reviews: Box<TokenReviews<AnyToken>>, proxy: Option<ProxyRules> },
    /// Through the API server's front proxy, by the rules that the cluster publishes now.
    FrontProxy(LiveRules),
}

/// The rules of the front proxy, which change when the cluster changes them.
pub type LiveRules = Arc<RwLock<ProxyRules>>;

/// The people of one listener.
pub struct People {
    proof: Proof,
    access: Arc<AccessReviews>,
    origins: Vec<String>,
}

/// Tokens of everybody whom the API server knows.
#[derive(Debug)]
struct AnyToken {
    audience: Option<String>,
}

/// The counters of reviews; registered also where no listener has people with tokens.
pub fn counters(metrics: &MetricsRegistry) -> ReviewCounters {
    ReviewCounters {
        requests: metrics
            .counter("sentinel_api_token_reviews_total", "TokenReviews of people's tokens sent to the API server."),
        failures: metrics
            .counter("sentinel_api_token_reviews_failed_total", "TokenReviews of people's tokens that failed."),
        spared: metrics.counter(
            "sentinel_api_token_reviews_spared_total",
            "People's tokens refused without a TokenReview: refused recently, or beyond the rate of unknown tokens.",
        ),
    }
}

impl TokenPolicy for AnyToken {
    type Subject = Principal;

    fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }

    fn check(&self, _token: &str, _now: UnixMillis) -> Result<(), AuthError> {
        Ok(())
    }

    fn subject(&self, status: &TokenReviewStatus) -> Result<Principal, AuthError> {
        let principal = Principal::from(status.user.clone().unwrap_or_default());
        if principal.name.is_empty() {
            return Err(AuthError::Invalid("the API server names no user for it".to_owned()));
        }
        Ok(principal)
    }
}

impl People {
    /// People who prove themselves by a token for this audience, or for the API server's own; or through a trusted proxy.
    pub fn by_token(
        client: Client,
        audience: Option<String>,
        proxy: Option<ProxyRules>,
        access: Arc<AccessReviews>,
        metrics: &MetricsRegistry,
    ) -> Self {
        let limits = ReviewLimits { believe: BELIEVE, timeout: TIMEOUT, rates: RATES };
        let reviews = TokenReviews::new(client, AnyToken { audience }, limits, counters(metrics));
        Self { proof: Proof::Token { reviews: Box::new(reviews), proxy }, access, origins: Vec::new() }
    }

    /// People whom the API server's front proxy names.
    pub fn by_front_proxy(rules: LiveRules, access: Arc<AccessReviews>) -> Self {
        Self { proof: Proof::FrontProxy(rules), access, origins: Vec::new() }
    }

    /// The same, with further origins of pages that may ask: `https://sentinel.example.com`.
    #[must_use]
    pub fn with_origins(mut self, origins: Vec<String>) -> Self {
        self.origins = origins;
        self
    }

    /// The origins of pages that an administrator has named.
    pub fn origins(&self) -> &[String] {
        &self.origins
    }

    /// Who made a request.
    ///
    /// # Errors
    /// [`AuthError`] when the request does not prove it, or the API server cannot be asked.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Caller, AuthError> {
        let certificate = peer.and_then(|peer| peer.certificate.as_deref());
        match &self.proof {
            Proof::FrontProxy(rules) => {
                let rules = rules.read().unwrap_or_else(PoisonError::into_inner);
                let principal = rules.principal(headers, certificate)?;
                Ok(Caller { principal, token: None })
            }
            Proof::Token { proxy: Some(proxy), .. } if certificate.is_some() && proxy.is_used(headers) => {
                Ok(Caller { principal: proxy.principal(headers, certificate)?, token: None })
            }
            Proof::Token { reviews, .. } => {
                let token = bearer_of_person(headers)?;
                let from: Option<IpAddr> = peer.map(|peer| peer.addr.ip());
                let principal = reviews.review(token, from).await?;
                Ok(Caller { principal, token: Some(token.into()) })
            }
        }
    }

    /// Whether the token of a caller is still theirs. Whom a proxy named, it names with each request only.
    ///
    /// # Errors
    /// [`AuthError`] when it is not, or the API server cannot be asked.
    pub async fn review_again(&self, caller: &Caller) -> Result<(), AuthError> {
        match (&self.proof, caller.token.as_deref()) {
            (Proof::Token { reviews, .. }, Some(token)) => reviews.review(token, None).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Whether a user may do this.
    ///
    /// # Errors
    /// [`Unanswered`] when the API server did not answer in time.
    pub async fn verdict(&self, who: &Principal, action: &Action) -> Result<Verdict, Unanswered> {
        self.access.verdict(who, action).await
    }
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = match &self.proof {
            Proof::Token { .. } => "token",
            Proof::FrontProxy(_) => "front proxy",
        };
        f.debug_struct("People").field("proof", &proof).finish_non_exhaustive()
    }
}
