//! An `AdmissionReview` of `admission.k8s.io/v1`, and the answer to it:
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::Resource as _;
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::identity::Principal;
use crate::resource::Task;
use crate::resource::marks::{REQUESTED_BY, REQUESTED_BY_SIGNATURE};
use crate::resource::stamp::{Stamps, Subject, Written};

const API_VERSION: &str = "admission.k8s.io/v1";

const KIND: &str = "AdmissionReview";

/// What is wrong with a review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It cannot be read.
    #[error("the body is not an AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is of another version, or about something else.
    #[error("{field} is {value:?}, and must be {allowed}")]
    Foreign {
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    #[serde(default)]
    request: Option<Request>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

/// What an answer does to the Task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is stamped.
    Stamped,
    /// It stays as it is.
    Unchanged,
}

/// The answer to a review.
///
/// # Errors
/// [`ReviewError`] when it is not one of a Task. The API server then acts by its `failurePolicy`.
pub fn answer(body: &[u8], stamps: &Stamps, at: UnixMillis) -> Result<(Value, Done), ReviewError> {
    let review: Review = serde_json::from_slice(body)?;
    let foreign = |field, value: &str, allowed| ReviewError::Foreign {
        field,
        value: value.chars().take(64).collect(),
        allowed,
    };
    if review.api_version != API_VERSION || review.kind != KIND {
        let value = format!("{} {}", review.api_version, review.kind);
        return Err(foreign("apiVersion", &value, "admission.k8s.io/v1 of AdmissionReview"));
    }
    let request = review.request.ok_or_else(|| foreign("request", "", "set"))?;
    let resource = &request.resource;
    if resource.group != Task::group(&()) || resource.resource != Task::plural(&()) {
        let value = format!("{}.{}", resource.resource, resource.group);
        return Err(foreign("request.resource", &value, "tasks.sentinelnode.dev"));
    }
    let old = match request.operation.as_str() {
        _ if !request.sub_resource.is_empty() => return Ok(unchanged(&request.uid)),
        "CREATE" => None,
        "UPDATE" => Some(Subject::of_object(&request.old_object, &request.namespace)),
        _ => return Ok(unchanged(&request.uid)),
    };
    let who = Principal::from(request.user_info);
    if who.name.is_empty() {
        return Err(foreign("request.userInfo.username", "", "the name of a user"));
    }
    if !request.object.is_object() {
        return Err(foreign("request.object", &request.object.to_string(), "a Task"));
    }
    let new = Subject::of_object(&request.object, &request.namespace);
    let written = stamps.stamped(old.as_ref(), &new, Some(&Requester::from(&who)), at);
    Ok(patched(&request.uid, &request.object, &request.old_object, written))
}

fn unchanged(uid: &str) -> (Value, Done) {
    (envelope(&json!({"uid": uid, "allowed": true})), Done::Unchanged)
}

fn envelope(response: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
}

fn patched(uid: &str, object: &Value, old: &Value, written: Option<Written>) -> (Value, Done) {
    let annotations = object.pointer("/metadata/annotations").filter(|annotations| annotations.is_object());
    let sent = |key: &str| annotations.and_then(|all| all.get(key)).and_then(Value::as_str);
    let before = |key: &str| old.pointer("/metadata/annotations")?.get(key)?.as_str();
    let mut patch = Vec::new();
    let mut is_foreign = false;
    let (stamp, signature) = written.map(|written| (written.stamp, written.signature)).unzip();
    for (key, value) in [(REQUESTED_BY, stamp), (REQUESTED_BY_SIGNATURE, signature)] {
        let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
        // One that is only missing, as after `kubectl replace`, is not a reason for a warning.
        is_foreign |=
            sent(key).is_some_and(|sent| before(key) != Some(sent) && value.as_deref() != Some(sent));
        match value {
            Some(value) if sent(key) == Some(&*value) => {}
            Some(value) => patch.push(json!({"op": "add", "path": path, "value": value})),
            None if sent(key).is_some() => patch.push(json!({"op": "remove", "path": path})),
            None => {}
        }
    }
    if patch.is_empty() {
        return unchanged(uid);
    }
    if annotations.is_none() {
        patch.insert(0, json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    let patch = STANDARD.encode(Value::Array(patch).to_string());
    let mut response = json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch});
    if is_foreign {
        response["warnings"] = json!([format!(
            "{REQUESTED_BY} is set by the operator of Sentinel Node; what you wrote is replaced"
        )]);
    }
    (envelope(&response), Done::Stamped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::stamp::{KEY_BYTES, Key};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn stamps() -> Stamps {
        Stamps::of(Key::from([7; KEY_BYTES]))
    }

    fn task(annotations: &Value) -> Value {
        json!({"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
            "metadata": {"name": "job", "namespace": "ops", "annotations": annotations},
            "spec": {"targets": {"all": true}, "run": {"command": ["df"]}}})
    }

    fn review(operation: &str, user: &str, object: &Value, old: &Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": KIND, "request": {
            "uid": "r-1", "operation": operation, "namespace": "ops", "name": "job",
            "kind": {"group": "sentinelnode.dev", "version": "v1alpha1", "kind": "Task"},
            "resource": {"group": "sentinelnode.dev", "version": "v1alpha1", "resource": "tasks"},
            "userInfo": {"username": user, "uid": "u", "groups": ["system:authenticated"], "extra": {"k": ["v"]}},
            "object": object, "oldObject": old, "dryRun": true, "options": {"kind": "CreateOptions"}}})
    }

    fn patch(answer: &Value) -> Vec<(String, String)> {
        let Some(patch) = answer["response"]["patch"].as_str() else { return Vec::new() };
        let patch: Value = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        let text = |op: &Value, key: &str| op[key].as_str().unwrap_or_default().to_owned();
        patch.as_array().unwrap().iter().map(|op| (text(op, "op"), text(op, "path"))).collect()
    }

    fn ask(review: &Value) -> Value {
        answer(review.to_string().as_bytes(), &stamps(), NOW).unwrap().0
    }

    #[test]
    fn a_creation_is_stamped_and_what_the_user_wrote_is_replaced_with_a_warning() {
        let plain = ask(&review("CREATE", "alice", &task(&Value::Null), &Value::Null));
        let paths =
            ["/metadata/annotations", STAMP, SIGNATURE].map(|path| ("add".to_owned(), path.to_owned()));
        assert_eq!(patch(&plain), paths);
        assert_eq!((&plain["response"]["uid"], &plain["response"]["allowed"]), (&json!("r-1"), &json!(true)));
        assert!(plain["response"].get("warnings").is_none());
        let forged = ask(&review(
            "CREATE",
            "alice",
            &task(&json!({REQUESTED_BY: "{\"author\":{\"user\":\"root\"}}"})),
            &Value::Null,
        ));
        assert_eq!(patch(&forged), paths[1..]);
        assert!(forged["response"]["warnings"][0].as_str().unwrap().contains("is replaced"));
    }

    const STAMP: &str = "/metadata/annotations/sentinelnode.dev~1requested-by";
    const SIGNATURE: &str = "/metadata/annotations/sentinelnode.dev~1requested-by-signature";

    #[test]
    fn a_change_of_nothing_is_not_patched_and_a_stamp_out_of_nothing_is_removed() {
        let mut old = task(&json!({}));
        old["metadata"]["uid"] = json!("u-1");
        old["metadata"]["generation"] = json!(1);
        assert!(patch(&ask(&review("UPDATE", "bob", &old, &old))).is_empty());
        let mut forged = old.clone();
        forged["metadata"]["annotations"] = json!({REQUESTED_BY: "x", REQUESTED_BY_SIGNATURE: "y"});
        let removed = [STAMP, SIGNATURE].map(|path| ("remove".to_owned(), path.to_owned()));
        assert_eq!(patch(&ask(&review("UPDATE", "bob", &forged, &old))), removed);
    }

    #[test]
    fn what_is_not_a_creation_or_change_of_a_task_is_let_through_or_refused() {
        let mut status = review("UPDATE", "alice", &task(&json!({})), &task(&json!({})));
        status["request"]["subResource"] = json!("status");
        assert!(patch(&ask(&status)).is_empty());
        assert!(patch(&ask(&review("DELETE", "alice", &Value::Null, &task(&json!({}))))).is_empty());
        let error =
            |review: Value| answer(review.to_string().as_bytes(), &stamps(), NOW).unwrap_err().to_string();
        let of = |pointer: &str, value: Value| {
            let mut review = review("CREATE", "alice", &task(&json!({})), &Value::Null);
            *review.pointer_mut(pointer).unwrap() = value;
            error(review)
        };
        assert!(of("/apiVersion", json!("admission.k8s.io/v1beta1")).contains("must be admission.k8s.io/v1"));
        assert!(of("/request", Value::Null).contains("request is"));
        assert!(of("/request/resource/resource", json!("pods")).contains("\"pods.sentinelnode.dev\""));
        assert!(of("/request/userInfo", json!({})).contains("userInfo.username"));
        assert!(of("/request/object", Value::Null).contains("request.object"));
        assert!(answer(b"[", &stamps(), NOW).unwrap_err().to_string().contains("not an AdmissionReview"));
    }
}
