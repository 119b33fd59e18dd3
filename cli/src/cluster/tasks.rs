//! Writes of Tasks: objects of the API server, written with the caller's own rights. Field manager `sentinel`.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use sentinel_api::aggregated::{Found, TASK_GROUP};
use sentinel_api::client::ClientError;
use sentinel_api::client::transport::Body;
use sentinel_api::path::escape;
use sentinel_api::reason::{Problem, Reason};
use sentinel_operator::resource::schema;
use serde_json::{Map, Value, json};

use super::Cluster;
use super::exchange::send;
use super::status::{Whole, error, error_of, json_answer, refusal, whole};

/// The field manager of what the command line writes.
const MANAGER: &str = "sentinel";

/// The version of the objects.
const VERSION: &str = "v1alpha1";

/// How a write is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing<'a> {
    pub(super) cluster: &'a Cluster,
    /// The namespace of a Task that names none.
    pub(super) namespace: &'a str,
    /// Whether fields of other managers are taken over.
    pub(super) force: bool,
}

impl Writing<'_> {
    /// Does what the native request asks for.
    pub(super) async fn answer(
        self,
        method: &Method,
        found: &Found,
        body: &Bytes,
    ) -> Result<Response<Body>, ClientError> {
        let dry_run = found.query.split('&').any(|pair| pair == "dryRun=All");
        match (found.namespace.as_deref(), found.task.as_deref()) {
            (Some(namespace), Some(name)) if *method == Method::DELETE => self.delete(namespace, name).await,
            (Some(namespace), Some(name)) => {
                let object = match self.admitted(body, Some(namespace)) {
                    Ok(object) => object,
                    Err(refused) => return Ok(*refused),
                };
                self.apply(namespace, name, &object, dry_run).await
            }
            _ => {
                let object = match self.admitted(body, None) {
                    Ok(object) => object,
                    Err(refused) => return Ok(*refused),
                };
                self.create(&object, dry_run).await
            }
        }
    }

    /// The Task of a body, checked as the operator checks it, so that its problems are named in the same sentences.
    fn admitted(self, body: &[u8], namespace: Option<&str>) -> Result<Value, Box<Response<Body>>> {
        let wrong = |message: String| {
            Box::new(refusal(StatusCode::BAD_REQUEST, &error(Reason::InvalidJson, message)))
        };
        let mut value: Value = serde_json::from_slice(body)
            .map_err(|cause| wrong(format!("failed to read the Task: {cause}")))?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.entry("namespace").or_insert_with(|| json!(namespace.unwrap_or(self.namespace)));
        }
        let object = written(&value);
        match schema::admit(value) {
            Ok(_) => Ok(object),
            Err(problems) => {
                let all: Vec<Problem> = problems
                    .iter()
                    .map(|problem| Problem {
                        field: problem.field.clone(),
                        value: problem.value.clone(),
                        allowed: problem.allowed.clone(),
                    })
                    .collect();
                let sentences: Vec<String> = all.iter().map(ToString::to_string).collect();
                let mut refused =
                    error(Reason::InvalidTask, format!("the Task is not valid: {}", sentences.join("; ")));
                refused.problems = if all.len() > 1 { all } else { Vec::new() };
                Err(Box::new(refusal(StatusCode::UNPROCESSABLE_ENTITY, &refused)))
            }
        }
    }

    async fn create(self, object: &Value, dry_run: bool) -> Result<Response<Body>, ClientError> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(self.namespace);
        let path = format!("{}?fieldManager={MANAGER}{}", tasks(namespace), dry(dry_run));
        let request = Request::post(path).header("content-type", "application/json");
        let made = self.send(request, object).await?;
        Ok(self.written(&made, "created"))
    }

    async fn apply(
        self,
        namespace: &str,
        name: &str,
        object: &Value,
        dry_run: bool,
    ) -> Result<Response<Body>, ClientError> {
        let path = format!("{}/{}", tasks(namespace), escape(name));
        // Only to state what was done: a caller may have the right to change a Task and not the one to read it.
        let before = self.send(Request::get(&path), &Value::Null).await?;
        let before: Value = if before.status.is_success() {
            serde_json::from_slice(&before.body).unwrap_or_default()
        } else {
            Value::Null
        };
        let path = format!("{path}?fieldManager={MANAGER}&force={}{}", self.force, dry(dry_run));
        let request = Request::patch(path).header("content-type", "application/apply-patch+yaml");
        let applied = self.send(request, object).await?;
        if applied.status == StatusCode::CONFLICT {
            return Ok(conflict(&applied));
        }
        let after: Value = serde_json::from_slice(&applied.body).unwrap_or_default();
        let result = if applied.status == StatusCode::CREATED {
            "created"
        } else if is_unchanged(&before, &after) {
            "unchanged"
        } else {
            "configured"
        };
        Ok(self.written(&applied, result))
    }

    async fn delete(self, namespace: &str, name: &str) -> Result<Response<Body>, ClientError> {
        let path = format!("{}/{}", tasks(namespace), escape(name));
        let gone = self.send(Request::delete(path), &Value::Null).await?;
        Ok(if gone.status.is_success() {
            json_answer(StatusCode::ACCEPTED, &json!({"namespace": namespace, "task": name}))
        } else {
            self.refused(&gone)
        })
    }

    async fn send(self, request: http::request::Builder, body: &Value) -> Result<Whole, ClientError> {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = request.header("accept", "application/json").body(bytes);
        let request = request.map_err(|error| ClientError::InvalidRequest {
            path: "a Task".to_owned(),
            message: error.to_string(),
        })?;
        Ok(whole(send(self.cluster, request).await?).await)
    }

    /// The answer with a Task that was written.
    fn written(self, answer: &Whole, result: &'static str) -> Response<Body> {
        if !answer.status.is_success() {
            return self.refused(answer);
        }
        let mut task: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(metadata) = task["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let mut response = json_answer(answer.status, &task);
        response.headers_mut().insert("sentinel-result", http::HeaderValue::from_static(result));
        response
    }

    fn refused(self, answer: &Whole) -> Response<Body> {
        if answer.status == StatusCode::NOT_FOUND && !answer.is_json {
            let name = &self.cluster.name;
            let message = format!(
                "{} ({}) has no Tasks: the CustomResourceDefinition tasks.{TASK_GROUP} is not installed; \
                 install Sentinel Node with its Helm chart, or apply its crds",
                name.address, name.source
            );
            return refusal(StatusCode::NOT_FOUND, &error(Reason::UnknownPath, message));
        }
        refusal(answer.status, &error_of(answer.status, &answer.body))
    }
}

/// Fields that have other owners: what `kubectl apply --server-side` reports too.
fn conflict(answer: &Whole) -> Response<Body> {
    let mut refused = error_of(answer.status, &answer.body);
    if refused.message.contains("conflict") {
        refused.message = format!(
            "{}; --force-conflicts takes these fields over from their managers",
            refused.message.trim_end_matches('.').replace('\n', " ")
        );
    }
    refusal(answer.status, &refused)
}

/// What a caller writes of a Task: not its status, nor what the API server keeps in its metadata.
fn written(value: &Value) -> Value {
    let mut object = Map::new();
    for field in ["apiVersion", "kind", "spec"] {
        if let Some(part) = value.get(field) {
            object.insert(field.to_owned(), part.clone());
        }
    }
    let kept = ["name", "generateName", "namespace", "labels", "annotations", "ownerReferences"];
    let is_kept = |name: &str| kept.contains(&name);
    let metadata: Map<String, Value> = value["metadata"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, part)| is_kept(name) && !part.is_null())
        .map(|(name, part)| (name.clone(), part.clone()))
        .collect();
    object.insert("metadata".to_owned(), Value::Object(metadata));
    Value::Object(object)
}

/// Whether applying changed nothing that people write.
fn is_unchanged(before: &Value, after: &Value) -> bool {
    let same = |field: &str| before["metadata"][field] == after["metadata"][field];
    !before.is_null() && ["uid", "generation", "labels", "annotations"].into_iter().all(same)
}

fn tasks(namespace: &str) -> String {
    format!("/apis/{TASK_GROUP}/{VERSION}/namespaces/{}/tasks", escape(namespace))
}

fn dry(dry_run: bool) -> &'static str {
    if dry_run { "&dryRun=All" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_keeps_is_not_written() {
        let read = json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "spec": {"a": 1}, "status": {"phase": "Failed"},
            "metadata": {"name": "web", "namespace": "ops", "uid": "u", "resourceVersion": "7", "managedFields": [],
                "labels": {"a": "b"}, "annotations": null},
        });
        let expected = json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "spec": {"a": 1},
            "metadata": {"name": "web", "namespace": "ops", "labels": {"a": "b"}},
        });
        assert_eq!(written(&read), expected);
    }

    #[test]
    fn a_change_is_one_of_the_generation_the_labels_or_the_annotations() {
        let task = |generation: u64, version: &str| json!({"metadata": {"uid": "u", "generation": generation, "resourceVersion": version}});
        assert!(is_unchanged(&task(1, "a"), &task(1, "b")));
        assert!(!is_unchanged(&task(1, "a"), &task(2, "b")));
        assert!(!is_unchanged(&Value::Null, &task(1, "a")));
    }
}
