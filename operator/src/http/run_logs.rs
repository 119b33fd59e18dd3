//! Which logs a Run has: one for each Attempt that was sent to its node.

use std::collections::BTreeSet;

use futures_util::stream::iter;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sentinel_protocol::ids::{AttemptId, Namespace, NodeName, RunNumber, TaskUid};
use sha2::{Digest as _, Sha256};

use super::api::Api;
use super::error::ApiError;
use super::executions::{self, unable};
pub(super) use super::listings::{FoundLogs, RunLogsName};
use super::request::{MAX_PAGE, Query};
use crate::gateway::Registry;
use crate::history::{ExecutionQuery, RecordSource};
use crate::logs::LogReader;
use crate::logs::merged::{MAX_LOGS, MergedLog};
use crate::records::{ExecutionStatus, Records, WaitingFor};

/// Smaller offsets could be the delay of a heartbeat, milliseconds.
const LEAST_OFFSET: u64 = 20;

/// Records of History that are read at once.
pub(super) const READ_AT_ONCE: usize = 16;

/// The state of an Execution that was sent to its node.
const DISPATCHED: &str = "Dispatched";

/// Tells a Run from others: of a digest of its name.
pub(super) type RunKey = [u8; 6];

/// Finds the logs of a Run, or of some of its nodes.
#[derive(Debug, Clone)]
pub(super) struct RunLogs {
    records: Records,
    registry: Registry,
    reader: LogReader,
    within: Option<Namespace>,
    task: TaskUid,
    run: RunNumber,
    nodes: BTreeSet<NodeName>,
}

impl RunLogs {
    pub(super) fn of(api: &Api, parts: &[String], query: &Query) -> Result<Self, ApiError> {
        let (task, run) = executions::run_id(parts)?;
        Ok(Self {
            records: api.records.clone(),
            registry: api.registry.clone(),
            reader: api.logs.clone(),
            within: api.within.clone(),
            task,
            run,
            nodes: nodes(query)?,
        })
    }

    /// Which logs it finds.
    pub(super) fn name(&self) -> RunLogsName {
        (self.within.clone(), self.task.clone(), self.run, self.nodes.clone())
    }

    /// The key of the Run.
    pub(super) fn key(&self) -> RunKey {
        let digest = Sha256::digest(format!("{}/{}", self.task, self.run));
        let mut key = RunKey::default();
        for (byte, of_digest) in key.iter_mut().zip(digest) {
            *byte = of_digest;
        }
        key
    }

    /// The logs that the Run has now.
    ///
    /// # Errors
    /// 404 without such a Run or node, 400 with more than [`MAX_LOGS`], 503 when History is unavailable.
    pub(super) async fn find(&self) -> Result<FoundLogs, ApiError> {
        let (executions, is_partial) = self.executions().await?;
        let (task, run) = (&self.task, self.run);
        if executions.is_empty() && is_partial {
            return Err(ApiError::unavailable(format!(
                "History is unavailable, and Run {task}/{run} is not known here"
            )));
        }
        if executions.is_empty() {
            return Err(ApiError::not_found(format!("no Run {run} of Task {task}")));
        }
        let are_all = !is_partial && executions.iter().all(|execution| execution.outcome().is_some());
        let name = executions.first().map(|execution| execution.record.name.clone()).unwrap_or_default();
        let mut logs = Vec::new();
        for execution in executions {
            let node = &execution.record.node;
            let offset_micros = self.offset_millis(node).map(|millis| millis.saturating_mul(1000));
            for attempt in 1..=self.attempts(&execution).await {
                let attempt = AttemptId { task: task.clone(), run, node: node.clone(), attempt };
                logs.push(MergedLog { attempt, offset_micros });
                if logs.len() > MAX_LOGS {
                    return Err(too_many(self.nodes.len()));
                }
            }
        }
        let order = |log: &MergedLog| (log.attempt.node.clone(), log.attempt.attempt);
        logs.sort_by_cached_key(order);
        Ok(FoundLogs { task: name, logs, are_all })
    }

    async fn executions(&self) -> Result<(Vec<ExecutionStatus>, bool), ApiError> {
        if !self.nodes.is_empty() {
            let each = iter(self.nodes.clone()).map(|node| async move { self.on_node(&node).await });
            return Ok((each.buffered(READ_AT_ONCE).try_collect().await?, false));
        }
        let mut found = Vec::new();
        let mut wanted = ExecutionQuery {
            namespace: self.within.as_ref().map(|within| within.as_str().to_owned()),
            task_uid: Some(self.task.clone()),
            run: Some(self.run),
            limit: MAX_PAGE as u32,
            ..ExecutionQuery::default()
        };
        let mut is_partial = false;
        loop {
            let listed = self.records.executions(wanted.clone(), |_| true).await;
            let listed = listed.map_err(|error| unable(&error))?;
            is_partial |= listed.partial.is_some();
            found.extend(listed.items);
            if found.len() > MAX_LOGS {
                return Err(too_many(found.len()));
            }
            match listed.next {
                Some(next) => wanted.after = Some(next),
                None => return Ok((found, is_partial)),
            }
        }
    }

    async fn on_node(&self, node: &NodeName) -> Result<ExecutionStatus, ApiError> {
        let execution = self.records.execution(&self.task, self.run, node).await;
        let ours = execution.map_err(|error| unable(&error))?.filter(|execution| self.is_ours(execution));
        ours.ok_or_else(|| ApiError::not_found(format!("no Execution {}/{}/{node}", self.task, self.run)))
    }

    fn is_ours(&self, execution: &ExecutionStatus) -> bool {
        self.within.as_ref().is_none_or(|within| execution.record.namespace == within.as_str())
    }

    /// How many Attempts have begun, or may have.
    async fn attempts(&self, execution: &ExecutionStatus) -> u32 {
        let record = &execution.record;
        let confirmed = match &execution.waiting {
            // Output may arrive before the agent's Report.
            Some(waiting) if waiting.waiting_for == WaitingFor::Start && waiting.state == DISPATCHED => {
                record.attempt.max(1)
            }
            Some(waiting) if waiting.waiting_for == WaitingFor::Start => record.attempt.saturating_sub(1),
            _ => record.attempt,
        };
        let reported = self.registry.latest_attempt(&self.task, self.run, &record.node).unwrap_or(0);
        let has_not_started = record.source == RecordSource::Operator && record.started_at.is_none();
        if confirmed <= reported || !has_not_started || execution.outcome().is_none() {
            return confirmed.max(reported);
        }
        // It may have run all the same, and its end is not known.
        let last = AttemptId {
            task: self.task.clone(),
            run: self.run,
            node: record.node.clone(),
            attempt: confirmed,
        };
        let has_output = self.reader.end_of(&last).await.is_ok_and(|end| end > 0);
        if has_output { confirmed } else { reported.max(confirmed - 1) }
    }

    /// What is added to a node's time, milliseconds.
    fn offset_millis(&self, node: &NodeName) -> Option<i64> {
        let millis = self.registry.clock_offset_millis(node)?;
        Some(if millis.unsigned_abs() < LEAST_OFFSET { 0 } else { millis })
    }
}

fn too_many(found: usize) -> ApiError {
    ApiError::query(
        "nodes",
        "",
        format!("a choice of nodes: at most {MAX_LOGS} logs are merged, and there are {found} or more"),
    )
}

fn nodes(query: &Query) -> Result<BTreeSet<NodeName>, ApiError> {
    let Some(text) = query.text("nodes") else { return Ok(BTreeSet::new()) };
    let allowed = format!("names of nodes with commas between them, at most {MAX_LOGS}");
    let parsed: Result<BTreeSet<NodeName>, _> =
        text.split(',').take(MAX_LOGS + 1).map(NodeName::new).collect();
    match parsed {
        Ok(nodes) if nodes.len() <= MAX_LOGS => Ok(nodes),
        _ => Err(ApiError::query("nodes", text, allowed)),
    }
}
