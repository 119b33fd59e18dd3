//! Parameters, as the OpenAPI document has them.

use serde_json::{Value, json};

use super::super::request::MAX_PAGE;
use super::super::table::{Operation, Route};

/// A parameter in the path of a route.
pub(super) fn in_path(name: &str) -> Value {
    parameter(name, "path")
}

/// Parameters of routes that read output.
fn output_parameter(name: &str) -> (Value, &'static str) {
    let text = || json!({"type": "string"});
    let switch = || json!({"type": "boolean", "default": false});
    match name {
        "tail" => (
            json!({"type": "integer", "minimum": 0, "maximum": 100_000}),
            "Only this many last lines of the current output, and further output.",
        ),
        "since" => (
            text(),
            "Only output since a time by the clock of the node: in RFC 3339, or a duration before now such as 90s.",
        ),
        "line" => (json!({"type": "integer", "minimum": 1, "default": 1}), "Number of the first line."),
        "position" => (
            json!({"type": "integer", "minimum": 0}),
            "Begin with the last line that begins at or before this position.",
        ),
        "count" => (
            json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 500}),
            "Largest number of lines.",
        ),
        "pattern" => (
            json!({"type": "string", "minLength": 1, "maxLength": 1024}),
            "A regular expression, in the syntax of Rust's regex crate; ^ and $ match at lines.",
        ),
        "equal" => (
            json!({"enum": ["stdout", "stderr", "both"], "default": "both"}),
            "Which output must be equal; exit code and Outcome always must.",
        ),
        "to" => (text(), "A cursor: the lines that precede it."),
        "follow" => (switch(), "Whether to continue until the Attempt has ended."),
        "from" => (json!({"type": "integer", "minimum": 0, "default": 0}), "Position of the first byte."),
        "stream" => (json!({"enum": ["stdout", "stderr"]}), "Only this stream."),
        "timestamps" => {
            (switch(), "Whether each line of text begins with its time by the clock of the node.")
        }
        "format" => (json!({"enum": ["text", "json", "jsonl"], "default": "text"}), "Form of the log."),
        _ => (text(), ""),
    }
}

/// A parameter of the query of a route.
pub(super) fn in_query(route: &Route, name: &str) -> Value {
    let lines = |default: u32| json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": default});
    let is_merged = matches!(
        route.operation,
        Operation::RunLog | Operation::RunLines | Operation::RunLineEvents | Operation::SearchRun
    );
    let (schema, description) = match name {
        "from" if is_merged => (
            json!({"type": "string"}),
            "A cursor: the lines behind it. Cursors are those of earlier answers.",
        ),
        "format" if is_merged => (json!({"enum": ["text", "jsonl"], "default": "text"}), "Form of the log."),
        "timestamps" if is_merged => (
            json!({"type": "boolean", "default": false}),
            "Whether each line of text has its time, by the operator's clock where the offset of the node's is known.",
        ),
        "nodes" if is_merged => (
            json!({"type": "string"}),
            "Only these nodes: their names with commas between them. At most 256 logs are merged.",
        ),
        "until" if is_merged => (json!({"type": "string"}), "Only output up to this time, in RFC 3339."),
        "count" if is_merged => (lines(200), "Largest number of lines."),
        "tail" if is_merged => (
            json!({"type": "integer", "minimum": 0, "maximum": 1000}),
            "The last lines of all nodes together, this many.",
        ),
        "since" if is_merged => (
            json!({"type": "string"}),
            "Only output since a time by the operator's clock where the offset of the node's is known: in RFC 3339, or a \
             duration before now such as 90s.",
        ),
        "limit" if matches!(route.operation, Operation::SearchLines | Operation::SearchRun) => (
            json!({"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000}),
            "Largest number of hits.",
        ),
        "since" if matches!(route.operation, Operation::ListRuns | Operation::ListExecutions) => (
            json!({"type": "string"}),
            "Only of Runs that began then or later: a time in RFC 3339, or a duration before now such as 24h.",
        ),
        _ => return parameter(name, "query"),
    };
    json!({"name": name, "in": "query", "required": false, "schema": schema, "description": description})
}

fn parameter(name: &str, place: &str) -> Value {
    let text = || json!({"type": "string"});
    let number = || json!({"type": "integer", "minimum": 1, "maximum": u32::MAX});
    let (schema, description) = match name {
        "namespace" => (text(), "Namespace of the Task."),
        "name" | "task" => (text(), "Name of the Task."),
        "taskUid" => (text(), "Uid of the Task."),
        "run" => (number(), "Number of the Run in its Task."),
        "node" => (text(), "Name of the node."),
        "attempt" => (number(), "Number of the Attempt; by default the latest."),
        "nodes" => (text(), "Names of nodes, separated by commas; at most 100."),
        "reachable" => (json!({"type": "boolean"}), "Only reachable nodes, or only unreachable ones."),
        "phase" => (text(), "Only Tasks in this phase."),
        "outcome" => (text(), "Only Executions with this Outcome, for example Failed."),
        "state" => (
            json!({"enum": ["Pending", "WaitingForNode", "Dispatched", "Running", "Ended"]}),
            "Only Executions in this state.",
        ),
        "trigger" => {
            (json!({"enum": ["SpecChange", "RerunToken"]}), "Only of Runs that began for this reason.")
        }
        "until" => (
            text(),
            "Only of Runs that began before: a time in RFC 3339, or a duration before now such as 24h.",
        ),
        "limit" => (
            json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}),
            "Largest number of items in a page.",
        ),
        "of" => (text(), "Only of the chain of this node, or of operator."),
        "page" => (text(), "The next of an earlier answer to the same query."),
        "dryRun" => (
            json!({"enum": ["All"]}),
            "All checks the change and answers as if it was made, and stores nothing.",
        ),
        "specHash" => (text(), "What is approved: status.awaitingApproval.specHash of the Task. Required."),
        "targetsDigest" => (text(), "Where: status.awaitingApproval.targetsDigest of the Task. Required."),
        "token" => (
            json!({"type": "string", "minLength": 1, "maxLength": 128}),
            "Any string but that of the last rerun; generated by default.",
        ),
        _ => output_parameter(name),
    };
    json!({"name": name, "in": place, "required": place == "path", "schema": schema, "description": description})
}
