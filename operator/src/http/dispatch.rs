//! From an admitted request to its answer: query parameters, bounds, and the handler of each operation.

use http::uri::Authority;
use http::{Method, StatusCode};
use sentinel_api::aggregated::{self, Unmapped};
use sentinel_protocol::ids::{Namespace, TaskName};

use super::answer::Answer;
use super::api::Api;
use super::callers::{self, Subject};
use super::encoding::{Coding, Flush, compressed};
use super::error::{ApiError, Reason};
use super::guard::{self, Door, Head, Surface};
use super::request::{Query, Request};
use super::settled::settled;
use super::table::{self, Found, Operation};
use super::{
    approvals, audit_heads, discovery, events, executions, lines, logs, merged, merged_log, merged_search,
    nodes, openapi, outputs, page, search, task_log, tasks,
};
use crate::health::Verdict;
use crate::metrics::Format;
use crate::server::{Client, Share, Shares};

impl Api {
    /// The answer to an admitted request; an error is an answer too.
    pub(super) async fn answer(&self, found: &Found, request: &Request) -> Answer {
        let answer = match self.route(found, request).await {
            Ok(answer) => settled(&self.store, found.route.operation, answer).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => answer,
            Err(error) => {
                if error.status.is_server_error() {
                    tracing::warn!(
                        path = request.path,
                        status = error.status.as_u16(),
                        category = error.category(),
                        retryable = error.is_retryable(),
                        "{error}"
                    );
                }
                let who = request.caller.as_ref().map(|caller| &caller.principal);
                callers::record_denial(self, &error, request, who, None);
                error.into()
            }
        }
    }

    async fn route(&self, found: &Found, request: &Request) -> Result<Answer, ApiError> {
        // Before the query is read, which is the page's own.
        match (found.route.operation, found.parts.as_slice()) {
            (Operation::Page, _) => return Ok(page::page(found, &self.base_path, request)),
            (Operation::PageAsset, [name, ..]) => return page::asset(name, request),
            _ => {}
        }
        let query = Query::parse(&request.query, found.route.query)?;
        let query = self.check_names(found, query)?;
        let operation = found.route.operation;
        let slot = match operation {
            Operation::TaskEvents
            | Operation::Events
            | Operation::ExecutionLog
            | Operation::TaskLog
            | Operation::ExecutionLines
            | Operation::LineEvents
            | Operation::SearchLines
            | Operation::RunLog
            | Operation::RunLines
            | Operation::RunLineEvents
            | Operation::SearchRun => Some(slot(&self.streams, request.client, "streams")?),
            Operation::ListTasks | Operation::RunOutputs => Some(slot(&self.lists, request.client, "lists")?),
            _ => None,
        };
        let mut answer = self.dispatch(operation, &found.parts, &query, request).await?;
        if matches!(operation, Operation::ExecutionLog | Operation::RunLog | Operation::TaskLog) {
            let chosen_by =
                if operation == Operation::RunLog { "accept-encoding" } else { "accept-encoding, accept" };
            answer = self.encoded(answer.with("vary", chosen_by), &query, request)?;
        }
        Ok(match slot {
            Some(slot) => answer.holding(slot),
            None => answer,
        })
    }

    /// A log, compressed where its reader takes that.
    fn encoded(&self, answer: Answer, query: &Query, request: &Request) -> Result<Answer, ApiError> {
        let flush = if query.is_set("follow")? { Flush::EachChunk } else { Flush::AtEnd };
        let Some(coding) = Coding::wanted(&request.headers) else { return Ok(answer) };
        Ok(match self.compressed.take(request.client, 1) {
            Some(share) => compressed(answer, coding, flush, share),
            None => answer,
        })
    }

    /// Checks the names in a request, and that they are of a namespace that this operator serves.
    fn check_names(&self, found: &Found, query: Query) -> Result<Query, ApiError> {
        let namespace = query.read::<Namespace>("namespace", NAMESPACE)?;
        query.read::<TaskName>("task", TASK)?;
        if found.route.pattern.contains("{namespace}") || found.route.operation == Operation::TaskLog {
            self.check_namespace(&tasks::named(&found.parts)?.namespace)?;
        }
        let Some(within) = &self.within else { return Ok(query) };
        match namespace {
            Some(namespace) => self.check_namespace(&namespace).map(|()| query),
            None if found.route.query.contains(&"namespace") => Ok(query.or("namespace", within)),
            None => Ok(query),
        }
    }

    async fn dispatch(
        &self,
        operation: Operation,
        parts: &[String],
        query: &Query,
        request: &Request,
    ) -> Result<Answer, ApiError> {
        match operation {
            Operation::Health => probe(&self.health.alive()),
            Operation::Ready => probe(&self.health.ready()),
            Operation::Metrics => {
                let format = Format::accepted(&request.headers);
                Ok(Answer::whole(StatusCode::OK, format.content_type(), self.metrics.render_as(format)))
            }
            Operation::OpenApi => Answer::json(&openapi::document()),
            Operation::ListNodes => nodes::list(self, query),
            Operation::GetNode => nodes::get(self, parts),
            Operation::NodeSamples => nodes::samples_of(self, parts),
            Operation::FleetSamples => nodes::fleet_samples(self, query),
            Operation::ListAuditHeads => audit_heads::list(self, query).await,
            Operation::ListTasks => tasks::list(self, query).await,
            Operation::CreateTask => tasks::create(self, query, request).await,
            Operation::GetTask => tasks::get(self, parts).await,
            Operation::ApplyTask => tasks::apply(self, parts, query, request).await,
            Operation::DeleteTask => tasks::delete(self, parts, request).await,
            Operation::CancelTask => tasks::cancel(self, parts, query, request).await,
            Operation::RerunTask => tasks::rerun(self, parts, query, request).await,
            Operation::ApproveTask => approvals::approve(self, parts, query, request).await,
            Operation::TaskEvents => events::of_task(self, parts).await,
            Operation::Events => Ok(events::of_all(self, query).await),
            Operation::ListRuns => executions::list_runs(self, query).await,
            Operation::RunOutputs => outputs::get(self, parts, query).await,
            Operation::RunLog => merged_log::read(self, parts, query, request.client).await,
            Operation::RunLines => merged::read(self, parts, query, request.client).await,
            Operation::RunLineEvents => merged::follow(self, parts, query, request).await,
            Operation::SearchRun => merged_search::read(self, parts, query).await,
            Operation::ListExecutions => executions::list(self, query).await,
            Operation::GetExecution => executions::get(self, parts).await,
            Operation::ExecutionLog => logs::read(self, parts, query, &request.headers).await,
            Operation::ExecutionLines => lines::read(self, parts, query).await,
            Operation::LineEvents => lines::follow(self, parts, query, request).await,
            Operation::SearchLines => search::read(self, parts, query).await,
            Operation::TaskLog => task_log::read(self, parts, query, request).await,
            Operation::Discovery => Answer::json(&discovery::resources()),
            Operation::Page | Operation::PageAsset => Err(ApiError::internal("the page is answered above")),
        }
    }
}

const NAMESPACE: &str = "the name of a namespace: at most 63 lower-case letters, digits and '-'";
const TASK: &str = "the name of a Task: at most 253 lower-case letters, digits, '-' and '.'";

/// A slot for a streaming answer, held until it is read.
fn slot(shares: &Shares, client: Client, what: &str) -> Result<Share, ApiError> {
    shares.take(client, 1).ok_or_else(|| {
        let message = format!("too many open {what}: the limit for one client is {}", shares.each());
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Reason::TooManyStreams, message)
    })
}

/// A request whose head passed the guard.
pub(super) struct Admitted {
    /// Its route.
    pub(super) found: Found,
    /// What the API server has authorized, where the request came by the aggregated API.
    pub(super) authorized: Option<Subject>,
}

/// The route of a request, where the head of the request passes the guard. A request of the aggregated API becomes the one
/// that it stands for.
pub(super) fn admit(
    door: &Door,
    request: &mut Request,
    authority: Option<&Authority>,
) -> Result<Admitted, ApiError> {
    let check = |request: &Request, operation| {
        let head = Head { method: &request.method, authority, headers: &request.headers };
        guard::check(&door.access, operation, head)
    };
    let plainly = |found| Admitted { found, authorized: None };
    match door.surface {
        Surface::Everything => {
            let found = table::find(&request.method, &request.path);
            let found = found.or_else(|error| page::instead_of(error, request))?;
            check(request, found.route.operation)?;
            Ok(plainly(found))
        }
        Surface::Aggregated => {
            let admitted = aggregated(request)?;
            check(request, admitted.found.route.operation)?;
            Ok(admitted)
        }
        Surface::ProbesAndMetrics => {
            let found = table::find(&request.method, &request.path)?;
            let is_probe =
                matches!(found.route.operation, Operation::Health | Operation::Ready | Operation::Metrics);
            if is_probe {
                return Ok(plainly(found));
            }
            Err(ApiError::not_found("only /healthz, /readyz and /metrics are served here"))
        }
    }
}

/// The route of a request of the aggregated API, which becomes the native one.
fn aggregated(request: &mut Request) -> Result<Admitted, ApiError> {
    if request.path.trim_end_matches('/') == aggregated::PREFIX && is_read(&request.method) {
        let found = Found { route: &table::DISCOVERY, parts: Vec::new() };
        return Ok(Admitted { found, authorized: None });
    }
    let target = format!("{}?{}", request.path, request.query);
    let named = aggregated::to_native(request.method.as_str(), &target).map_err(|error| unmapped(&error))?;
    let found = if let Some(native) = &named.native {
        let (path, query) = native.split_once('?').unwrap_or((native, ""));
        (request.path, request.query) = (path.to_owned(), query.to_owned());
        table::find(&request.method, &request.path)?
    } else {
        request.query.clone_from(&named.query);
        let parts = [named.namespace.clone(), named.task.clone()].into_iter().flatten().collect();
        Found { route: &table::TASK_LOG, parts }
    };
    Ok(Admitted { found, authorized: Some(named.into()) })
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn unmapped(error: &Unmapped) -> ApiError {
    let message = error.to_string();
    match error {
        Unmapped::Query { .. } => ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidQuery, message),
        Unmapped::Absent { .. } | Unmapped::NeedsTask { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, Reason::UnknownPath, message)
        }
    }
}

/// 200 when healthy, 503 with the reasons when not.
fn probe(verdict: &Verdict) -> Result<Answer, ApiError> {
    let status = if verdict.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::json_as(status, verdict)
}
