//! What the API answers from, and which handler answers what.

use std::sync::Arc;

use http::StatusCode;
use http::uri::Authority;
use sentinel_protocol::ids::{Namespace, TaskName};
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::error::{ApiError, Reason};
use super::feed::Feed;
use super::guard::{Door, Head, Surface};
use super::request::{Query, Request};
use super::table::{self, Found, Operation};
use super::{events, executions, guard, logs, nodes, openapi, tasks};
use crate::cluster::Cluster;
use crate::controller::Moments;
use crate::gateway::Registry;
use crate::health::{Health, Verdict};
use crate::logs::LogReader;
use crate::metrics::Registry as MetricsRegistry;
use crate::records::Records;
use crate::server::{Client, Share, Shares};

/// Most streams (logs being followed, events) that are open at once, in all and for each client.
pub const MAX_STREAMS: (usize, usize) = (1_000, 500);

/// Most lists of Tasks that are made or read at once, in all and for each client.
pub const MAX_LISTS: (usize, usize) = (64, 32);

/// Everything the API answers from. It changes Tasks and nothing else.
pub struct Api {
    /// Where Tasks and Nodes live.
    pub cluster: Arc<dyn Cluster>,
    /// The only namespace that this operator is for; all when there is none.
    pub within: Option<Namespace>,
    /// All Tasks and Nodes as last heard, and a bell for changes.
    pub feed: Feed,
    /// What is run and was run.
    pub records: Records,
    /// The connected agents.
    pub registry: Registry,
    /// Output.
    pub logs: LogReader,
    /// What a process says about itself.
    pub metrics: MetricsRegistry,
    /// How it does.
    pub health: Health,
    /// The two clocks.
    pub moments: Moments,
    /// Silence after which a node counts as unreachable, milliseconds.
    pub dead_after_ms: u64,
    /// Places for streams.
    pub streams: Shares,
    /// Places for lists of Tasks.
    pub lists: Shares,
    /// The operator ends: streams end too.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// The answer to a request that was let in. Never fails: what goes wrong is an answer too.
    pub(super) async fn answer(&self, found: &Found, request: &Request) -> Answer {
        match self.route(found, request).await {
            Ok(answer) => answer,
            Err(error) => {
                if error.status.is_server_error() {
                    tracing::warn!(path = request.path, status = error.status.as_u16(), "{error}");
                }
                error.into()
            }
        }
    }

    async fn route(&self, found: &Found, request: &Request) -> Result<Answer, ApiError> {
        let query = Query::parse(&request.query, found.route.query)?;
        let query = self.names(found, query)?;
        let operation = found.route.operation;
        let place = match operation {
            Operation::TaskEvents | Operation::Events | Operation::ExecutionLog => {
                Some(place(&self.streams, request.client, "streams")?)
            }
            Operation::ListTasks => Some(place(&self.lists, request.client, "lists")?),
            _ => None,
        };
        let answer = self.dispatch(operation, &found.parts, &query, request).await?;
        Ok(match place {
            Some(place) => answer.holding(place),
            None => answer,
        })
    }

    /// Names that a request gives are names, and of the namespace that this operator is for.
    fn names(&self, found: &Found, query: Query) -> Result<Query, ApiError> {
        let namespace = query.read::<Namespace>("namespace", NAMESPACE)?;
        query.read::<TaskName>("task", TASK)?;
        if found.route.pattern.contains("{namespace}") {
            self.is_ours(&tasks::named(&found.parts)?.namespace)?;
        }
        let Some(within) = &self.within else { return Ok(query) };
        match namespace {
            Some(namespace) => self.is_ours(&namespace).map(|()| query),
            None if found.route.query.contains(&"namespace") => Ok(query.or("namespace", within)),
            None => Ok(query),
        }
    }

    /// Refuses a namespace that is not the one this operator is for.
    ///
    /// # Errors
    /// 404 that names the one it is for.
    pub(super) fn is_ours(&self, namespace: &Namespace) -> Result<(), ApiError> {
        match &self.within {
            Some(within) if within != namespace => {
                let message = format!(
                    "this operator carries out the Tasks of namespace {within} alone (--watch-namespace); ask for that one, or ask another operator"
                );
                Err(ApiError::not_found(message).at("namespace", namespace, within.as_str()))
            }
            _ => Ok(()),
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
                let text = self.metrics.render();
                Ok(Answer::whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            Operation::OpenApi => Answer::json(&openapi::document()),
            Operation::ListNodes => nodes::list(self, query),
            Operation::GetNode => nodes::get(self, parts),
            Operation::ListTasks => tasks::list(self, query).await,
            Operation::CreateTask => tasks::create(self, request).await,
            Operation::GetTask => tasks::get(self, parts).await,
            Operation::ApplyTask => tasks::apply(self, parts, request).await,
            Operation::DeleteTask => tasks::delete(self, parts).await,
            Operation::CancelTask => tasks::cancel(self, parts, query).await,
            Operation::RerunTask => tasks::rerun(self, parts, query).await,
            Operation::TaskEvents => events::of_task(self, parts).await,
            Operation::Events => Ok(events::of_all(self, query).await),
            Operation::ListRuns => executions::list_runs(self, query).await,
            Operation::ListExecutions => executions::list(self, query).await,
            Operation::GetExecution => executions::get(self, parts).await,
            Operation::ExecutionLog => logs::read(self, parts, query).await,
        }
    }
}

const NAMESPACE: &str = "the name of a namespace: at most 63 lower-case letters, digits and '-'";
const TASK: &str = "the name of a Task: at most 253 lower-case letters, digits, '-' and '.'";

/// A place for an answer that goes on, held as long as it is being read.
fn place(shares: &Shares, client: Client, what: &str) -> Result<Share, ApiError> {
    shares.take(client, 1).ok_or_else(|| {
        let message =
            format!("as many {what} are open as this server holds: at most {} for one client", shares.each());
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Reason::TooManyStreams, message)
    })
}

/// The route of a request, when its head is one that this door lets in.
pub(super) fn admit(
    door: &Door,
    request: &Request,
    authority: Option<&Authority>,
) -> Result<Found, ApiError> {
    let found = table::find(&request.method, &request.path)?;
    let operation = found.route.operation;
    let is_probe = matches!(operation, Operation::Health | Operation::Ready | Operation::Metrics);
    match door.surface {
        Surface::Everything => {
            let head = Head { method: &request.method, authority, headers: &request.headers };
            guard::check(&door.access, operation, head)?;
        }
        Surface::ProbesAndMetrics if is_probe => {}
        Surface::ProbesAndMetrics => {
            return Err(ApiError::not_found("only /healthz, /readyz and /metrics are served here"));
        }
    }
    Ok(found)
}

/// 200 when all is well, 503 with the reasons when not.
fn probe(verdict: &Verdict) -> Result<Answer, ApiError> {
    let status = if verdict.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::json_as(status, verdict)
}
