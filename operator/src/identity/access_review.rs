//! What a user may do, as the API server decides it (`SubjectAccessReview`).
//!
//! An answer is cached for [`BELIEVE`], a refusal too, so a change of a role counts within that time. The cache and the
//! requests at once are bounded; beyond the bound of the cache every question is asked.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus,
};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::principal::Principal;
use crate::metrics::{Counter, Registry as MetricsRegistry};

/// How long an answer is cached.
pub const BELIEVE: Duration = Duration::from_secs(10);

/// Answers that are cached.
const MAX_CACHED: usize = 10_000;

/// Concurrent reviews; further ones wait.
const MAX_REVIEWS: usize = 32;

/// Timeout of a review, waiting for a slot included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest reason of the API server that is passed on, bytes.
const MAX_REASON: usize = 256;

/// What a user wants to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// A verb on a resource.
    Resource {
        /// The verb, for example `get`.
        verb: &'static str,
        /// The API group.
        group: &'static str,
        /// The resource, for example `tasks`.
        resource: &'static str,
        /// The subresource, or the empty text.
        subresource: &'static str,
        /// The namespace; `None` for all of them, or for a resource without namespaces.
        namespace: Option<String>,
        /// The name; `None` for all of them.
        name: Option<String>,
    },
    /// `get` of a path that is not a resource.
    Path(&'static str),
}

impl fmt::Display for Action {
    /// As the API server words it: `get resource "tasks/log" in API group "g" in the namespace "n"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Resource { verb, group, resource, subresource, namespace, name } = self else {
            let Self::Path(path) = self else { return Ok(()) };
            return write!(f, "get path {path:?}");
        };
        let slash = if subresource.is_empty() { "" } else { "/" };
        write!(f, "{verb} resource \"{resource}{slash}{subresource}\" in API group {group:?}")?;
        match namespace {
            Some(namespace) => write!(f, " in the namespace {namespace:?}")?,
            None => f.write_str(" at the cluster scope")?,
        }
        name.as_ref().map_or(Ok(()), |name| write!(f, ", name {name:?}"))
    }
}

/// The API server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is allowed.
    Allowed,
    /// It is not, for this reason; empty when the API server gives none.
    Denied(String),
}

/// A question that the API server has not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("unable to ask the API server what {user:?} may do: {why}")]
pub struct Unanswered {
    user: String,
    why: String,
}

impl Unanswered {
    /// The kind of error, one of a fixed set.
    pub fn category(&self) -> &'static str {
        "Unavailable"
    }

    /// Always: the API server may answer later.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Asks the API server, and caches what it answers.
pub struct AccessReviews {
    api: Api<SubjectAccessReview>,
    slots: Semaphore,
    cached: Mutex<HashMap<QuestionHash, (Instant, Verdict)>>,
    requests: Counter,
    failures: Counter,
}

type QuestionHash = [u8; 32];

impl AccessReviews {
    /// Asks through this client.
    pub fn new(client: Client, metrics: &MetricsRegistry) -> Self {
        Self {
            api: Api::all(client),
            slots: Semaphore::new(MAX_REVIEWS),
            cached: Mutex::default(),
            requests: metrics
                .counter("sentinel_api_access_reviews_total", "SubjectAccessReviews sent to the API server."),
            failures: metrics
                .counter("sentinel_api_access_reviews_failed_total", "SubjectAccessReviews that failed."),
        }
    }

    /// Whether a user may do this.
    ///
    /// # Errors
    /// [`Unanswered`] when the API server did not answer in time.
    pub async fn verdict(&self, who: &Principal, action: &Action) -> Result<Verdict, Unanswered> {
        let key = hash(who, action);
        if let Some(verdict) = self.find(&key) {
            return Ok(verdict);
        }
        let asked = tokio::time::timeout(TIMEOUT, self.ask(who, action)).await;
        let timed_out = || format!("no answer within {} s", TIMEOUT.as_secs());
        let status = asked.unwrap_or_else(|_| Err(timed_out())).map_err(|why| {
            self.failures.add(1);
            Unanswered { user: who.name.clone(), why }
        })?;
        let verdict = verdict(status);
        self.keep(key, verdict.clone());
        Ok(verdict)
    }

    async fn ask(&self, who: &Principal, action: &Action) -> Result<SubjectAccessReviewStatus, String> {
        let _slot = self.slots.acquire().await.map_err(|error| error.to_string())?;
        self.requests.add(1);
        let review = SubjectAccessReview { spec: question(who, action), ..SubjectAccessReview::default() };
        let answer = self.api.create(&PostParams::default(), &review).await;
        answer.map_err(|error| error.to_string())?.status.ok_or_else(|| "the answer has no status".to_owned())
    }

    fn find(&self, key: &QuestionHash) -> Option<Verdict> {
        let cached = self.lock();
        let (at, verdict) = cached.get(key)?;
        (at.elapsed() < BELIEVE).then(|| verdict.clone())
    }

    fn keep(&self, key: QuestionHash, verdict: Verdict) {
        let mut cached = self.lock();
        if cached.len() >= MAX_CACHED {
            cached.retain(|_, (at, _)| at.elapsed() < BELIEVE);
        }
        if cached.len() < MAX_CACHED {
            cached.insert(key, (Instant::now(), verdict));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QuestionHash, (Instant, Verdict)>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AccessReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessReviews").finish_non_exhaustive()
    }
}

fn hash(who: &Principal, action: &Action) -> QuestionHash {
    // The texts of Debug are quoted, so no two questions have the same.
    Sha256::digest(format!("{who:?}{action:?}")).into()
}

fn question(who: &Principal, action: &Action) -> SubjectAccessReviewSpec {
    let mut spec = SubjectAccessReviewSpec {
        user: Some(who.name.clone()),
        uid: who.uid.clone(),
        groups: Some(who.groups.clone()),
        extra: Some(who.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    };
    match action {
        Action::Resource { verb, group, resource, subresource, namespace, name } => {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            spec.resource_attributes = Some(ResourceAttributes {
                verb: text(verb),
                group: text(group),
                version: Some("*".to_owned()),
                resource: text(resource),
                subresource: text(subresource),
                namespace: namespace.clone(),
                name: name.clone(),
                ..ResourceAttributes::default()
            });
        }
        Action::Path(path) => {
            let path = Some((*path).to_owned());
            spec.non_resource_attributes = Some(NonResourceAttributes { path, verb: Some("get".to_owned()) });
        }
    }
    spec
}

/// Only an explicit permission counts; a denial wins over it.
fn verdict(status: SubjectAccessReviewStatus) -> Verdict {
    if status.allowed && status.denied != Some(true) {
        return Verdict::Allowed;
    }
    let reason = status.reason.or(status.evaluation_error).unwrap_or_default();
    Verdict::Denied(reason[..reason.floor_char_boundary(MAX_REASON)].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(namespace: Option<&str>) -> Action {
        Action::Resource {
            verb: "get",
            group: "g",
            resource: "tasks",
            subresource: "log",
            namespace: namespace.map(str::to_owned),
            name: Some("a".to_owned()),
        }
    }

    #[test]
    fn an_action_is_worded_as_the_api_server_words_it() {
        assert_eq!(
            log_of(Some("n")).to_string(),
            r#"get resource "tasks/log" in API group "g" in the namespace "n", name "a""#
        );
        let everywhere = r#"get resource "tasks/log" in API group "g" at the cluster scope, name "a""#;
        assert_eq!(log_of(None).to_string(), everywhere);
        assert_eq!(Action::Path("/metrics").to_string(), r#"get path "/metrics""#);
    }

    #[test]
    fn only_an_explicit_permission_counts() {
        let status = |allowed, denied| SubjectAccessReviewStatus {
            allowed,
            denied,
            ..SubjectAccessReviewStatus::default()
        };
        assert_eq!(verdict(status(true, None)), Verdict::Allowed);
        assert_eq!(verdict(status(true, Some(true))), Verdict::Denied(String::new()));
        assert_eq!(verdict(status(false, None)), Verdict::Denied(String::new()));
        assert_eq!(verdict(SubjectAccessReviewStatus::default()), Verdict::Denied(String::new()));
    }

    #[test]
    fn questions_of_different_people_differ() {
        let who = |name: &str, groups: &[&str]| Principal {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Principal::default()
        };
        let action = log_of(None);
        assert_ne!(hash(&who("a", &["b", "c"]), &action), hash(&who("a", &["b\", \"c"]), &action));
        assert_ne!(hash(&who("a", &[]), &action), hash(&who("a", &[]), &log_of(Some("n"))));
    }
}
