//! Bearer tokens reviewed by the API server (`TokenReview`).
//!
//! Strangers must not be able to exhaust the API server, or the review slots of those who are known: a token that cannot be
//! valid by the [`TokenPolicy`] is refused without a review, a refusal is cached for a while, a token that was accepted before
//! is reviewed first, and the others have a rate per address and one in total.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use sentinel_protocol::time::UnixMillis;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::credentials::{TokenHash, hash};
use super::error::AuthError;
use super::rates::{Buckets, Rates};
use crate::clock::Clock;
use crate::metrics::Counter;

/// Accepted tokens that are cached; beyond that each one is reviewed every time.
const MAX_ACCEPTED: usize = 40_000;

/// How long a token that was accepted keeps its priority over unknown ones; tokens are renewed within the hour.
const KNOWN_FOR: Duration = Duration::from_hours(2);

/// Refused tokens that are cached; beyond that the oldest is dropped.
const MAX_REFUSED: usize = 10_000;

/// How long a refusal is cached. Short, since a new pod may not be known to every API server yet.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Concurrent reviews of tokens that were accepted before; further ones wait.
const MAX_KNOWN_REVIEWS: usize = 32;

/// Concurrent reviews of other tokens; further ones wait.
const MAX_REVIEWS: usize = 32;

/// Longest error text of the API server that is passed on, bytes.
const MAX_ERROR: usize = 256;

/// Whose tokens are accepted.
pub trait TokenPolicy: Send + Sync + 'static {
    /// Whom a token identifies.
    type Subject: Clone + Send + Sync + 'static;

    /// The audience that a token must be for; `None` for that of the API server.
    fn audience(&self) -> Option<&str>;

    /// Refuses a token that cannot be valid, by what it claims itself.
    ///
    /// # Errors
    /// The [`AuthError`] that its review would return.
    fn check(&self, token: &str, now: UnixMillis) -> Result<(), AuthError>;

    /// Whom an authenticated token identifies.
    ///
    /// # Errors
    /// [`AuthError`] when that is not a user whose tokens are accepted here.
    fn subject(&self, status: &TokenReviewStatus) -> Result<Self::Subject, AuthError>;
}

/// How long a review counts, how long it may take, and how many unknown tokens are reviewed.
#[derive(Debug, Clone, Copy)]
pub struct ReviewLimits {
    /// How long a review is cached.
    pub believe: Duration,
    /// Timeout of a review.
    pub timeout: Duration,
    /// The rate of reviews of unknown tokens.
    pub rates: Rates,
}

/// What is counted.
#[derive(Debug, Clone)]
pub struct ReviewCounters {
    /// Reviews that were sent.
    pub requests: Counter,
    /// Reviews that failed.
    pub failures: Counter,
    /// Tokens that were refused without a review.
    pub spared: Counter,
}

/// Tokens reviewed by the API server. See the module.
pub struct TokenReviews<P: TokenPolicy> {
    api: Api<TokenReview>,
    policy: P,
    limits: ReviewLimits,
    clock: Clock,
    known_reviews: Semaphore,
    reviews: Semaphore,
    unknown: Mutex<Buckets>,
    accepted: Mutex<AcceptedTokens<P::Subject>>,
    refused: Mutex<RefusedTokens>,
    counters: ReviewCounters,
}

type AcceptedTokens<S> = HashMap<TokenHash, (Instant, S)>;

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

impl<P: TokenPolicy> TokenReviews<P> {
    /// Reviews tokens through this client.
    pub fn new(client: Client, policy: P, limits: ReviewLimits, counters: ReviewCounters) -> Self {
        Self {
            api: Api::all(client),
            policy,
            limits,
            clock: Clock::system(),
            known_reviews: Semaphore::new(MAX_KNOWN_REVIEWS),
            reviews: Semaphore::new(MAX_REVIEWS),
            unknown: Mutex::new(Buckets::new(limits.rates, Instant::now())),
            accepted: Mutex::default(),
            refused: Mutex::default(),
            counters,
        }
    }

    /// Whom this token identifies, for a request from this address.
    ///
    /// # Errors
    /// [`AuthError`] when it identifies no user whose tokens are accepted, or could not be reviewed.
    pub async fn review(&self, token: &str, from: Option<IpAddr>) -> Result<P::Subject, AuthError> {
        let key = hash(token);
        let known = match self.cached(&key) {
            Some(Cached::Fresh(subject)) => return Ok(subject),
            Some(Cached::Known) => true,
            None => false,
        };
        if !known {
            self.admit(token, &key, from).inspect_err(|_| self.counters.spared.add(1))?;
        }
        let slots = if known { &self.known_reviews } else { &self.reviews };
        let response = tokio::time::timeout(self.limits.timeout, self.request(token, slots));
        let status = response.await.unwrap_or_else(|_| {
            let after = self.limits.timeout.as_millis();
            Err(AuthError::Unavailable(format!("the API server did not answer within {after} ms")))
        });
        if status.is_err() {
            self.counters.failures.add(1);
        }
        match self.subject(&status?) {
            Ok(subject) => {
                self.accept(key, subject.clone());
                Ok(subject)
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
        self.policy.check(token, self.clock.now())?;
        if let Some(error) = self.refused().find(key) {
            return Err(error);
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.take(from, Instant::now()) { Ok(()) } else { Err(AuthError::Busy) }
    }

    /// Whom a review identifies.
    fn subject(&self, status: &TokenReviewStatus) -> Result<P::Subject, AuthError> {
        authenticated(status, self.policy.audience())?;
        self.policy.subject(status)
    }

    fn refused(&self) -> MutexGuard<'_, RefusedTokens> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> MutexGuard<'_, AcceptedTokens<P::Subject>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, token: &str, slots: &Semaphore) -> Result<TokenReviewStatus, AuthError> {
        let unavailable = |message: String| AuthError::Unavailable(message);
        let _slot = slots.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        self.counters.requests.add(1);
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: self.policy.audience().map(|audience| vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let response = self.api.create(&PostParams::default(), &review).await;
        Ok(response.map_err(|error| unavailable(error.to_string()))?.status.unwrap_or_default())
    }

    fn cached(&self, key: &TokenHash) -> Option<Cached<P::Subject>> {
        let accepted = self.accepted();
        let (at, subject) = accepted.get(key)?;
        match at.elapsed() {
            age if age < self.limits.believe => Some(Cached::Fresh(subject.clone())),
            age if age < KNOWN_FOR => Some(Cached::Known),
            _ => None,
        }
    }

    fn accept(&self, key: TokenHash, subject: P::Subject) {
        let mut accepted = self.accepted();
        if accepted.len() >= MAX_ACCEPTED {
            accepted.retain(|_, (at, _)| at.elapsed() < KNOWN_FOR);
        }
        if accepted.len() >= MAX_ACCEPTED {
            accepted.retain(|_, (at, _)| at.elapsed() < self.limits.believe);
        }
        if accepted.len() < MAX_ACCEPTED {
            accepted.insert(key, (Instant::now(), subject));
        }
    }
}

/// What the cache holds of a token.
enum Cached<S> {
    /// A review that is recent enough to count.
    Fresh(S),
    /// It was accepted recently, and is to be reviewed again.
    Known,
}

impl<P: TokenPolicy + fmt::Debug> fmt::Debug for TokenReviews<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Whether a review authenticates its token, for this audience.
///
/// # Errors
/// [`AuthError::Invalid`] when it does not.
pub fn authenticated(status: &TokenReviewStatus, audience: Option<&str>) -> Result<(), AuthError> {
    if status.authenticated != Some(true) {
        // The API server's own text, for example which audiences the token is for; never the token itself.
        let text = status.error.as_deref().filter(|error| !error.is_empty());
        let text = text.map(|text| text[..text.floor_char_boundary(MAX_ERROR)].to_owned());
        return Err(AuthError::Invalid(text.unwrap_or_else(|| "the API server does not know it".to_owned())));
    }
    // A server without audience support authenticates the token and returns no audiences.
    if let Some(audience) = audience
        && !status.audiences.iter().flatten().any(|one| one == audience)
    {
        return Err(AuthError::Invalid(format!("it was not reviewed for the audience {audience:?}")));
    }
    Ok(())
}
