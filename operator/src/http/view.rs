//! Records as the API shows them: into the views of [`sentinel_api`].

use sentinel_api::view::{AttemptDetails, AttemptView, ExecutionView, ExitView, RunView, StreamDetails};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::{OutputSummary, Usage};

use super::log_text::rfc3339;
use crate::history::{AttemptRecord, ExecutionRecord, RecordSource, RunRecord, RunVerdict};
use crate::records::ExecutionStatus;

impl From<RunRecord> for RunView {
    fn from(record: RunRecord) -> Self {
        Self {
            namespace: record.namespace,
            task: record.name,
            task_uid: record.task_uid.into(),
            run: record.run.0,
            trigger: record.trigger,
            command: record.command,
            spec_hash: record.spec_hash.into(),
            started_at: rfc3339(record.started_at),
            finished_at: record.finished_at.and_then(rfc3339),
            verdict: record.verdict.map(|verdict| verdict_name(verdict).to_owned()),
            reason: record.reason,
            requested_by: record.requested_by.map(Into::into),
            cancelled_by: record.cancelled_by.map(Into::into),
            approved_by: record.approved_by.map(Into::into),
            targets: record.counts.targets,
            outcomes: record
                .counts
                .outcomes
                .into_iter()
                .map(|(name, count)| (name.to_string(), count))
                .collect(),
        }
    }
}

impl From<ExecutionRecord> for ExecutionView {
    fn from(record: ExecutionRecord) -> Self {
        let id = format!("{}/{}/{}", record.task_uid, record.run, record.node);
        let state = match (&record.outcome, record.stage) {
            (Some(outcome), _) => outcome.to_string(),
            (None, Stage::Accepted) => "Dispatched".to_owned(),
            (None, Stage::Running) => "Running".to_owned(),
            (None, Stage::Ended) => "Ended".to_owned(),
        };
        // A record of an earlier release has neither, as has one that the operator concluded.
        let usage = (record.usage != Usage::default()).then_some(record.usage);
        let output = (record.output != OutputSummary::default()).then_some(&record.output);
        let output_bytes = output.map(|output| output.stdout.bytes.saturating_add(output.stderr.bytes));
        let duration = record.started_at.zip(record.ended_at).map(|(start, end)| end.since(start));
        Self {
            log: format!("/api/v1/executions/{id}/log"),
            id,
            namespace: record.namespace,
            task: record.name,
            task_uid: record.task_uid.into(),
            run: record.run.0,
            node: record.node.into(),
            attempt: record.attempt,
            state,
            outcome: record.outcome.map(|outcome| outcome.to_string()),
            exit_code: record.exit_code,
            message: record.message,
            source: match record.source {
                RecordSource::Agent => "Agent".to_owned(),
                RecordSource::Operator => "Operator".to_owned(),
            },
            command: record.command,
            spec_hash: record.spec_hash.into(),
            started_at: record.started_at.and_then(rfc3339),
            ended_at: record.ended_at.and_then(rfc3339),
            duration_ms: duration,
            trigger: record.trigger,
            cpu_ms: usage.map(|usage| usage.user_ms.saturating_add(usage.system_ms)),
            max_rss: usage.map(|usage| usage.max_rss),
            output_bytes,
            details: None,
            attempts: Vec::new(),
            partial: None,
        }
    }
}

impl From<ExecutionStatus> for ExecutionView {
    fn from(execution: ExecutionStatus) -> Self {
        let ExecutionStatus { record, waiting } = execution;
        let Some(waiting) = waiting else { return record.into() };
        Self {
            state: waiting.state.to_owned(),
            outcome: None,
            exit_code: None,
            message: waiting.message,
            started_at: None,
            ended_at: None,
            duration_ms: None,
            cpu_ms: None,
            max_rss: None,
            output_bytes: None,
            ..record.into()
        }
    }
}

impl From<&AttemptRecord> for AttemptView {
    fn from(record: &AttemptRecord) -> Self {
        let view = ExecutionView::from(record.execution());
        Self {
            attempt: view.attempt,
            state: view.state,
            exit_code: view.exit_code,
            message: view.message,
            source: view.source,
            started_at: view.started_at,
            ended_at: view.ended_at,
            duration_ms: view.duration_ms,
            details: AttemptDetails::from(record),
            log: format!("{}?attempt={}", view.log, view.attempt),
        }
    }
}

impl From<&AttemptRecord> for AttemptDetails {
    fn from(record: &AttemptRecord) -> Self {
        Self {
            environment: record.environment.as_str().to_owned(),
            signal: match record.outcome {
                Some(Outcome::Signaled { signal }) => Some(signal),
                _ => None,
            },
            reason: record.outcome.as_ref().and_then(reason),
            user_ms: record.usage.user_ms,
            system_ms: record.usage.system_ms,
            max_rss: record.usage.max_rss,
            stdout: StreamDetails::from(&record.output.stdout),
            stderr: StreamDetails::from(&record.output.stderr),
            log_end: record.output.end,
            blocked_ms: record.output.blocked_ms,
            exit: (!record.exit.is_empty()).then(|| ExitView::from(&record.exit)),
        }
    }
}

fn verdict_name(verdict: RunVerdict) -> &'static str {
    match verdict {
        RunVerdict::Complete => "Complete",
        RunVerdict::Failed => "Failed",
        RunVerdict::Cancelled => "Cancelled",
    }
}

/// The reason of an Outcome, where it has one: its name on the wire, which a test in `protocol` holds.
fn reason(outcome: &Outcome) -> Option<String> {
    let name = match outcome {
        Outcome::StartFailed { reason, .. } => serde_json::to_value(reason),
        Outcome::Interrupted { reason } => serde_json::to_value(reason),
        Outcome::Lost { reason } => serde_json::to_value(reason),
        Outcome::Refused { refusal } => serde_json::to_value(refusal).map(|mut value| value["reason"].take()),
        _ => return None,
    };
    name.ok()?.as_str().map(str::to_owned)
}
