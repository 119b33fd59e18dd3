//! What the API answers from, and which handler answers what.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::error::{ApiError, Reason};
use super::feed::Feed;
use super::request::{Query, Request};
use super::table::{self, Operation};
use super::{events, executions, guard, logs, nodes, openapi, tasks};
use crate::cluster::Cluster;
use crate::controller::Moments;
use crate::gateway::Registry;
use crate::health::{Health, Verdict};
use crate::logs::LogReader;
use crate::metrics::Registry as MetricsRegistry;
use crate::records::Records;

/// Most streams (logs being followed, events) that are open at once.
pub const MAX_STREAMS: usize = 2000;

/// Everything the API answers from. It changes Tasks and nothing else.
pub struct Api {
    /// Where Tasks and Nodes live.
    pub cluster: Arc<dyn Cluster>,
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
    pub streams: Arc<Semaphore>,
    /// The operator ends: streams end too.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// Which part of the API a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// All of it; for loopback only.
    Everything,
    /// Liveness, readiness and metrics; for a listener that probes and scrapers reach.
    ProbesAndMetrics,
}

impl Api {
    /// The answer to a request. Never fails: what goes wrong is an answer too.
    pub async fn answer(&self, surface: Surface, request: &Request) -> Answer {
        match self.route(surface, request).await {
            Ok(answer) => answer,
            Err(error) => {
                if error.status.is_server_error() {
                    tracing::warn!(path = request.path, status = error.status.as_u16(), "{error}");
                }
                error.into()
            }
        }
    }

    async fn route(&self, surface: Surface, request: &Request) -> Result<Answer, ApiError> {
        let found = table::find(&request.method, &request.path)?;
        let operation = found.route.operation;
        let is_probe = matches!(operation, Operation::Health | Operation::Ready | Operation::Metrics);
        match surface {
            Surface::Everything => guard::check(&request.headers)?,
            Surface::ProbesAndMetrics if is_probe => {}
            Surface::ProbesAndMetrics => {
                return Err(ApiError::not_found("only /healthz, /readyz and /metrics are served here"));
            }
        }
        let query = Query::parse(&request.query, found.route.query)?;
        self.dispatch(operation, &found.parts, &query, request).await
    }

    /// A place for a stream, held as long as it is open.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{MAX_STREAMS} streams are open, as many as this server holds");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Reason::TooManyStreams, message)
        })
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
            Operation::Events => events::of_all(self, query).await,
            Operation::ListRuns => executions::list_runs(self, query).await,
            Operation::ListExecutions => executions::list(self, query).await,
            Operation::GetExecution => executions::get(self, parts).await,
            Operation::ExecutionLog => logs::read(self, parts, query).await,
        }
    }
}

/// 200 when all is well, 503 with the reasons when not.
fn probe(verdict: &Verdict) -> Result<Answer, ApiError> {
    let status = if verdict.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::json_as(status, verdict)
}
