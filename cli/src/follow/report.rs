//! The result of a Run as JSON objects.

use serde_json::{Value, json};

use super::followed::{FollowEnd, FollowedRun};
use super::summary::without_run;
use crate::exit::Failure;
use crate::output::sink::print_json_line;
use crate::view::{Node, Run};

/// Writes an `ended` object for each node and the `result` object, with the exit code of this process.
///
/// # Errors
/// [`Failure`] when they cannot be written.
pub(crate) fn report(followed: &FollowedRun, code: u8) -> Result<(), Failure> {
    let mut lines = Vec::new();
    if followed.run.is_some() {
        lines.extend(followed.task.status.nodes.iter().map(ended));
    }
    lines.push(result(followed, code));
    lines.iter().try_for_each(print_json_line).map_err(|error| Failure::stdout(&error))
}

fn ended(node: &Node) -> Value {
    let mut line = json!({
        "type": "ended",
        "node": node.name,
        "state": node.state,
        "attempt": node.attempt.unwrap_or(1),
        "message": node.message,
    });
    if let Some(code) = node.exit_code {
        line["exitCode"] = json!(code);
    }
    line
}

fn result(followed: &FollowedRun, code: u8) -> Value {
    let task = &followed.task;
    let mut result = json!({
        "type": "result",
        "namespace": task.metadata.namespace,
        "task": task.metadata.name,
        "taskUid": task.metadata.uid,
        "exitCode": code,
    });
    if let Some(run) = &followed.run {
        result["run"] = json!(run.number);
        result["verdict"] = json!(followed.verdict(run));
        result["targets"] = json!(run.target_count);
        result["counts"] = counts(run);
        result["startedAt"] = json!(run.started_at);
        result["finishedAt"] = json!(run.finished_at);
    } else {
        result["verdict"] = json!(match followed.end {
            FollowEnd::Invalid => "Invalid",
            FollowEnd::Deleted => "Deleted",
            FollowEnd::AlreadyExecuted => "AlreadyExecuted",
            // The name in the output format.
            FollowEnd::Ended | FollowEnd::Superseded => "Replaced",
        });
        result["message"] = json!(without_run(followed));
    }
    result
}

fn counts(run: &Run) -> Value {
    let counts = &run.counts;
    json!({
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "unreachable": counts.unreachable,
        "running": counts.running,
        "waiting": counts.waiting,
    })
}
