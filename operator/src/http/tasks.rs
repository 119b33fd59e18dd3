//! Tasks: read, made, changed, cancelled, run again, deleted. Whatever is written goes through the cluster's own
//! rules; nothing here decides anything about a Run.

use http::StatusCode;
use kube::ResourceExt as _;
use sentinel_protocol::ids::TaskRef;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::error::{ApiError, Problem, Reason};
use super::executions::RunText;
use super::request::{Query, Request};
use super::view::List;
use crate::cluster::ClusterError;
use crate::resource::invalid::Invalid;
use crate::resource::marks::{CANCEL, RERUN};
use crate::resource::presented::present;
use crate::resource::{Task, schema};

/// Where a Task goes that names no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// Longest rerun token, characters; as the Task's own field has it.
const MAX_TOKEN: usize = 128;

pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let limit = query.limit()?;
    let after = query.text("page").map(page_token).transpose()?;
    let namespace = query.text("namespace").map(str::to_owned);
    let tasks = api.cluster.list(namespace).await.map_err(|error| refused(&error))?;
    let phase = query.text("phase");
    let mut fitting = tasks.iter().filter(|task| {
        let key = (task.namespace().unwrap_or_default(), task.name_any());
        after.as_ref().is_none_or(|after| key > *after)
            && phase.is_none_or(|phase| phase_of(task).as_deref() == Some(phase))
    });
    let page: Vec<&Task> = fitting.by_ref().take(limit).collect();
    let more = fitting.next().is_some();
    let last = page.last().filter(|_| more);
    let next = last.map(|task| format!("{}/{}", task.namespace().unwrap_or_default(), task.name_any()));
    let items = page.into_iter().map(|task| current(api, task)).collect::<Result<Vec<Value>, ApiError>>()?;
    Answer::json(&List { items, next, partial: None })
}

fn page_token(text: &str) -> Result<(String, String), ApiError> {
    text.split_once('/')
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| ApiError::query("page", text, "the `next` of an earlier answer to the same question"))
}

/// The phase is for people, so they may filter by it.
fn phase_of(task: &Task) -> Option<String> {
    present(task).status.as_ref().and_then(|status| status.phase.clone())
}

pub(super) async fn get(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    Answer::json(&current(api, &find(api, &named(parts)?).await?)?)
}

pub(super) async fn create(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let task = admitted(request.json()?)?;
    let name = reference(&task);
    let created = api.cluster.create(task).await.map_err(|error| match error {
        ClusterError::Exists { .. } => exists(&name),
        other => refused(&other),
    })?;
    Ok(Answer::json_as(StatusCode::CREATED, &shown(&created)?)?.with("sentinel-result", "created"))
}

fn exists(name: &TaskRef) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, Reason::AlreadyExists, format!("there is a Task {name} already")).at(
        "metadata.name",
        &name.name,
        "a name that is not taken; PUT changes the Task that is there",
    )
}

pub(super) async fn apply(api: &Api, parts: &[String], request: &Request) -> Result<Answer, ApiError> {
    let wanted = named(parts)?;
    let mut body = request.json()?;
    // A body without a namespace means that of the path.
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("namespace").or_insert_with(|| json!(wanted.namespace));
    }
    let task = admitted(body)?;
    let given = reference(&task);
    if given != wanted {
        let message = format!("the path names Task {wanted}, the body {given}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidTask, message).at(
            "metadata.name",
            &given.to_string(),
            format!("as in the path: {wanted}"),
        ));
    }
    let before = api.cluster.get(wanted).await.map_err(|error| refused(&error))?;
    let applied = api.cluster.apply(task).await.map_err(|error| refused(&error))?;
    let (status, result) = match before {
        None => (StatusCode::CREATED, "created"),
        Some(before) if same(&before, &applied) => (StatusCode::OK, "unchanged"),
        Some(_) => (StatusCode::OK, "configured"),
    };
    Ok(Answer::json_as(status, &shown(&applied)?)?.with("sentinel-result", result))
}

/// Whether applying changed nothing that a person wrote.
fn same(before: &Task, after: &Task) -> bool {
    before.metadata.uid == after.metadata.uid
        && before.metadata.generation == after.metadata.generation
        && before.metadata.labels == after.metadata.labels
        && before.metadata.annotations == after.metadata.annotations
}

pub(super) async fn delete(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    api.cluster.delete(name.clone()).await.map_err(|error| named_error(&name, &error))?;
    let said = json!({
        "namespace": name.namespace,
        "task": name.name,
        "message": "it is gone when nothing of it runs any more",
    });
    Answer::json_as(StatusCode::ACCEPTED, &said)
}

pub(super) async fn cancel(api: &Api, parts: &[String], query: &Query) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    let wanted =
        query.read::<RunText>("run", "the number of a Run, 1 or more")?.map(|text| i64::from(text.0.0));
    let task = find(api, &name).await?;
    let conflict = |message: String| ApiError::new(StatusCode::CONFLICT, Reason::Conflict, message);
    let Some(run) = task.status.as_ref().and_then(|status| status.run.as_ref()) else {
        return Err(conflict(format!("Task {name} has no Run to cancel")));
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != run.number) {
        return Err(conflict(format!("the Run of Task {name} is number {}, not {wanted}", run.number)));
    }
    if let Some(verdict) = &run.verdict {
        return Err(conflict(format!("Run {} of Task {name} is over already: {verdict}", run.number)));
    }
    let number = run.number;
    let annotated = api.cluster.annotate(name.clone(), CANCEL, Some(number.to_string())).await;
    annotated.map_err(|error| named_error(&name, &error))?;
    let said = json!({"namespace": name.namespace, "task": name.name, "run": number});
    Answer::json_as(StatusCode::ACCEPTED, &said)
}

pub(super) async fn rerun(api: &Api, parts: &[String], query: &Query) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    let token = match query.text("token") {
        None => made_up_token(api),
        Some(token) if !token.is_empty() && token.chars().count() <= MAX_TOKEN => token.to_owned(),
        Some(token) => {
            return Err(ApiError::query("token", token, format!("a text of 1 to {MAX_TOKEN} characters")));
        }
    };
    let task = find(api, &name).await?;
    if task.annotations().get(RERUN) == Some(&token) {
        let message =
            format!("Task {name} has been asked to run again with this token before; nothing is run");
        return Err(ApiError::new(StatusCode::CONFLICT, Reason::Conflict, message).at(
            "token",
            &token,
            "a token that was not given before",
        ));
    }
    let annotated = api.cluster.annotate(name.clone(), RERUN, Some(token.clone())).await;
    annotated.map_err(|error| named_error(&name, &error))?;
    let said = json!({"namespace": name.namespace, "task": name.name, "token": token});
    Answer::json_as(StatusCode::ACCEPTED, &said)
}

/// A token that was not given before: the time, and a number for those who ask within one millisecond.
fn made_up_token(api: &Api) -> String {
    static ASKED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let time = super::log_text::rfc3339(api.moments.now().wall).unwrap_or_default();
    format!("{time}-{number}")
}

/// The Task of that name as the cluster has it.
pub(super) async fn find(api: &Api, name: &TaskRef) -> Result<Task, ApiError> {
    let found = api.cluster.get(name.clone()).await.map_err(|error| refused(&error))?;
    found.ok_or_else(|| missing(name))
}

pub(super) fn missing(name: &TaskRef) -> ApiError {
    ApiError::not_found(format!("no Task {name}"))
}

/// The parts of a path that name a Task.
pub(super) fn named(parts: &[String]) -> Result<TaskRef, ApiError> {
    match parts {
        [namespace, name] => Ok(TaskRef { namespace: namespace.clone(), name: name.clone() }),
        _ => Err(ApiError::internal("the route of a Task has two open parts")),
    }
}

/// A Task as the API shows it, with what is known of its Run and not yet written.
pub(super) fn current(api: &Api, task: &Task) -> Result<Value, ApiError> {
    shown(api.records.current(task).as_ref().unwrap_or(task))
}

/// A Task as the API shows it: with a status that its readers can believe, and without the cluster's own book-keeping
/// about who wrote which field.
pub(super) fn shown(task: &Task) -> Result<Value, ApiError> {
    let mut value = serde_json::to_value(present(task))
        .map_err(|error| ApiError::internal(format!("failed to write a Task as JSON: {error}")))?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Ok(value)
}

fn admitted(value: Value) -> Result<Task, ApiError> {
    let mut task = schema::admit(value).map_err(|problems| invalid(&problems))?;
    task.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
    Ok(task)
}

fn invalid(problems: &[Invalid]) -> ApiError {
    let problem =
        |p: &Invalid| Problem { field: p.field.clone(), value: p.value.clone(), allowed: p.allowed.clone() };
    ApiError::invalid("the Task", problems.iter().map(problem).collect())
}

fn reference(task: &Task) -> TaskRef {
    TaskRef { namespace: task.namespace().unwrap_or_default(), name: task.name_any() }
}

fn named_error(name: &TaskRef, error: &ClusterError) -> ApiError {
    if matches!(error, ClusterError::Gone { .. }) { missing(name) } else { refused(error) }
}

/// What a caller hears of the cluster's refusal.
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
            ApiError::new(
                status.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY),
                Reason::InvalidTask,
                error.to_string(),
            )
        }
        ClusterError::TimedOut { .. } | ClusterError::Unavailable { .. } => {
            ApiError::unavailable(error.to_string())
        }
        ClusterError::TargetsDamaged { .. } => ApiError::internal(error.to_string()),
    }
}
