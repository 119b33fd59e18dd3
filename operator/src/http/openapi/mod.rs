//! The OpenAPI document, generated from the table of routes, the custom resource and the views. `operator/openapi.json` is
//! this document; a test fails when it is stale.

mod parameters;

use kube::CustomResourceExt as _;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use sentinel_api::reason::ErrorBody;
use sentinel_api::records;
use sentinel_api::view::{
    AuditHeadView, ExecutionView, FleetSamplesView, LineItemView, LinesView, MergedItemView, MergedLinesView,
    NodeSamplesView, NodeView, OutputsView, RunSearchLineView, RunView, SearchLineView,
};
use serde_json::{Map, Value, json};

use self::parameters::{in_path, in_query};
use super::request::MAX_BODY;
use super::table::{Operation, ROUTES, Route};
use crate::resource::Task;

/// The document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.pattern.to_owned()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut schemas);
    }
    let mut components = schemas.take_definitions(true);
    components.insert("Task".to_owned(), task_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sentinel Node",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": format!(
                "Run commands on nodes, watch them, and read their results and output. In a cluster each request has a bearer \
                 token of the cluster, and each operation requires the rights that docs/security.md lists; a dev mode \
                 requires the bearer token of its user. On a loopback listener without authentication a request that \
                 changes something requires the header Sentinel-Request or a JSON body. Unknown query \
                 parameters are errors. Bodies are at most {MAX_BODY} bytes. Every answer that is not a success is an Error."
            ),
        },
        "servers": [{"url": "http://127.0.0.1:7980"}],
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// The document as it is committed.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let OperationText { id, tag, summary, success } = text_of(route.operation);
    let mut operation = json!({
        "operationId": id,
        "tags": [tag],
        "summary": summary,
        "responses": {
            success: {"description": "Success.", "content": content(route.operation, schemas)},
            "default": {
                "description": "Error; see reason and message.",
                "content": {"application/json": {"schema": schema::<ErrorBody>(schemas)}},
            },
        },
    });
    if route.operation == Operation::ApplyTask {
        operation["responses"]["201"] = operation["responses"][success].clone();
        operation["responses"]["201"]["description"] = json!("Created.");
    }
    let names = route.pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> =
        names.map(in_path).chain(route.query.iter().map(|name| in_query(route, name))).collect();
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if matches!(route.operation, Operation::CreateTask | Operation::ApplyTask) {
        operation["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Task"}}},
        });
    }
    operation
}

struct OperationText {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    success: &'static str,
}

/// Of the operations about this process: id, tag, summary, and the status of a success.
fn of_process(operation: Operation) -> (&'static str, &'static str, &'static str, &'static str) {
    match operation {
        Operation::Health => ("health", "process", "Liveness of the process.", "200"),
        Operation::Ready => ("ready", "process", "Readiness of the process, with the reasons if not.", "200"),
        Operation::Metrics => ("metrics", "process", "Metrics in the text format of Prometheus.", "200"),
        _ => ("openapi", "process", "This document.", "200"),
    }
}

fn text_of(operation: Operation) -> OperationText {
    let (id, tag, summary, success) = match operation {
        Operation::TaskLog | Operation::Discovery | Operation::Page | Operation::PageAsset => {
            ("unlisted", "unlisted", "Not a part of this API.", "200")
        }
        Operation::Health | Operation::Ready | Operation::Metrics | Operation::OpenApi => {
            of_process(operation)
        }
        Operation::ListNodes => ("listNodes", "nodes", "All nodes.", "200"),
        Operation::GetNode => ("getNode", "nodes", "One node.", "200"),
        Operation::NodeSamples => (
            "nodeSamples",
            "nodes",
            "The metrics of one node over the last 15 minutes, a value for 10 s.",
            "200",
        ),
        Operation::FleetSamples => {
            ("fleetSamples", "nodes", "The CPU usage of several nodes over the last 15 minutes.", "200")
        }
        Operation::ListAuditHeads => ("listAuditHeads", "audit", "Heads of audit chains in History.", "200"),
        Operation::ListTasks => ("listTasks", "tasks", "Tasks, by namespace and name.", "200"),
        Operation::CreateTask => ("createTask", "tasks", "Creates a Task.", "201"),
        Operation::GetTask => ("getTask", "tasks", "One Task.", "200"),
        Operation::ApplyTask => (
            "applyTask",
            "tasks",
            "Creates the Task, or changes it. The header Sentinel-Result is created, configured or unchanged.",
            "200",
        ),
        Operation::DeleteTask => {
            ("deleteTask", "tasks", "Deletes a Task; its running commands are cancelled first.", "202")
        }
        Operation::CancelTask => ("cancelTask", "tasks", "Cancels the active Run.", "202"),
        Operation::RerunTask => ("rerunTask", "tasks", "Runs the same spec again.", "202"),
        Operation::ApproveTask => ("approveTask", "tasks", "Approves the Run that is due.", "202"),
        Operation::TaskEvents => (
            "taskEvents",
            "tasks",
            "The state of a Task, then each change, as server-sent events: task, deleted, synced.",
            "200",
        ),
        Operation::Events => ("events", "tasks", "The same for all Tasks.", "200"),
        Operation::ListRuns => ("listRuns", "executions", "Runs, newest first.", "200"),
        Operation::RunOutputs => {
            ("runOutputs", "executions", "What the targets of a Run wrote, equal outputs as one.", "200")
        }
        Operation::ListExecutions => ("listExecutions", "executions", "Executions, newest Run first.", "200"),
        Operation::GetExecution => {
            ("getExecution", "executions", "One Execution, with its resource usage and output totals.", "200")
        }
        Operation::ExecutionLog
        | Operation::RunLog
        | Operation::RunLines
        | Operation::RunLineEvents
        | Operation::ExecutionLines
        | Operation::LineEvents
        | Operation::SearchLines
        | Operation::SearchRun => return text_of_output(operation),
    };
    OperationText { id, tag, summary, success }
}

fn text_of_output(operation: Operation) -> OperationText {
    let (id, summary) = match operation {
        Operation::ExecutionLines => (
            "executionLines",
            "Lines of the output of an Execution as it is now: from a line, a position or a time on, or the last ones.",
        ),
        Operation::SearchLines => (
            "searchLines",
            "Lines of the output of an Execution that match an expression, as they are found. A search ends after 30 s or \
             limit hits; then its last line has the position to continue from.",
        ),
        Operation::SearchRun => (
            "searchRun",
            "Lines of the output of a Run that match an expression, one log after the other, by node and Attempt. A search ends \
             after 30 s or limit hits; then its last line has the cursor to continue from.",
        ),
        Operation::RunLog => (
            "runLog",
            "The output of a Run as it is now, of all its nodes by time. As text, each line behind the name of its node; as \
             JSON, one line or gap a line, and at last one of kind 'end'. Compressed with gzip or zstd where the reader \
             accepts it.",
        ),
        Operation::RunLines => (
            "runLines",
            "Lines of the output of a Run as it is now, of all its nodes by time: from a cursor or a time on, before a \
             cursor, or the last ones.",
        ),
        Operation::RunLineEvents => (
            "runLineEvents",
            "Every line of the output of a Run behind a cursor, as it is written, of all its nodes by time, as server-sent \
             events: lines (MergedEventView; the id is the cursor to continue from, also by the header Last-Event-ID), end.",
        ),
        Operation::LineEvents => (
            "lineEvents",
            "Every line that begins at a position or behind it, as it is written, as server-sent events: lines (LinesEventView; \
             the id is the position to continue from, also by the header Last-Event-ID), end.",
        ),
        _ => (
            "executionLog",
            "The output of an Execution from any position: what exists so far, or with follow until the Attempt has ended. \
             As text, the bytes of the command, with a line '[sentinel: N bytes dropped here: reason]' for missing \
             bytes. As json, one record per line with the bytes in base64, and as jsonl one line of the output; the last line \
             is of kind 'end'. A reader whose Accept has application/vnd.sentinelnode.records gets the records of json with \
             the bytes as they are: a frame is the length of its head (2 bytes, big-endian), the head, which is the object \
             without data, and of a record that is not dropped len bytes. Compressed with gzip or zstd where the reader accepts it.",
        ),
    };
    OperationText { id, tag: "executions", summary, success: "200" }
}

fn content(operation: Operation, schemas: &mut SchemaGenerator) -> Value {
    let task = json!({"$ref": "#/components/schemas/Task"});
    let object = json!({"type": "object"});
    let json = |schema: Value| json!({"application/json": {"schema": schema}});
    match operation {
        Operation::TaskLog | Operation::Discovery | Operation::Page | Operation::PageAsset => json!({}),
        Operation::Metrics => json!({"text/plain": {"schema": {"type": "string"}}}),
        Operation::TaskEvents | Operation::Events | Operation::LineEvents | Operation::RunLineEvents => {
            json!({"text/event-stream": {"schema": {"type": "string"}}})
        }
        Operation::ExecutionLog => json!({
            "text/plain": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"anyOf": [log_line(), schema::<LineItemView>(schemas)]}},
            records::MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}},
        }),
        Operation::RunLog => json!({
            "text/plain": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"anyOf": [schema::<MergedItemView>(schemas), merged_end()]}},
        }),
        Operation::SearchLines => {
            json!({"application/x-ndjson": {"schema": schema::<SearchLineView>(schemas)}})
        }
        Operation::SearchRun => {
            json!({"application/x-ndjson": {"schema": schema::<RunSearchLineView>(schemas)}})
        }
        Operation::RunLines => json(schema::<MergedLinesView>(schemas)),
        Operation::ExecutionLines => json(schema::<LinesView>(schemas)),
        Operation::ListNodes => json(list(&schema::<NodeView>(schemas))),
        Operation::GetNode => json(schema::<NodeView>(schemas)),
        Operation::NodeSamples => json(schema::<NodeSamplesView>(schemas)),
        Operation::FleetSamples => json(schema::<FleetSamplesView>(schemas)),
        Operation::ListAuditHeads => json(list(&schema::<AuditHeadView>(schemas))),
        Operation::ListTasks => json(list(&task)),
        Operation::CreateTask | Operation::GetTask | Operation::ApplyTask => json(task),
        Operation::ListRuns => json(list(&schema::<RunView>(schemas))),
        Operation::RunOutputs => json(schema::<OutputsView>(schemas)),
        Operation::ListExecutions => json(list(&schema::<ExecutionView>(schemas))),
        Operation::GetExecution => json(schema::<ExecutionView>(schemas)),
        Operation::CancelTask => json(action("run", &json!({"type": "integer", "minimum": 1}))),
        Operation::RerunTask => json(action("token", &json!({"type": "string"}))),
        Operation::ApproveTask => json(action("run", &json!({"type": "integer", "minimum": 1}))),
        Operation::DeleteTask => json(action("message", &json!({"type": "string"}))),
        Operation::Health | Operation::Ready | Operation::OpenApi => json(object),
    }
}

fn action(field: &str, schema: &Value) -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["namespace", "task", field],
        "properties": {"namespace": text, "task": text, field: schema},
    })
}

fn log_line() -> Value {
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": {"enum": ["record", "end"]},
            "stream": {"enum": ["stdout", "stderr"]},
            "position": {"type": "integer", "description": "Position of the first byte in the log of both streams; for kind end, the position after the last byte."},
            "offset": {"type": "integer", "description": "Position of the first byte in its own stream."},
            "len": {"type": "integer", "description": "Number of bytes, present or missing."},
            "atMicros": {"type": "integer", "description": "Time by the clock of the node, microseconds since 1970-01-01T00:00:00Z."},
            "data": {"type": "string", "contentEncoding": "base64"},
            "dropped": {"type": "string", "description": "Why the bytes are missing; data is absent then."},
            "ended": {"type": "boolean", "description": "Whether the log is complete."},
            "missing": {"type": "integer", "description": "Bytes of a finished log that have not arrived from the node yet."},
        },
    })
}

fn merged_end() -> Value {
    json!({
        "type": "object",
        "required": ["kind", "ended"],
        "properties": {
            "kind": {"enum": ["end"]},
            "ended": {"type": "boolean", "description": "Whether all logs have ended and are complete."},
            "missing": {"type": "integer", "description": "Bytes of finished logs that have not arrived from their nodes yet."},
        },
    })
}

fn list(item: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": item},
            "next": {"type": "string", "description": "The page parameter of the next request; absent on the last page."},
            "partial": {
                "type": "object",
                "required": ["message"],
                "properties": {"message": {"type": "string"}},
                "description": "Why items that exist may be missing; absent when none are.",
            },
        },
    })
}

fn schema<T: schemars::JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

/// The schema of a Task, from its definition.
fn task_schema() -> Value {
    let definition = serde_json::to_value(Task::crd()).unwrap_or_default();
    let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let text = |only: &str| json!({"type": "string", "const": only});
    schema["properties"]["apiVersion"] = text("sentinelnode.dev/v1alpha1");
    schema["properties"]["kind"] = text("Task");
    schema["properties"]["metadata"] = json!({"type": "object"});
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_routes_are_documented_with_their_parameters() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let mut documented = 0;
        for route in ROUTES {
            let operation = &paths[route.pattern][route.method.as_str().to_ascii_lowercase()];
            let names: Vec<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(names, route.query, "{} {}", route.method, route.pattern);
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert_ne!(parameter["description"], "", "{} has no description", parameter["name"]);
            }
            documented += 1;
        }
        let all: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(all, documented);
    }

    #[test]
    fn operation_ids_are_unique() {
        let ids: std::collections::BTreeSet<&str> =
            ROUTES.iter().map(|route| text_of(route.operation).id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }

    #[test]
    fn every_reference_resolves() {
        fn walk(value: &Value, root: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(root.pointer(pointer).is_some(), "{reference} does not resolve");
                    }
                    object.values().for_each(|value| walk(value, root));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, root)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }

    #[test]
    fn committed_document_is_current() {
        let committed = include_str!("../../../openapi.json");
        assert!(committed == text(), "operator/openapi.json is stale: run `just generate`");
    }
}
