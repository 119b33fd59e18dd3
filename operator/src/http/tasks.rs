//! Tasks: list, get, create, apply, cancel, rerun, delete. The cluster validates every write; nothing here decides about
//! a Run.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use kube::ResourceExt as _;
use sentinel_protocol::ids::{InvalidId, TaskRef};
use sentinel_protocol::requester::Requester;
use serde_json::{Value, json};

use super::answer::{Answer, BodyError};
use super::api::Api;
use super::error::{ApiError, Problem, Reason};
use super::executions::{RUN, RunText};
use super::feed::Feed;
use super::rendering;
use super::request::{Query, Request};
use crate::cluster::{Change, ClusterError, TaskStore};
use crate::resource::invalid::Invalid;
use crate::resource::marks::{CANCEL, RERUN};
use crate::resource::presented::present;
use crate::resource::{Task, schema};
use crate::server::Client;

/// Namespace of a Task that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Longest rerun token, characters; as for the field of the Task.
const MAX_TOKEN: usize = 128;

pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let limit = query.limit()?;
    let after = query.read::<After>("page", PAGE)?;
    let namespace = query.text("namespace").map(str::to_owned);
    let tasks = api.store.list(namespace).await.map_err(|error| refused(&error))?;
    let phase = query.text("phase").map(str::to_owned);
    let mut fitting = tasks.into_iter().filter(|task| {
        after.as_ref().is_none_or(|after| key(task) > after.key())
            && phase.as_deref().is_none_or(|phase| phase_of(task).as_deref() == Some(phase))
    });
    let page: VecDeque<Arc<Task>> = fitting.by_ref().take(limit).map(|task| latest(api, task)).collect();
    let more = fitting.next().is_some();
    let next = page.back().filter(|_| more).map(|task| key(task).join("/"));
    let items =
        ListBody { feed: api.feed.clone(), page, next, pieces: VecDeque::new(), position: Position::Begin };
    Ok(Answer::stream("application/json", stream::iter(items)))
}

const PAGE: &str = "the `next` of an earlier answer to the same query";

/// The Task after which a page begins.
struct After(TaskRef);

impl After {
    fn key(&self) -> [&str; 2] {
        [&self.0.namespace, &self.0.name]
    }
}

impl FromStr for After {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (namespace, name) = text.split_once('/').ok_or(())?;
        TaskRef::new(namespace, name).map(Self).map_err(|_| ())
    }
}

/// A list that is sent item by item: the bytes of an item are shared with other readers of that version.
struct ListBody {
    feed: Feed,
    page: VecDeque<Arc<Task>>,
    next: Option<String>,
    pieces: VecDeque<Bytes>,
    position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Begin,
    Within,
    End,
}

impl Iterator for ListBody {
    type Item = Result<Bytes, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(Ok(piece));
        }
        let before: &'static [u8] = match self.position {
            Position::Begin => b"{\"items\":[",
            Position::Within => b",",
            Position::End => return None,
        };
        if let Some(task) = self.page.pop_front() {
            self.position = Position::Within;
            match self.feed.json(&task) {
                Ok(item) => self.pieces.push_back(item),
                Err(error) => {
                    self.position = Position::End;
                    return Some(Err(error.into()));
                }
            }
            return Some(Ok(Bytes::from_static(before)));
        }
        let begin: &[u8] = if self.position == Position::Begin { before } else { b"" };
        self.position = Position::End;
        let next = self.next.take().map(|next| format!(",\"next\":{}", json!(next)));
        let end = format!("]{}}}\n", next.unwrap_or_default());
        Some(Ok(Bytes::from([begin, end.as_bytes()].concat())))
    }
}

/// The Task from the feed when that has the same version: then its memory is shared.
fn latest(api: &Api, task: Task) -> Arc<Task> {
    let known = reference(&task).ok().and_then(|name| api.feed.task(&name));
    let same = |known: &Arc<Task>| {
        known.metadata.uid == task.metadata.uid
            && known.metadata.resource_version == task.metadata.resource_version
    };
    known.filter(same).unwrap_or_else(|| Arc::new(task))
}

fn key(task: &Task) -> [&str; 2] {
    let metadata = &task.metadata;
    [metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default()]
}

/// The phase is for people, so they may filter by it.
fn phase_of(task: &Task) -> Option<String> {
    present(task).status.as_ref().and_then(|status| status.phase.clone())
}

pub(super) async fn get(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let task = find(api, &named(parts)?).await?;
    one(api, StatusCode::OK, &task)
}

/// Where the caller changes Tasks: with their own credentials, where they have any; else everybody who may ask changes them
/// as the operator.
fn store(api: &Api, request: &Request) -> Result<Arc<dyn TaskStore>, ApiError> {
    let Some(caller) = &request.caller else { return Ok(as_operator(api, request)) };
    let by_caller = api.by_caller.as_ref().zip(caller.token.as_deref());
    let (stores, token) = by_caller.ok_or_else(|| ApiError::internal("the caller has no credentials"))?;
    stores.with_token(token).map_err(|error| refused(&error))
}

/// Where the operator itself changes Tasks, as the caller asks: what it writes is stamped with them.
pub(super) fn as_operator(api: &Api, request: &Request) -> Arc<dyn TaskStore> {
    api.store.asked_by(asking(api, request))
}

/// Who asks, as far as that is known.
pub(super) fn asking(api: &Api, request: &Request) -> Option<Requester> {
    match (&request.caller, &api.owner, request.client) {
        (Some(caller), ..) => Some(Requester::from(&caller.principal)),
        (None, Some(owner), Client::User(uid)) => Some(owner.of_uid(uid)),
        (None, Some(owner), _) => Some(owner.requester()),
        (None, None, _) => None,
    }
}

/// Whether a request asks only whether its change would be accepted.
fn is_dry_run(query: &Query) -> Result<bool, ApiError> {
    Ok(query.one_of("dryRun", &[("All", true)])?.unwrap_or(false))
}

pub(super) async fn create(api: &Api, query: &Query, request: &Request) -> Result<Answer, ApiError> {
    let dry_run = is_dry_run(query)?;
    let task = admitted(request.json()?, api.within.as_deref())?;
    // A name may be generated; the namespace is checked in any case.
    let name = reference(&task).or_else(|_| TaskRef::new(task.namespace().unwrap_or_default(), "unnamed"));
    let name = name.map_err(|error| misnamed(&error))?;
    api.check_namespace(&name.namespace)?;
    let store = store(api, request)?;
    let created = if dry_run { store.dry_run(Change::Create, task) } else { store.create(task) };
    let created = created.await.map_err(|error| match error {
        ClusterError::Exists { .. } => exists(&name),
        other => refused(&other),
    })?;
    Ok(written(api, StatusCode::CREATED, &created, dry_run)?.with("sentinel-result", "created"))
}

/// The answer with a Task that was written, or would be.
fn written(api: &Api, status: StatusCode, task: &Task, dry_run: bool) -> Result<Answer, ApiError> {
    // Readers share what was rendered of a stored Task.
    let body = if dry_run { rendering::render(task)?.into() } else { api.feed.json(task)? };
    Ok(Answer::whole(status, "application/json", body))
}

fn exists(name: &TaskRef) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, Reason::AlreadyExists, format!("Task {name} already exists")).at(
        "metadata.name",
        &name.name,
        "an unused name; PUT changes an existing Task",
    )
}

pub(super) async fn apply(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let dry_run = is_dry_run(query)?;
    let wanted = named(parts)?;
    let mut body = request.json()?;
    // A body without a namespace has that of the path.
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("namespace").or_insert_with(|| json!(wanted.namespace));
    }
    let task = admitted(body, api.within.as_deref())?;
    let given = reference(&task).map_err(|error| misnamed(&error))?;
    if given != wanted {
        let message = format!("the path names Task {wanted}, the body {given}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidTask, message).at(
            "metadata.name",
            &given.to_string(),
            format!("as in the path: {wanted}"),
        ));
    }
    let store = store(api, request)?;
    let before = store.get(wanted).await.map_err(|error| refused(&error))?;
    let applied = if dry_run { store.dry_run(Change::Apply, task) } else { store.apply(task) };
    let applied = applied.await.map_err(|error| refused(&error))?;
    let (status, result) = match before {
        None => (StatusCode::CREATED, "created"),
        Some(before) if is_unchanged(&before, &applied) => (StatusCode::OK, "unchanged"),
        Some(_) => (StatusCode::OK, "configured"),
    };
    Ok(written(api, status, &applied, dry_run)?.with("sentinel-result", result))
}

/// Whether applying changed nothing that users write.
fn is_unchanged(before: &Task, after: &Task) -> bool {
    before.metadata.uid == after.metadata.uid
        && before.metadata.generation == after.metadata.generation
        && before.metadata.labels == after.metadata.labels
        && before.metadata.annotations == after.metadata.annotations
}

pub(super) async fn delete(api: &Api, parts: &[String], request: &Request) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    store(api, request)?.delete(name.clone()).await.map_err(|error| named_error(&name, &error))?;
    let accepted = json!({
        "namespace": name.namespace,
        "task": name.name,
        "message": "deletion requested; it completes when none of its commands runs",
    });
    Answer::json_as(StatusCode::ACCEPTED, &accepted)
}

pub(super) async fn cancel(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    let wanted = query.read::<RunText>("run", RUN)?.map(|text| i64::from(text.0.0));
    let task = find(api, &name).await?;
    let conflict = |message: String| ApiError::new(StatusCode::CONFLICT, Reason::Conflict, message);
    let Some(run) = task.status.as_ref().and_then(|status| status.run.as_ref()) else {
        return Err(conflict(format!("Task {name} has no Run to cancel")));
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != run.number) {
        return Err(conflict(format!("the active Run of Task {name} is {}, not {wanted}", run.number)));
    }
    if let Some(verdict) = &run.verdict {
        return Err(conflict(format!("Run {} of Task {name} is over already: {verdict}", run.number)));
    }
    let number = run.number;
    let store = as_operator(api, request);
    let annotated = store.annotate(name.clone(), CANCEL, Some(number.to_string())).await;
    annotated.map_err(|error| named_error(&name, &error))?;
    let accepted = json!({"namespace": name.namespace, "task": name.name, "run": number});
    Answer::json_as(StatusCode::ACCEPTED, &accepted)
}

pub(super) async fn rerun(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    let token = match query.text("token") {
        None => generate_token(api),
        Some(token) if !token.is_empty() && token.chars().count() <= MAX_TOKEN => token.to_owned(),
        Some(token) => {
            return Err(ApiError::query("token", token, format!("1 to {MAX_TOKEN} characters")));
        }
    };
    let task = find(api, &name).await?;
    let handled = task.status.as_ref().and_then(|status| status.handled.rerun.as_ref());
    if task.annotations().get(RERUN) == Some(&token) || handled == Some(&token) {
        let message = format!("the last rerun of Task {name} was requested with this token");
        return Err(ApiError::new(StatusCode::CONFLICT, Reason::Conflict, message).at(
            "token",
            &token,
            "another token than that of the last rerun",
        ));
    }
    let store = as_operator(api, request);
    let annotated = store.annotate(name.clone(), RERUN, Some(token.clone())).await;
    annotated.map_err(|error| named_error(&name, &error))?;
    let accepted = json!({"namespace": name.namespace, "task": name.name, "token": token});
    Answer::json_as(StatusCode::ACCEPTED, &accepted)
}

/// An unused token: the time, and a number for requests within one millisecond.
fn generate_token(api: &Api) -> String {
    static REQUESTS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = REQUESTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let time = super::log_text::rfc3339(api.clock.now()).unwrap_or_default();
    format!("{time}-{number}")
}

/// The Task of that name in the cluster.
pub(super) async fn find(api: &Api, name: &TaskRef) -> Result<Task, ApiError> {
    let found = api.store.get(name.clone()).await.map_err(|error| refused(&error))?;
    found.ok_or_else(|| missing(name))
}

pub(super) fn missing(name: &TaskRef) -> ApiError {
    ApiError::not_found(format!("no Task {name}"))
}

/// The name of a Task from the segments of a path.
pub(super) fn named(parts: &[String]) -> Result<TaskRef, ApiError> {
    let [namespace, name, ..] = parts else {
        return Err(ApiError::internal("the route of a Task has two open parts"));
    };
    TaskRef::new(namespace.as_str(), name.as_str()).map_err(|error| {
        let field = if error.what == "namespace" { "namespace" } else { "name" };
        let message = format!("no such Task: {field} in the path must be {}", error.allowed);
        ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidPath, message).at(
            field,
            &error.value,
            error.allowed,
        )
    })
}

/// A Task as the API shows it.
fn one(api: &Api, status: StatusCode, task: &Task) -> Result<Answer, ApiError> {
    Ok(Answer::whole(status, "application/json", api.feed.json(task)?))
}

fn admitted(value: Value, within: Option<&str>) -> Result<Task, ApiError> {
    let mut task = schema::admit(value).map_err(|problems| invalid(&problems))?;
    task.metadata.namespace.get_or_insert_with(|| within.unwrap_or(DEFAULT_NAMESPACE).to_owned());
    Ok(task)
}

fn misnamed(error: &InvalidId) -> ApiError {
    let problem = Problem {
        field: "metadata.name".to_owned(),
        value: error.value.clone(),
        allowed: format!("must be {}", error.allowed),
    };
    ApiError::invalid("the Task", vec![problem])
}

fn invalid(problems: &[Invalid]) -> ApiError {
    let problem =
        |p: &Invalid| Problem { field: p.field.clone(), value: p.value.clone(), allowed: p.allowed.clone() };
    ApiError::invalid("the Task", problems.iter().map(problem).collect())
}

fn reference(task: &Task) -> Result<TaskRef, InvalidId> {
    TaskRef::new(task.namespace().unwrap_or_default(), task.metadata.name.clone().unwrap_or_default())
}

pub(super) fn named_error(name: &TaskRef, error: &ClusterError) -> ApiError {
    if matches!(error, ClusterError::Gone { .. }) { missing(name) } else { refused(error) }
}

/// The answer when the cluster refused.
fn refused(error: &ClusterError) -> ApiError {
    match error {
        ClusterError::Conflict { .. } => {
            ApiError::new(StatusCode::CONFLICT, Reason::Conflict, error.to_string())
        }
        ClusterError::Gone { .. } => ApiError::not_found(error.to_string()),
        ClusterError::Exists { .. } => {
            ApiError::new(StatusCode::CONFLICT, Reason::AlreadyExists, error.to_string())
        }
        ClusterError::Refused { code, .. } => {
            let status = StatusCode::from_u16(*code).ok().filter(StatusCode::is_client_error);
            let reason = match code {
                401 => Reason::Unauthorized,
                403 => Reason::Forbidden,
                _ => Reason::InvalidTask,
            };
            ApiError::new(status.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY), reason, error.to_string())
        }
        ClusterError::TimedOut { .. } | ClusterError::Unavailable { .. } => {
            ApiError::unavailable(error.to_string())
        }
        ClusterError::TargetsDamaged { .. } => ApiError::internal(error.to_string()),
    }
}
