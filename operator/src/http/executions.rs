//! Runs and Executions, active and finished, archived or not.

use futures_util::future::join_all;
use http::StatusCode;
use sentinel_api::view::{AttemptView, ExecutionView, List, Partial, RunView};
use sentinel_core::reconcile::run::Trigger;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid, canonical_number};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;

use super::answer::Answer;
use super::api::Api;
use super::error::{ApiError, Reason};
use super::request::Query;
use crate::history::{ExecutionQuery, HistoryError, OutcomeName, PageToken, RunQuery, Span};
use crate::records::{ExecutionStatus, Listed};

/// The states that a filter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateFilter {
    Pending,
    WaitingForNode,
    Dispatched,
    Running,
    Ended,
}

/// The states by name.
const STATES: &[(&str, StateFilter)] = &[
    ("Pending", StateFilter::Pending),
    ("WaitingForNode", StateFilter::WaitingForNode),
    ("Dispatched", StateFilter::Dispatched),
    ("Running", StateFilter::Running),
    ("Ended", StateFilter::Ended),
];

impl StateFilter {
    fn holds(self, execution: &ExecutionStatus) -> bool {
        let record = &execution.record;
        let is = match (&execution.waiting, record.stage) {
            (Some(waiting), _) => return STATES.contains(&(waiting.state, self)),
            (None, _) if record.outcome.is_some() => Self::Ended,
            (None, Stage::Ended) => Self::Ended,
            (None, Stage::Running) => Self::Running,
            (None, Stage::Accepted) => Self::Dispatched,
        };
        self == is
    }
}

pub(super) async fn list_runs(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let wanted = RunQuery {
        namespace: query.text("namespace").map(str::to_owned),
        task: query.text("task").map(str::to_owned),
        task_uid: task_uid(query)?,
        run: None,
        began: began(api, query)?,
        trigger: query.one_of("trigger", TRIGGERS)?.map(|trigger| trigger.as_str().to_owned()),
        ran: None,
        limit: query.limit()? as u32,
        after: page(query)?,
    };
    let listed = api.records.runs(wanted).await.map_err(|error| unable(&error))?;
    Answer::json(&list_of(listed, RunView::from))
}

pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let state = query.one_of("state", STATES)?;
    let wanted = ExecutionQuery {
        namespace: query.text("namespace").map(str::to_owned),
        task: query.text("task").map(str::to_owned),
        task_uid: task_uid(query)?,
        run: query.read::<RunText>("run", RUN)?.map(|text| text.0),
        node: query.read::<NodeName>("node", "the name of a node")?,
        outcome: query.one_of("outcome", OutcomeName::NAMES)?,
        began: began(api, query)?,
        trigger: query.one_of("trigger", TRIGGERS)?.map(|trigger| trigger.as_str().to_owned()),
        limit: query.limit()? as u32,
        after: page(query)?,
    };
    let fits = |execution: &ExecutionStatus| state.is_none_or(|state| state.holds(execution));
    let listed = api.records.executions(wanted, fits).await.map_err(|error| unable(&error))?;
    Answer::json(&list_of(listed, ExecutionView::from))
}

/// Why a Run began, by name.
const TRIGGERS: &[(&str, Trigger)] = &[
    (Trigger::SpecChange.as_str(), Trigger::SpecChange),
    (Trigger::RerunToken.as_str(), Trigger::RerunToken),
];

/// The span of time that `since` and `until` name.
fn began(api: &Api, query: &Query) -> Result<Span, ApiError> {
    let time = |name| {
        let Some(text) = query.text(name) else { return Ok(None) };
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Some(UnixMillis(time.as_millisecond())));
        }
        let ago = sentinel_protocol::duration::parse(text).map_err(|_| {
            ApiError::query(name, text, "a time in RFC 3339, or a duration before now such as 15m or 24h")
        })?;
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        Ok(Some(UnixMillis(api.clock.now().0.saturating_sub(ago))))
    };
    Ok(Span { since: time("since")?, until: time("until")? })
}

fn list_of<T, V>(listed: Listed<T>, view: impl Fn(T) -> V) -> List<V> {
    List {
        items: listed.items.into_iter().map(view).collect(),
        next: listed.next.map(|token| token.to_string()),
        partial: listed.partial.map(Partial::of),
    }
}

pub(super) async fn get(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let (task, run, node) = id(parts)?;
    let Some(execution) = find(api, &task, run, &node).await? else {
        return Err(ApiError::not_found(format!("no Execution {task}/{run}/{node}")));
    };
    let latest = execution.record.attempt;
    let mut view = ExecutionView::from(execution);
    let numbers = latest.saturating_sub(MAX_ATTEMPTS - 1).max(1)..=latest;
    let ids =
        numbers.map(|number| AttemptId { task: task.clone(), run, node: node.clone(), attempt: number });
    let read = ids.map(|id| async move { api.records.attempt(&id).await });
    for record in join_all(read).await {
        match record {
            Ok(record) => view.attempts.extend(record.as_ref().map(AttemptView::from)),
            Err(error) if error.is_retryable() => {
                view.partial = Some(Partial::of(format!(
                    "History is unavailable, so resource usage and output totals are not shown: {error}"
                )));
            }
            Err(error) => return Err(unable(&error)),
        }
    }
    let last = view.attempts.last().filter(|attempt| attempt.attempt == latest);
    view.details = last.map(|attempt| attempt.details.clone());
    Answer::json(&view)
}

/// Most Attempts in one answer.
const MAX_ATTEMPTS: u32 = 20;

/// One Execution in its current state.
pub(super) async fn find(
    api: &Api,
    task: &TaskUid,
    run: RunNumber,
    node: &NodeName,
) -> Result<Option<ExecutionStatus>, ApiError> {
    let found = api.records.execution(task, run, node).await.map_err(|error| unable(&error))?;
    // One of another namespace belongs to another operator.
    let is_ours = |found: &ExecutionStatus| {
        api.within.as_ref().is_none_or(|within| found.record.namespace == within.as_str())
    };
    Ok(found.filter(is_ours))
}

/// What the number of a Run may be.
pub(super) const RUN: &str = "the number of a Run, 1 or more, without leading zeros";

/// The id of an Execution from the segments of a path.
pub(super) fn id(parts: &[String]) -> Result<(TaskUid, RunNumber, NodeName), ApiError> {
    let [task, run, node] = parts else {
        return Err(ApiError::internal("the route of an Execution has three open parts"));
    };
    let wrong = |field: &str, value: &str, allowed: &str| {
        let message = format!("no such Execution: {field} in the path must be {allowed}");
        ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidPath, message).at(field, value, allowed)
    };
    Ok((
        TaskUid::new(task.as_str()).map_err(|error| wrong("taskUid", task, error.allowed))?,
        run.parse::<RunText>().map_err(|()| wrong("run", run, RUN))?.0,
        NodeName::new(node.as_str()).map_err(|error| wrong("node", node, error.allowed))?,
    ))
}

/// Uid of the Task and number of the Run from the segments of a path.
pub(super) fn run_id(parts: &[String]) -> Result<(TaskUid, RunNumber), ApiError> {
    let [task, run] = parts else {
        return Err(ApiError::internal("the route of a Run has two open parts"));
    };
    let wrong = |field: &str, value: &str, allowed: &str| {
        let message = format!("no such Run: {field} in the path must be {allowed}");
        ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidPath, message).at(field, value, allowed)
    };
    Ok((
        TaskUid::new(task.as_str()).map_err(|error| wrong("taskUid", task, error.allowed))?,
        run.parse::<RunText>().map_err(|()| wrong("run", run, RUN))?.0,
    ))
}

/// The number of a Run, as text.
pub(super) struct RunText(pub(super) RunNumber);

impl std::str::FromStr for RunText {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        canonical_number(text).map(|number| Self(RunNumber(number))).ok_or(())
    }
}

fn task_uid(query: &Query) -> Result<Option<TaskUid>, ApiError> {
    query.read::<TaskUid>("taskUid", "the uid of a Task: 1 to 64 letters, digits and '-'")
}

fn page(query: &Query) -> Result<Option<PageToken>, ApiError> {
    query.read::<PageToken>("page", "the `next` of an earlier answer to the same query")
}

/// The answer when History cannot be read.
pub(super) fn unable(error: &HistoryError) -> ApiError {
    match error {
        HistoryError::InvalidQuery { message } => {
            ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidQuery, message.clone())
        }
        _ if error.is_retryable() => ApiError::unavailable(format!(
            "History is unavailable; running commands are not affected: {error}"
        )),
        _ => ApiError::internal(error.to_string()),
    }
}
