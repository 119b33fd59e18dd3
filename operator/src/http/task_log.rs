//! The output of a Run by the name of its Task, for people with kubectl: `tasks/NAME/log` of the aggregated API.

use http::StatusCode;
use sentinel_protocol::ids::{NodeName, RunNumber, TaskUid};

use super::answer::Answer;
use super::api::Api;
use super::error::{ApiError, Reason};
use super::executions::{RUN, RunText, unable};
use super::request::{Query, Request};
use super::{logs, merged_log, tasks};
use crate::history::query::ExecutionQuery;

/// The output of the latest Run, or of the one that `run` names: of all its nodes, or of the one that `node` names.
pub(super) async fn read(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let name = tasks::named(parts)?;
    let task = tasks::find(api, &name).await?;
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    let uid = TaskUid::new(uid).map_err(|error| ApiError::internal(format!("the Task's uid is {error}")))?;
    let number = query.read::<RunText>("run", RUN)?.map(|text| text.0);
    let latest = task.status.as_ref().and_then(|status| status.run.as_ref()).map(|run| run.number);
    let latest = latest.and_then(|number| u32::try_from(number).ok()).map(RunNumber);
    let Some(run) = number.or(latest) else {
        return Err(ApiError::not_found(format!("Task {name} has not run yet")));
    };
    let node = match query.read::<NodeName>("node", "the name of a node")? {
        Some(node) => Some(node),
        None => only_node(api, &uid, run).await?,
    };
    let path = |node: Option<&NodeName>| {
        [uid.to_string(), run.to_string()]
            .into_iter()
            .chain(node.map(ToString::to_string))
            .collect::<Vec<_>>()
    };
    match node {
        Some(node) => logs::read(api, &path(Some(&node)), query, &request.headers).await,
        None if query.is_set("follow")? => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            Reason::InvalidQuery,
            format!("Run {run} of Task {name} has several nodes; follow one of them with &node=NODE"),
        )),
        None => merged_log::read(api, &path(None), query, request.client).await,
    }
}

/// The node of a Run that has only one.
async fn only_node(api: &Api, uid: &TaskUid, run: RunNumber) -> Result<Option<NodeName>, ApiError> {
    let wanted =
        ExecutionQuery { task_uid: Some(uid.clone()), run: Some(run), limit: 2, ..ExecutionQuery::default() };
    let listed = api.records.executions(wanted, |_| true).await.map_err(|error| unable(&error))?;
    Ok(match listed.items.as_slice() {
        [one] => Some(one.record.node.clone()),
        _ => None,
    })
}
