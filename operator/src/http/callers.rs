//! Who made a request, and whether they may: between the guard, which checks the head alone, and the handlers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use sentinel_api::aggregated::{self, Scope};
use sentinel_audit::record::Access;
use sentinel_protocol::ids::TaskUid;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::answer::{Answer, Body, Chunks};
use super::api::Api;
use super::error::{ApiError, Reason};
use super::executions::unable;
use super::guard;
use super::owners::Owned;
use super::request::Request;
use super::requirement::{self, Requirement};
use super::table::Found;
use crate::identity::access_review::{Action, Verdict};
use crate::identity::people::{Caller, People};
use crate::identity::{AuthError, Principal};
use crate::server::{Client, Peer};

/// What a request is about, as its path has it: for a request of the aggregated API the Task that the API server has
/// authorized.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    /// The namespace; `None` for all.
    pub(super) namespace: Option<String>,
    /// The name of the Task.
    pub(super) task: Option<String>,
    /// The uid of the Task.
    pub(super) task_uid: Option<String>,
    /// The node.
    pub(super) node: Option<String>,
}

impl From<aggregated::Found> for Subject {
    fn from(found: aggregated::Found) -> Self {
        let aggregated::Found { namespace, task, task_uid, node, .. } = found;
        Self { namespace, task, task_uid, node }
    }
}

/// A caller who may do what they ask for.
#[derive(Debug, Clone)]
pub(super) struct Permit {
    pub(super) caller: Caller,
    people: Arc<People>,
    actions: Vec<Action>,
}

impl Permit {
    /// Whether it still holds, as far as the API server answers.
    ///
    /// # Errors
    /// 401 or 403 when the caller is not known any more, or may not do this any more.
    async fn still_holds(&self) -> Result<(), ApiError> {
        let is_passing = |error: &ApiError| error.is_retryable();
        if let Err(error) = self.people.review_again(&self.caller).await {
            let error = unknown(&error);
            return if is_passing(&error) { Ok(()) } else { Err(error) };
        }
        for action in &self.actions {
            match ask(&self.people, &self.caller.principal, action).await {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// How often it is asked whether the reader of a stream still may.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The same answer, whose stream ends when the permit does not hold any more.
pub(super) fn while_permitted(mut answer: Answer, permit: Permit) -> Answer {
    if let Body::Stream(chunks) = answer.body {
        let begun = (chunks, permit, Instant::now() + ASK_AGAIN);
        let watched = stream::unfold(Some(begun), |state| async move {
            let (mut chunks, permit, mut ask_at) = state?;
            loop {
                tokio::select! {
                    biased;
                    chunk = chunks.next() => return chunk.map(|chunk| (chunk, Some((chunks, permit, ask_at)))),
                    () = tokio::time::sleep_until(ask_at) => {
                        if let Err(error) = permit.still_holds().await {
                            return Some((Err(error.into()), None));
                        }
                        ask_at = Instant::now() + ASK_AGAIN;
                    }
                }
            }
        });
        answer.body = Body::Stream(Chunks::new(watched));
    }
    answer
}

/// The caller of a request, who may make it; `None` where nothing is required.
///
/// # Errors
/// 401 when it is unknown who they are, 403 when they may not, 404 when the Task of the path is not the one of its uid.
pub(super) async fn admit(
    api: &Api,
    people: &Arc<People>,
    found: &Found,
    request: &Request,
    authorized: Option<Subject>,
    peer: Option<&Peer>,
) -> Result<Option<Permit>, ApiError> {
    let Some(required) = requirement::of(found.route) else {
        return Err(ApiError::internal("no caller may use this route: it has no requirement"));
    };
    if required == Requirement::Nothing {
        return Ok(None);
    }
    let caller = match people.authenticate(&request.headers, peer).await {
        Ok(caller) => caller,
        Err(error) => {
            let error = unknown(&error);
            record_denial(api, &error, request, None, peer);
            return Err(error);
        }
    };
    let permitted = permitted(api, people, (found, required), (request, authorized), &caller, peer).await;
    match permitted {
        Ok(actions) => {
            record_reading(api, found, request, Some(&caller.principal), peer);
            Ok(Some(Permit { caller, people: Arc::clone(people), actions }))
        }
        Err(error) => {
            record_denial(api, &error, request, Some(&caller.principal), peer);
            Err(error)
        }
    }
}

/// What a caller does, if they may.
///
/// # Errors
/// As those of [`admit`].
async fn permitted(
    api: &Api,
    people: &People,
    (found, required): (&Found, Requirement),
    (request, authorized): (&Request, Option<Subject>),
    caller: &Caller,
    peer: Option<&Peer>,
) -> Result<Vec<Action>, ApiError> {
    if let Some(peer) = peer {
        peer.authenticated();
    }
    // A proxy may add its client's identity to whatever a browser sends.
    if caller.token.is_none() && guard::is_write(&request.method) {
        guard::own_header(&request.headers)?;
    }
    let who = &caller.principal;
    let mut actions = Vec::new();
    match required {
        Requirement::Nothing | Requirement::Identity => {}
        Requirement::Path(path) => actions.push(Action::Path(path)),
        Requirement::OwnCredentials if caller.token.is_some() => {}
        Requirement::OwnCredentials => return Err(without_credentials(who)),
        Requirement::Rights(row) => {
            let subject = subject(api, found, request, authorized).await?;
            actions.extend(row.access.iter().map(|access| action(access, row.scope, &subject)));
        }
    }
    for action in &actions {
        ask(people, who, action).await?;
    }
    Ok(actions)
}

/// Records that output is read, if the route does that.
pub(super) fn record_reading(
    api: &Api,
    found: &Found,
    request: &Request,
    who: Option<&Principal>,
    peer: Option<&Peer>,
) {
    if requirement::reads_output(found.route) {
        api.audit.output_read(|| access(request, who, peer));
    }
}

/// Records that a request was denied, if that is what the error states.
pub(super) fn record_denial(
    api: &Api,
    error: &ApiError,
    request: &Request,
    who: Option<&Principal>,
    peer: Option<&Peer>,
) {
    if matches!(error.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        api.audit.denied(error.status.as_u16(), &error.to_string(), || access(request, who, peer));
    }
}

fn access(request: &Request, who: Option<&Principal>, peer: Option<&Peer>) -> Access {
    Access {
        user: who.map(|who| who.name.as_str().into()),
        uid: who.and_then(|who| who.uid.as_deref()).map(Into::into),
        groups: who
            .map(|who| who.groups.iter().map(|group| group.as_str().into()).collect())
            .unwrap_or_default(),
        from: peer.map(|peer| peer.addr.ip().to_string().into()),
        method: request.method.as_str().into(),
        path: request.path.as_str().into(),
    }
}

/// The client that this caller counts as: people behind a proxy share its address.
pub(super) fn client(caller: &Caller) -> Client {
    let digest = Sha256::digest(caller.principal.name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    Client::Principal(u64::from_be_bytes(first))
}

/// What a request is about, with the Task of its uid.
async fn subject(
    api: &Api,
    found: &Found,
    request: &Request,
    authorized: Option<Subject>,
) -> Result<Subject, ApiError> {
    let mut subject = match &authorized {
        Some(subject) => subject.clone(),
        None => of_native(found, request)?,
    };
    if let Some(uid) = &subject.task_uid {
        let owner = match TaskUid::new(uid.as_str()) {
            Ok(uid) => match api.owners.find(&api.records, &uid).await.map_err(|error| unable(&error))? {
                Owned::By(owner) => Some(owner),
                Owned::Unknown => None,
                Owned::Uncertain(why) => return Err(ApiError::unavailable(why)),
            },
            Err(_) => None,
        };
        match (owner, &authorized) {
            (Some(owner), Some(named)) => {
                let is_same = named.namespace.as_deref() == Some(&*owner.namespace)
                    && named.task.as_deref().is_none_or(|name| name == &*owner.name);
                if !is_same {
                    return Err(ApiError::not_found("the Task of the path has no Run of this uid"));
                }
            }
            (Some(owner), None) => {
                subject.namespace = Some(owner.namespace.to_string());
                subject.task = Some(owner.name.to_string());
            }
            (None, Some(_)) => {
                return Err(ApiError::not_found("the Task of the path has no Run of this uid"));
            }
            // A caller who may read everywhere is answered that it does not exist.
            (None, None) => {}
        }
    }
    if subject.namespace.is_none() {
        subject.namespace = api.within.as_ref().map(ToString::to_string);
    }
    Ok(subject)
}

fn of_native(found: &Found, request: &Request) -> Result<Subject, ApiError> {
    let target = format!("{}?{}", request.path, request.query);
    let native = aggregated::of_native(found.route.method.as_str(), &target);
    native.map(Subject::from).ok_or_else(|| ApiError::internal("the route has no row in the table of rights"))
}

fn action(access: &aggregated::Access, scope: Scope, subject: &Subject) -> Action {
    let is_of_tasks = access.resource == "tasks";
    let (namespace, name) = match scope {
        Scope::Cluster => (None, subject.node.clone()),
        Scope::Namespace | Scope::Either => {
            (subject.namespace.clone(), subject.task.clone().filter(|_| is_of_tasks))
        }
    };
    Action::Resource {
        verb: access.verb,
        group: access.group,
        resource: access.resource,
        subresource: access.subresource.unwrap_or_default(),
        namespace,
        name,
    }
}

async fn ask(people: &People, who: &Principal, action: &Action) -> Result<(), ApiError> {
    let verdict = people.verdict(who, action).await;
    match verdict.map_err(|error| ApiError::unavailable(error.to_string()))? {
        Verdict::Allowed => Ok(()),
        Verdict::Denied(reason) => Err(forbidden(who, action, &reason)),
    }
}

fn forbidden(who: &Principal, action: &Action, reason: &str) -> ApiError {
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let message = format!("user {:?} cannot {action}{because}", who.name);
    ApiError::new(StatusCode::FORBIDDEN, Reason::Forbidden, message)
}

fn without_credentials(who: &Principal) -> ApiError {
    let message = format!(
        "a Task is created, changed and deleted with the caller's own credentials, and this request has none of user {:?}: \
         use kubectl or sentinel, or send a bearer token of the cluster",
        who.name
    );
    ApiError::new(StatusCode::FORBIDDEN, Reason::Forbidden, message)
}

/// The answer to a caller who is not known.
pub(super) fn unknown(error: &AuthError) -> ApiError {
    let status = error.status();
    let message = format!("failed to authenticate: {error}");
    match error {
        AuthError::Unavailable(_) => ApiError::unavailable(message),
        AuthError::Busy => ApiError::new(status, Reason::TooManyStreams, message),
        AuthError::NotAnAgent(_) => ApiError::new(status, Reason::Forbidden, message),
        AuthError::Missing | AuthError::Malformed(_) | AuthError::Invalid(_) => {
            let allowed = "Authorization: Bearer TOKEN, with a token of the cluster (kubectl create token, or an OIDC token)";
            ApiError::new(StatusCode::UNAUTHORIZED, Reason::Unauthorized, message).at(
                "authorization",
                "",
                allowed,
            )
        }
    }
}
