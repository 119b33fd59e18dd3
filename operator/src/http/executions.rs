//! Runs and Executions: what History holds.

use http::StatusCode;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, TaskUid};
use sentinel_protocol::to_operator::Stage;

use super::answer::Answer;
use super::api::Api;
use super::error::{ApiError, Reason};
use super::request::Query;
use super::view::{AttemptDetails, ExecutionView, List, RunView};
use crate::history::error::Retry;
use crate::history::{ExecutionQuery, ExecutionRecord, HistoryError, PageToken, RunQuery};

/// The names of all outcomes, as a filter takes them.
const OUTCOMES: &[(&str, &str)] = &[
    ("Succeeded", "Succeeded"),
    ("Failed", "Failed"),
    ("Signaled", "Signaled"),
    ("StartFailed", "StartFailed"),
    ("StartTimedOut", "StartTimedOut"),
    ("TimedOut", "TimedOut"),
    ("IdleTimedOut", "IdleTimedOut"),
    ("OomKilled", "OomKilled"),
    ("Cancelled", "Cancelled"),
    ("CancelFailed", "CancelFailed"),
    ("Refused", "Refused"),
    ("Skipped", "Skipped"),
    ("Interrupted", "Interrupted"),
    ("Lost", "Lost"),
    ("NotStarted", "NotStarted"),
];

/// How many pages of History one request looks through for rows of a state.
const PAGES_PER_REQUEST: usize = 8;

/// How far an Execution has come, as a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Dispatched,
    Running,
    Ended,
}

impl State {
    fn holds(self, record: &ExecutionRecord) -> bool {
        let ended = record.outcome.is_some() || record.stage == Stage::Ended;
        match self {
            Self::Ended => ended,
            Self::Running => !ended && record.stage == Stage::Running,
            Self::Dispatched => !ended && record.stage == Stage::Accepted,
        }
    }
}

pub(super) async fn list_runs(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let wanted = RunQuery {
        namespace: query.text("namespace").map(str::to_owned),
        task: query.text("task").map(str::to_owned),
        task_uid: task_uid(query)?,
        run: None,
        limit: query.limit()? as u32,
        after: page(query)?,
    };
    let page = api.history.runs(wanted).await.map_err(|error| unable(&error))?;
    Answer::json(&List {
        items: page.items.into_iter().map(RunView::from).collect(),
        next: page.next.map(|token| token.to_string()),
    })
}

pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let limit = query.limit()?;
    let state = query.word(
        "state",
        &[("Dispatched", State::Dispatched), ("Running", State::Running), ("Ended", State::Ended)],
    )?;
    let mut wanted = ExecutionQuery {
        namespace: query.text("namespace").map(str::to_owned),
        task: query.text("task").map(str::to_owned),
        task_uid: task_uid(query)?,
        run: query.read::<RunText>("run", RUN)?.map(|text| text.0),
        node: query.read::<NodeName>("node", "the name of a node")?,
        outcome: query.word("outcome", OUTCOMES)?.map(str::to_owned),
        limit: limit as u32,
        after: page(query)?,
    };
    let mut items: Vec<ExecutionView> = Vec::new();
    let mut next = None;
    // History does not know the filter by state, so pages are read until this one is full. It may be cut short: a
    // page with fewer rows than asked for, and with a `next`, is as good an answer.
    for _ in 0..PAGES_PER_REQUEST {
        wanted.limit = (limit - items.len()) as u32;
        let page = api.history.executions(wanted.clone()).await.map_err(|error| unable(&error))?;
        let fitting = page.items.into_iter().filter(|record| state.is_none_or(|state| state.holds(record)));
        items.extend(fitting.map(ExecutionView::from));
        next = page.next;
        if next.is_none() || items.len() >= limit || state.is_none() {
            break;
        }
        wanted.after.clone_from(&next);
    }
    Answer::json(&List { items, next: next.map(|token| token.to_string()) })
}

pub(super) async fn get(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let (task, run, node) = id(parts)?;
    let Some(record) = find(api, &task, run, &node).await? else {
        return Err(ApiError::not_found(format!("no Execution {task}/{run}/{node}")));
    };
    let mut view = ExecutionView::from(record);
    if view.attempt > 0 {
        let attempt = AttemptId { task, run, node, attempt: view.attempt };
        let record = api.history.attempt(attempt).await.map_err(|error| unable(&error))?;
        view.details = record.as_ref().map(AttemptDetails::from);
    }
    Answer::json(&view)
}

/// One Execution as History has it.
pub(super) async fn find(
    api: &Api,
    task: &TaskUid,
    run: RunNumber,
    node: &NodeName,
) -> Result<Option<ExecutionRecord>, ApiError> {
    let wanted = ExecutionQuery {
        task_uid: Some(task.clone()),
        run: Some(run),
        node: Some(node.clone()),
        limit: 1,
        ..ExecutionQuery::default()
    };
    let page = api.history.executions(wanted).await.map_err(|error| unable(&error))?;
    Ok(page.items.into_iter().next())
}

const RUN: &str = "the number of a Run, 1 or more";

/// The parts of a path that name an Execution.
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

/// The number of a Run as people write it.
pub(super) struct RunText(pub(super) RunNumber);

impl std::str::FromStr for RunText {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse::<u32>().ok().filter(|number| *number > 0).map(|number| Self(RunNumber(number))).ok_or(())
    }
}

fn task_uid(query: &Query) -> Result<Option<TaskUid>, ApiError> {
    query.read::<TaskUid>("taskUid", "the uid of a Task: 1 to 64 letters, digits and '-'")
}

fn page(query: &Query) -> Result<Option<PageToken>, ApiError> {
    query.read::<PageToken>("page", "the `next` of an earlier answer to the same question")
}

/// What a reader hears when History does not answer.
pub(super) fn unable(error: &HistoryError) -> ApiError {
    match error {
        HistoryError::InvalidQuery { message } => {
            ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidQuery, message.clone())
        }
        _ if error.retry() == Retry::Later => {
            ApiError::unavailable(format!("History does not answer, commands run on: {error}"))
        }
        _ => ApiError::internal(error.to_string()),
    }
}
