//! The latest Run of a Task, read from the Task's status as records of History. A follower knows nothing else of an active
//! Run, and neither does a new leader at first.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt as _;
use sentinel_core::reconcile::conditions::{self, kind};
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{Epoch, NodeName, RunNumber, SpecHash, TaskUid};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{OutputSummary, Usage};

use super::live::{ExecutionStatus, Extent, Scope, WaitingFor, WaitingState};
use crate::history::outcome::OutcomeName;
use crate::history::record::{ExecutionRecord, RecordSource, RunCounts, RunRecord, RunVerdict};
use crate::resource::status::{NodeStatus, RunRequestedBy, RunStatus};
use crate::resource::{Task, recorded};

/// The latest Run of a Task in its status.
pub(super) struct StatusRun<'a> {
    task: &'a Task,
    run: &'a RunStatus,
    identity: RunIdentity,
}

struct RunIdentity {
    uid: TaskUid,
    namespace: String,
    name: String,
    number: RunNumber,
    spec_hash: SpecHash,
    started_at: UnixMillis,
}

impl<'a> StatusRun<'a> {
    /// The latest Run of a Task, if it is in scope and History may know less of it: finished and archived Runs are left to
    /// History.
    pub(super) fn of(task: &'a Task, scope: &Scope) -> Option<Self> {
        let run = task.status.as_ref()?.run.as_ref()?;
        let identity = RunIdentity {
            uid: TaskUid::new(task.uid()?).ok()?,
            namespace: task.namespace().unwrap_or_default(),
            name: task.name_any(),
            number: RunNumber(u32::try_from(run.number).ok()?),
            spec_hash: SpecHash::new(run.spec_hash.as_str()).ok()?,
            started_at: millis(run.started_at.as_ref()?),
        };
        let found = Self { task, run, identity };
        let identity = &found.identity;
        let wanted = scope.has_task(&identity.namespace, &identity.name, &identity.uid)
            && scope.has_run(identity.number);
        (wanted && (scope.extent == Extent::All || !found.is_archived())).then_some(found)
    }

    pub(super) fn task_uid(&self) -> &TaskUid {
        &self.identity.uid
    }

    pub(super) fn number(&self) -> RunNumber {
        self.identity.number
    }

    pub(super) fn is_finished(&self) -> bool {
        self.run.finished_at.is_some()
    }

    /// Whether it starts nothing more: ended Attempts are not retried.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_finished() || self.run.stopping.is_some()
    }

    fn is_archived(&self) -> bool {
        let conditions = self.task.status.iter().flat_map(|status| &status.conditions);
        let mut archived = conditions.filter(|condition| condition.type_ == kind::ARCHIVED);
        self.is_finished() && archived.any(|condition| condition.status == "True")
    }

    fn nodes(&self) -> impl Iterator<Item = &'a NodeStatus> {
        self.task.status.iter().flat_map(|status| &status.nodes)
    }

    /// Targets that are not listed in the status.
    pub(super) fn unlisted(&self) -> u64 {
        let listed = self.nodes().count().max(self.run.targets.len());
        u64::try_from(self.run.target_count).unwrap_or(0).saturating_sub(listed as u64)
    }

    /// Its record in History.
    pub(super) fn record(&self) -> RunRecord {
        let mut outcomes: BTreeMap<OutcomeName, u32> = BTreeMap::new();
        for outcome in self.nodes().filter_map(|node| node.state.parse().ok()) {
            *outcomes.entry(outcome).or_default() += 1;
        }
        let read = recorded::read(self.task).ok().and_then(|read| read.run);
        let cancelled = matches!(self.run.stopping.as_deref(), Some("Cancelled" | "Deleted"));
        RunRecord {
            task_uid: self.identity.uid.clone(),
            namespace: self.identity.namespace.clone(),
            name: self.identity.name.clone(),
            run: self.identity.number,
            trigger: self.run.trigger.clone(),
            spec_hash: self.identity.spec_hash.clone(),
            rerun_token: self.run.rerun_token.clone(),
            rerun: None,
            requested_by: self.run.requested_by.as_ref().and_then(RunRequestedBy::known),
            cancelled_by: self.run.cancelled_by.as_ref().map(Into::into),
            approved_by: self.run.approved_by.as_ref().map(Into::into),
            command: String::new(),
            started_at: self.identity.started_at,
            finished_at: self.run.finished_at.as_ref().map(millis),
            verdict: match self.run.verdict.as_deref() {
                Some("Complete") => Some(RunVerdict::Complete),
                Some(_) if cancelled => Some(RunVerdict::Cancelled),
                Some(_) => Some(RunVerdict::Failed),
                None => None,
            },
            reason: read
                .filter(|run| run.finished_at.is_some())
                .map(|run| conditions::progress_message(&run)),
            counts: RunCounts { targets: u32::try_from(self.run.target_count).unwrap_or(0), outcomes },
            epoch: Epoch::ZERO,
        }
    }

    /// Its Executions, as far as the status lists them.
    pub(super) fn executions(&self, scope: &Scope) -> Vec<ExecutionStatus> {
        let mut rows: BTreeMap<NodeName, ExecutionStatus> = BTreeMap::new();
        for target in &self.run.targets {
            if let Ok(node) = NodeName::new(target.as_str()) {
                let pending = NodeStatus { state: "Pending".to_owned(), ..NodeStatus::default() };
                rows.insert(node.clone(), self.execution(node, &pending));
            }
        }
        for listed in self.nodes() {
            if let Ok(node) = NodeName::new(listed.node.as_str()) {
                rows.insert(node.clone(), self.execution(node, listed));
            }
        }
        rows.into_iter().filter(|(node, _)| scope.has_node(node)).map(|(_, row)| row).collect()
    }

    fn execution(&self, node: NodeName, listed: &NodeStatus) -> ExecutionStatus {
        let attempt = listed.attempt.and_then(|number| u32::try_from(number).ok()).unwrap_or(1);
        let (waiting, stage) = match listed.state.as_str() {
            "Dispatched" => (Some(("Dispatched", WaitingFor::Start)), Stage::Accepted),
            // The status has a message for a pending target only between two Attempts.
            "Pending" if !listed.message.is_empty() => {
                (Some(("Pending", WaitingFor::Retry)), Stage::Accepted)
            }
            "Pending" => (Some(("Pending", WaitingFor::Start)), Stage::Accepted),
            "WaitingForNode" => (Some(("WaitingForNode", WaitingFor::Start)), Stage::Accepted),
            "Running" => (None, Stage::Running),
            _ => (None, Stage::Ended),
        };
        let outcome = if stage == Stage::Ended { listed.state.parse().ok() } else { None };
        let is_unsent = waiting.is_some_and(|(state, _)| state != "Dispatched") && listed.attempt.is_none();
        let is_retry = waiting.is_some_and(|(_, waiting_for)| waiting_for == WaitingFor::Retry);
        ExecutionStatus {
            record: ExecutionRecord {
                task_uid: self.identity.uid.clone(),
                namespace: self.identity.namespace.clone(),
                name: self.identity.name.clone(),
                run: self.identity.number,
                node,
                run_started_at: self.identity.started_at,
                attempt: if is_unsent && !is_retry { 0 } else { attempt },
                stage,
                outcome,
                outcome_details: None,
                exit_code: listed.exit_code.and_then(|code| u8::try_from(code).ok()),
                message: if stage == Stage::Ended { listed.message.clone() } else { String::new() },
                started_at: listed.started_at.as_ref().map(millis),
                ended_at: listed.finished_at.as_ref().map(millis),
                spec_hash: self.identity.spec_hash.clone(),
                command: String::new(),
                exit: ExitDetails::default(),
                output: OutputSummary::default(),
                usage: Usage::default(),
                trigger: Some(self.run.trigger.clone()),
                source: outcome.map_or(RecordSource::Operator, likely_source),
                epoch: Epoch::ZERO,
            },
            waiting: waiting.map(|(state, waiting_for)| WaitingState {
                state,
                message: listed.message.clone(),
                waiting_for,
            }),
        }
    }
}

/// Who states this Outcome as a rule; the status does not show it.
fn likely_source(outcome: OutcomeName) -> RecordSource {
    match outcome {
        OutcomeName::Lost | OutcomeName::NotStarted | OutcomeName::StartTimedOut => RecordSource::Operator,
        _ => RecordSource::Agent,
    }
}

fn millis(time: &MicroTime) -> UnixMillis {
    UnixMillis(time.0.as_millisecond())
}
